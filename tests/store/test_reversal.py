from __future__ import annotations

import pytest

from netpredict.act.revert import EffectWatch, Means, revert, verdict_of
from netpredict.config import RevertConfig
from netpredict.errors import ActuatorError, DataError
from netpredict.store.commit import Commit
from netpredict.store.history import History
from netpredict.store.outbox import SqlOutbox
from netpredict.store.reversal import SqlFollowUps, begin
from netpredict.store.sql import SqlStore
from netpredict.types import Firing, Lease, Outcome, OutcomeKind, Settled, Taken
from tests.act.memory_outbox import NOW_US, FakeActuator, FakeClock
from tests.store.store_builders import (
    STREAM,
    assign,
    firing,
    ids,
    lane_commit,
    observations,
    register,
    run,
    slot_time,
    take_knowing,
)

APPLIED = Outcome(OutcomeKind.APPLIED, "first")
WORSE = RevertConfig(kpi="dl", worse="higher", change=5.0, window_s=60.0)


class Failing(FakeActuator):
    def revert(self, firing: Firing) -> Outcome:
        raise ActuatorError("not now")


def apply(store: SqlStore, *numbers: int, at_us: int = 100, refreshes: str = "") -> None:
    """Fire and apply, at two actuators, on one attribute."""
    lane, outbox = assign(store), SqlOutbox(store)
    offset = lane.next_offset or 0
    fired = [(firing(number, expires_at_us=2**60), ("log", "webhook")) for number in numbers]
    store.commit(Commit([lane_commit(lane, offset, offset + 1, firings=fired)]))
    for item in outbox.pending(10):
        lease = Lease("bandwidth", item.firing.firing_id, 0, item.firing.effect_until_us)
        take_knowing(outbox, item, lease, at_us)
        outbox.record([Settled(*item, APPLIED, at_us, refreshes=refreshes)])


def told(store: SqlStore, name: str = "firing-1") -> list[tuple[str, str, str]]:
    (row,) = [row for row in History(store.url).firings() if row["firing_id"] == name]
    return [(r["actuator"], r["cause"], r["kind"]) for r in row["reversals"]]


def test_an_action_is_taken_back_at_every_actuator_once(store: SqlStore) -> None:
    apply(store, 1)
    actuators = {"log": FakeActuator(), "webhook": FakeActuator()}
    done = revert(store, actuators, "firing-1", "asked", "ann")
    assert [(name, outcome.reason) for name, outcome in done] == [("log", "reverted"), ("webhook", "reverted")]
    assert told(store) == [("log", "asked", "applied"), ("webhook", "asked", "applied")]
    assert History(store.url).expired_actions(2**61) == []
    assert History(store.url).audit()[0]["detail"] == {"firing_id": "firing-1", "cause": "asked"}
    with pytest.raises(DataError, match="reverted before"):
        revert(store, actuators, "firing-1", "asked", "ann")


def test_what_could_not_be_reverted_is_tried_again_and_holds_until_then(store: SqlStore) -> None:
    apply(store, 1)
    until_us = firing(1).effect_until_us
    assert History(store.url).expired_actions(until_us - 1) == []
    assert History(store.url).expired_actions(until_us) == ["firing-1"]
    revert(store, {"log": FakeActuator(), "webhook": Failing()}, "firing-1", "expired", "timer")
    assert History(store.url).expired_actions(until_us) == ["firing-1"]
    done = revert(store, {"log": FakeActuator(), "webhook": FakeActuator()}, "firing-1", "expired", "timer")
    assert [name for name, _ in done] == ["webhook"]
    assert History(store.url).expired_actions(until_us) == []


def test_what_a_younger_action_replaced_stays_and_what_was_not_applied_too(store: SqlStore) -> None:
    apply(store, 1)
    apply(store, 2, at_us=200)
    assert History(store.url).expired_actions(2**61) == ["firing-2"]
    with pytest.raises(DataError, match="firing-2 was applied behind it"):
        revert(store, {}, "firing-1", "asked", "ann")
    run(store, slots=0)
    lane = assign(store)
    store.commit(Commit([lane_commit(lane, lane.next_offset or 0, 9, firings=[(firing(5), ("log",))])]))
    with pytest.raises(DataError, match="not applied"):
        revert(store, {}, "firing-5", "asked", "ann")


@pytest.mark.parametrize("named", ["firing-1", "firing-2"])
def test_what_was_refreshed_is_taken_back_by_its_last_refresh(store: SqlStore, named: str) -> None:
    """The receiver knows the refresh as what it was told last; the story of the action says that it is gone."""
    apply(store, 1)
    apply(store, 2, at_us=200, refreshes="firing-1")
    log = FakeActuator()
    asked: list[str] = []
    log.revert = lambda firing: asked.append(firing.firing_id) or Outcome(OutcomeKind.APPLIED, "reverted")  # type: ignore[func-returns-value,method-assign]
    revert(store, {"log": log, "webhook": FakeActuator()}, named, "asked", "ann")
    assert asked == ["firing-2"]
    assert told(store, "firing-1") == told(store, "firing-2") != []
    assert History(store.url).expired_actions(2**61) == []
    for again in ("firing-1", "firing-2"):
        with pytest.raises(DataError, match="reverted before"):
            revert(store, {}, again, "asked", "ann")


def test_a_refresh_under_way_does_not_bring_back_for_good_what_is_taken_back_meanwhile(store: SqlStore) -> None:
    apply(store, 1)
    outbox, why = SqlOutbox(store), {"refreshes": "firing-1"}
    lane = assign(store)
    offset = lane.next_offset or 0
    store.commit(Commit([lane_commit(lane, offset, offset + 1, firings=[(firing(2, why=why), ("log",))])]))
    (item,) = outbox.pending(10)
    place = (item.firing.object_id, item.firing.attribute)
    lease = Lease("bandwidth", "firing-2", 0, item.firing.effect_until_us)
    assert take_knowing(outbox, item, lease, 200) is Taken.YES
    revert(store, {"log": FakeActuator(), "webhook": FakeActuator()}, "firing-1", "asked", "ann")
    outbox.record([Settled(*item, APPLIED, 300, refreshes="firing-1")])
    last = outbox.last_applied(*place)
    assert last is not None
    assert (last.firing_id, last.taken_back) == ("firing-2", True), "the next refresh would keep it for ever"


def sent(store: SqlStore, outcome: Outcome | None, number: int = 1) -> None:
    """A firing that a runner took; then it died, or knows only that it failed."""
    lane, outbox = assign(store), SqlOutbox(store)
    offset = lane.next_offset or 0
    store.commit(Commit([lane_commit(lane, offset, offset + 1, firings=[(firing(number), ("log",))])]))
    (item,) = outbox.pending(10)
    take_knowing(outbox, item, Lease("bandwidth", item.firing.firing_id, 0, item.firing.effect_until_us), number)
    if outcome is not None:
        outbox.record([Settled(*item, outcome, number, maybe_set=True)])


@pytest.mark.parametrize("outcome", [None, Outcome(OutcomeKind.FAILED, "mismatch", "read back 3", 1)])
def test_the_timer_takes_back_what_may_stand_though_nobody_knows(store: SqlStore, outcome: Outcome | None) -> None:
    """A runner that dies between apply and record leaves a value that nobody would ever take back."""
    sent(store, outcome)
    history, until_us = History(store.url), firing(1).effect_until_us
    assert history.expired_actions(until_us - 1) == []
    assert history.expired_actions(until_us) == ["firing-1"]
    done = revert(store, {"log": FakeActuator()}, "firing-1", "expired", "timer")
    assert [(name, one.reason) for name, one in done] == [("log", "reverted")]
    assert history.expired_actions(until_us) == []


def test_what_may_still_be_applied_is_not_taken_back_before(store: SqlStore) -> None:
    sent(store, None)
    with store.database.transaction() as connection, pytest.raises(DataError, match="not applied"):
        begin(connection, "firing-1", "asked", "ann", firing(1).expires_at_us - 1)


def test_behind_one_that_may_not_have_been_set_the_one_before_is_taken_back_too(store: SqlStore) -> None:
    apply(store, 1)
    sent(store, Outcome(OutcomeKind.FAILED, "attempts", "", 5), number=2)
    until_us = firing(2).effect_until_us
    assert History(store.url).expired_actions(until_us) == ["firing-1", "firing-2"]
    for name in ("firing-1", "firing-2"):
        revert(store, {"log": FakeActuator(), "webhook": FakeActuator()}, name, "expired", "timer")
    assert History(store.url).expired_actions(2**61) == []


def test_a_refresh_keeps_what_it_repeats_from_ending(store: SqlStore) -> None:
    apply(store, 1)
    apply(store, 2, at_us=200, refreshes="firing-1")
    assert History(store.url).expired_actions(firing(1).effect_until_us) == []
    assert History(store.url).expired_actions(firing(2).effect_until_us) == ["firing-2"]


def test_no_kpi_is_compared_around_a_refresh(store: SqlStore) -> None:
    apply(store, 1)
    apply(store, 2, at_us=200, refreshes="firing-1")
    follow_ups = SqlFollowUps(store)
    assert [one.firing_id for one, _ in follow_ups.due("bandwidth", 0, 300, 9)] == ["firing-1"] * 2


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((10.0, 15.0), "kept"), ((10.0, 15.1), "worse"), ((10.0, 1.0), "kept"), ((None, 1.0), "unknown")],
)
def test_a_kpi_is_worse_in_its_own_direction(means: Means, verdict: str) -> None:
    assert verdict_of(means, WORSE) == verdict
    if verdict != "unknown":
        assert verdict_of((-means[0], -means[1]), RevertConfig(kpi="dl", worse="lower", change=5.0)) == verdict  # type: ignore[operator]


@pytest.mark.parametrize(("after", "verdict"), [(99.0, "worse"), (10.0, "kept")])
def test_an_action_behind_which_a_kpi_became_worse_is_taken_back(store: SqlStore, after: float, verdict: str) -> None:
    clock = FakeClock()
    apply(store, 1, at_us=NOW_US)
    log = {"log": FakeActuator(), "webhook": FakeActuator()}
    mean = lambda stream, series, column, begin, end: after if end > NOW_US else 10.0  # noqa: E731

    def look() -> None:
        EffectWatch(SqlFollowUps(store), log, mean, {"bandwidth": WORSE}, clock).turn()

    look()
    assert told(store) == []
    clock.sleep(60.0)
    look()
    look()
    (row,) = History(store.url).firings()
    assert (row["effect"]["before_mean"], row["effect"]["after_mean"], row["effect"]["verdict"]) == (
        10.0,
        after,
        verdict,
    )
    kinds = [("log", "kpi dl", "applied"), ("webhook", "kpi dl", "applied")]
    assert told(store) == (kinds if verdict == "worse" else [])


def test_means_are_over_observations_of_the_series(store: SqlStore) -> None:
    run(store, slots=3)  # cell-0: dl ticks 100, 200, 300 of one decimal
    history = History(store.url)
    assert history.mean(STREAM, "cell-0", "dl", slot_time(1), slot_time(2)) == 15.0
    assert history.mean(STREAM, "cell-0", "dl", slot_time(8), slot_time(9)) is None


def test_means_of_a_radio_cell_are_over_all_its_series(store: SqlStore) -> None:
    lane, _ = assign(store), register(store)
    names = ["ue-1|c_1", "ue-2|c_1", "ue-1|cx1"]
    series = [(int(number), name, 1, True) for number, name in zip(ids(lane, range(3)), names, strict=True)]
    seen = [observations(lane, slot, range(3)) for slot in (1, 2)]  # dl ticks 100 + 3 * number at slot 1
    store.commit(Commit([lane_commit(lane, 0, 1, new_series=series, observations=seen)]))
    history = History(store.url)
    assert history.mean(STREAM, "c_1", "dl", slot_time(1), slot_time(1)) == pytest.approx((10.0 + 10.3) / 2)
    assert history.mean(STREAM, "ue-2|c_1", "dl", slot_time(1), slot_time(1)) == pytest.approx(10.3)
    assert history.mean(STREAM, "c_2", "dl", slot_time(1), slot_time(2)) is None


def test_a_kpi_of_another_stream_is_that_of_the_radio_cell(store: SqlStore) -> None:
    clock, asked = FakeClock(), []
    apply(store, 1, at_us=NOW_US)
    clock.sleep(60.0)
    mean = lambda *place: asked.append(place[:3])  # noqa: E731
    for stream in ("calls", STREAM):
        config = RevertConfig(kpi="drops", stream=stream, window_s=60.0)
        EffectWatch(SqlFollowUps(store), {}, mean, {"bandwidth": config}, clock)._look(
            firing(1, series="ue|c1"), NOW_US, config
        )
    assert set(asked) == {("calls", "c1", "drops"), (STREAM, "ue|c1", "drops")}

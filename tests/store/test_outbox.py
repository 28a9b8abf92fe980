from __future__ import annotations

import threading

import pytest

from netpredict.errors import DataError
from netpredict.store.commit import Commit
from netpredict.store.history import History
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import (
    Firing,
    LastApplied,
    Lease,
    Mode,
    Outcome,
    OutcomeKind,
    PendingFiring,
    Settled,
    Since,
    Taken,
)
from tests.store.store_builders import assign, firing, full_commit, lane_commit, record, register

APPLIED = Outcome(OutcomeKind.APPLIED, "first", "200 OK", 1)
SKIPPED = Outcome(OutcomeKind.SKIPPED, "cooldown")


def fire(store: SqlStore, *firings: tuple[Firing, tuple[str, ...]]) -> None:
    lane = assign(store)
    offset = lane.next_offset or 0
    store.commit(Commit([lane_commit(lane, offset, offset + 1, firings=list(firings))]))


def applied(
    done: Firing, at_us: int, refreshes: str = "", taken_back: bool = False, changed_us: int = 0
) -> LastApplied:
    holds = (done.hook, done.value, done.effect_until_us, refreshes, taken_back, changed_us or at_us)
    return LastApplied(done.firing_id, done.slot_time_us, at_us, *holds)


def waiting(outbox: SqlOutbox, limit: int = 10) -> list[tuple[str, str]]:
    return [(entry.firing.firing_id, entry.actuator_name) for entry in outbox.pending(limit)]


def test_a_firing_waits_for_each_of_its_actuators_oldest_first(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    assert outbox.pending(10) == []
    fire(store, (firing(2), ("webhook", "log")), (firing(1), ("log",)))
    assert waiting(outbox) == [("firing-2", "webhook"), ("firing-2", "log"), ("firing-1", "log")]
    assert outbox.pending(10)[0].firing == firing(2)


def test_the_limit_holds_for_each_actuator(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("down",)) for number in range(5)), (firing(9), ("log",)))
    assert waiting(outbox, limit=2) == [("firing-0", "down"), ("firing-1", "down"), ("firing-9", "log")]


def test_an_outcome_ends_the_wait_and_the_first_one_stands(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log", "webhook")))
    record(outbox, firing(1), "log", APPLIED, 100)
    record(outbox, firing(1), "log", SKIPPED, 200)
    assert waiting(outbox) == [("firing-1", "webhook")]
    assert outbox.last_applied("cell-1", "prb_quota") == applied(firing(1), 100)


def test_only_what_was_applied_counts(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("log", "webhook")) for number in range(4)))
    for number, outcome in enumerate((APPLIED, APPLIED, SKIPPED)):
        record(outbox, firing(number), "log", outcome, 100 + number)
        record(outbox, firing(number), "webhook", outcome, 100 + number)
    assert outbox.applied_since("bandwidth", 100) == 2
    assert outbox.applied_since("bandwidth", 101) == 1
    assert outbox.applied_since("handover", 0) == 0
    last = outbox.last_applied("cell-1", "prb_quota")
    assert last is not None
    assert last.firing_id == "firing-1"
    assert outbox.last_applied("cell-1", "tilt") is None


def test_the_same_firing_from_two_commits_is_applied_once(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)))
    record(outbox, firing(1), "log", APPLIED, 100)
    fire(store, (firing(1), ("log",)))
    assert waiting(outbox) == []


def test_outcomes_are_recorded_between_commits_of_another_thread(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    lane, model_id = assign(store), register(store)
    slots = range(1, 31)

    def commit() -> None:
        for slot in slots:
            store.commit(Commit([full_commit(lane, model_id, slot)]))

    thread = threading.Thread(target=commit)
    thread.start()
    recorded = 0
    while recorded < 2 * len(slots):
        for entry in outbox.pending(10):
            record(outbox, entry.firing, entry.actuator_name, APPLIED, recorded)
            recorded += 1
    thread.join()
    assert outbox.pending(10) == []
    assert outbox.applied_since("bandwidth", 0) == len(slots)
    assert assign(store).next_offset == 300


# -- what expires, who holds what, what guards are told ----------------------------------------------------------------


def test_what_has_expired_is_settled_in_bulk_and_nothing_else(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("log", "webhook")) for number in range(5)))
    now_us = firing(3).expires_at_us
    assert outbox.expire(now_us - 1, rows=100) == 6
    assert outbox.expire(now_us, rows=1) == 1
    assert outbox.expire(now_us, rows=100) == 1
    assert outbox.expire(now_us, rows=100) == 0
    assert waiting(outbox) == [("firing-4", "log"), ("firing-4", "webhook")]


def test_the_outcomes_of_a_page_are_stored_together(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("log",)) for number in range(3)))
    page = outbox.pending(10)
    outbox.record([Settled(*item, SKIPPED, 100, {"refused": "cooldown"}) for item in page[:2]])
    assert waiting(outbox) == [("firing-2", "log")]


def test_guards_are_told_of_every_attribute_of_a_page_at_once(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    cells = [firing(number, object_id=f"cell-{number % 2}", series=f"ue|c{number % 2}") for number in range(5)]
    fire(store, *((cell, ("log",)) for cell in cells))
    record(outbox, cells[0], "log", APPLIED, 100)
    record(outbox, cells[2], "log", APPLIED, 300)
    lease = Lease("bandwidth", "firing-3", 4, 10**18, 300)
    assert outbox.take(PendingFiring(cells[3], "log"), lease, None, 300) is Taken.YES
    found = outbox.standing(outbox.pending(10), Since(400, 200, 50), ["bandwidth"])
    assert found.last == {("cell-0", "prb_quota"): applied(cells[2], 300)}
    assert found.leases == {("cell-1", "prb_quota"): lease}
    assert found.applied_last_minute == {"bandwidth": 1}
    assert found.changed == {"traffic": {"c0"}}
    assert outbox.standing(outbox.pending(10), Since(400, 200, 50), []).changed == {}


def test_what_waits_gives_way_to_a_younger_one_of_the_same_hook_and_attribute_that_needs_no_person(
    store: SqlStore,
) -> None:
    outbox = SqlOutbox(store)
    same = {"object_id": "cell-1"}
    fire(
        store,
        (firing(1, **same), ("log", "webhook")),
        (firing(2, **same), ("log",)),
        (firing(3, **same, mode=Mode.ASSIST), ("log",)),
        (firing(4, **same, hook="other"), ("log",)),
        (firing(5, object_id="cell-2"), ("log",)),
    )
    assert outbox.standing(outbox.pending(10), Since(400, 200, 50), []).younger == {"firing-1": "firing-2"}
    record(outbox, firing(2, **same), "log", APPLIED, 100)
    assert outbox.standing(outbox.pending(10), Since(400, 200, 50), []).younger == {}
    assert History(store.url).outbox_depth() == {"bandwidth": 4, "other": 1}


def test_a_lease_has_one_holder_and_a_higher_priority_takes_it(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number, hook=f"hook-{number}"), ("log",)) for number in range(4)))
    first, second, third, last = outbox.pending(10)

    def take(item: PendingFiring, priority: int, now_us: int) -> Taken:
        seen = next(iter(outbox.standing([item], Since(0, 0, 0), []).leases.values()), None)
        return outbox.take(item, Lease(item.firing.hook, item.firing.firing_id, priority, 1000), None, now_us, seen)

    assert take(first, 1, 10) is Taken.YES
    assert take(second, 1, 10) is Taken.LEASED
    assert take(first, 1, 20) is Taken.YES
    assert take(third, 2, 20) is Taken.YES
    assert take(first, 1, 30) is Taken.LEASED
    assert take(last, 0, 1000) is Taken.YES
    (held,) = outbox.standing([last], Since(0, 0, 0), []).leases.values()
    assert held.hook == "hook-3"


def test_of_two_that_were_judged_before_either_was_taken_one_is_judged_again(store: SqlStore) -> None:
    """Two instances see an object on two topic partitions: else both would pass the cooldown."""
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)), (firing(2), ("log",)))
    first, second = outbox.pending(10)
    leases = [Lease("bandwidth", name, 0, 10**18, 100) for name in ("firing-1", "firing-2")]
    assert outbox.take(first, leases[0], None, 100) is Taken.YES
    assert outbox.take(second, leases[1], None, 100) is Taken.BUSY
    assert outbox.take(first, leases[0], None, 100) is Taken.YES, "its own, as after a retriable failure"
    assert outbox.take(second, leases[1], None, 100, seen=leases[0]._replace(taken_us=99)) is Taken.BUSY
    assert outbox.take(second, leases[1], None, 100, seen=leases[0]) is Taken.YES


def test_what_failed_everywhere_lets_its_lease_go(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log", "webhook")))
    first, second = outbox.pending(10)
    failed = Outcome(OutcomeKind.FAILED, "refused")
    for item, held in ((first, 1), (second, 0)):
        assert outbox.take(item, Lease("bandwidth", "firing-1", 0, 10**18), None, 1) is Taken.YES
        outbox.record([Settled(*item, failed, 2)])
        assert len(outbox.standing([first], Since(0, 0, 0), []).leases) == held


def test_what_failed_and_may_be_set_is_free_for_others_and_remembered_for_the_cooldown(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)))
    (item,) = outbox.pending(10)
    assert outbox.take(item, Lease("bandwidth", "firing-1", 0, 10**18, 100), None, 100) is Taken.YES
    outbox.record([Settled(*item, Outcome(OutcomeKind.FAILED, "mismatch"), 200, maybe_set=True)])
    (lease,) = outbox.standing([item], Since(0, 0, 0), []).leases.values()
    assert (lease.taken_us, lease.until_us) == (100, 200)


def test_a_firing_in_assist_waits_for_a_person_and_one_in_shadow_never_waits(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1, Mode.ASSIST), ("log",)), (firing(2, Mode.SHADOW), ("log",)))
    assert waiting(outbox) == []
    assert outbox.expire(10**18, rows=10) == 1


@pytest.mark.parametrize(("verdict", "goes"), [("approve", [("firing-1", "log")]), ("reject", [])])
def test_a_person_decides_once_about_a_firing_in_assist(store: SqlStore, verdict: str, goes: list[object]) -> None:
    outbox = SqlOutbox(store)
    late = {"expires_at_us": 2**60, "effect_until_us": 2**60}
    fire(store, (firing(1, Mode.ASSIST, **late), ("log",)), (firing(2, **late), ("web",)))
    assert store.decide_action("firing-1", verdict, "ann") == "firing-1"
    assert waiting(outbox) == [*goes, ("firing-2", "web")]
    (row,) = [row for row in History(store.url).firings() if row["firing_id"] == "firing-1"]
    assert (row["approval"]["verdict"], row["approval"]["who"]) == (verdict, "ann")
    assert row["outcomes"][0]["reason"] == (None if goes else "rejected")
    assert History(store.url).audit()[0]["what"] == f"action_{verdict}"
    for name, why in (
        ("firing-1", "decided before"),
        ("firing-2", "mode auto"),
        ("nobody", "no actions"),
        ("f", "several"),
    ):
        with pytest.raises(DataError, match=why):
            store.decide_action(name, verdict, "ann")


def test_nobody_approves_what_has_expired(store: SqlStore) -> None:
    fire(store, (firing(1, Mode.ASSIST), ("log",)))
    with pytest.raises(DataError, match="expired"):
        store.decide_action("firing-1", "approve", "ann")


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.ASSIST])
def test_what_waits_is_settled_once_its_effect_would_be_over(store: SqlStore, mode: Mode) -> None:
    over_us = firing(1).effect_until_us
    fire(store, (firing(1, mode, expires_at_us=over_us + 1), ("log",)))
    outbox = SqlOutbox(store)
    assert outbox.expire(over_us - 1, rows=10) == 0
    assert outbox.expire(over_us, rows=10) == 1


def test_an_applied_action_asks_once_to_leave_out_what_it_changes(store: SqlStore) -> None:
    outbox = SqlOutbox(store, exclusions={"bandwidth": {"c1": ["c2"]}})
    fire(store, (firing(1, series="c1"), ("log", "webhook")), (firing(2, series="c3"), ("log",)))
    for entry in outbox.pending(10):
        record(outbox, entry.firing, entry.actuator_name, SKIPPED if entry.firing.series == "c3" else APPLIED, 100)
        record(outbox, entry.firing, entry.actuator_name, APPLIED, 200)
    (asked,) = store.requests()
    times = {"from_us": firing(1).slot_time_us, "until_us": firing(1).effect_until_us}
    assert (asked.kind, asked.payload) == ("exclude", {"action": "firing-1", "radio_cells": ["c1", "c2"], **times})


def test_what_failed_and_may_be_set_is_left_out_as_what_was_applied(store: SqlStore) -> None:
    outbox = SqlOutbox(store, exclusions={"bandwidth": {}})
    fire(store, *((firing(number, series=f"c{number}"), ("log", "webhook")) for number in (1, 2)))
    mismatch, refused = Outcome(OutcomeKind.FAILED, "mismatch"), Outcome(OutcomeKind.FAILED, "refused")
    for item in outbox.pending(10):
        open_still = item.firing.series == "c1"
        outbox.record([Settled(*item, mismatch if open_still else refused, 100, maybe_set=open_still)])
    assert [asked.payload["radio_cells"] for asked in store.requests()] == [["c1"]], "once for both actuators"


def test_what_may_be_set_counts_for_rate_and_blast_radius_as_what_was_applied(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number, series=f"c{number}"), ("log",)) for number in range(3)))
    first, second, third = outbox.pending(10)
    outbox.record([Settled(*first, Outcome(OutcomeKind.FAILED, "mismatch"), 100, maybe_set=True)])
    outbox.record([Settled(*second, Outcome(OutcomeKind.FAILED, "refused"), 100)])
    assert outbox.applied_since("bandwidth", 0) == 1
    assert outbox.standing([third], Since(200, 0, 0), ["bandwidth"]).changed == {"traffic": {"c0"}}


def test_what_was_under_way_when_its_runner_died_counts_as_what_may_be_set(store: SqlStore) -> None:
    outbox = SqlOutbox(store, exclusions={"bandwidth": {}})
    fire(store, *((firing(number, object_id=f"o{number}", series=f"c{number}"), ("log",)) for number in (1, 2, 3)))
    first, _, third = outbox.pending(10)
    assert outbox.take(first, Lease("bandwidth", "firing-1", 0, 2**60, 50), None, 50) is Taken.YES
    now_us = firing(2).expires_at_us
    assert outbox.expire(now_us, rows=10) == 2
    assert [asked.payload["radio_cells"] for asked in store.requests()] == [["c1"]]
    assert outbox.applied_since("bandwidth", 0) == 1
    assert outbox.standing([third], Since(now_us, 0, 0), ["bandwidth"]).changed == {"traffic": {"c1"}}


def test_what_a_guard_refuses_after_a_runner_died_on_it_may_be_set(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number, object_id=f"o{number}"), ("log",)) for number in (1, 2)))
    first, second = outbox.pending(10)
    assert outbox.take(first, Lease("bandwidth", "firing-1", 0, 2**60, 50), None, 50) is Taken.YES
    outbox.record([Settled(*item, Outcome(OutcomeKind.SKIPPED, "disarmed"), 100) for item in (first, second)])
    told = {row["firing_id"]: row["outcomes"][0]["detail"] for row in History(store.url).firings()}
    assert told == {"firing-1": "it was under way: it may have been applied", "firing-2": ""}
    assert outbox.applied_since("bandwidth", 0) == 1
    assert History(store.url).expired_actions(2**61) == ["firing-1"]


def refresh(number: int, of: str = "firing-1", **changes: object) -> Firing:
    return firing(number, value={"quota": 11}, why={"refreshes": of}, **changes)


def test_a_refresh_counts_as_no_change_and_says_what_it_repeats(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((one, ("log",)) for one in (firing(1, series="c1"), refresh(2, series="c1"))))
    first, second = outbox.pending(10)
    outbox.record([Settled(*first, APPLIED, 100)])
    outbox.record([Settled(*second, APPLIED, 200, refreshes="firing-1")])
    assert outbox.last_applied("cell-1", "prb_quota") == applied(second.firing, 200, "firing-1", changed_us=100)
    assert outbox.applied_since("bandwidth", 0) == 1
    assert outbox.applied_since("bandwidth", 150) == 0
    fire(store, (firing(3, value={"quota": 9}), ("log",)))
    assert outbox.standing(outbox.pending(10), Since(300, 0, 150), ["bandwidth"]).changed == {"traffic": set()}
    told = {row["firing_id"]: row["outcomes"][0]["refreshes"] for row in History(store.url).firings()}
    assert told == {"firing-1": "", "firing-2": "firing-1", "firing-3": ""}
    assert [row["slot_time_us"] for row in History(store.url).acted()] == [firing(1).slot_time_us]


def test_a_refresh_of_what_never_held_counts_as_the_change_that_it_is(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)), (refresh(2, series="c1"), ("log",)))
    first, second = outbox.pending(10)
    outbox.record([Settled(*first, SKIPPED, 100), Settled(*second, APPLIED, 200)])
    assert outbox.applied_since("bandwidth", 0) == 1
    assert outbox.last_applied("cell-1", "prb_quota") == applied(second.firing, 200)
    assert [row["slot_time_us"] for row in History(store.url).acted()] == [second.firing.slot_time_us]


@pytest.mark.parametrize(("maybe_set", "refreshes"), [(False, ""), (True, "firing-1"), (False, "firing-1")])
def test_what_held_before_a_failure_holds_on(store: SqlStore, maybe_set: bool, refreshes: str) -> None:
    """Else another hook would take an attribute whose value still stands."""
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)), (refresh(2) if refreshes else firing(2), ("log",)))
    first, second = outbox.pending(10)
    held = Lease("bandwidth", "firing-1", 3, 1000, 100)
    assert outbox.take(first, held, None, 100) is Taken.YES
    outbox.record([Settled(*first, APPLIED, 100)])
    last = outbox.last_applied("cell-1", "prb_quota")
    assert outbox.take(second, Lease("bandwidth", "firing-2", 3, 2000, 200), last, 200, held) is Taken.YES
    failed = Outcome(OutcomeKind.FAILED, "attempts" if maybe_set else "refused")
    outbox.record([Settled(*second, failed, 210, maybe_set=maybe_set, refreshes=refreshes, stands=held)])
    (lease,) = outbox.standing([second], Since(0, 0, 0), []).leases.values()
    assert lease == held


def test_nothing_is_taken_that_was_judged_by_another_value(store: SqlStore) -> None:
    """Between the judgement and the moment a person may have taken back what it was judged by."""
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)), (refresh(2), ("log",)))
    first, second = outbox.pending(10)
    outbox.record([Settled(*first, APPLIED, 100)])
    last = outbox.last_applied("cell-1", "prb_quota")
    store.begin_reversal("firing-1", "asked", "ann")
    assert outbox.take(second, Lease("bandwidth", "firing-2", 0, 2000, 200), last, 200) is Taken.BUSY
    assert outbox.last_applied("cell-1", "prb_quota") == applied(first.firing, 100, taken_back=True)
    store.end_reversal("firing-1", "log", Outcome(OutcomeKind.FAILED, "refused"))
    assert outbox.last_applied("cell-1", "prb_quota") == last


def test_what_a_timer_took_back_because_it_had_ended_may_be_set_again(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)))
    record(outbox, firing(1), "log", APPLIED, 100)
    store.begin_reversal("firing-1", "expired", "timer")
    store.end_reversal("firing-1", "log", Outcome(OutcomeKind.APPLIED, "reverted"))
    last = outbox.last_applied("cell-1", "prb_quota")
    assert last is not None
    assert not last.taken_back


def test_what_was_applied_and_what_was_withheld_are_told_apart(store: SqlStore) -> None:
    """A firing that another guard refused, or that waits, is neither."""
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("log", "webhook")) for number in range(5)))
    held, failed = Outcome(OutcomeKind.SKIPPED, "holdout"), Outcome(OutcomeKind.FAILED, "refused")
    for number, (first, second) in enumerate(((APPLIED, failed), (held, held), (SKIPPED, SKIPPED), (failed, failed))):
        record(outbox, firing(number), "log", first, 100 + number)
        record(outbox, firing(number), "webhook", second, 100 + number)
    history = History(store.url)
    found = history.acted()
    assert [(row["slot_time_us"], row["applied"]) for row in found] == [
        (firing(1).slot_time_us, 0),
        (firing(0).slot_time_us, 1),
    ]
    assert found[0]["series"] == firing(1).series
    assert history.acted(hook="handover") == []
    assert len(history.acted(limit=1)) == len(history.acted(from_us=firing(1).slot_time_us)) == 1

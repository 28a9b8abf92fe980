from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from netpredict.act.breaker import (
    TURN_S,
    CircuitBreakers,
    Watched,
    measured,
    overlap,
    predictors_of,
    turned,
    watched_of,
)
from netpredict.config import BreakerConfig, GroupConfig, HookConfig, RouteConfig, StreamConfig
from netpredict.errors import StoreUnavailable
from netpredict.types import ArmState, Breaker, Evidence, Mode
from tests.act.memory_outbox import FakeClock

GOOD = Evidence("prb", 1000, 70, 100, 120, 1000, 800)
WATCHED = Watched("bandwidth", "lab", "traffic", ("gru",), ("prb",), 4, 0.8, BreakerConfig(rows_min=100))


def state_after(before: ArmState, **changes: object) -> ArmState:
    return turned(before, measured([replace_sums(**changes)], 0.8, 100), WATCHED)[0]


def replace_sums(**changes: object) -> Evidence:
    return GOOD._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "armed", "disarmed"),
    [
        ({}, ArmState.MEET, ArmState.MEET),
        ({"abs_ticks": 100}, ArmState.NOT_MEET, ArmState.NOT_MEET),  # as good as naive is not good enough
        ({"abs_ticks": 99}, ArmState.MEET, ArmState.NOT_MEET),  # hysteresis
        ({"abs_ticks": 97}, ArmState.MEET, ArmState.MEET),
        ({"seasonal_abs_ticks": 60}, ArmState.NOT_MEET, ArmState.NOT_MEET),  # the better of the two counts
        ({"covered": 640}, ArmState.NOT_MEET, ArmState.NOT_MEET),
        ({"covered": 690}, ArmState.MEET, ArmState.NOT_MEET),
        ({"covered": 960}, ArmState.NOT_MEET, ArmState.NOT_MEET),
        ({"n": 99, "abs_ticks": 999}, ArmState.MEET, ArmState.NOT_MEET),  # too few: it stays as it is
        ({"naive_abs_ticks": 0}, ArmState.MEET, ArmState.NOT_MEET),  # nothing moved: nothing can be said
    ],
)
def test_a_breaker_opens_closes_and_holds(changes: dict[str, int], armed: ArmState, disarmed: ArmState) -> None:
    assert state_after(ArmState.MEET, **changes) is armed
    assert state_after(ArmState.NOT_MEET, **changes) is disarmed


def test_the_worst_kpi_counts() -> None:
    bad = replace_sums(kpi="kbps", abs_ticks=150, covered=500)
    found = measured([GOOD, bad], 0.8, 100)
    assert (found.skill, found.coverage) == (-0.5, 0.5)


@dataclass
class MemoryBreakers:
    sums: list[Evidence] = field(default_factory=lambda: [GOOD])
    rows: dict[tuple[str, str], Breaker] = field(default_factory=dict)
    asked: int = 0
    bucket: int | None = 0

    def reached(self, stream: str) -> int | None:
        return self.bucket

    def evidence(self, *_: object) -> list[Evidence]:
        self.asked += 1
        return self.sums

    def states(self) -> list[Breaker]:
        return list(self.rows.values())

    def put(self, breaker: Breaker) -> None:
        self.rows[breaker.hook, breaker.group] = breaker


def test_a_breaker_stays_open_over_a_restart_and_says_when_it_turned() -> None:
    store, clock = MemoryBreakers([replace_sums(abs_ticks=200)]), FakeClock()
    with capture_logs() as logged:
        CircuitBreakers(store, [WATCHED], clock).turn()
    assert [(line["event"], line["hook"], line["group"]) for line in logged] == [("hook_disarmed", "bandwidth", "lab")]
    store.sums, opened_us = [replace_sums(n=1)], clock.now_us()
    clock.sleep(3600.0)
    again = CircuitBreakers(store, [WATCHED], clock)
    again.turn()
    assert again.states == {("bandwidth", "lab"): ArmState.NOT_MEET}
    assert store.rows["bandwidth", "lab"].since_us == opened_us
    store.sums = [GOOD]
    clock.sleep(TURN_S)
    with capture_logs() as logged:
        again.turn()
    assert [line["event"] for line in logged] == ["hook_armed"]
    assert again.states == {("bandwidth", "lab"): ArmState.MEET}


def states_of(store: MemoryBreakers, buckets: list[int | None], config: BreakerConfig) -> list[ArmState]:
    """State after each look, with the stream in these buckets one behind the other; each look after a restart."""
    states = []
    for store.bucket in buckets:
        breakers = CircuitBreakers(store, [replace(WATCHED, config=config)], FakeClock())
        breakers.turn()
        states += breakers.states.values()
    return states


def test_groups_that_a_reload_brings_during_a_look_are_looked_at_before_anything_else_is_applied() -> None:
    class Reloaded(MemoryBreakers):
        def evidence(self, *_: object) -> list[Evidence]:
            breakers.follow([replace(WATCHED, group="new")])
            return [replace_sums(abs_ticks=200)]

    store = Reloaded()
    breakers = CircuitBreakers(store, [WATCHED], FakeClock())
    breakers.turn()
    breakers.turn()
    assert store.rows["bandwidth", "new"].state is ArmState.NOT_MEET


def test_a_look_that_the_store_refused_is_made_at_once_again() -> None:
    class Away(MemoryBreakers):
        def evidence(self, *_: object) -> list[Evidence]:
            if not self.asked:
                self.asked += 1
                raise StoreUnavailable("away")
            return [replace_sums(abs_ticks=200)]

    store = Away()
    breakers = CircuitBreakers(store, [WATCHED], FakeClock())
    with pytest.raises(StoreUnavailable):
        breakers.turn()
    breakers.turn()
    assert breakers.states == {("bandwidth", "lab"): ArmState.NOT_MEET}


def test_a_new_group_begins_as_its_hook_stands_in_the_rest() -> None:
    store = MemoryBreakers([replace_sums(n=1)])
    store.put(Breaker("bandwidth", "", ArmState.NOT_MEET, "skill -1", 900, -1.0, None, 5, 6, heard_bucket=-7))
    CircuitBreakers(store, [WATCHED], FakeClock()).turn()
    lab = store.rows["bandwidth", "lab"]
    assert (lab.state, lab.heard_bucket) == (ArmState.NOT_MEET, -7), "another name is no new evidence"


A, D = ArmState.MEET, ArmState.NOT_MEET
BLIND = BreakerConfig(rows_min=100, blind_buckets=8)


def test_a_hook_that_hides_every_truth_is_disarmed_until_it_is_told_again_that_it_may_act() -> None:
    store = MemoryBreakers([GOOD._replace(bucket=20)])
    assert states_of(store, [20, 24, 28, 29, 99], BLIND) == [A, A, A, D, D], "what was good once says nothing for ever"
    assert "for over 8 score buckets" in store.rows["bandwidth", "lab"].said
    store.sums = [GOOD._replace(bucket=99, n=99)]
    assert states_of(store, [99, 100], BLIND) == [D, D], "too few truths"
    store.sums = [GOOD._replace(bucket=100, abs_ticks=99)]
    assert states_of(store, [100], BLIND) == [D], "by the bar for arming again"
    store.sums = [GOOD._replace(bucket=101)]
    assert states_of(store, [101, 109, 110], BLIND) == [A, A, D]


def test_a_new_hook_may_act_before_the_first_truth_can_be_there_and_not_for_ever() -> None:
    assert states_of(MemoryBreakers([]), [None, 40, 48, 49], BLIND) == [A, A, A, D]
    few = MemoryBreakers([GOOD._replace(n=99, bucket=48)])
    assert states_of(few, [40, 48, 49], BLIND) == [A, A, D], "a trickle is no evidence"
    flat = MemoryBreakers([GOOD._replace(naive_abs_ticks=0, bucket=49)])
    assert states_of(flat, [40, 49], BLIND) == [A, A], "truths came, they say nothing"


def test_another_length_of_buckets_begins_the_count_anew() -> None:
    store = MemoryBreakers([GOOD._replace(bucket=900)])
    assert states_of(store, [900], BLIND) == [A]
    store.sums = []
    assert states_of(store, [90, 98, 99], BLIND) == [A, A, D]


def test_a_hook_may_be_let_act_without_a_truth() -> None:
    config = BreakerConfig(rows_min=100, blind_buckets=0)
    assert states_of(MemoryBreakers([]), [0, 10_000], config) == [A, A]


def test_breakers_look_every_so_often_and_one_that_is_off_never_opens() -> None:
    store, clock = MemoryBreakers([replace_sums(abs_ticks=200)]), FakeClock()
    breakers = CircuitBreakers(store, [WATCHED], clock)
    for _ in range(5):
        breakers.turn()
    assert store.asked == 1
    breakers.follow([replace(WATCHED, config=BreakerConfig(buckets=0))])
    breakers.turn()
    assert (store.asked, list(breakers.states.values())) == (1, [ArmState.MEET])


@pytest.mark.parametrize(
    ("one", "two", "meet"),
    [
        ("cell-1*", "*", True),
        ("cell-1*", "cell-12", True),
        ("cell-1*", "cell-2*", False),
        ("*-a", "cell-*", True),
        ("a?c", "ab*", True),
        ("a?c", "ab", False),
        ("", "*", True),
        ("a[12]", "b", True),  # not taken apart: rather one predictor too many
    ],
)
def test_patterns_overlap(one: str, two: str, meet: bool) -> None:
    assert overlap(one, two) is overlap(two, one) is meet


def test_a_group_is_judged_by_the_predictors_that_its_radio_cells_may_have() -> None:
    routes = [RouteConfig(match="lab-*", active="a"), RouteConfig(match="lab-1*", active="b"), RouteConfig(active="c")]
    assert predictors_of(routes, "lab-1*") == {"a"}
    assert predictors_of(routes, "l*") == {"a", "b", "c"}
    assert predictors_of(routes, "site-*") == {"c"}
    assert predictors_of([RouteConfig(match="lab-?", active="a"), RouteConfig(active="c")], "lab-*") == {"a", "c"}


def test_groups_of_a_stream_of_ues_are_patterns_on_the_radio_cell() -> None:
    routes = [RouteConfig(match="*|lab-*", active="a"), RouteConfig(active="c")]
    stream = StreamConfig(topic="t", schema="rsrp", series_by=["ue_id", "radio_cell_id"], period_s=1, kpis=["rsrp_dbm"],
                          routes=routes)  # fmt: skip
    groups = [GroupConfig(name="lab", match="lab-1", mode=Mode.AUTO)]
    rest, lab = watched_of(
        "h", HookConfig(plugin="p", stream="s", groups=groups), stream, ["rsrp_dbm"], 2, (0.1, 0.5, 0.9)
    )
    assert (rest.group, rest.predictors) == ("", ("a", "c"))
    assert (lab.group, lab.predictors, lab.nominal) == ("lab", ("a",), 0.8)


def test_what_is_known_in_hindsight_only_is_judged_by_what_the_stream_measures() -> None:
    kpis = ["rsrp_dbm", "stay_cost", "command_failure_ratio", "access_failure_ratio"]
    stream = StreamConfig(topic="t", schema="rsrp", series_by=["ue_id", "radio_cell_id"], period_s=1, kpis=kpis,
                          routes=[RouteConfig(active="c")])  # fmt: skip
    (watched,) = watched_of("h", HookConfig(plugin="handover", stream="s"), stream, kpis[1:], 1, (0.5,))
    assert (watched.kpis, watched.lead_steps) == (("rsrp_dbm",), 1)


def test_a_hook_that_reads_no_forecast_is_judged_by_all_of_its_stream_unless_told() -> None:
    stream = StreamConfig(topic="t", schema="rsrp", series_by=["ue_id", "radio_cell_id"], period_s=1, horizon_steps=7,
                          kpis=["rsrp_dbm", "rsrq_db"], routes=[RouteConfig(active="c")])  # fmt: skip
    for told, kpis in (([], ("rsrp_dbm", "rsrq_db")), (["rsrq_db"], ("rsrq_db",))):
        hook = HookConfig(plugin="cio", stream="s", breaker=BreakerConfig(kpis=told))
        (watched,) = watched_of("cio", hook, stream, (), 0, (0.1, 0.5, 0.9))
        assert (watched.kpis, watched.lead_steps) == (kpis, 7)
    (watched,) = watched_of("h", hook, stream, ("rsrp_dbm",), 2, (0.1, 0.5, 0.9))
    assert (watched.kpis, watched.lead_steps) == (("rsrq_db",), 2)

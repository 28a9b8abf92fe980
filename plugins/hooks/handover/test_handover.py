from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.plugins import options_of
from netpredict.types import NO_SLOT, AnyArray, DueAction, HookBatch, Quality, SeriesKey, Source
from netpredict_plugins.hooks.handover import PLUGIN, HandoverHook, HandoverOptions
from netpredict_plugins.hooks.handover.difference import Difference

SAMPLE = Path(__file__).with_name("sample.toml")
LEVELS = (0.1, 0.5, 0.9)
OUTCOMES = ("stay_cost", "command_failure_ratio", "access_failure_ratio")

# enters above serving + 4, leaves below serving + 2
PLAIN: dict[str, Any] = {"ttt_ms": 0, "cooldown_slots": 0}


class Report(NamedTuple):
    """One measurement report: the forecast median of each radio cell at every lead, or by lead."""

    ue: str
    slot: int
    serving: str | tuple[str, ...]
    rsrp_dbm: Mapping[str, float | Sequence[float]]
    sources: Mapping[str, Source] = {}
    flags: Mapping[str, Quality] = {}


def batch(reports: Sequence[Report], period_us: int = 1_000_000) -> HookBatch:
    rows = [(number, report, cell) for number, report in enumerate(reports) for cell in report.rsrp_dbm]
    n = len(rows)
    serving = [cell == r.serving or (cell in r.serving and isinstance(r.serving, tuple)) for _, r, cell in rows]
    median = np.array([np.broadcast_to(r.rsrp_dbm[cell], (3,)) for _, r, cell in rows], dtype=np.float32).reshape(n, 3)
    slot = np.array([r.slot for _, r, _ in rows], dtype=np.int64)
    return HookBatch(
        stream="rsrp",
        period_us=period_us,
        slot=slot,
        slot_time_us=slot * period_us,
        record=np.array([10 + number for number, _, _ in rows], dtype=np.int32),
        columns=("rsrp_dbm", "serving"),
        observed=np.column_stack([median[:, 0] + 0.5, np.array(serving, dtype=np.float32)]).reshape(n, 2),
        levels=LEVELS,
        forecasts={"rsrp_dbm": np.stack([median - 3, median, median + 3], axis=-1)},
        source=np.array([r.sources.get(cell, Source.MODEL) for _, r, cell in rows], dtype=np.uint8),
        flags=np.array([r.flags.get(cell, 0) for _, r, cell in rows], dtype=np.uint8),
        key_of=lambda row: SeriesKey((rows[row][1].ue, rows[row][2])),
    )


class World:
    """Keeps the state of every series, as the pipeline does, and checks purity at each call."""

    def __init__(self, period_us: int = 1_000_000, **options: Any) -> None:
        self.hook = HandoverHook(HandoverOptions(**options))
        self.period_us = period_us
        self.state: dict[tuple[str, str], dict[str, AnyArray]] = {}

    def batch_of(self, reports: Sequence[Report]) -> HookBatch:
        return batch(reports, self.period_us)

    def see(self, *reports: Report) -> list[DueAction]:
        keys = [(report.ue, cell) for report in reports for cell in report.rsrp_dbm]
        spec = self.hook.state_spec()
        first = {name: np.full(array.shape, array.fill, dtype=array.dtype) for name, array in spec.items()}
        rows = [self.state.get(key, first) for key in keys]
        state = {name: np.array([row[name] for row in rows], dtype=spec[name].dtype) for name in spec}
        b = self.batch_of(reports)
        before = copy.deepcopy((state, b.observed, b.forecasts, b.slot, b.source, b.flags))
        fired, after = self.hook.decide(b, state)
        np.testing.assert_equal((state, b.observed, b.forecasts, b.slot, b.source, b.flags), before)
        assert {name: (a.dtype, a.shape) for name, a in after.items()} == {
            name: (a.dtype, a.shape) for name, a in state.items()
        }
        for row, key in enumerate(keys):
            self.state[key] = {name: after[name][row] for name in spec}
        return list(fired)

    def run(self, ahead_db: Sequence[float | None], first_slot: int = 100) -> list[int]:
        """Slots at which UE u is handed from s to n, which is so much better; None: n is not reported."""
        fired = []
        for slot, ahead in enumerate(ahead_db, start=first_slot):
            cells = {"s": -100.0} if ahead is None else {"s": -100.0, "n": -100.0 + ahead}
            fired += [slot - first_slot for _ in self.see(Report("u", slot, "s", cells))]
        return fired


def targets(fired: Sequence[DueAction]) -> list[tuple[str, str, str]]:
    return [(action.object_id, action.value["source"], action.value["target"]) for action in fired]


def test_a_neighbour_that_is_better_by_more_than_offset_and_hysteresis_is_the_target() -> None:
    (action,) = World(**PLAIN).see(Report("u", 7, "s", {"s": -100, "n": -95.99}))
    assert (action.object_id, action.attribute) == ("UE=u", "servingCell")
    assert action.value == {"target": "n", "source": "s"}
    assert action.valid_for_s == 3.0


def test_the_comparison_is_strict_to_the_hundredth_of_a_db() -> None:
    levels_dbm = [round(-140.0 + 0.37 * number, 2) for number in range(250)]
    equal = [Report(f"u{s}", 7, "s", {"s": s, "n": round(s + 4.0, 2)}) for s in levels_dbm]
    above = [Report(f"u{s}", 7, "s", {"s": s, "n": round(s + 4.01, 2)}) for s in levels_dbm]
    assert World(**PLAIN).see(*equal) == []
    assert len(World(**PLAIN).see(*above)) == 250


# the intervals reach 3 dB to each side at the levels of costs 9 : 1, so the difference of two that err alone lies
# 4.24 dB beyond its median, one of 0.5 correlation 3 dB, and one of two that err alike at it
@pytest.mark.parametrize(
    ("c_under", "c_over", "correlation", "enters_above_db"),
    [
        (1, 1, 0.5, 4.0),
        (7, 7, 0.0, 4.0),
        (9, 1, 0.5, 1.0),
        (1, 9, 0.5, 7.0),
        (9, 1, 0.0, -0.24),
        (1, 9, 0.0, 8.24),
        (9, 1, 1.0, 4.0),
    ],
)
def test_it_goes_at_the_quantile_of_the_difference_that_costs_least(
    c_under: float, c_over: float, correlation: float, enters_above_db: float
) -> None:
    costs: dict[str, Any] = {"c_under": c_under, "c_over": c_over, "correlation": correlation}
    world = World(**PLAIN, **costs)
    assert world.see(Report("u", 7, "s", {"s": -100.0, "n": -100.0 + enters_above_db})) == []
    (action,) = world.see(Report("v", 7, "s", {"s": -100.0, "n": -99.99 + enters_above_db}))
    why = action.why
    assert (why["quantile"], why["c_under"], why["correlation"]) == (c_under / (c_under + c_over), c_under, correlation)
    assert (why["difference_at_quantile_db"], why["margin_db"]) == (4.01, 0.01)


def test_the_quantile_of_a_difference_of_normal_errors_is_exact() -> None:
    rng, (sigma_n, sigma_s, correlation) = np.random.default_rng(1), (2.0, 5.0, 0.3)
    difference = Difference(4.0, 1.0, correlation)
    levels = difference.levels()
    assert levels == [0.2, 0.5, 0.8]
    covariance = [[sigma_n**2, correlation * sigma_n * sigma_s], [correlation * sigma_n * sigma_s, sigma_s**2]]
    drawn = rng.multivariate_normal([-90.0, -93.0], covariance, 400_000)
    target, serving = (np.quantile(drawn[:, place], levels)[None] for place in (0, 1))
    found = 3.0 + difference.beyond_median(target, serving)[0]
    assert found == pytest.approx(np.quantile(drawn[:, 0] - drawn[:, 1], 0.8), abs=0.03)


def test_levels_that_the_costs_ask_for_are_needed() -> None:
    assert list(HandoverHook(HandoverOptions()).levels_needed()) == [0.5]
    assert list(HandoverHook(HandoverOptions(c_under=3)).levels_needed()) == [0.25, 0.5, 0.75]
    assert list(HandoverHook(HandoverOptions(c_under=3, rule="cost")).levels_needed()) == [0.5]
    with pytest.raises(ConfigError, match="quantile level"):
        World(c_under=3).see(Report("u", 1, "s", {"s": -100}))


def test_it_is_the_forecast_lead_steps_ahead_that_counts() -> None:
    report = Report("u", 7, "s", {"s": [-90, -100, -90], "n": [-90, -90, -90]})
    assert World(**PLAIN, lead_steps=1).see(report) == []
    assert len(World(**PLAIN, lead_steps=2).see(report)) == 1
    assert World(**PLAIN, lead_steps=3).see(report) == []


@pytest.mark.parametrize(
    ("ttt_ms", "period_us", "slots"),
    [
        (0, 1_000_000, 0),
        (40, 40_000, 1),
        (80, 40_000, 2),
        (100, 40_000, 3),
        (320, 1_000_000, 1),
        (1024, 1_000_000, 2),
        (1280, 640_000, 2),
        (5120, 1_000_000, 6),
    ],
)
def test_the_condition_must_hold_for_the_time_to_trigger_rounded_up_to_slots(
    ttt_ms: int, period_us: int, slots: int
) -> None:
    assert World(period_us, ttt_ms=ttt_ms).run([5.0] * 10) == [slots]
    if slots:
        broken = [5.0] * slots + [3.0] + [5.0] * slots
        assert World(period_us, ttt_ms=ttt_ms).run(broken) == []
        assert World(period_us, ttt_ms=ttt_ms).run([*broken, 5.0]) == [2 * slots + 1]


def test_a_report_without_the_neighbour_breaks_the_time_to_trigger() -> None:
    assert World(ttt_ms=1280, cooldown_slots=0).run([5, 5, None, 5, 5, 5]) == [5]


def test_a_missing_slot_breaks_the_time_to_trigger() -> None:
    world = World(ttt_ms=1280, cooldown_slots=0)
    cells = {"s": -100.0, "n": -90.0}
    assert [len(world.see(Report("u", slot, "s", cells))) for slot in (1, 2, 4, 5, 6)] == [0, 0, 0, 0, 1]


def test_it_does_not_fire_again_while_the_condition_holds_or_in_the_dead_band() -> None:
    # enters above 4, leaves below 2: 3 and 2 lie in the dead band
    assert World(**PLAIN).run([5, 5, 3, 5, 2, 5, 1.9, 5]) == [0, 7]


def test_leaving_takes_the_time_to_trigger_as_well() -> None:
    assert World(ttt_ms=1024, cooldown_slots=0).run([5, 5, 5, 1, 5, 5, 5, 1, 1, 1, 5, 5, 5]) == [2, 12]


def test_the_cooldown_holds_for_the_ue_and_ends_in_its_slot() -> None:
    world = World(ttt_ms=0, cooldown_slots=3)
    assert world.run([5, 1, 5, 5, 5]) == [0, 3]


def test_no_handover_to_a_neighbour_that_has_fallen_into_the_dead_band_when_the_cooldown_ends() -> None:
    assert World(ttt_ms=0, cooldown_slots=3).run([5, 1, 5, 3, 5]) == [0, 4]


def test_the_cooldown_outlives_the_radio_cells_that_were_there_when_it_began() -> None:
    world = World(ttt_ms=0, cooldown_slots=10)
    assert len(world.see(Report("u", 1, "s", {"s": -100, "n": -90}))) == 1
    assert world.see(Report("u", 2, "n", {"n": -90, "a": -95})) == []
    assert world.see(Report("u", 3, "a", {"a": -95, "b": -80})) == []
    assert world.see(Report("u", 10, "b", {"b": -100, "c": -80})) == []
    assert targets(world.see(Report("u", 11, "b", {"b": -100, "c": -80}))) == [("UE=u", "b", "c")]


def test_the_best_candidate_wins_and_the_first_of_equals() -> None:
    cells = {"s": -100.0, "a": -95.0, "b": -90.0, "c": -90.0, "d": -96.0}
    assert targets(World(**PLAIN).see(Report("u", 1, "s", cells))) == [("UE=u", "s", "b")]


def test_a_better_neighbour_that_has_not_met_its_time_to_trigger_is_no_candidate() -> None:
    world = World(ttt_ms=1024, cooldown_slots=0)
    levels = [(-95, -99), (-95, -90), (-95, -90), (-95, -90)]
    fired = [targets(world.see(Report("u", t, "s", {"s": -100, "a": a, "b": b}))) for t, (a, b) in enumerate(levels)]
    assert fired == [[], [], [("UE=u", "s", "a")], [("UE=u", "s", "b")]]


def test_the_second_best_does_not_follow_while_the_fired_best_still_holds() -> None:
    world = World(**PLAIN)
    cells = {"s": -100.0, "a": -90.0, "b": -91.0}
    assert [len(world.see(Report("u", slot, "s", cells))) for slot in range(4)] == [1, 0, 0, 0]


def test_a_new_serving_radio_cell_starts_all_timers_anew() -> None:
    world = World(ttt_ms=1024, cooldown_slots=0)
    cells = {"s": -100.0, "n": -90.0, "t": -100.0}
    serving = ["s", "s", "t", "t", "t", "t"]
    fired = [targets(world.see(Report("u", slot, name, cells))) for slot, name in enumerate(serving)]
    assert fired == [[], [], [], [], [("UE=u", "t", "n")], []]


def test_a_radio_cell_that_served_in_between_is_noticed_though_the_old_one_was_not_reported_then() -> None:
    world = World(ttt_ms=1024, cooldown_slots=0)
    world.see(Report("u", 1, "s", {"s": -100, "n": -90}))
    world.see(Report("u", 2, "t", {"t": -100, "n": -90}))
    assert [len(world.see(Report("u", slot, "s", {"s": -100, "n": -90}))) for slot in (3, 4, 5)] == [0, 0, 1]


def test_after_the_handover_the_old_radio_cell_is_a_neighbour_like_others() -> None:
    world = World(**PLAIN)
    assert len(world.see(Report("u", 1, "s", {"s": -100, "n": -90}))) == 1
    assert world.see(Report("u", 2, "n", {"s": -100, "n": -90})) == []
    assert targets(world.see(Report("u", 3, "n", {"s": -80, "n": -90}))) == [("UE=u", "n", "s")]


def test_a_radio_cell_away_for_long_starts_anew_and_may_fire_again() -> None:
    for absent, again in ((10, 0), (11, 1)):
        world = World(**PLAIN, forget_after_slots=10)
        cells = {"s": -100.0, "n": -90.0}
        assert len(world.see(Report("u", 1, "s", cells))) == 1
        for slot in range(2, absent + 2):
            assert world.see(Report("u", slot, "s", {"s": -100})) == []
        assert len(world.see(Report("u", absent + 2, "s", cells))) == again


@pytest.mark.parametrize("cell", ["s", "n"])
@pytest.mark.parametrize(
    "how",
    [{"sources": Source.NONE}, {"flags": Quality.SUSPECT}, {"flags": Quality.SUSPECT | Quality.WARMING}],
)
def test_a_row_that_must_not_act_takes_no_part_and_breaks_the_time_to_trigger(cell: str, how: dict[str, Any]) -> None:
    world = World(ttt_ms=1024, cooldown_slots=0)
    good = {"s": -100.0, "n": -90.0}
    bad = {name: {cell: value} for name, value in how.items()}
    world.see(Report("u", 1, "s", good))
    world.see(Report("u", 2, "s", good))
    assert world.see(Report("u", 3, "s", good, **bad)) == []
    assert [len(world.see(Report("u", slot, "s", good))) for slot in (4, 5, 6)] == [0, 0, 1]


def test_after_a_bad_row_a_fired_neighbour_does_not_fire_again() -> None:
    world = World(**PLAIN)
    good = {"s": -100.0, "n": -90.0}
    assert len(world.see(Report("u", 1, "s", good))) == 1
    world.see(Report("u", 2, "s", good, flags={"n": Quality.SUSPECT}))
    assert world.see(Report("u", 3, "s", good)) == []


@pytest.mark.parametrize("cell", ["s", "n"])
def test_a_guessed_identity_acts_only_when_allowed(cell: str) -> None:
    report = Report("u", 1, "s", {"s": -100, "n": -90}, flags={cell: Quality.APPROXIMATE})
    assert World(**PLAIN).see(report) == []
    (action,) = World(**PLAIN, allow_approximate=True).see(report)
    assert action.why["target_approximate"] is (cell == "n")


def test_a_missing_forecast_neither_enters_nor_leaves() -> None:
    assert World(**PLAIN).run([5, float("nan"), 5]) == [0]


@pytest.mark.parametrize("serving", ["x", ("s", "n")])
def test_a_report_without_exactly_one_serving_radio_cell_decides_nothing(serving: str | tuple[str, ...]) -> None:
    world = World(**PLAIN)
    assert world.see(Report("u", 1, serving, {"s": -100, "n": -90, "m": -70})) == []
    assert len(world.see(Report("u", 2, "s", {"s": -100, "n": -90, "m": -70}))) == 1
    world.see(Report("u", 3, serving, {"s": -100, "n": -90, "m": -70}))
    assert world.see(Report("u", 4, "s", {"s": -100, "n": -90, "m": -70})) == []


def test_a_cio_makes_a_target_more_or_less_welcome() -> None:
    cells = {"s": -100.0, "a": -104.0, "b": -90.0}
    cio_db = {"s": {"a": 12, "b": -8}, "other": {"b": 24}}
    world = World(**PLAIN, cio_db=cio_db)
    (action,) = world.see(Report("u", 1, "s", cells))
    assert targets([action]) == [("UE=u", "s", "a")]
    assert (action.why["cio_db"], action.why["margin_db"]) == (12, 4.0)


def test_among_candidates_the_cio_counts() -> None:
    cells = {"s": -100.0, "a": -92.0, "b": -90.0}
    assert targets(World(**PLAIN, cio_db={"s": {"a": 6}}).see(Report("u", 1, "s", cells))) == [("UE=u", "s", "a")]


def test_a_cio_of_another_relation_changes_nothing() -> None:
    plain, other = World(**PLAIN), World(**PLAIN, cio_db={"x": {"n": 24}, "n": {"s": -24}})
    history = [5.0, 3.0, 1.0, 5.0, 4.0]
    assert plain.run(history) == other.run(history)


def test_a_negative_cio_makes_a_neighbour_leave() -> None:
    assert World(**PLAIN, cio_db={"s": {"n": -6}}).run([11, 7.9, 11]) == [0, 2]
    assert World(**PLAIN, cio_db={"s": {"n": -6}}).run([11, 8, 11]) == [0]


def test_the_reason_is_plain_json_and_complete() -> None:
    (action,) = World(ttt_ms=0).see(Report("u", 1, "s", {"s": -100.11, "n": -90.22}))
    why = json.loads(json.dumps(action.why, allow_nan=False))
    assert (why["serving_forecast_dbm"], why["target_forecast_dbm"]) == (-100.11, -90.22)
    assert why["serving_interval_dbm"] == [-103.11, -97.11]
    assert why["target_interval_dbm"] == [-93.22, -87.22]
    assert why["margin_db"] == 5.89
    assert (why["a3_offset_db"], why["hysteresis_db"], why["cio_db"]) == (3.0, 1.0, 0.0)
    assert (why["ttt_ms"], why["ttt_slots"], why["lead_s"], why["quantile"]) == (0, 0, 2.0, 0.5)
    assert why["serving_observed_dbm"] == pytest.approx(-99.61)


class Link(NamedTuple):
    """Forecasts of one link."""

    stay: float = 0.0
    late: float = 0.0
    refused: float = 0.0


class CostWorld(World):
    """The same by cost, reports of one UE in slots of 200 ms."""

    def __init__(self, **options: Any) -> None:
        super().__init__(200_000, **{"rule": "cost", "lead_steps": 1, "cooldown_slots": 0, "back_cost": 0.0, **options})
        self.links: dict[str, Link] = {}

    def at(self, slot: int, serving: str, **links: Link) -> list[str]:
        self.links = links
        return [a.value["target"] for a in self.see(Report("u", slot, serving, dict.fromkeys(links, -90.0)))]

    def batch_of(self, reports: Sequence[Report]) -> HookBatch:
        plain = super().batch_of(reports)
        columns = zip(OUTCOMES, zip(*self.links.values(), strict=True), strict=True)
        forecasts = {
            kpi: np.broadcast_to(np.array(each, np.float32)[:, None, None], (len(each), 1, 3)) for kpi, each in columns
        }
        return replace(plain, forecasts=forecasts)


def test_by_cost_a_ue_leaves_when_staying_costs_more_than_the_price() -> None:
    assert CostWorld(handover_cost=0.1).at(1, "s", s=Link(0.09), n=Link()) == []
    assert CostWorld(handover_cost=0.1).at(1, "s", s=Link(0.11), n=Link()) == ["n"]
    assert CostWorld(handover_cost=0.1).at(1, "s", s=Link(0.11), n=Link(refused=0.05)) == []
    assert CostWorld(handover_cost=0.1).at(1, "s", s=Link(0.4), n=Link(0.1), m=Link(0.05)) == ["m"]


def test_by_cost_a_link_that_is_lost_is_left_alone() -> None:
    assert CostWorld(handover_cost=0.1).at(1, "s", s=Link(0.8, late=0.9), n=Link()) == []
    assert CostWorld(handover_cost=0.1).at(1, "s", s=Link(0.8, late=0.5), n=Link()) == ["n"]


def test_by_cost_going_back_within_a_second_costs_more() -> None:
    for slots, fired in ((4, []), (5, ["a"])):
        world = CostWorld(handover_cost=0.1, back_cost=0.2)
        assert world.at(1, "a", a=Link(0.3), b=Link(), c=Link(0.9)) == ["b"]
        for slot in range(2, 1 + slots):
            assert world.at(slot, "b", a=Link(), b=Link(), c=Link(0.9)) == []
        assert world.at(1 + slots, "b", a=Link(), b=Link(0.2), c=Link(0.9)) == fired
    world = CostWorld(handover_cost=0.1, back_cost=0.2)
    assert world.at(1, "a", a=Link(0.3), b=Link(), c=Link(0.9)) == ["b"]
    assert world.at(2, "b", a=Link(0.9), b=Link(0.2), c=Link()) == ["c"]  # on, not back


def test_by_cost_a_target_fires_once_until_it_pays_no_more_or_a_slot_is_missing() -> None:
    world = CostWorld(handover_cost=0.1)
    bad, good = {"s": Link(0.3), "n": Link()}, {"s": Link(), "n": Link()}
    fired = [world.at(slot, "s", **links) for slot, links in ((1, bad), (2, bad), (3, good), (4, bad), (6, bad))]
    assert fired == [["n"], [], [], ["n"], ["n"]]


def test_by_cost_a_row_that_must_not_act_is_no_target() -> None:
    world = CostWorld(handover_cost=0.1)
    world.links = {"s": Link(0.5), "n": Link(), "m": Link(0.1)}
    (action,) = world.see(Report("u", 1, "s", dict.fromkeys("snm", -90.0), flags={"n": Quality.SUSPECT}))
    assert action.value["target"] == "m"
    assert json.loads(json.dumps(action.why, allow_nan=False))["arrival_cost"] == pytest.approx(0.1)


def test_an_empty_batch_is_answered() -> None:
    assert World().see() == []


def test_a_horizon_that_is_too_short_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        World(lead_steps=4).see(Report("u", 1, "s", {"s": -100}))


def plain_a3(ahead_db: Sequence[float | None], ttt_slots: int) -> list[int]:
    """The standard's rule for one neighbour, record by record, without a cooldown."""
    fired, entered, held = [], False, 0
    for slot, ahead in enumerate(ahead_db):
        if ahead is None:
            held = 0
            continue
        pending = ahead < 2 if entered else ahead > 4
        held = held + 1 if pending else 0
        if held > ttt_slots:
            entered, held = not entered, 0
            fired += [slot] if entered else []
    return fired


AHEAD = st.sampled_from([None, 0.0, 1.99, 2.0, 3.0, 4.0, 4.01, 6.0])


@settings(max_examples=150, deadline=None)
@given(ahead_db=st.lists(AHEAD, max_size=30), ttt_ms=st.sampled_from([0, 640, 1280, 2560]))
def test_one_neighbour_follows_the_rule_of_the_standard(ahead_db: list[float | None], ttt_ms: int) -> None:
    world = World(ttt_ms=ttt_ms, cooldown_slots=0, forget_after_slots=1000)
    assert world.run(ahead_db) == plain_a3(ahead_db, -(-ttt_ms // 1000))


CELLS = "abcd"


@st.composite
def reports_of(draw: st.DrawFn, ue: str) -> list[Report]:
    reports = []
    slot = 0
    for _ in range(draw(st.integers(1, 8))):
        slot += draw(st.sampled_from([1, 1, 1, 2, 5]))
        cells = draw(st.lists(st.sampled_from(CELLS), min_size=1, unique=True))
        levels = {cell: draw(st.sampled_from([-100.0, -98.0, -96.0, -95.0, -90.0, float("nan")])) for cell in cells}
        flags = {cell: draw(st.sampled_from([Quality.GOOD] * 5 + [Quality.SUSPECT])) for cell in cells}
        reports.append(Report(ue, slot, draw(st.sampled_from(CELLS[:3])), levels, flags=flags))
    return reports


@settings(max_examples=150, deadline=None)
@given(
    histories=st.tuples(reports_of("u"), reports_of("v"), reports_of("w")),
    picks=st.lists(st.sets(st.integers(0, 2), min_size=1), max_size=40),
    reverse=st.booleans(),
)
def test_a_ue_fires_alike_alone_and_in_any_company(
    histories: tuple[list[Report], ...], picks: list[set[int]], reverse: bool
) -> None:
    options: dict[str, Any] = {"ttt_ms": 1024, "cooldown_slots": 2, "forget_after_slots": 3, "cio_db": {"a": {"b": 2}}}
    alone, company = World(**options), World(**options)
    expected = {
        (r.ue, r.slot): [(a.object_id, a.value, a.why) for a in alone.see(r)] for history in histories for r in history
    }
    queues = [list(history) for history in histories]
    found: dict[tuple[str, int], list[Any]] = {}
    for pick in [*picks, *([{0, 1, 2}] * 8)]:
        together = [queues[number].pop(0) for number in sorted(pick, reverse=reverse) if queues[number]]
        found |= {(report.ue, report.slot): [] for report in together}
        slot_of = {report.ue: report.slot for report in together}
        for action in company.see(*together):
            ue = action.object_id.removeprefix("UE=")
            found[ue, slot_of[ue]].append((action.object_id, action.value, action.why))
    assert found == expected
    np.testing.assert_equal(company.state, alone.state)


def test_a_series_that_was_never_seen_has_no_slot() -> None:
    spec = HandoverHook(HandoverOptions()).state_spec()
    assert {name for name, array in spec.items() if array.fill == NO_SLOT} == {"last_slot", "tenure_slot", "fired_slot"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "a5"},
        {"handover_cost": 1.5},
        {"back_cost": -0.1},
        {"back_within_s": -1.0},
        {"lead_steps": 0},
        {"a3_offset_db": 15.5},
        {"a3_offset_db": 0.3},
        {"hysteresis_db": -0.5},
        {"hysteresis_db": 16.0},
        {"ttt_ms": 300},
        {"c_under": 0.0},
        {"c_over": float("inf")},
        {"correlation": 1.5},
        {"cio_db": {"a": {"b": 7}}},
        {"cio_db": {"a": 3}},
        {"cooldown_slots": -1},
        {"forget_after_slots": -1},
        {"object_template": "UE"},
        {"object_template": "{ue_id:>9}"},
        {"valid_for_s": float("inf")},
        {"ttt": 40},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "hooks.handover.options")


def test_the_commented_defaults_are_the_real_ones() -> None:
    uncommented = "\n".join(
        line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n")
    )
    section = tomllib.loads(uncommented)["hooks"]["handover"]
    assert options_of(PLUGIN, section["options"], "hooks.handover") == HandoverOptions()
    assert set(section["options"]) == set(HandoverOptions.__struct_fields__)
    assert PLUGIN.name == section["plugin"]


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in HandoverOptions.__struct_fields__)

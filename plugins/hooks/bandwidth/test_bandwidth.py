from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.plugins import options_of
from netpredict.types import AnyArray, DueAction, HookBatch, Quality, SeriesKey, Source
from netpredict_plugins.hooks.bandwidth import PLUGIN, BandwidthHook, BandwidthOptions

SAMPLE = Path(__file__).with_name("sample.toml")
PERIOD_US = 900_000_000
LEVELS = (0.1, 0.5, 0.8, 0.9)


def batch(
    demands: Sequence[Sequence[float]],
    slots: Sequence[int],
    names: Sequence[str] | None = None,
    kpi: str = "prb_use_dl_percent",
    source: int = Source.MODEL,
    flags: int = 0,
) -> HookBatch:
    """One row per demand, whose entries are the forecasts at 0.8 by lead; the other levels stand 10 around it."""
    n = len(demands)
    at_tau = np.array(demands, dtype=np.float32).reshape(n, -1 if n else 4)
    forecast = np.stack([at_tau - 10, at_tau - 5, at_tau, at_tau + 10], axis=-1)
    keys = names or [f"c{row}" for row in range(n)]
    slot = np.array(slots, dtype=np.int64)
    return HookBatch(
        stream="traffic",
        period_us=PERIOD_US,
        slot=slot,
        slot_time_us=slot * PERIOD_US,
        record=np.arange(n, dtype=np.int32),
        columns=(kpi,),
        observed=np.zeros((n, 1), dtype=np.float32),
        levels=LEVELS,
        forecasts={kpi: forecast},
        source=np.full(n, source, dtype=np.uint8),
        flags=np.full(n, flags, dtype=np.uint8),
        key_of=lambda row: SeriesKey((keys[row],)),
    )


def fresh(hook: BandwidthHook, n: int = 1) -> dict[str, AnyArray]:
    return {name: np.full((n, *a.shape), a.fill, dtype=a.dtype) for name, a in hook.state_spec().items()}


def run(hook: BandwidthHook, demands: Sequence[float], first_slot: int = 100) -> list[int | None]:
    """What one radio cell gets set slot after slot, None where nothing fires."""
    state: Any = fresh(hook)
    mins: list[int | None] = []
    for slot, demand in enumerate(demands, start=first_slot):
        fired, state = hook.decide(batch([[demand] * 4], [slot]), state)
        mins.append(fired[0].value["rRMPolicyMinRatio"] if fired else None)
    return mins


def decided(hook: BandwidthHook, b: HookBatch) -> list[DueAction]:
    return list(hook.decide(b, fresh(hook, len(b)))[0])


def test_the_quantile_is_that_of_least_expected_cost() -> None:
    assert BandwidthHook(BandwidthOptions()).levels_needed() == (0.8,)
    assert BandwidthHook(BandwidthOptions(c_under=1.0, c_over=1.0)).levels_needed() == (0.5,)


def asked(hook: BandwidthHook, demands: Sequence[float], lasts: int = 4, **how: Any) -> list[tuple[int, int | None]]:
    """Slots from 100 on in which something is asked for, with the slot of the action that this refreshes."""
    state: Any = fresh(hook)
    found = []
    for slot, demand in enumerate(demands, start=100):
        flags = 0 if demand >= 0 else Quality.SUSPECT
        seen = replace(batch([[demand] * 4], [slot], flags=flags), refresh_slots=lasts)
        fired, state = hook.decide(seen, state)
        found += [(slot, action.set_slot) for action in fired]
    return found


def test_a_wish_that_stands_is_asked_for_again_before_it_ends() -> None:
    hook = BandwidthHook(BandwidthOptions(min_stay_slots=0))
    assert asked(hook, [30] * 10) == [(100, None), (104, 100), (108, 100)]
    assert asked(hook, [30] * 3 + [70] * 6) == [(100, None), (103, None), (107, 103)]
    assert asked(hook, [30] * 10, lasts=0) == [(100, None)]
    # where nothing can be decided the receiver falls back, and is told as soon as something can
    assert asked(hook, [30] * 3 + [-1] * 4 + [30] * 3) == [(100, None), (107, 100)]


def test_a_refresh_asks_for_what_is_set_and_not_for_what_would_be_set_now() -> None:
    hook, state = BandwidthHook(BandwidthOptions(headroom_percent=5.0, deadband_percent=5.0)), None
    for slot, demand in ((100, 30.0), (104, 33.0)):
        seen = replace(batch([[demand] * 4], [slot]), refresh_slots=4)
        (action,), state = hook.decide(seen, fresh(hook) if state is None else state)
        assert action.value["rRMPolicyMinRatio"] == 35


@pytest.mark.parametrize(
    ("demand", "minimum"),
    [(0.0, 5), (30.0, 35), (30.1, 40), (34.9, 40), (35.0, 40), (39.9, 45), (40.0, 45), (95.0, 100), (100.0, 100)],
)
def test_demand_and_headroom_are_rounded_up_to_a_step(demand: float, minimum: int) -> None:
    (action,) = decided(BandwidthHook(BandwidthOptions()), batch([[demand] * 4], [7]))
    assert action.value == {
        "rRMPolicyMinRatio": minimum,
        "rRMPolicyMaxRatio": 100,
        "rRMPolicyDedicatedRatio": 0,
    }
    assert all(type(percent) is int for percent in action.value.values())


def test_the_highest_of_the_next_leads_counts_and_no_later_one() -> None:
    hook = BandwidthHook(BandwidthOptions(lead_steps=3))
    (action,) = decided(hook, batch([[10, 42, 20, 90]], [7]))
    assert action.value["rRMPolicyMinRatio"] == 50
    assert action.why["peak_lead_steps"] == 2


def test_a_forecast_outside_the_percent_is_clipped() -> None:
    (high,) = decided(BandwidthHook(BandwidthOptions()), batch([[140.0] * 4], [7]))
    (low,) = decided(BandwidthHook(BandwidthOptions()), batch([[-3.0] * 4], [7]))
    assert (high.value["rRMPolicyMinRatio"], low.value["rRMPolicyMinRatio"]) == (100, 5)


def test_throughput_is_taken_as_a_share_of_the_carrier() -> None:
    # 273 blocks x 12 x 14 x 2000 symbols/s x 4 layers x 2.4063 bit x 0.86 = 759,306.7 kbit/s
    options = BandwidthOptions(demand_kpi="dl_throughput_kbps", headroom_percent=0.0, deadband_percent=0.0)
    hook = BandwidthHook(options)
    capacity_kbps = 273 * 12 * 14 * 2000 * 4 * 2.4063 * 0.86 / 1000
    assert hook.kpis_needed() == ("dl_throughput_kbps",)
    (action,) = decided(hook, batch([[capacity_kbps * 0.29] * 4], [7], kpi="dl_throughput_kbps"))
    assert action.value["rRMPolicyMinRatio"] == 30
    assert action.why["capacity_kbps"] == pytest.approx(capacity_kbps, abs=0.001)
    assert action.why["demand_percent_by_lead"] == pytest.approx([29.0] * 4, abs=1e-4)


def test_ratios_stay_within_their_bounds_and_in_order() -> None:
    options = BandwidthOptions(least_percent=20, most_percent=60, burst_percent=10, dedicated_ratio=0.5)
    hook = BandwidthHook(options)
    values = [dict(action.value) for action in decided(hook, batch([[0.0] * 4, [99.0] * 4, [30.0] * 4], [7, 7, 7]))]
    assert values == [
        {"rRMPolicyMinRatio": 20, "rRMPolicyMaxRatio": 30, "rRMPolicyDedicatedRatio": 10},
        {"rRMPolicyMinRatio": 60, "rRMPolicyMaxRatio": 70, "rRMPolicyDedicatedRatio": 30},
        {"rRMPolicyMinRatio": 35, "rRMPolicyMaxRatio": 45, "rRMPolicyDedicatedRatio": 15},
    ]


def test_it_fires_only_when_the_value_changes() -> None:
    assert run(BandwidthHook(BandwidthOptions(min_stay_slots=0)), [30, 30, 45, 45, 30]) == [35, None, 50, None, 35]


def test_a_need_inside_the_deadband_leaves_the_ratio() -> None:
    # 35 is set for needs in (30, 35]; with the deadband it stays for needs in (28, 37], that is demands in (23, 32]
    hook = BandwidthHook(BandwidthOptions(min_stay_slots=0))
    assert run(hook, [30, 32, 32.1]) == [35, None, 40]
    assert run(hook, [30, 23.1, 23.0]) == [35, None, 30]


def test_a_set_ratio_stays_for_its_slots() -> None:
    assert run(BandwidthHook(BandwidthOptions(min_stay_slots=3)), [30, 60, 60, 60, 60]) == [35, None, None, 65, None]


def test_what_stays_set_covers_the_demand() -> None:
    hook = BandwidthHook(BandwidthOptions(min_stay_slots=0))
    rng = np.random.default_rng(1)
    demands = np.clip(np.cumsum(rng.normal(0, 3, 500)) + 40, 0, 95).round(1)
    now_set = 0
    for demand, fired in zip(demands, run(hook, demands.tolist()), strict=True):
        now_set = fired if fired is not None else now_set
        assert now_set >= demand - 1e-6


@pytest.mark.parametrize("how", [{"source": Source.NONE}, {"flags": Quality.SUSPECT}, {"flags": Quality.APPROXIMATE}])
def test_a_row_that_must_not_act_keeps_its_state(how: dict[str, int]) -> None:
    hook = BandwidthHook(BandwidthOptions())
    state = fresh(hook)
    fired, after = hook.decide(batch([[50.0] * 4], [7], **how), state)  # type: ignore[arg-type]
    assert fired == []
    np.testing.assert_equal(dict(after), state)


def test_a_missing_forecast_does_nothing() -> None:
    assert decided(BandwidthHook(BandwidthOptions()), batch([[50, np.nan, 50, 50]], [7])) == []


def test_the_object_is_named_by_the_template() -> None:
    hook = BandwidthHook(BandwidthOptions(object_template="{radio_cell_id},RRMPolicyRatio=2"))
    (action,) = decided(hook, batch([[50.0] * 4], [7], names=["NRCellDU={1}"]))
    assert (action.object_id, action.attribute) == ("NRCellDU={1},RRMPolicyRatio=2", "rRMPolicyRatio")
    (default,) = decided(BandwidthHook(BandwidthOptions()), batch([[50.0] * 4], [7], names=["c9"]))
    assert default.object_id == "NRCellDU=c9,RRMPolicyRatio=1"


def test_the_reason_is_plain_json_and_complete() -> None:
    (action,) = decided(BandwidthHook(BandwidthOptions()), batch([[10, 42.5, 20, 30]], [7]))
    why = json.loads(json.dumps(action.why, allow_nan=False))
    assert why["forecast_at_tau"] == [10, 42.5, 20, 30]
    assert (why["interval_levels"], why["interval_at_peak"]) == ([0.1, 0.9], [32.5, 52.5])
    assert (why["tau"], why["c_under"], why["c_over"]) == (0.8, 4.0, 1.0)
    assert (why["need_percent"], why["set_before_percent"], why["forecast_source"]) == (47.5, None, "model")


def test_an_action_is_valid_to_the_end_of_the_last_period_unless_told() -> None:
    (action,) = decided(BandwidthHook(BandwidthOptions()), batch([[50.0] * 4], [7]))
    (told,) = decided(BandwidthHook(BandwidthOptions(valid_for_s=60.0)), batch([[50.0] * 4], [7]))
    assert (action.valid_for_s, told.valid_for_s) == (5 * 900.0, 60.0)


def test_an_empty_batch_is_answered() -> None:
    hook = BandwidthHook(BandwidthOptions())
    fired, after = hook.decide(batch([], []), fresh(hook, 0))
    assert fired == []
    assert set(after) == set(hook.state_spec())


def test_a_horizon_or_level_that_is_missing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        decided(BandwidthHook(BandwidthOptions(lead_steps=5)), batch([[50.0] * 4], [7]))
    with pytest.raises(ConfigError, match="quantile level"):
        decided(BandwidthHook(BandwidthOptions(c_under=7.0)), batch([[50.0] * 4], [7]))


ABOVE = {"c0": ("c0-high", "c0-low")}


def slept(hook: BandwidthHook, demands: Sequence[float], name: str = "c0", **how: int) -> list[str | None]:
    """What the capacity radio cells of one series get slot after slot, S(leep), W(ake) or None where nothing fires."""
    state, seen = fresh(hook), []
    for slot, demand in enumerate(demands):
        due, state = hook.decide(batch([[demand] * 4], [slot], [name], **how), state)  # type: ignore[arg-type,assignment]
        controls = [action.value["energySavingControl"] for action in due if action.attribute == "energySavingControl"]
        assert len(set(controls)) <= 1
        assert len(controls) in (0, 2)
        seen.append({"TO_BE_ENERGY_SAVING": "S", "TO_BE_NOT_ENERGY_SAVING": "W"}[controls[0]] if controls else None)
    return seen


def test_capacity_cells_sleep_below_one_level_and_wake_above_the_other() -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=0))
    assert slept(hook, [30, 20, 19.9, 10, 49, 50, 50.1, 60, 30, 15]) == [
        None, None, "S", None, None, None, "W", None, None, "S",
    ]  # fmt: skip


def test_capacity_cells_stay_awake_for_their_slots_but_wake_at_once() -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=3))
    assert slept(hook, [10, 60, 10, 10, 10, 60]) == ["S", "W", None, None, "S", "W"]


def test_capacity_cells_are_told_again_before_what_they_were_told_ends() -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=0, min_stay_slots=99))
    state, told = fresh(hook), []
    for slot, demand in enumerate([10, 30, 30, 30, 30, 60, 30, 30]):
        due, state = hook.decide(replace(batch([[demand] * 4], [slot], ["c0"]), refresh_slots=3), state)  # type: ignore[assignment]
        controls = [action for action in due if action.attribute == "energySavingControl"]
        told += [(slot, action.value["energySavingControl"][6:9], action.set_slot) for action in controls[::2]]
    assert told == [(0, "ENE", None), (3, "ENE", 0), (5, "NOT", None)]


def test_a_peak_ahead_keeps_capacity_cells_awake() -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=0))
    due = decided(hook, batch([[5, 5, 5, 30]], [0]))
    assert [action.attribute for action in due] == ["rRMPolicyRatio"]
    *_, first, second = decided(hook, batch([[5, 5, 80, 30]], [0]))
    assert (first.object_id, second.object_id) == tuple(
        f"NRCellDU={name},CESManagementFunction=1" for name in ABOVE["c0"]
    )
    assert (first.value["energySavingControl"], first.why["peak_lead_steps"]) == ("TO_BE_NOT_ENERGY_SAVING", 3)
    assert json.loads(json.dumps(first.why, allow_nan=False))["covering_radio_cell_id"] == "c0"


def test_radio_cells_that_cover_none_put_none_to_sleep() -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=0))
    assert slept(hook, [5, 90, 5], name="c1") == [None] * 3


@pytest.mark.parametrize("how", [{"source": Source.NONE}, {"flags": Quality.SUSPECT}])
def test_capacity_cells_are_left_alone_where_nothing_is_known(how: dict[str, int]) -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=0))
    assert slept(hook, [5, 90], **how) == [None, None]


@settings(max_examples=100, deadline=None)
@given(demands=st.lists(st.integers(0, 100), min_size=1, max_size=30), stay=st.integers(0, 5))
def test_capacity_cells_never_sleep_under_load_nor_too_soon(demands: list[int], stay: int) -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells=ABOVE, sleep_stay_slots=stay))
    asleep, woken = False, -stay
    for slot, (demand, control) in enumerate(zip(demands, slept(hook, demands), strict=True)):
        if control == "S":
            assert demand < 20
            assert not asleep
            assert slot - woken >= stay
        if control == "W":
            woken = slot
        asleep = control == "S" or (asleep and control != "W")
        assert not (asleep and demand > 50)


HISTORY = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=4, max_size=4), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(history=HISTORY, order=st.permutations(range(4)))
def test_a_series_fires_alike_alone_and_in_company(history: list[list[int | None]], order: list[int]) -> None:
    hook = BandwidthHook(BandwidthOptions(capacity_cells={"c1": ("c1-high",), "c3": ("c3-high",)}))
    together: Any = fresh(hook, 4)
    alone: list[Any] = [fresh(hook) for _ in range(4)]
    for slot, row in enumerate(history):
        present = [series for series in order if row[series] is not None]
        company = batch(
            [[row[series] or 0] * 4 for series in present], [slot] * len(present), [f"c{s}" for s in present]
        )
        if not present:
            continue
        before = copy.deepcopy({name: array[present] for name, array in together.items()})
        given_state = {name: array[present] for name, array in together.items()}
        fired, after = hook.decide(company, given_state)
        np.testing.assert_equal(given_state, before)
        for name, array in after.items():
            assert array.dtype == together[name].dtype
            together[name][present] = array
        lonely: list[DueAction] = []
        for series in present:
            single, alone[series] = hook.decide(batch([[row[series] or 0] * 4], [slot], [f"c{series}"]), alone[series])
            lonely += single
        alike = [sorted(((a.object_id, a.value, a.why) for a in each), key=str) for each in (fired, lonely)]
        assert alike[0] == alike[1]
    for series in range(4):
        np.testing.assert_equal({name: array[series : series + 1] for name, array in together.items()}, alone[series])


@pytest.mark.parametrize(
    "wrong",
    [
        {"lead_steps": 0},
        {"c_under": 0.0},
        {"c_over": float("inf")},
        {"headroom_percent": -1.0},
        {"step_percent": 3},
        {"step_percent": 0},
        {"deadband_percent": 6.0},
        {"min_stay_slots": -1},
        {"least_percent": 7},
        {"least_percent": 60, "most_percent": 40},
        {"most_percent": 105},
        {"burst_percent": 101},
        {"dedicated_ratio": 1.1},
        {"layers": 9},
        {"efficiency_bps_hz": 9.3},
        {"bandwidth_mhz": 55},
        {"scs_khz": 15},
        {"frequency_range": "FR3"},
        {"object_template": "NRCellDU=1"},
        {"object_template": "{radio_cell}"},
        {"object_template": "{radio_cell_id!r}"},
        {"object_template": "{radio_cell_id.__class__}"},
        {"object_template": "{radio_cell_id"},
        {"valid_for_s": -1.0},
        {"demand_kpi": "connected_ues"},
        {"tau": 0.8},
        {"sleep_below_percent": 50.0, "wake_above_percent": 50.0},
        {"sleep_below_percent": -1.0},
        {"wake_above_percent": 101.0},
        {"sleep_stay_slots": -1},
        {"sleep_object_template": "CES"},
        {"capacity_cells": {"a": ["x"], "b": ["x"]}},
        {"capacity_cells": {"a": ["b"], "b": ["x"]}},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "hooks.bandwidth.options")


def test_the_commented_defaults_are_the_real_ones() -> None:
    uncommented = "\n".join(
        line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n")
    )
    section = tomllib.loads(uncommented)["hooks"]["bandwidth"]
    assert options_of(PLUGIN, section["options"], "hooks.bandwidth") == BandwidthOptions()
    assert set(section["options"]) == set(BandwidthOptions.__struct_fields__)
    assert PLUGIN.name == section["plugin"]


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in BandwidthOptions.__struct_fields__)

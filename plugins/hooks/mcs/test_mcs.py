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
from netpredict.radio.classes import FINE_LEVELS
from netpredict.types import AnyArray, DueAction, HookBatch, Quality, SeriesKey, Source
from netpredict_plugins.hooks.mcs import PLUGIN, McsHook, McsOptions

SAMPLE = Path(__file__).with_name("sample.toml")
PERIOD_US = 1_000_000
CLASSES = 16


def chances(cqi: float | dict[int, float]) -> AnyArray:
    """Probabilities of CQI 0..15: certain for a number, NaN for NaN."""
    if isinstance(cqi, dict):
        return np.array([cqi.get(c, 0.0) for c in range(CLASSES)])
    return np.full(CLASSES, np.nan) if np.isnan(cqi) else np.eye(CLASSES)[int(cqi)]


def quantiles(chance: AnyArray) -> AnyArray:
    """As a categorical forecast tells it: class c fills (c - 1/2, c + 1/2)."""
    if np.isnan(chance).any():
        return np.full(len(FINE_LEVELS), np.nan)
    below = np.concatenate([[0.0], np.cumsum(chance + 1e-9)])
    return np.round(np.interp(FINE_LEVELS, below / below[-1], np.arange(CLASSES + 1) - 0.5), 2)


def batch(
    cqis: Sequence[float | dict[int, float] | Sequence[float]],
    slots: Sequence[int],
    keys: Sequence[tuple[str, ...]] | None = None,
    source: int = Source.MODEL,
    flags: int = 0,
    observed: dict[str, float] | None = None,
) -> HookBatch:
    """One row per forecast: a CQI or chances by CQI, the same at all three leads, or a list of one CQI by lead."""
    n = len(cqis)
    by_lead = [list(cqi) if isinstance(cqi, Sequence) else [cqi] * 3 for cqi in cqis]
    told = np.array([[quantiles(chances(cqi)) for cqi in row] for row in by_lead], np.float32)
    names = keys or [(f"ue{row}",) for row in range(n)]
    slot = np.array(slots, dtype=np.int64)
    seen = {"cqi": 9.0, **(observed or {})}
    return HookBatch(
        stream="channel-state",
        period_us=PERIOD_US,
        slot=slot,
        slot_time_us=slot * PERIOD_US,
        record=np.arange(n, dtype=np.int32),
        columns=tuple(seen),
        observed=np.tile(np.array(list(seen.values()), np.float32), (n, 1)),
        levels=FINE_LEVELS,
        forecasts={"cqi": told.reshape(n, 3, len(FINE_LEVELS))},
        source=np.full(n, source, dtype=np.uint8),
        flags=np.full(n, flags, dtype=np.uint8),
        key_of=lambda row: SeriesKey(names[row]),
    )


def fresh(hook: McsHook, n: int = 1) -> dict[str, AnyArray]:
    return {name: np.full((n, *a.shape), a.fill, dtype=a.dtype) for name, a in hook.state_spec().items()}


def run(hook: McsHook, cqis: Sequence[float]) -> list[int | None]:
    """What one UE gets set slot after slot, None where nothing fires."""
    state: Any = fresh(hook)
    indices: list[int | None] = []
    for slot, cqi in enumerate(cqis):
        fired, state = hook.decide(batch([cqi], [slot]), state)
        indices.append(fired[0].value["mcs_index"] if fired else None)
    return indices


def prices(options: McsOptions, slots: Sequence[dict[str, float]], **how: int) -> list[float]:
    """The price after each of these slots, the forecast being CQI 9 (MCS 15) throughout."""
    hook, found = McsHook(options), []
    state: Any = fresh(hook)
    for slot, observed in enumerate(slots):
        _, state = hook.decide(batch([9], [slot], observed=observed, **how), state)
        found.append(float(state["price"][0]))
    return found


def decided(options: McsOptions, b: HookBatch) -> list[DueAction]:
    hook = McsHook(options)
    return list(hook.decide(b, fresh(hook, len(b)))[0])


def test_an_index_that_stands_is_asked_for_again_before_it_ends() -> None:
    hook = McsHook(McsOptions())
    state: Any = fresh(hook)
    found = []
    for slot, cqi in enumerate([9] * 4 + [12] * 5):
        fired, state = hook.decide(replace(batch([cqi], [slot]), refresh_slots=3), state)
        found += [(slot, action.value["mcs_index"], action.set_slot) for action in fired]
    assert found == [(0, 15, None), (3, 15, 0), (4, 22, None), (7, 22, 4)]


# radio.md 5.4, CQI 1..15 by table
PAIRED = {
    1: [0, 0, 2, 4, 6, 8, 11, 13, 15, 18, 20, 22, 24, 26, 28],
    2: [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27],
    3: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28],
    4: [0, 1, 2, 3, 5, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26],
}


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_the_index_is_the_pair_of_the_cqi_in_the_table_of_the_same_number(table: int) -> None:
    actions = decided(McsOptions(mcs_table=table, price=0.1), batch(list(range(1, 16)), [0] * 15))
    assert [action.value["mcs_index"] for action in actions] == PAIRED[table]
    assert {action.value["mcs_table"] for action in actions} == {table}


@pytest.mark.parametrize(("table", "target"), [(1, 0.1), (2, 0.1), (3, 1e-5), (4, 0.1)])
def test_the_block_error_target_is_that_of_the_table_unless_told(table: int, target: float) -> None:
    (action,) = decided(McsOptions(mcs_table=table), batch([9], [0]))
    assert action.value["bler_target_ratio"] == target
    (action,) = decided(McsOptions(mcs_table=table, bler_target=0.02), batch([9], [0]))
    assert action.value["bler_target_ratio"] == 0.02


@pytest.mark.parametrize(
    ("price", "cqi"),
    # table 1: 2.4063 at CQI 9, 3.3223 at CQI 11, which arrives with 0.8: 2.6578 - 0.2 price
    [(0.05, 11), (0.8, 11), (1.3, 9), (50.0, 9)],
)
def test_the_cqi_is_the_one_worth_most_at_the_price_of_a_loss(price: float, cqi: int) -> None:
    (action,) = decided(McsOptions(price=price), batch([{9: 0.2, 11: 0.8}], [0]))
    assert action.why["cqi"] == cqi
    assert action.why["arrives_probability"] == pytest.approx(
        0.8 if cqi == 11 else 1.0, abs=0.026
    )  # levels lie 0.025 apart there


def test_the_lowest_index_is_set_when_nothing_may_arrive() -> None:
    (action,) = decided(McsOptions(), batch([0.0], [0]))
    assert (action.why["cqi"], action.value["mcs_index"]) == (1, 0)


def test_no_forecast_sets_nothing_and_leaves_what_was_set() -> None:
    assert decided(McsOptions(), batch([np.nan], [0])) == []
    assert run(McsHook(McsOptions()), [9, np.nan, 9, 10]) == [15, None, None, 18]


def test_the_lead_is_that_of_the_options() -> None:
    (action,) = decided(McsOptions(lead_steps=2), batch([[3, 7, 11]], [0]))
    assert action.why["cqi"] == 7


def test_it_fires_only_when_the_index_changes() -> None:
    # CQI 1 and 2 of table 1 share MCS 0
    assert run(McsHook(McsOptions()), [9, 9, 10, 1, 2, 3]) == [15, None, 18, 0, None, 2]


def test_a_set_index_stays_for_its_slots() -> None:
    assert run(McsHook(McsOptions(min_stay_slots=2)), [9, 10, 10, 11, 11]) == [15, None, 18, None, 20]


def test_the_price_follows_the_block_error_ratio_and_holds_at_the_target() -> None:
    options = McsOptions(price=2.0, price_rate=0.1, bler_target=0.1)
    lost, arrived, unknown, at_target = ({"bler_ratio": ratio} for ratio in (1.0, 0.0, np.nan, 0.1))
    found = prices(options, [lost, arrived, unknown, at_target])
    assert found == pytest.approx([2 * np.exp(0.09), 2 * np.exp(0.08), 2 * np.exp(0.08), 2 * np.exp(0.08)], rel=1e-5)
    assert prices(options, [*[lost] * 100])[-1] == pytest.approx(200.0)
    assert prices(McsOptions(price_rate=0.0), [lost, lost]) == [4.0, 4.0]


def test_only_the_errors_of_an_index_that_it_had_set_are_heard() -> None:
    mine, others = {"bler_ratio": 1.0, "mcs": 15.0}, {"bler_ratio": 1.0, "mcs": 14.0}
    first, second, third = prices(McsOptions(), [mine, mine, others])
    assert first == 4.0  # nothing was set before the first slot
    assert second == pytest.approx(4 * np.exp(0.09))
    assert third == second


def test_with_a_longer_lead_the_indices_that_may_still_be_in_force_are_heard() -> None:
    hook = McsHook(McsOptions(lead_steps=2))
    state: Any = fresh(hook)
    for slot, cqi in enumerate([9, 10]):
        _, state = hook.decide(batch([cqi], [slot]), state)
    _, after = hook.decide(batch([10], [2], observed={"bler_ratio": 1.0, "mcs": 15.0}), state)
    assert after["price"][0] > state["price"][0]
    _, after = hook.decide(batch([10], [3], observed={"bler_ratio": 1.0, "mcs": 15.0}), {**state, **after})
    assert after["price"][0] == pytest.approx(4 * np.exp(0.09))


def test_a_suspect_block_error_ratio_is_not_heard() -> None:
    assert prices(McsOptions(), [{"bler_ratio": 1.0}], flags=Quality.SUSPECT) == [4.0]


@pytest.mark.parametrize("how", [{"source": Source.NONE}, {"flags": Quality.SUSPECT}, {"flags": Quality.APPROXIMATE}])
def test_a_row_that_must_not_act_keeps_its_state(how: dict[str, int]) -> None:
    hook = McsHook(McsOptions())
    state = fresh(hook)
    fired, after = hook.decide(batch([9], [7], **how), state)  # type: ignore[arg-type]
    assert fired == []
    np.testing.assert_equal(dict(after), state)


def test_the_object_is_a_ue_or_a_radio_cell() -> None:
    keys = [("ue1", "c1")]
    (of_ue,) = decided(McsOptions(), batch([9], [0], keys))
    (of_cell,) = decided(McsOptions(object_template="NRCellDU={radio_cell_id}"), batch([9], [0], keys))
    assert (of_ue.object_id, of_ue.attribute, of_cell.object_id) == ("UE=ue1", "mcsIndex", "NRCellDU=c1")


def test_the_reason_is_plain_json_and_complete() -> None:
    (action,) = decided(McsOptions(), batch([1], [0]))
    why = json.loads(json.dumps(action.why, allow_nan=False))
    assert (why["cqi"], why["price_bps_hz"], why["lead_s"], why["set_before_mcs_index"]) == (1, 4.0, 1.0, None)
    assert (why["cqi_efficiency_bps_hz"], why["mcs_efficiency_bps_hz"]) == (0.1523, 0.2344)
    arrives = why["arrives_probability"]
    assert why["probability_of_cqi_at_least"][1] == arrives > 0.98
    assert why["worth_bps_hz"] == pytest.approx(0.1523 * arrives - 4.0 * (1 - arrives), abs=1e-3)
    assert action.valid_for_s == 2.0


def test_an_empty_batch_is_answered() -> None:
    hook = McsHook(McsOptions())
    fired, after = hook.decide(batch([], []), fresh(hook, 0))
    assert fired == []
    assert set(after) == set(hook.state_spec())


def test_a_horizon_that_is_too_short_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        decided(McsOptions(lead_steps=4), batch([9], [0]))


HISTORY = st.lists(
    st.lists(st.one_of(st.none(), st.sampled_from([0, 1, 2, 8, 9, 15, float("nan")])), min_size=4, max_size=4),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(history=HISTORY, order=st.permutations(range(4)))
def test_a_series_fires_alike_alone_and_in_company(history: list[list[float | None]], order: list[int]) -> None:
    hook = McsHook(McsOptions())
    together: Any = fresh(hook, 4)
    alone: list[Any] = [fresh(hook) for _ in range(4)]
    for slot, row in enumerate(history):
        present = [(series, cqi) for series in order if (cqi := row[series]) is not None]
        rows = [series for series, _ in present]
        given_state = {name: array[rows] for name, array in together.items()}
        before = copy.deepcopy(given_state)
        company = batch([cqi for _, cqi in present], [slot] * len(rows), [(f"ue{series}",) for series in rows])
        fired, after = hook.decide(company, given_state)
        np.testing.assert_equal(given_state, before)
        for name, array in after.items():
            assert array.dtype == together[name].dtype
            together[name][rows] = array
        lonely: list[DueAction] = []
        for series, cqi in present:
            single, alone[series] = hook.decide(batch([cqi], [slot], [(f"ue{series}",)]), alone[series])
            lonely += single
        assert [(a.object_id, a.value, a.why) for a in fired] == [(a.object_id, a.value, a.why) for a in lonely]
    for series in range(4):
        np.testing.assert_equal({name: array[series : series + 1] for name, array in together.items()}, alone[series])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mcs_table": 0},
        {"mcs_table": 5},
        {"bler_target": -0.1},
        {"bler_target": 1.0},
        {"price": 0.0},
        {"price": 300.0},
        {"price_rate": -0.1},
        {"price_least": 5.0},
        {"tau": 0.1},
        {"lead_steps": 0},
        {"min_stay_slots": -1},
        {"object_template": "UE={imsi}"},
        {"valid_for_s": float("nan")},
        {"cqi_table": 1},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "hooks.mcs.options")


def test_the_commented_defaults_are_the_real_ones() -> None:
    uncommented = "\n".join(
        line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n")
    )
    section = tomllib.loads(uncommented)["hooks"]["mcs"]
    assert options_of(PLUGIN, section["options"], "hooks.mcs") == McsOptions()
    assert set(section["options"]) == set(McsOptions.__struct_fields__)
    assert PLUGIN.name == section["plugin"]


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in McsOptions.__struct_fields__)

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.plugins import options_of
from netpredict.types import AnyArray, DueAction, HookBatch, Quality, SeriesKey, Source
from netpredict_plugins.hooks.mcs import PLUGIN, McsHook, McsOptions

SAMPLE = Path(__file__).with_name("sample.toml")
PERIOD_US = 1_000_000
LEVELS = (0.1, 0.5, 0.9)


def batch(
    cqis: Sequence[float | Sequence[float]],
    slots: Sequence[int],
    keys: Sequence[tuple[str, ...]] | None = None,
    source: int = Source.MODEL,
    flags: int = 0,
) -> HookBatch:
    """One row per CQI at 0.1, the same at every lead or one by lead; 0.5 and 0.9 stand 1 and 2 above."""
    n = len(cqis)
    low = np.array([np.broadcast_to(cqi, (3,)) for cqi in cqis], dtype=np.float32).reshape(n, 3)
    names = keys or [(f"ue{row}",) for row in range(n)]
    slot = np.array(slots, dtype=np.int64)
    return HookBatch(
        stream="channel-state",
        period_us=PERIOD_US,
        slot=slot,
        slot_time_us=slot * PERIOD_US,
        record=np.arange(n, dtype=np.int32),
        columns=("cqi",),
        observed=low[:, :1],
        levels=LEVELS,
        forecasts={"cqi": np.stack([low, low + 1, low + 2], axis=-1)},
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


def decided(options: McsOptions, b: HookBatch) -> list[DueAction]:
    hook = McsHook(options)
    return list(hook.decide(b, fresh(hook, len(b)))[0])


# radio.md 5.4, CQI 1..15 by table
PAIRED = {
    1: [0, 0, 2, 4, 6, 8, 11, 13, 15, 18, 20, 22, 24, 26, 28],
    2: [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27],
    3: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28],
    4: [0, 1, 2, 3, 5, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26],
}


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_the_index_is_the_pair_of_the_cqi_in_the_table_of_the_same_number(table: int) -> None:
    actions = decided(McsOptions(mcs_table=table), batch(list(range(1, 16)), [0] * 15))
    assert [action.value["mcs_index"] for action in actions] == PAIRED[table]
    assert {action.value["mcs_table"] for action in actions} == {table}


@pytest.mark.parametrize(("table", "target"), [(1, 0.1), (2, 0.1), (3, 1e-5), (4, 0.1)])
def test_the_block_error_target_is_that_of_the_table(table: int, target: float) -> None:
    (action,) = decided(McsOptions(mcs_table=table), batch([9], [0]))
    assert action.value["bler_target_ratio"] == target


@pytest.mark.parametrize(("cqi", "index"), [(8.99, 13), (9.0, 15), (9.01, 15), (15.0, 28), (17.2, 28)])
def test_the_cqi_is_rounded_down_and_bounded(cqi: float, index: int) -> None:
    (action,) = decided(McsOptions(), batch([cqi], [0]))
    assert action.value["mcs_index"] == index


@pytest.mark.parametrize("cqi", [0.0, 0.99, -0.5, np.nan])
def test_out_of_range_has_no_mcs_and_leaves_what_was_set(cqi: float) -> None:
    assert decided(McsOptions(), batch([cqi], [0])) == []
    assert run(McsHook(McsOptions(min_stay_slots=0)), [9, cqi, 9, 10]) == [15, None, None, 18]


def test_the_quantile_and_the_lead_are_those_of_the_options() -> None:
    (cautious,) = decided(McsOptions(lead_steps=2), batch([[3, 7, 11]], [0]))
    (median,) = decided(McsOptions(lead_steps=2, tau=0.5), batch([[3, 7, 11]], [0]))
    assert (cautious.why["cqi"], median.why["cqi"]) == (7, 8)
    assert McsHook(McsOptions(tau=0.5)).levels_needed() == (0.5,)


def test_it_fires_only_when_the_index_changes() -> None:
    # CQI 1 and 2 of table 1 share MCS 0
    assert run(McsHook(McsOptions(min_stay_slots=0)), [9, 9.5, 10, 1, 2, 3]) == [15, None, 18, 0, None, 2]


def test_a_set_index_stays_for_its_slots() -> None:
    assert run(McsHook(McsOptions(min_stay_slots=2)), [9, 10, 10, 11, 11]) == [15, None, 18, None, 20]


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
    (action,) = decided(McsOptions(), batch([1.25], [0]))
    why = json.loads(json.dumps(action.why, allow_nan=False))
    assert (why["forecast_cqi"], why["cqi"], why["interval_cqi"]) == (1.25, 1, [1.25, 3.25])
    assert (why["cqi_efficiency_bps_hz"], why["mcs_efficiency_bps_hz"]) == (0.1523, 0.2344)
    assert (why["tau"], why["lead_s"], why["set_before_mcs_index"]) == (0.1, 1.0, None)
    assert action.valid_for_s == 2.0


def test_an_empty_batch_is_answered() -> None:
    hook = McsHook(McsOptions())
    fired, after = hook.decide(batch([], []), fresh(hook, 0))
    assert fired == []
    assert set(after) == set(hook.state_spec())


def test_a_horizon_or_level_that_is_missing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        decided(McsOptions(lead_steps=4), batch([9], [0]))
    with pytest.raises(ConfigError, match="quantile level"):
        decided(McsOptions(tau=0.2), batch([9], [0]))


HISTORY = st.lists(
    st.lists(st.one_of(st.none(), st.sampled_from([0, 1, 2, 8.99, 9, 15, float("nan")])), min_size=4, max_size=4),
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
        {"tau": 0.0},
        {"tau": 1.0},
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

"""The sixteen traps of the radio reference, each fed what was seen in the field: caught, and named."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.config import ChecksConfig
from netpredict.errors import ConfigError
from netpredict.ingest.decode import Decoded
from netpredict.ingest.firewall import Firewall
from netpredict.ingest.reasons import REASONS
from netpredict.ingest.watch import Watch

NOW_US = 1_748_351_985_647_759
DAY_QUARTERS = 96


class Seen:
    """What became of the rows of one series: ``values`` by row, ``refused`` reasons by row, ``found`` by reason."""

    def __init__(self, columns, rows, *, times=None, units=None, period_s=900.0, ues=False, **checks):
        columns = tuple(columns.split())
        config = ChecksConfig(**checks)
        firewall = Firewall(columns, columns, 60.0, config, units, period_s)
        watch = Watch(columns, config, period_s, ["ue_id"] if ues else ["radio_cell_id"], units)
        rows = [[math.nan if value is None else value for value in np.atleast_1d(row)] for row in rows]
        state = {name: np.full((1, *spec.shape), spec.fill, spec.dtype) for name, spec in watch.state_spec().items()}
        self.values, self.refused, self.doubted, self.details = [], [], [], []
        for number, row in enumerate(rows):
            time_us = NOW_US if times is None else times[number]
            given_row = np.array([row], np.float32)
            one = np.zeros(1, np.uint8)
            decoded = Decoded(["cell"], np.zeros(1, np.int32), np.array([time_us], np.int64), given_row, one, [])
            verdict = firewall.inspect(decoded, np.array([NOW_US]), watched=True)
            values, doubted = watch.judge(decoded.values, state)
            self.values.append(values[0].tolist())
            self.doubted.append(bool(doubted[0]))
            self.refused.append(next(iter(verdict.refused), None))
            self.details.append(verdict.detail(self.refused[-1], 0) if self.refused[-1] else "")
        self.found = dict(firewall.found + watch.found)

    @property
    def one(self):
        """The first column of the last row, None = missing."""
        return None if math.isnan(self.values[-1][0]) else self.values[-1][0]


@pytest.mark.parametrize(("time_us", "unit"), [(951_912_000_000, "ms"), (15_198_378, "")])
def test_trap_01_milliseconds_or_a_number_cut_short_in_a_field_of_microseconds(time_us, unit):
    seen = Seen("prb_use_dl_percent", [37], times=[time_us])
    assert seen.refused == ["time_unit"]
    assert str(time_us) in seen.details[0]
    seen = Seen("prb_use_dl_percent", [37], times=[NOW_US // 1000])
    assert "looks like ms" in seen.details[0]


def test_trap_02_a_count_of_prbs_in_a_field_of_percent():
    seen = Seen("prb_use_dl_percent", [354_196])
    assert seen.one is None
    assert seen.found == {("count_for_percent", "prb_use_dl_percent"): 1}
    assert seen.refused == ["no_value"]
    assert "354196 is not within 0 to 100 (count_for_percent)" in seen.details[0]


@pytest.mark.parametrize(("unit", "value"), [("0.1ms", None), ("us", 6.0148)])
def test_trap_03_a_delay_in_microseconds_for_tenths_of_milliseconds(unit, value):
    seen = Seen("rlc_delay_dl_ms", [6014.82], units={"rlc_delay_dl_ms": unit})
    assert seen.one == pytest.approx(value, abs=1e-3)
    assert seen.found == ({} if value else {("delay_unit", "rlc_delay_dl_ms"): 1})


def test_trap_04_a_latency_equal_to_the_clock():
    seen = Seen("prb_use_dl_percent", [37], times=[0])
    assert seen.refused == ["clock_unset"]
    assert "1748351986 s before Kafka's time" in seen.details[0]


@pytest.mark.parametrize(("latency_s", "refused"), [(59.9, None), (61.0, "latency"), (-59.9, None), (-61.0, "future")])
def test_trap_04_a_latency_beyond_what_is_declared(latency_s, refused):
    seen = Seen("prb_use_dl_percent", [37], times=[NOW_US - round(latency_s * 1e6)], max_latency_s=60.0)
    assert seen.refused == [refused]


@pytest.mark.parametrize(("kpi", "value"), [("cqi", 1835), ("cqi", 15.5), ("mcs", 32), ("rank", 0), ("rank", 9)])
def test_trap_05_an_index_that_no_table_has(kpi, value):
    seen = Seen(kpi, [value])
    assert seen.one is None
    assert seen.found == {("bad_index", kpi): 1}


def test_trap_06_a_counter_that_repeats_another():
    columns = "prb_used_dl rlc_delay_ul_ms"
    rows = [[value, value] for value in (3, 5, 4, 6, 2, 7, 5, 8, 9)]
    seen = Seen(columns, [*rows, [9, 8]], units={"rlc_delay_ul_ms": "0.1ms"})
    assert not np.isnan(seen.values[:7]).any()
    assert np.isnan(seen.values[7:9]).all()
    assert not np.isnan(seen.values[9]).any()  # the first difference ends it
    assert seen.found == {("repeats_another", "prb_used_dl"): 2, ("repeats_another", "rlc_delay_ul_ms"): 2}


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_trap_06_idle_and_full_alike_are_no_copies(value):
    assert Seen("prb_use_dl_percent prb_use_ul_percent", [[value, value]] * 30).found == {}


@pytest.mark.parametrize(
    ("columns", "row", "possible"),
    [
        ("prb_use_dl_percent prb_used_dl prb_avail_dl", [0, 1.0, 106], True),
        ("prb_use_dl_percent prb_used_dl prb_avail_dl", [0, 1.2, 106], False),
        ("prb_use_dl_percent prb_used_dl prb_avail_dl", [0, 1.2, None], True),
        ("dl_throughput_kbps dl_volume_kbit", [0, 0], True),
        ("dl_throughput_kbps dl_volume_kbit", [0, 12], False),
        ("dl_throughput_kbps dl_volume_kbit", [0, None], True),
        ("ul_throughput_kbps ul_volume_kbit", [0, 12], False),
    ],
)
def test_trap_07_an_impossible_zero(columns, row, possible):
    seen = Seen(columns, [row])
    assert (seen.one == 0.0) is possible
    assert seen.found == ({} if possible else {("impossible_zero", columns.split()[0]): 1})


@pytest.mark.parametrize(
    ("used", "available", "n_rb", "found"),
    [
        (-1, 106, 106, {("negative", "prb_used_dl"): 1}),
        (107, 106, 0, {("prb_above_available", "prb_used_dl"): 1}),
        (100, 273, 106, {("prb_above_carrier", "prb_avail_dl"): 1}),
        (106, 106, 106, {}),
    ],
)
def test_trap_08_more_or_fewer_resource_blocks_than_there_can_be(used, available, n_rb, found):
    assert Seen("prb_used_dl prb_avail_dl", [[used, available]], n_rb=n_rb).found == found


@pytest.mark.parametrize(
    ("kpi", "raw", "unit", "value"),
    [
        ("hysteresis_db", 16, None, None),
        ("hysteresis_db", 30, None, None),
        ("hysteresis_db", 16, "half dB", 8.0),
        ("hysteresis_db", 4, "half dB", 2.0),
        ("a3_offset_db", -30, None, None),
        ("a3_offset_db", -30, "half dB", -15.0),
    ],
)
def test_trap_09_settings_in_steps_of_half_a_db(kpi, raw, unit, value):
    seen = Seen(kpi, [raw], units={kpi: unit} if unit else None)
    assert seen.one == value
    assert seen.found == ({} if unit else {("half_db", kpi): 1})


def test_trap_10_a_code_in_a_field_of_dbm():
    seen = Seen("rsrp_dbm", [97, 96, 97])
    assert seen.one is None
    assert seen.found == {("code_for_dbm", "rsrp_dbm"): 3}
    assert not any(seen.doubted)


@pytest.mark.parametrize(
    ("unit", "code", "dbm"),
    [
        ("NR code", 97, -60),
        ("NR code", 1, -156),
        ("NR code", 126, -31),
        ("NR code", 96.5, -60.5),
        ("LTE code", 97, -44),
        ("NR L1 code", 112, -45),
    ],
)
def test_trap_10_a_declared_code_is_converted_to_its_lower_edge(unit, code, dbm):
    seen = Seen("rsrp_dbm", [code], units={"rsrp_dbm": unit})
    assert seen.one == dbm
    assert seen.found == {}


@pytest.mark.parametrize(("code", "reason"), [(0, "open_below"), (127, "range"), (200, "range"), (-170, "range")])
def test_trap_10_a_code_without_a_value_is_missing_by_name(code, reason):
    seen = Seen("rsrp_dbm", [code], units={"rsrp_dbm": "NR code"})
    assert seen.one is None
    assert seen.found == {(reason, "rsrp_dbm"): 1}


@pytest.mark.parametrize(("unit", "wrong", "right"), [(None, 66, -91), ("NR code", -91, 66)])
def test_trap_10_mixed_signs_put_a_series_in_quarantine_until_one_sign_has_lasted(unit, wrong, right):
    rows = [right, wrong, *[right] * 4, wrong, *[right] * 14]
    seen = Seen("rsrp_dbm", rows, units={"rsrp_dbm": unit} if unit else None, quarantine_steps=12)
    assert seen.doubted == [False, *[True] * 5, *[True] * 13, False, False]
    assert seen.found["mixed_signs", "rsrp_dbm"] == 18
    assert seen.found["code_for_dbm", "rsrp_dbm"] == 2
    assert seen.one == -91


def test_trap_10_the_wrong_sign_first_is_mixed_too():
    assert Seen("rsrp_dbm", [66, -91, -91], quarantine_steps=1).doubted == [False, True, True]
    assert Seen("rsrp_dbm", [66, -91, -91, -91], quarantine_steps=1).doubted[-1] is False


@pytest.mark.parametrize(("before", "after", "noticed"), [(-90, -89, 1), (-90, -91, 1), (-90, -88.5, 0), (-90, -90, 0)])
def test_trap_11_a_level_that_shifts_by_one_step_is_noticed_and_nothing_is_changed(before, after, noticed):
    noise = np.random.default_rng(3).normal(0, 0.3, 400).round(2)
    rows = np.r_[before + noise[:200], after + noise[200:]]
    seen = Seen("rsrp_dbm", rows, shift_steps=100)
    assert seen.found == ({("level_shift", "rsrp_dbm"): 1} if noticed else {})
    np.testing.assert_array_equal(np.ravel(seen.values), rows.astype(np.float32))


def test_trap_11_levels_of_ues_are_not_compared():
    assert Seen("rsrp_dbm", [-90.0] * 200 + [-89.0] * 200, shift_steps=100, ues=True).found == {}


@pytest.mark.parametrize(
    ("stamp", "ago_s", "refused"), [("begin", 900, None), ("begin", 300, "end_for_begin"), ("any", 300, None)]
)
def test_trap_12_the_end_of_a_period_for_its_begin(stamp, ago_s, refused):
    seen = Seen("prb_use_dl_percent", [37], times=[NOW_US - ago_s * 1_000_000], stamp=stamp)
    assert seen.refused == [refused]


@pytest.mark.parametrize(
    ("kpi", "unit", "sent", "value"),
    [
        ("dl_throughput_kbps", "Mbit/s", 48_211.5, None),  # it was kbit/s
        ("dl_throughput_kbps", "kbit/s", 48_211.5, 48_211.5),
        ("dl_volume_kbit", "Mbit", 2_000_000.0, None),  # 900 s of it: 2.2 Gbit/s
        ("dl_volume_kbit", "kbit", 2_000_000.0, 2_000_000.0),
    ],
)
def test_trap_13_kbit_for_mbit_is_more_than_the_radio_cell_carries(kpi, unit, sent, value):
    seen = Seen(kpi, [sent], units={kpi: unit}, peak_kbps=2_000_000.0)
    assert seen.one == value
    assert seen.found == ({} if value else {("above_peak", kpi): 1})


def test_trap_14_a_running_counter_read_as_a_gauge():
    rises = [1000.0 + 17 * step for step in range(DAY_QUARTERS + 5)]
    seen = Seen("dl_volume_kbit", [*rises, 5, 22, 39])
    assert not np.isnan(seen.values[:DAY_QUARTERS]).any()
    assert np.isnan(seen.values[DAY_QUARTERS:]).all()  # a fall is a reset of the counter, not load
    seen = Seen("dl_volume_kbit", [*rises, 5, 22, 7, 9, 8, 9])
    assert [math.isnan(row[0]) for row in seen.values[-6:]] == [True, True, True, True, False, False]
    assert ("running_counter", "dl_volume_kbit") in seen.found


def test_trap_14_real_load_falls_within_a_day():
    load = [50 + 40 * math.sin(2 * math.pi * step / DAY_QUARTERS) for step in range(4 * DAY_QUARTERS)]
    assert Seen("prb_use_dl_percent", load).found == {}


def test_trap_15_a_frozen_value():
    seen = Seen("prb_use_dl_percent", [36.5, *[37.0] * 14, 38.0])
    assert [math.isnan(row[0]) for row in seen.values] == [False] * 12 + [True] * 3 + [False]
    assert seen.found == {("frozen", "prb_use_dl_percent"): 3}


@pytest.mark.parametrize(
    ("columns", "row"),
    [("prb_use_dl_percent", 0.0), ("prb_use_dl_percent", 100.0), ("prb_avail_dl", 106), ("hysteresis_db", 2),
     ("cqi", 9), ("connected_ues", 12), ("serving", 1)],
)  # fmt: skip
def test_trap_15_what_is_idle_full_or_configured_stands_still_by_right(columns, row):
    assert Seen(columns, [row] * 40).found == {}


def test_trap_15_a_missing_value_neither_ends_nor_lengthens_a_frozen_one():
    rows = [37.0] * 6 + [None] * 3 + [37.0] * 6
    assert [math.isnan(row[0]) for row in Seen("prb_use_dl_percent", rows).values[-7:]] == [True, *[False] * 5, True]


def test_what_is_watched_is_configured():
    assert Seen("connected_ues", [12] * 40, watch=["connected_ues"]).found == {("frozen", "connected_ues"): 29}
    assert Seen("prb_use_dl_percent", [37] * 40, watch=[]).found == {}
    assert Seen("prb_use_dl_percent", [37] * 40, period_s=0.25).found == {}
    assert Seen("prb_use_dl_percent", [37] * 40, frozen_steps=0).found == {}


@pytest.mark.parametrize(("unit", "value"), [("ratio", None), ("1e-6", 0.0123)])
def test_trap_16_a_rate_times_a_million_read_as_a_share(unit, value):
    seen = Seen("packet_loss_ul_ratio", [12_300], units={"packet_loss_ul_ratio": unit})
    assert seen.one == pytest.approx(value)
    assert seen.found == ({} if value else {("rate_for_share", "packet_loss_ul_ratio"): 1})
    assert Seen("packet_loss_ul_ratio", [1_000_001], units={"packet_loss_ul_ratio": "1e-6"}).one is None


def test_codes_of_ratios_in_db():
    assert Seen("rsrq_db", [67]).found == {("code_for_db", "rsrq_db"): 1}
    seen = Seen("rsrq_db sinr_db", [[67, 67]], units={"rsrq_db": "NR code", "sinr_db": "NR code"})
    assert seen.values == [[-10.0, 10.0]]
    assert Seen("rsrq_db", [-10.5], units={"rsrq_db": "NR code"}).found == {("range", "rsrq_db"): 1}


def test_a_unit_that_cannot_be_is_a_config_error():
    with pytest.raises(
        ConfigError, match=r"rsrp_dbm is in dBm; a sender may declare dBm, NR code, NR L1 code, LTE code"
    ):
        Seen("rsrp_dbm", [1], units={"rsrp_dbm": "W"})


values = st.none() | st.floats(-200, 200, width=32) | st.sampled_from([0.0, 37.0, 97.0, -91.0, 1e9, math.inf])
stamps = st.sampled_from([0, NOW_US // 1000, NOW_US, NOW_US + 10**12, 2**62])
table = st.lists(st.tuples(values, values, values, stamps, stamps), min_size=40, max_size=40)
COLUMNS = ("prb_use_dl_percent", "rsrp_dbm", "prb_use_ul_percent")


def clean_rows():
    """40 rounds of four series that nothing is wrong with but one stamp of each that lies in the future."""
    rng = np.random.default_rng(1)
    rows = rng.uniform(10, 90, (40, 4, 3)).round(1).astype(np.float32)
    rows[..., 1] -= 150
    times = np.full((40, 4), NOW_US) + np.where(np.arange(40)[:, None] == 7, 61_000_000, 59_000_000)
    return rows, times


def verdicts_on_others(place, mutant):
    """What becomes of the other three series in each round while series ``place`` sends what ``mutant`` says."""
    rows, times = clean_rows()
    ingest = np.full((40, 4), NOW_US)
    for step, (*sent, time_us, ingest_us) in enumerate(mutant):
        rows[step, place] = [math.nan if value is None else value for value in sent]
        times[step, place], ingest[step, place] = time_us, ingest_us
    firewall, watch = Firewall(COLUMNS, COLUMNS, 60.0), Watch(COLUMNS, ChecksConfig(), 900.0)
    state = {name: np.full((4, *spec.shape), spec.fill, spec.dtype) for name, spec in watch.state_spec().items()}
    keep = [row for row in range(4) if row != place]
    verdicts = []
    for step in range(40):
        decoded = Decoded(["c"] * 4, np.arange(4), times[step], rows[step], np.zeros(4, np.uint8), [])
        refused = firewall.inspect(decoded, ingest[step], watched=True).refused
        believed, doubted = watch.judge(decoded.values, state)
        masks = {name: mask[keep].tolist() for name, mask in refused.items() if mask[keep].any()}
        verdicts.append((believed[keep].tolist(), doubted[keep].tolist(), masks))
    return verdicts


@settings(max_examples=100, deadline=None)
@given(table, st.integers(0, 3))
def test_no_mutation_of_a_series_changes_a_verdict_on_another(mutant, place):
    rows, _ = clean_rows()
    found = verdicts_on_others(place, mutant)
    for step, (believed, doubted, masks) in enumerate(found):
        np.testing.assert_array_equal(believed, np.delete(rows[step], place, axis=0))
        assert doubted == [False] * 3
        assert masks == ({"future": [True] * 3} if step == 7 else {})


def test_every_reason_that_the_code_gives_is_in_the_closed_list_and_the_other_way_round():
    root = Path(__file__).parents[2]
    given_reasons = set()
    files = ["netpredict/pipeline.py", *(f"netpredict/ingest/{name}.py" for name in ("firewall", "watch", "document"))]
    for path in [root / name for name in files] + sorted((root / "plugins/decoders").glob("*/[!t]*.py")):
        given_reasons |= set(re.findall(r'"([a-z_0-9]+)"', path.read_text()))
    assert REASONS.keys() <= given_reasons, sorted(REASONS.keys() - given_reasons)
    calls = r'(?:DocumentError|_RefusedError|Reject)\(\s*(?:position, )?"([a-z_]+)"'
    for path in sorted((root / "plugins/decoders").glob("*/[!t]*.py")):
        assert set(re.findall(calls, path.read_text())) <= REASONS.keys(), path
    assert all(reason.meaning and reason.effect for reason in REASONS.values())

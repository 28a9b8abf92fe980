import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio import quantities as q

MAPS = [q.NR_RSRP, q.NR_RSRQ, q.NR_SINR, q.NR_L1_RSRP, q.LTE_RSRP, q.LTE_RSRQ]
THRESHOLDS = [q.NR_RSRP_THRESHOLD, q.NR_RSRQ_THRESHOLD, q.NR_SINR_THRESHOLD]

# function, value, code: both sides of both ends of every table
EDGES = [
    (q.nr_rsrp_index, -200.0, 0),
    (q.nr_rsrp_index, -156.001, 0),
    (q.nr_rsrp_index, -156.0, 1),
    (q.nr_rsrp_index, -155.001, 1),
    (q.nr_rsrp_index, -31.001, 125),
    (q.nr_rsrp_index, -31.0, 126),
    (q.nr_rsrp_index, 0.0, 126),
    (q.nr_rsrq_index, -43.001, 0),
    (q.nr_rsrq_index, -43.0, 1),
    (q.nr_rsrq_index, 19.999, 126),
    (q.nr_rsrq_index, 20.0, 127),
    (q.nr_rsrq_index, 30.0, 127),
    (q.nr_sinr_index, -23.001, 0),
    (q.nr_sinr_index, -23.0, 1),
    (q.nr_sinr_index, 39.999, 126),
    (q.nr_sinr_index, 40.0, 127),
    (q.nr_l1_rsrp_index, -141.0, 17),
    (q.nr_l1_rsrp_index, -139.001, 17),
    (q.nr_l1_rsrp_index, -139.0, 18),
    (q.nr_l1_rsrp_index, -45.001, 111),
    (q.nr_l1_rsrp_index, -45.0, 112),
    (q.nr_l1_rsrp_index, -30.0, 112),
    (q.lte_rsrp_index, -140.001, 0),
    (q.lte_rsrp_index, -140.0, 1),
    (q.lte_rsrp_index, -44.001, 96),
    (q.lte_rsrp_index, -44.0, 97),
    (q.lte_rsrq_index, -19.501, 0),
    (q.lte_rsrq_index, -19.5, 1),
    (q.lte_rsrq_index, -3.001, 33),
    (q.lte_rsrq_index, -3.0, 34),
]


@pytest.mark.parametrize(("index", "value", "code"), EDGES)
def test_a_value_at_an_edge_has_the_published_code(index, value, code):
    assert index(value) == code
    assert index(np.array([[value]])).tolist() == [[code]]


@pytest.mark.parametrize(
    ("lower_edge", "code", "value"),
    [
        (q.nr_rsrp_dbm, 1, -156.0),
        (q.nr_rsrp_dbm, 126, -31.0),
        (q.nr_rsrq_db, 1, -43.0),
        (q.nr_rsrq_db, 127, 20.0),
        (q.nr_sinr_db, 1, -23.0),
        (q.nr_sinr_db, 127, 40.0),
        (q.nr_l1_rsrp_dbm, 18, -139.0),
        (q.nr_l1_rsrp_dbm, 112, -45.0),
        (q.lte_rsrp_dbm, 1, -140.0),
        (q.lte_rsrp_dbm, 97, -44.0),
        (q.lte_rsrq_db, 1, -19.5),
        (q.lte_rsrq_db, 34, -3.0),
    ],
)
def test_a_code_has_the_published_lower_edge(lower_edge, code, value):
    assert lower_edge(code) == value
    np.testing.assert_array_equal(lower_edge(np.array([code, code])), [value, value])


@pytest.mark.parametrize("code_map", MAPS, ids=lambda code_map: code_map.name)
def test_the_first_code_is_flagged_and_has_no_value(code_map):
    assert math.isnan(code_map.lower_edge(code_map.first))
    assert code_map.is_open_below(code_map.first) is True
    assert code_map.is_open_below(np.array([code_map.first, code_map.last])).tolist() == [True, False]


@pytest.mark.parametrize("code_map", MAPS, ids=lambda code_map: code_map.name)
def test_a_code_outside_the_table_has_no_value(code_map):
    assert np.isnan(code_map.lower_edge(np.array([code_map.first - 1, code_map.last + 1, np.nan]))).all()


def test_rsrp_code_127_is_never_a_measurement():
    assert math.isnan(q.nr_rsrp_dbm(127))
    assert q.nr_rsrp_index(math.inf) == 126


@pytest.mark.parametrize("code_map", MAPS, ids=lambda code_map: code_map.name)
def test_a_missing_value_has_no_code(code_map):
    assert code_map.index(math.nan) == q.NO_CODE
    assert code_map.index(np.array([np.nan], dtype=np.float32)).tolist() == [q.NO_CODE]


def test_an_average_of_codes_is_converted_without_rounding():
    assert q.nr_rsrp_dbm(70.25) == -86.75
    assert q.nr_sinr_db(70.5) == 11.75


@given(st.sampled_from(MAPS), st.data())
def test_the_code_of_a_lower_edge_is_that_code(code_map, data):
    code = data.draw(st.integers(code_map.first + 1, code_map.last))
    assert code_map.index(code_map.lower_edge(code)) == code
    assert code_map.index(np.float32([code_map.lower_edge(code)])).tolist() == [code]


@given(st.sampled_from(MAPS), st.floats(-300, 300))
def test_a_value_lies_in_the_interval_of_its_code(code_map, value):
    code = code_map.index(value)
    assert code_map.first <= code <= code_map.last
    if not code_map.is_open_below(code):
        assert code_map.lower_edge(code) <= value
    if code < code_map.last:
        assert value < code_map.lower_edge(code + 1)


@pytest.mark.parametrize(
    ("threshold", "code", "value"),
    [
        (q.NR_RSRP_THRESHOLD, 0, -156.0),
        (q.NR_RSRP_THRESHOLD, 126, -30.0),
        (q.NR_RSRP_THRESHOLD, 127, math.inf),
        (q.NR_RSRQ_THRESHOLD, 0, -43.5),
        (q.NR_RSRQ_THRESHOLD, 127, 20.0),
        (q.NR_SINR_THRESHOLD, 0, -23.0),
        (q.NR_SINR_THRESHOLD, 127, 40.5),
    ],
)
def test_a_threshold_goes_by_its_own_rule(threshold, code, value):
    assert threshold.value(code) == value
    assert threshold.value(np.array([code])).tolist() == [value]
    assert threshold.code(value) == code


def test_a_threshold_is_one_step_from_the_measurement_of_the_same_code():
    assert q.nr_rsrp_threshold_dbm(100) - q.nr_rsrp_dbm(100) == 1.0
    assert q.nr_sinr_threshold_db(100) - q.nr_sinr_db(100) == 0.5
    assert q.nr_rsrq_threshold_db(100) == q.nr_rsrq_db(100)


@given(st.sampled_from(THRESHOLDS), st.integers(0, 127))
def test_the_code_of_a_threshold_is_that_code(threshold, code):
    assert threshold.code(threshold.value(code)) == code
    assert threshold.code(np.array([threshold.value(code)])).tolist() == [code]


@pytest.mark.parametrize("code", [-1, 128, 1.5, math.nan])
def test_a_wrong_threshold_code_is_refused(code):
    with pytest.raises(ConfigError, match=r"integer in 0\.\.127"):
        q.nr_rsrp_threshold_dbm(code)


@pytest.mark.parametrize("value_db", [-43.6, -43.75, 20.5, math.nan, math.inf])
def test_a_threshold_that_no_code_stands_for_is_refused(value_db):
    with pytest.raises(ConfigError, match=r"-43\.5\.\.19\.5 dB in steps of 0\.5"):
        q.nr_rsrq_threshold_code(value_db)


CHECKS = [
    (q.check_a3_offset_db, q.A3_OFFSET_DB, [-15.5, 15.5, 0.25, 16, math.nan], "-15..15 dB in steps of 0.5 dB"),
    (q.check_hysteresis_db, q.HYSTERESIS_DB, [-0.5, 15.5, 0.75, 30], "0..15 dB in steps of 0.5 dB"),
    (q.check_ttt_ms, q.TTT_MS, [-40, 1, 120, 5121], "0, 40, 64, 80"),
    (q.check_cio_db, q.CIO_DB, [-25, 7, -7, 0.5, 26], "-24, -22"),
    (q.check_filter_k, q.FILTER_K, [-1, 10, 12, 20, True], "11, 13, 15, 17, 19"),
    (q.check_report_ms, q.REPORT_MS, [0, 121, 1_000_000], "120, 240, 480"),
]


@pytest.mark.parametrize(
    ("check", "allowed", "wrong", "wording"), CHECKS, ids=lambda value: getattr(value, "__name__", "")
)
def test_an_allowed_setting_passes_and_another_is_refused_by_name(check, allowed, wrong, wording):
    assert [check(value) for value in allowed] == list(allowed)
    for value in wrong:
        with pytest.raises(ConfigError) as refusal:
            check(value, key="hooks.handover.setting")
        assert str(refusal.value).startswith("hooks.handover.setting = ")
        assert wording in str(refusal.value)


def test_the_allowed_settings_are_those_of_the_standard():
    assert (q.A3_OFFSET_DB[0], q.A3_OFFSET_DB[-1], len(q.A3_OFFSET_DB)) == (-15, 15, 61)
    assert (q.HYSTERESIS_DB[0], q.HYSTERESIS_DB[-1], len(q.HYSTERESIS_DB)) == (0, 15, 31)
    assert (len(q.TTT_MS), len(q.CIO_DB), len(q.FILTER_K), len(q.REPORT_MS)) == (16, 31, 15, 14)
    assert sorted(-cio_db for cio_db in q.CIO_DB) == list(q.CIO_DB)
    assert q.FILTER_K_DEFAULT in q.FILTER_K


@pytest.mark.parametrize(
    ("cio_db", "rungs", "moved_db"),
    [(0, 1, 1), (6, 1, 8), (8, -1, 6), (-6, -1, -8), (24, 1, 24), (-24, -3, -24), (5, 3, 10)],
)
def test_a_cio_moves_along_the_ladder(cio_db, rungs, moved_db):
    assert q.step_cio_db(cio_db, rungs) == moved_db


def test_cios_move_as_arrays():
    assert q.step_cio_db(np.array([0, 6, 24]), np.array([-1, 1, 1])).tolist() == [-1, 8, 24]
    with pytest.raises(ConfigError, match="use one of -24, -22"):
        q.step_cio_db(np.array([0, 7]), 1)


@given(st.sampled_from(q.CIO_DB), st.integers(-100, 100))
def test_a_cio_never_leaves_the_ladder_and_steps_back_unless_it_hit_an_end(cio_db, rungs):
    moved_db = q.step_cio_db(cio_db, rungs)
    assert moved_db in q.CIO_DB
    if moved_db not in (q.CIO_DB[0], q.CIO_DB[-1]):
        assert q.step_cio_db(moved_db, -rungs) == cio_db


KPI_RANGES = {
    "dl_throughput_kbps": (0, 100_000_000, 0),
    "ul_throughput_kbps": (0, 100_000_000, 0),
    "prb_use_dl_percent": (0, 100, 1),
    "prb_use_ul_percent": (0, 100, 1),
    "connected_ues": (0, 10_000, 1),
    "rsrp_dbm": (-156, -31, 2),
    "rsrq_db": (-43, 20, 2),
    "sinr_db": (-23, 40, 2),
    "cqi": (0, 15, 2),
    "rank": (1, 8, 2),
    "bler_ratio": (0, 1, 4),
    "mcs": (0, 31, 2),
    "serving": (0, 1, 0),
    "approximate": (0, 1, 0),
    "granted_prbs": (0, 1_000_000, 0),
    "nbr1_rsrp_dbm": (-156, -31, 2),
    "nbr1_rsrq_db": (-43, 20, 2),
    "nbr1_sinr_db": (-23, 40, 2),
    "nbr2_rsrp_dbm": (-156, -31, 2),
    "onsite_rsrp_dbm": (-156, -31, 2),
    "offsite_rsrp_dbm": (-156, -31, 2),
    "stay_cost": (-0.5, 1.5, 4),
    "command_failure_ratio": (0, 1, 4),
    "access_failure_ratio": (0, 1, 4),
    "allocated_prbs": (0, 400, 1),
    "prb_used_dl": (0, 10_000, 1),
    "prb_used_ul": (0, 10_000, 1),
    "prb_avail_dl": (0, 10_000, 1),
    "prb_avail_ul": (0, 10_000, 1),
    "dl_volume_kbit": (0, 2_000_000_000, 0),
    "ul_volume_kbit": (0, 2_000_000_000, 0),
    "rlc_delay_dl_ms": (0, 300, 2),
    "rlc_delay_ul_ms": (0, 300, 2),
    "packet_loss_ul_ratio": (0, 1, 6),
    "packet_drop_dl_ratio": (0, 1, 6),
    "hysteresis_db": (0, 15, 1),
    "a3_offset_db": (-15, 15, 1),
    "activity_count": (0, 1e9, 0),
}


def test_the_kpi_catalogue_holds_exactly_the_known_kpis():
    assert {name: (kpi.low, kpi.high, kpi.decimals) for name, kpi in q.KPIS.items()} == KPI_RANGES
    assert all(kpi.name == name and kpi.unit and kpi.description for name, kpi in q.KPIS.items())


def test_the_measured_range_of_a_kpi_is_that_of_its_codes():
    for code_map, name in [(q.NR_RSRP, "rsrp_dbm"), (q.NR_RSRQ, "rsrq_db"), (q.NR_SINR, "sinr_db")]:
        assert code_map.lower_edge(code_map.first + 1) == q.KPIS[name].low
        assert code_map.lower_edge(code_map.last) == q.KPIS[name].high

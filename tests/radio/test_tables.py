import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio import tables

MCS_TABLES = [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("qm", "rate_x1024", "printed"), [(4, 616, 2.4063), (8, 948, 7.4063), (8, 682.5, 5.3320), (10, 805.5, 7.8662)]
)
def test_an_efficiency_is_rounded_half_up(qm, rate_x1024, printed):
    assert tables.efficiency(qm, rate_x1024) == printed


def test_python_would_round_the_ties_the_other_way():
    assert round(4 * 616 / 1024, 4) == 2.4062


def test_cqi_15_means_something_else_in_every_table():
    assert [float(tables.cqi_efficiency(table)[15]) for table in MCS_TABLES] == [5.5547, 7.4063, 4.5234, 9.2578]


def test_cqi_0_is_out_of_range_and_has_no_mcs():
    for table in MCS_TABLES:
        assert tables.cqi_efficiency(table)[0] == 0.0
        assert tables.cqi_to_mcs(table)[0] == tables.NO_MCS


def test_no_mcs_reads_no_efficiency():
    for table in MCS_TABLES:
        assert np.isnan(tables.mcs_efficiency(table)[tables.NO_MCS])


def test_an_mcs_is_as_efficient_as_its_cqi_except_below_mcs_0():
    for table in MCS_TABLES:
        by_mcs = tables.mcs_efficiency(table)[tables.cqi_to_mcs(table)]
        optimistic = np.flatnonzero(by_mcs[1:] != tables.cqi_efficiency(table)[1:]) + 1
        assert optimistic.tolist() == ([] if table == 3 else [1])


def test_a_lookup_array_takes_an_array_of_any_shape():
    assert tables.cqi_to_mcs(1)[np.array([[0, 1], [8, 15]])].tolist() == [[-1, 0], [13, 28]]


@pytest.mark.parametrize("lookup", [tables.cqi_efficiency, tables.mcs_efficiency, tables.cqi_to_mcs])
def test_a_shared_array_cannot_be_written(lookup):
    with pytest.raises(ValueError, match="read-only"):
        lookup(1)[0] = 1


@pytest.mark.parametrize(
    "lookup",
    [
        *(tables.cqi_rows, tables.mcs_rows, tables.cqi_efficiency, tables.mcs_efficiency, tables.cqi_to_mcs),
        *(tables.pusch_tp_mcs_rows, tables.pusch_tp_mcs_efficiency),
    ],
)
def test_an_unknown_table_is_refused(lookup):
    with pytest.raises(ConfigError, match="use one of 1, 2"):
        lookup(5)


def test_only_pdsch_table_1_is_not_monotone():
    falls = {table: np.flatnonzero(np.diff(tables.mcs_efficiency(table)) <= 0).tolist() for table in MCS_TABLES}
    assert falls == {1: [16], 2: [], 3: [], 4: []}
    assert all((np.diff([row.efficiency for row in tables.pusch_tp_mcs_rows(table)]) > 0).all() for table in (1, 2))


@pytest.mark.parametrize(
    ("efficiency", "mcs"),
    [
        *((0.0, -1), (0.2340, -1), (0.2344, 0), (0.3065, 0), (2.4062, 15), (2.4063, 15), (2.40625, 15)),
        *((2.5660, 15), (2.5664, 17), (2.5690, 17), (2.5703, 17), (2.7305, 18), (5.5547, 28), (99.0, 28)),
        *((float("nan"), -1), (float("inf"), 28)),
    ],
)
def test_the_highest_mcs_is_found_though_table_1_falls(efficiency, mcs):
    assert tables.highest_mcs_at_or_below(efficiency, 1) == mcs
    assert tables.highest_mcs_at_or_below(np.float32([[efficiency]]), 1).tolist() == [[mcs]]


def test_every_mcs_finds_itself_or_its_equal_above():
    for table in MCS_TABLES:
        rows = tables.mcs_rows(table)
        found = tables.highest_mcs_at_or_below(np.array([row.efficiency for row in rows]), table)
        expected = list(range(len(rows)))
        if table == 1:
            expected[16] = 17
        assert found.tolist() == expected


@given(st.floats(0, 12), st.sampled_from(MCS_TABLES))
def test_the_highest_mcs_is_at_or_below_and_no_higher_one_is(efficiency, table):
    efficiencies = [row.efficiency for row in tables.mcs_rows(table)]
    mcs = tables.highest_mcs_at_or_below(efficiency, table)
    assert mcs == tables.NO_MCS or efficiencies[mcs] <= efficiency + 2 * tables.EFFICIENCY_TOLERANCE
    assert all(higher > efficiency for higher in efficiencies[mcs + 1 :])


@pytest.mark.parametrize(("table", "count"), [(1, 2), (2, 6)])
def test_pi2_bpsk_doubles_the_rate_of_the_leading_rows(table, count):
    with_bpsk, without = tables.pusch_tp_mcs_rows(table, q=1), tables.pusch_tp_mcs_rows(table)
    assert with_bpsk[count:] == without[count:]
    for ours, theirs in zip(with_bpsk[:count], without[:count], strict=True):
        assert ours == tables.Row(1, 2 * theirs.rate_x1024, theirs.efficiency)
        assert tables.efficiency(ours.qm, ours.rate_x1024) == theirs.efficiency
    with pytest.raises(ConfigError, match=r"q = 3 .* use 1 \(tp-pi2BPSK\) or 2"):
        tables.pusch_tp_mcs_rows(table, q=3)


def test_cqi_table_3_aims_at_a_much_lower_bler():
    assert {table: tables.CQI_BLER_TARGET_RATIO[table] for table in MCS_TABLES} == {1: 0.1, 2: 0.1, 3: 1e-5, 4: 0.1}


def test_resource_blocks_differ_between_the_frequency_ranges():
    assert (tables.n_rb(50, 60), tables.n_rb(50, 60, "FR2")) == (65, 66)


@pytest.mark.parametrize(
    ("mhz", "khz", "frequency_range", "wording"),
    [
        (100, 15, "FR1", r"use one of \[5, 10, 15, 20, 25, 30, 35, 40, 45, 50\]"),
        (3, 30, "FR1", r"use one of \[5, 10"),
        (100, 120, "FR1", r"'FR1': \(15, 30, 60\)"),
        (400, 60, "FR2", r"use one of \[50, 100, 200\]"),
        (100, 30, "FR3", r"'FR2': \(60, 120\)"),
    ],
)
def test_an_undefined_carrier_is_refused_with_what_is_allowed(mhz, khz, frequency_range, wording):
    with pytest.raises(ConfigError, match=wording):
        tables.n_rb(mhz, khz, frequency_range)


def test_the_ceiling_of_a_100_mhz_carrier_is_2337_mbit_per_s():
    ceiling_bps = tables.peak_bps(tables.n_rb(100, 30), 30, 4, 8, tables.OVERHEAD_RATIO["dl", "FR1"])
    assert ceiling_bps == pytest.approx(2337e6, abs=0.5e6)

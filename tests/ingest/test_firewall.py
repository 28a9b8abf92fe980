import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.ingest.decode import Decoded
from netpredict.ingest.firewall import EARLIEST_US, LATEST_US, MAX_FIELD_CHARACTERS, Firewall, bad_key

NOW_US = 1_700_000_000_000_000


def decoded(values, times=None):
    n = len(values)
    return Decoded(
        [f"cell-{i}" for i in range(n)],
        np.arange(n, dtype=np.int32),
        np.array(times or [NOW_US] * n, np.int64),
        np.array(values, np.float32).reshape(n, 2),
        np.zeros(n, np.uint8),
        [],
    )


def judged(values, times=None, ingest=None, columns=("prb_use_dl_percent", "rsrp_dbm"), kpis=("prb_use_dl_percent",)):
    """The rows, the verdict on them, and what was found by (reason, KPI)."""
    rows, firewall = decoded(values, times), Firewall(columns, kpis, 60.0)
    verdict = firewall.inspect(rows, np.array(ingest or [NOW_US] * len(values), np.int64))
    return rows, verdict, dict(firewall.found)


def inspect(*args, **options):
    return judged(*args, **options)[:2]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-0.01, "negative"), (100.1, "count_for_percent"), (np.inf, "count_for_percent"), (-np.inf, "negative")],
)
def test_an_implausible_value_becomes_missing_and_is_counted(value, reason):
    rows, verdict, found = judged([[50.0, -90.0], [value, -90.0]])
    assert np.isnan(rows.values[1, 0])
    assert rows.values[0].tolist() == [50.0, -90.0]
    assert found == {(reason, "prb_use_dl_percent"): 1}
    assert verdict.refused["no_value"].tolist() == [False, True]


def test_what_is_known_in_hindsight_only_does_not_save_a_row():
    columns = ("rsrp_dbm", "stay_cost")
    _, verdict, _ = judged([[-90.0, np.nan], [np.nan, 0.1]], columns=columns, kpis=columns)
    assert verdict.refused["no_value"].tolist() == [False, True]


@pytest.mark.parametrize("value", [0.0, -0.0, 100.0])
def test_the_ends_of_the_range_are_plausible(value):
    _, verdict, found = judged([[value, -90.0]])
    assert (verdict.refused, found) == ({}, {})


def test_a_feature_out_of_range_does_not_cost_the_row():
    rows, verdict, found = judged([[50.0, 12.0]])
    assert np.isnan(rows.values[0, 1])
    assert (verdict.refused, found) == ({}, {("code_for_dbm", "rsrp_dbm"): 1})


def test_one_kpi_of_two_is_enough():
    both = ("prb_use_dl_percent", "rsrp_dbm")
    _, verdict = inspect([[np.nan, -90.0], [np.nan, np.nan]], kpis=both)
    assert verdict.refused["no_value"].tolist() == [False, True]


@pytest.mark.parametrize(
    "time_us",
    [0, -1, 1970, EARLIEST_US - 1, 1_700_000_000, 1_700_000_000_000, LATEST_US + 1, 1_700_000_000_000_000_000, 2**62],
)
def test_stamps_that_are_no_microseconds_are_refused_whatever_the_ingest_time(time_us):
    _, verdict = inspect([[50.0, -90.0]], [time_us], [2**60])
    assert verdict.refused["time_unit"].all()


@pytest.mark.parametrize(("ahead_s", "refused"), [(-(10**6), False), (60, False), (61, True)])
def test_the_future_is_judged_against_the_ingest_time(ahead_s, refused):
    _, verdict = inspect([[50.0, -90.0]], [NOW_US + ahead_s * 1_000_000])
    assert ("future" in verdict.refused) is refused


@pytest.mark.parametrize(
    ("time_us", "found"),
    [
        (1_700_000_000, "1700000000, which looks like s;"),
        (1_700_000_000_000, "1700000000000, which looks like ms;"),
        (1_700_000_000_000_000_000, "1700000000000000000, which looks like ns;"),
        (12, "is 12; allowed are µs since 1970 of the years 2015 to 2099"),
        (-1, "is negative;"),
        (2**62, "is too large;"),
    ],
)
def test_a_refused_stamp_says_what_it_was_and_which_unit_it_looks_like(time_us, found):
    _, verdict = inspect([[50.0, -90.0]], [time_us])
    assert found in verdict.detail("time_unit", 0)


def test_a_stamp_of_the_future_says_how_far_ahead_it_is():
    _, verdict = inspect([[50.0, -90.0]], [NOW_US + 61_500_000])
    assert verdict.detail("future", 0) == "event_time_us is 61.500 s after Kafka's time; at most 60 s"


def test_a_row_without_a_value_says_what_was_found():
    columns = ("prb_use_dl_percent", "rsrp_dbm")
    _, verdict = inspect([[101.5, np.nan]], kpis=columns)
    assert verdict.detail("no_value", 0) == (
        "prb_use_dl_percent 101.5 is not within 0 to 100 (count_for_percent); rsrp_dbm is absent"
    )


def test_nothing_at_all_passes():
    _, verdict, found = judged(np.empty((0, 2)))
    assert (verdict.refused, found) == ({}, {})


def test_an_unknown_column_is_named():
    with pytest.raises(ConfigError, match=r"dl_thruput.*known are.*dl_throughput_kbps"):
        Firewall(("dl_thruput",), ("dl_thruput",), 60.0)


@pytest.mark.parametrize(
    "key",
    ["", "|", "ue|", "|cell", "ue", "ue|cell|more", "ue\n|cell", "ue\0|cell", "ue\u200b|cell", "ue\u2028|cell",
     "u" * (2 * MAX_FIELD_CHARACTERS) + "|c"],
)  # fmt: skip
def test_a_key_that_cannot_name_a_series(key):
    assert bad_key(key, 2)


@pytest.mark.parametrize("key", ["ue|cell", "$(rm -rf)|'\"; --", "../../etc|passwd", "уе|ячейка"])
def test_odd_but_printable_keys_are_names_like_any(key):
    assert bad_key(key, 2) is None

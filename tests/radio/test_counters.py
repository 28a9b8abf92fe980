import math

import pytest

from netpredict.radio.counters import COUNTERS, CounterRatio, known_counter, ratio
from netpredict.radio.events import MOBILITY_RATIOS
from netpredict.radio.link import BLER_RATIOS


@pytest.mark.parametrize(
    ("reported", "known"),
    [
        ("RRU.PrbTotDl", "RRU.PrbTotDl"),
        ("DRB.UEThpDl.sum", "DRB.UEThpDl"),
        ("TB.TotNbrDlInitial.64Qam", "TB.TotNbrDlInitial"),
        ("DRB.UEThpDl.1-010203.9", "DRB.UEThpDl"),
        ("DRB.PdcpSduVolumeDL_Filter", "DRB.PdcpSduVolumeDL"),
        ("CARR.WBCQIDist.Bin1.Bin2.Bin3", "CARR.WBCQIDist"),
        ("MM.HoExeInterReq.TimeMean", "MM.HoExeInterReq.TimeMean"),
        ("MM.HoExeInterReq.TimeMean.5", "MM.HoExeInterReq.TimeMean"),
        ("MM.HoExeInterReq.Timer", "MM.HoExeInterReq"),
        ("L1M.SS-RSRPNrNbr.3", "L1M.SS-RSRPNrNbr"),
        ("DRB.PdcpSduVolumeDl", None),
        ("RRU.PrbTotDlX", None),
        ("RRU", None),
        ("", None),
    ],
)
def test_the_longest_known_name_at_a_separator_wins(reported, known):
    assert known_counter(reported) == (COUNTERS[known] if known else None)


@pytest.mark.parametrize("denominator", [0, None, math.nan, math.inf])
def test_a_ratio_without_a_denominator_has_no_value(denominator):
    assert ratio(1, denominator) is None


def test_a_ratio_without_a_numerator_has_no_value_but_one_of_zero_has():
    assert ratio(None, 4) is None
    assert ratio(math.nan, 4) is None
    assert ratio(0, 4) == 0.0


def test_a_ratio_of_counters_needs_all_of_them():
    share = CounterRatio("a", ("b", "c"))
    assert share.of({"a": 1, "b": 2, "c": 2}) == 0.25
    assert share.of({"a": 1, "b": 2}) is None
    assert share.of({"b": 2, "c": 2}) is None


def test_every_ratio_is_made_of_known_counters():
    for share in [*MOBILITY_RATIOS.values(), *BLER_RATIOS.values()]:
        assert {share.numerator, *share.denominators} <= set(COUNTERS)

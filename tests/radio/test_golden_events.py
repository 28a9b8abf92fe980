"""Events, L3 filter, time to trigger and OLLA as the reference writes them down, word for word, against ours."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio import events, link
from netpredict.radio.events import NeighbourOffsets
from netpredict.radio.link import Olla
from netpredict.radio.quantities import CIO_DB, FILTER_K, REPORT_MS, TTT_MS

# TS 38.331 5.5.4.2 to 5.5.4.6
CONDITIONS = """\
A1|Ms - Hys > Thresh|Ms + Hys < Thresh
A2|Ms + Hys < Thresh|Ms - Hys > Thresh
A3|Mn + Ofn + Ocn - Hys > Mp + Ofp + Ocp + Off|Mn + Ofn + Ocn + Hys < Mp + Ofp + Ocp + Off
A4|Mn + Ofn + Ocn - Hys > Thresh|Mn + Ofn + Ocn + Hys < Thresh
A5|Mp + Hys < Thresh1 and Mn + Ofn + Ocn - Hys > Thresh2|Mp - Hys > Thresh1 or Mn + Ofn + Ocn + Hys < Thresh2
"""
ROWS = {name: (entering, leaving) for name, entering, leaving in csv.reader(CONDITIONS.splitlines(), delimiter="|")}
OURS = {
    "A1": lambda v: events.a1(v["Ms"], v["Thresh"], v["Hys"]),
    "A2": lambda v: events.a2(v["Ms"], v["Thresh"], v["Hys"]),
    "A3": lambda v: events.a3(v["Mp"], v["Mn"], v["Off"], v["Hys"], offsets_of(v)),
    "A4": lambda v: events.a4(v["Mn"], v["Thresh"], v["Hys"], offsets_of(v)),
    "A5": lambda v: events.a5(v["Mp"], v["Mn"], v["Thresh1"], v["Thresh2"], v["Hys"], offsets_of(v)),
}
OFFSETS = ("Ofn", "Ocn", "Ofp", "Ocp")


def offsets_of(values):
    return NeighbourOffsets(values["Ofn"], values["Ocn"], values["Ofp"], values["Ocp"])


# few values on a grid of half dB, so that sides are often equal: comparisons are strict
levels = st.integers(-204, -196).map(lambda halves: halves / 2)
small = st.integers(-3, 3).map(lambda halves: halves / 2)
VALUES = st.fixed_dictionaries(
    {
        **dict.fromkeys(("Ms", "Mp", "Mn", "Thresh", "Thresh1", "Thresh2"), levels),
        **dict.fromkeys((*OFFSETS, "Off"), small),
        "Hys": st.integers(0, 3).map(lambda halves: halves / 2),
    }
)


@pytest.mark.parametrize("name", ROWS)
@settings(deadline=None)
@given(values=VALUES)
def test_an_event_is_what_the_standard_writes(name, values):
    entering, leaving = (eval(text, {"__builtins__": {}}, values) for text in ROWS[name])
    ours = OURS[name](values)
    assert (bool(ours.entering), bool(ours.leaving)) == (entering, leaving)


# TS 38.331 5.5.3.2: a = 0.5 ** (k / 4), k as RRC has it
L3 = """\
k,a
0,1.000000
1,0.840896
2,0.707107
3,0.594604
4,0.500000
5,0.420448
6,0.353553
7,0.297302
8,0.250000
9,0.210224
11,0.148651
13,0.105112
15,0.074325
17,0.052556
19,0.037163
"""


def test_every_filter_coefficient_has_its_weight():
    rows = {int(row["k"]): float(row["a"]) for row in csv.DictReader(L3.splitlines())}
    assert tuple(rows) == FILTER_K
    assert {k: round(events.l3_weight(k), 6) for k in FILTER_K} == rows
    for k in set(range(-1, 21)) - rows.keys():
        with pytest.raises(ConfigError, match=f"filter_k = {k}"):
            events.l3_weight(k)


@settings(deadline=None)
@given(st.sampled_from(FILTER_K), st.lists(st.integers(-156, -31), min_size=1, max_size=20))
def test_the_l3_filter_is_what_the_standard_writes(k, measured):
    previous, filtered = None, np.nan
    for value in measured:
        a = 0.5 ** (k / 4)
        previous = value if previous is None else (1 - a) * previous + a * value
        filtered = events.l3_filter(filtered, value, events.l3_weight(k))
    assert float(filtered) == pytest.approx(previous, abs=1e-9)


# TS 38.331 6.3.2
ALLOWED = {
    TTT_MS: "0 40 64 80 100 128 160 256 320 480 512 640 1024 1280 2560 5120",
    CIO_DB: "-24 -22 -20 -18 -16 -14 -12 -10 -8 -6 -5 -4 -3 -2 -1 0 1 2 3 4 5 6 8 10 12 14 16 18 20 22 24",
    REPORT_MS: "120 240 480 640 1024 2048 5120 10240 20480 40960 60000 360000 720000 1800000",
}


def test_every_allowed_value_is_ours_and_no_other():
    for ours, theirs in ALLOWED.items():
        assert list(ours) == [int(word) for word in theirs.split()]


@pytest.mark.parametrize("ttt_ms", TTT_MS)
@pytest.mark.parametrize("period_ms", [40, 100, 200, 1000])
def test_every_time_to_trigger_is_entered_at_the_first_slot_it_has_held_for(ttt_ms, period_ms):
    slots = events.ttt_in_slots(ttt_ms, period_ms * 1000)
    state, holds = events.new_ttt(1), events.Conditions(np.array([True]), np.array([False]))
    slot, entered = -1, np.array([False])
    while not entered[0]:
        slot += 1
        state, entered = events.advance_ttt(state, holds, slots)
    assert slot * period_ms >= ttt_ms
    assert slot == 0 or (slot - 1) * period_ms < ttt_ms


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=200), st.sampled_from([(0.01, 0.001, 4.0), (0.1, 0.03, 5.0), (0.1, 0.5, 1.0)]))
def test_the_outer_loop_is_what_the_reference_writes(acks, setting):
    bler_target, step_ack, max_offset = setting
    step_nack = step_ack * (1 - bler_target) / bler_target
    theirs, ours = 0.0, 0.0
    for ack in acks:
        theirs = max(-max_offset, min(max_offset, theirs + (step_ack if ack else -step_nack)))
        ours = link.advance_olla(ours, ack, Olla(bler_target, step_ack, max_offset))
    assert float(ours) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("bler_target", "step_ack", "step_nack"), [(0.01, 0.001, 0.099), (0.1, 0.03, 0.27)])
def test_the_outer_loop_rests_where_steps_up_and_down_cancel(bler_target, step_ack, step_nack):
    """Fixed point: BLER = step_ack / (step_ack + step_nack)."""
    assert step_ack / (step_ack + step_nack) == pytest.approx(bler_target)
    assert link.fixed_point_bler(step_ack, step_nack) == pytest.approx(bler_target)
    loop, sent = Olla(bler_target, step_ack, 4.0), round(1 / bler_target)
    steps = [float(link.advance_olla(0.0, ack, loop)) for ack in (True, False)]
    assert (sent - 1) * steps[0] + steps[1] == pytest.approx(0.0, abs=1e-12)

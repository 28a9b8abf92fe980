import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio import events
from netpredict.radio.events import Conditions, Mobility, MobilityClass, NeighbourOffsets, TttState

ENTER, LEAVE, STAY = (True, False), (False, True), (False, False)
half_db = st.integers(-300, 300).map(lambda halves: halves / 2)
hysteresis = st.integers(0, 30).map(lambda halves: halves / 2)


def answers(conditions):
    return bool(conditions.entering), bool(conditions.leaving)


@pytest.mark.parametrize(
    ("serving_dbm", "expected"),
    [(-97.5, ENTER), (-98.0, STAY), (-100.0, STAY), (-102.0, STAY), (-102.5, LEAVE), (float("nan"), STAY)],
)
def test_a1_compares_strictly_on_both_sides_of_its_dead_band(serving_dbm, expected):
    assert answers(events.a1(serving_dbm, -100.0, 2.0)) == expected


@pytest.mark.parametrize(
    ("serving_dbm", "expected"),
    [(-102.5, ENTER), (-102.0, STAY), (-100.0, STAY), (-98.0, STAY), (-97.5, LEAVE), (float("nan"), STAY)],
)
def test_a2_compares_strictly_on_both_sides_of_its_dead_band(serving_dbm, expected):
    assert answers(events.a2(serving_dbm, -100.0, 2.0)) == expected


@pytest.mark.parametrize(
    ("neighbour_dbm", "expected"),
    [(-94.5, ENTER), (-95.0, STAY), (-97.0, STAY), (-99.0, STAY), (-99.5, LEAVE), (float("nan"), STAY)],
)
def test_a3_compares_with_the_serving_radio_cell_plus_its_offset(neighbour_dbm, expected):
    assert answers(events.a3(-100.0, neighbour_dbm, 3.0, 2.0)) == expected


@pytest.mark.parametrize(
    ("neighbour_dbm", "expected"),
    [(-97.5, ENTER), (-98.0, STAY), (-100.0, STAY), (-102.0, STAY), (-102.5, LEAVE), (float("nan"), STAY)],
)
def test_a4_compares_strictly_on_both_sides_of_its_dead_band(neighbour_dbm, expected):
    assert answers(events.a4(neighbour_dbm, -100.0, 2.0)) == expected


@pytest.mark.parametrize(
    ("serving_dbm", "neighbour_dbm", "expected"),
    [
        (-112.5, -97.5, ENTER),
        (-112.0, -97.5, STAY),
        (-112.5, -98.0, STAY),
        (-108.0, -102.0, STAY),
        (-107.5, -97.5, LEAVE),
        (-112.5, -102.5, LEAVE),
        (-107.5, -102.5, LEAVE),
        (float("nan"), -97.5, STAY),
        (float("nan"), -102.5, LEAVE),
    ],
)
def test_a5_enters_when_both_hold_and_leaves_when_either_has_turned(serving_dbm, neighbour_dbm, expected):
    assert answers(events.a5(serving_dbm, neighbour_dbm, -110.0, -100.0, 2.0)) == expected


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        (NeighbourOffsets(), STAY),
        (NeighbourOffsets(ofn_db=1.0), ENTER),
        (NeighbourOffsets(ocn_db=1.0), ENTER),
        (NeighbourOffsets(ocn_db=1.0, ocp_db=1.0), STAY),
        (NeighbourOffsets(ofp_db=4.0), STAY),
        (NeighbourOffsets(ofp_db=4.0, ocp_db=1.0), LEAVE),
        (NeighbourOffsets(ofn_db=-5.0), LEAVE),
    ],
)
def test_offsets_of_the_neighbour_help_it_and_those_of_the_serving_radio_cell_hinder_it(offsets, expected):
    assert answers(events.a3(-100.0, -95.0, 3.0, 2.0, offsets)) == expected


def test_offsets_of_the_neighbour_count_in_a4_and_a5():
    offsets = NeighbourOffsets(ofn_db=1.0, ocn_db=1.0, ofp_db=50.0, ocp_db=50.0)
    assert answers(events.a4(-99.5, -100.0, 2.0, offsets)) == ENTER
    assert answers(events.a5(-112.5, -99.5, -110.0, -100.0, 2.0, offsets)) == ENTER


def test_conditions_are_vectorised_over_rows():
    conditions = events.a3(np.full(3, -100.0), np.array([-94.5, -97.0, -99.5]), 3.0, 2.0)
    assert conditions.entering.tolist() == [True, False, False]
    assert conditions.leaving.tolist() == [False, False, True]
    offsets = NeighbourOffsets(ocn_db=np.array([-1.0, 3.0, 0.0]))
    assert events.a3(-100.0, np.array([-94.5, -97.0, -99.5]), 3.0, 2.0, offsets).entering.tolist() == [
        False,
        True,
        False,
    ]


@given(half_db, half_db, half_db, half_db, hysteresis)
def test_no_event_enters_and_leaves_at_once(serving, neighbour, threshold, other_threshold, hys_db):
    for conditions in (
        events.a1(serving, threshold, hys_db),
        events.a2(serving, threshold, hys_db),
        events.a3(serving, neighbour, 3.0, hys_db),
        events.a4(neighbour, threshold, hys_db),
        events.a5(serving, neighbour, threshold, other_threshold, hys_db),
    ):
        assert answers(conditions) != (True, True)


@given(half_db, half_db, hysteresis)
def test_the_dead_band_is_two_hysteresis_wide(serving, threshold, hys_db):
    assert (answers(events.a1(serving, threshold, hys_db)) == STAY) == (abs(serving - threshold) <= hys_db)


def test_the_weight_of_the_l3_filter_halves_every_four_k():
    assert [events.l3_weight(k) for k in (0, 4, 8)] == [1.0, 0.5, 0.25]
    with pytest.raises(ConfigError, match="filter_k = 10"):
        events.l3_weight(10)


def test_the_l3_filter_mixes_by_weight():
    assert float(events.l3_filter(-100.0, -90.0, 0.5)) == -95.0
    assert float(events.l3_filter(-100.0, -90.0, events.l3_weight(0))) == -90.0


def test_the_l3_filter_starts_with_the_measurement_and_rides_over_missing_ones():
    filtered = events.l3_filter(np.array([np.nan, -100.0, np.nan]), np.array([-90.0, np.nan, np.nan]), 0.5)
    np.testing.assert_array_equal(filtered, [-90.0, -100.0, np.nan])


def test_two_samples_at_half_the_period_filter_as_one_at_the_full_period():
    weight = events.l3_weight_at(4, sample_period_s=0.1, measurement_period_s=0.2)
    twice = events.l3_filter(events.l3_filter(-100.0, -90.0, weight), -90.0, weight)
    assert float(twice) == pytest.approx(-95.0)


def test_the_weight_is_unchanged_at_the_period_it_was_made_for():
    assert events.l3_weight_at(7, 0.2, 0.2) == pytest.approx(events.l3_weight(7))
    assert events.l3_weight_at(0, 5.0, 0.2) == 1.0
    assert events.l3_weight_at(4, 0.4, 0.2) == pytest.approx(0.75)
    with pytest.raises(ConfigError, match="sample_period_s = 0"):
        events.l3_weight_at(4, 0, 0.2)


@given(st.sampled_from([0, 4, 9, 19]), st.lists(half_db, min_size=1, max_size=20))
def test_the_filtered_value_stays_within_what_was_measured(k, measured):
    filtered = np.nan
    for value in measured:
        filtered = events.l3_filter(filtered, value, events.l3_weight(k))
    assert min(measured) - 1e-9 <= float(filtered) <= max(measured) + 1e-9


@pytest.mark.parametrize(
    ("ttt_ms", "period_us", "slots"),
    [
        (0, 100_000, 0),
        (40, 40_000, 1),
        (160, 100_000, 2),
        (320, 100_000, 4),
        (64, 64_000, 1),
        (640, 1_000_000, 1),
        (80, 40_000, 2),
    ],
)
def test_a_time_to_trigger_is_rounded_up_to_slots(ttt_ms, period_us, slots):
    assert events.ttt_in_slots(ttt_ms, period_us) == slots


@pytest.mark.parametrize(("ttt_ms", "period_us"), [(100.5, 1000), (123, 1000), (100, 0), (100, -1)])
def test_a_time_to_trigger_or_period_not_allowed_is_refused(ttt_ms, period_us):
    with pytest.raises(ConfigError):
        events.ttt_in_slots(ttt_ms, period_us)


def run(symbols, ttt_slots, leave_ttt_slots=None):
    """One row through slots (e entry condition, l leaving, . neither): F enters now, E is entered, - is not."""
    state, fired = events.new_ttt(1), []
    for symbol in symbols:
        conditions = Conditions(np.array([symbol == "e"]), np.array([symbol == "l"]))
        state, entered_now = events.advance_ttt(state, conditions, ttt_slots, leave_ttt_slots)
        fired.append("F" if entered_now[0] else "E" if state.entered[0] else "-")
    return "".join(fired)


@pytest.mark.parametrize(
    ("symbols", "ttt_slots", "expected"),
    [
        ("e", 0, "F"),
        ("eee", 1, "-FE"),
        ("eeee", 2, "--FE"),
        ("ee.ee", 2, "-----"),
        ("ee.eee", 2, "-----F"),
        ("eelee", 2, "-----"),
        ("e....", 0, "FEEEE"),
        ("eell", 1, "-FE-"),
        ("eel.ll", 1, "-FEEE-"),
        ("eelell", 1, "-FEEE-"),
        ("eelleee", 1, "-FE--FE"),
    ],
)
def test_a_condition_must_hold_without_a_break(symbols, ttt_slots, expected):
    assert run(symbols, ttt_slots) == expected


def test_leaving_may_be_told_not_to_wait():
    assert run("eeel", 2, leave_ttt_slots=0) == "--F-"


def test_advancing_leaves_its_inputs_alone():
    state = TttState(np.array([1, 0]), np.array([False, True]))
    conditions = Conditions(np.array([True, True]), np.array([False, False]))
    after, fired = events.advance_ttt(state, conditions, 1)
    assert (state.held_slots.tolist(), state.entered.tolist()) == ([1, 0], [False, True])
    assert (after.held_slots.tolist(), after.entered.tolist(), fired.tolist()) == ([0, 0], [True, True], [True, False])


def test_rows_run_on_their_own_timers():
    state = events.new_ttt(2)
    for entering, expected in [
        ([True, False], [False, False]),
        ([True, True], [True, False]),
        ([True, True], [False, True]),
    ]:
        state, fired = events.advance_ttt(state, Conditions(np.array(entering), np.zeros(2, dtype=bool)), 1)
        assert fired.tolist() == expected


@given(st.text("el.", max_size=30), st.integers(0, 4), st.integers(1, 20))
def test_the_dead_band_keeps_what_was(symbols, ttt_slots, dead_slots):
    before = run(symbols, ttt_slots)
    entered = before[-1:] in ("E", "F")
    assert run(symbols + "." * dead_slots, ttt_slots) == before + ("E" if entered else "-") * dead_slots


@given(st.text("el.", max_size=40), st.integers(0, 4))
def test_a_row_enters_only_after_its_whole_time_to_trigger(symbols, ttt_slots):
    for at, mark in enumerate(run(symbols, ttt_slots)):
        if mark == "F":
            assert symbols[max(0, at - ttt_slots) : at + 1] == "e" * (ttt_slots + 1)


def departure(**changes):
    usual = {
        "serving": "B",
        "source": "A",
        "reappeared_in": "A",
        "failed": True,
        "since_handover_s": 0.5,
        "stay_s": 0.4,
    }
    return Mobility(**(usual | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, MobilityClass.TOO_EARLY),
        ({"reappeared_in": "C"}, MobilityClass.WRONG_RADIO_CELL),
        ({"reappeared_in": "B"}, None),
        ({"since_handover_s": 5.0}, MobilityClass.TOO_LATE),
        ({"since_handover_s": 4.999}, MobilityClass.TOO_EARLY),
        ({"since_handover_s": 60.0, "reappeared_in": "C"}, MobilityClass.TOO_LATE),
        ({"since_handover_s": 60.0, "reappeared_in": "B"}, None),
        ({"since_handover_s": None, "source": None}, MobilityClass.TOO_LATE),
        ({"failed": False}, MobilityClass.PING_PONG),
        ({"failed": False, "stay_s": 1.0}, None),
        ({"failed": False, "reappeared_in": "C"}, None),
        ({"failed": False, "source": None}, None),
    ],
)
def test_a_departure_has_its_class(changes, expected):
    assert events.classify_mobility(departure(**changes), recent_s=5.0) is expected


def test_the_ping_pong_time_is_a_setting():
    back_after_3_s = departure(failed=False, stay_s=3.0)
    assert events.classify_mobility(back_after_3_s, recent_s=5.0) is None
    assert events.classify_mobility(back_after_3_s, recent_s=5.0, ping_pong_s=5.0) is MobilityClass.PING_PONG


def test_mobility_shares_come_from_the_standard_counters():
    counts = {
        "MM.HoPrepInterReq": 100,
        "MM.HoPrepInterSucc": 95,
        "MM.HoExeInterReq": 90,
        "MM.HoExeInterSucc": 81,
        "MM.HoExeIntraReq": 10,
        "MM.HoExeIntraSucc": 9,
        "HO.IntraSys.TooLate": 4,
        "HO.IntraSys.TooEarly": 2,
        "HO.IntraSys.ToWrongCell": 1,
    }
    assert events.mobility_ratios(counts) == {
        "preparation_success": 0.95,
        "execution_success": 0.9,
        "execution_success_intra_gnb": 0.9,
        "too_late": 0.04,
        "too_early": 0.02,
        "wrong_radio_cell": 0.01,
    }


def test_a_share_of_nothing_has_no_value():
    nothing = dict.fromkeys(("MM.HoPrepInterReq", "MM.HoPrepInterSucc", "MM.HoExeInterReq", "HO.IntraSys.TooLate"), 0)
    assert set(events.mobility_ratios(nothing).values()) == {None}
    assert set(events.mobility_ratios({}).values()) == {None}
    assert events.ping_pong_ratio(0, 0) is None
    assert events.ping_pong_ratio(3, 12) == 0.25

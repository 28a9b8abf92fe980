"""The vectorised align against the plain sentence of the design, row by row in Python."""

from collections import defaultdict
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.ingest.align import Aligned, align, slot_time_us, slots_of
from netpredict.types import NO_SLOT

TTL = 6


def by_hand(rows, last):
    """Verdict, previous slot and round of each (series, slot, record, stale), in log order."""
    last, verdicts, round_of_record = dict(last), [], {}
    newest_round = defaultdict(lambda: -1)
    for series, slot, _, stale in rows:
        before = last.get(series, NO_SLOT)
        if stale or slot < before:
            verdicts.append(("late", before))
        elif slot == before:
            verdicts.append(("duplicate", before))
        else:
            verdicts.append(("accepted", before))
            last[series] = slot
    accepted = [i for i, verdict in enumerate(verdicts) if verdict[0] == "accepted"]
    for record in dict.fromkeys(rows[i][2] for i in accepted):
        members = [rows[i][0] for i in accepted if rows[i][2] == record]
        # a record's rows of one series are one after another, so its round is that of its last row in the series
        depth = defaultdict(int)
        for series in members:
            depth[series] += 1
        assert set(depth.values()) <= {1}
        round_of_record[record] = 1 + max(newest_round[series] for series in members)
        for series in members:
            newest_round[series] = round_of_record[record]
    rounds = [round_of_record[rows[i][2]] if i in set(accepted) else -1 for i in range(len(rows))]
    return verdicts, rounds


def aligned(rows, last) -> Aligned:
    series = np.array([row[0] for row in rows], np.int32)
    return align(
        series,
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int32),
        np.array([last.get(row[0], NO_SLOT) for row in rows], np.int64),
        np.array([row[3] for row in rows], bool),
    )


reports = st.lists(
    st.tuples(
        st.integers(-3, 12),  # slot
        st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),  # its series
    ),
    max_size=25,
)
befores = st.dictionaries(st.integers(0, 5), st.integers(-4, 6))


def rows_of(reports, last):
    """Rows as the pipeline makes them: a record shares one slot; stale means far behind the newest slot accepted."""
    rows, watermark = [], max(last.values(), default=NO_SLOT)
    for record, (slot, series) in enumerate(reports):
        for one in series:
            rows.append((one, slot, record, slot < watermark - TTL))
            watermark = max(watermark, slot)
    return rows


@settings(max_examples=400, deadline=None)
@given(reports, befores)
def test_every_row_is_judged_as_by_hand(reports, last):
    rows = rows_of(reports, last)
    found, (verdicts, rounds) = aligned(rows, last), by_hand(rows, last)
    assert (found.accepted.astype(int) + found.duplicate + found.late == 1).all()
    for index, (verdict, previous) in enumerate(verdicts):
        assert getattr(found, verdict)[index], (index, verdict)
        if verdict == "accepted":
            assert found.previous[index] == previous
    assert found.round.tolist() == rounds


@settings(max_examples=200, deadline=None)
@given(reports, befores, st.integers(0, 25))
def test_where_the_log_is_cut_changes_no_verdict(reports, last, cut):
    rows = rows_of(reports, last)
    at = next((i for i, row in enumerate(rows) if row[2] >= cut), len(rows))
    whole, first = aligned(rows, last), aligned(rows[:at], last)
    between = dict(last)
    for row, accepted in zip(rows[:at], first.accepted, strict=True):
        if accepted:
            between[row[0]] = row[1]
    second = aligned(rows[at:], between)
    for name in ("accepted", "duplicate", "late", "previous"):
        parts = np.concatenate([getattr(first, name), getattr(second, name)])
        kept = whole.accepted if name == "previous" else slice(None)
        assert parts[kept].tolist() == getattr(whole, name)[kept].tolist(), name


def test_a_stale_row_gives_its_series_no_previous_slot():
    found = aligned([(0, 2, 0, True), (0, 9, 1, False)], {})
    assert found.late.tolist() == [True, False]
    assert found.previous[1] == NO_SLOT


def test_no_rows_are_no_trouble():
    assert aligned([], {}).round.tolist() == []


def test_a_chain_of_reports_settles():
    """Report k measures radio cells k and k + 1: each has to wait for the one before."""
    rows = [(k + side, k, k, False) for k in range(300) for side in (0, 1)]
    assert aligned(rows, {}).round.tolist() == [k for k in range(300) for _ in (0, 1)]


@settings(max_examples=300)
@given(st.integers(-(2**50), 2**52), st.integers(1, 10**9), st.integers(-(10**9), 10**9))
def test_the_nearest_slot_wins_and_halves_go_up(time_us, period_us, phase_us):
    expected = floor(Fraction(time_us - phase_us, period_us) + Fraction(1, 2))
    assert slots_of(np.array([time_us], np.int64), period_us, phase_us).tolist() == [expected]


@pytest.mark.parametrize(("time_us", "slot"), [(4, 0), (5, 1), (-5, 0), (-6, -1), (14, 1), (15, 2)])
def test_slots_of_ten(time_us, slot):
    assert slots_of(np.array([time_us], np.int64), 10, 0).tolist() == [slot]
    assert slots_of(np.array([time_us - 3], np.int64), 10, -3).tolist() == [slot]


def test_a_slot_stands_at_its_own_time():
    slots = np.arange(-5, 5)
    assert slots_of(slot_time_us(slots, 7, 3), 7, 3).tolist() == slots.tolist()

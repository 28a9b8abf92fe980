"""Rows onto the time grid: slots, duplicate and late rows, gaps, rounds. Vectorised; the order of the log decides.

slot = floor((event_time_us - phase_us) / period_us + 1/2). For each series the first row of a slot wins; a row
behind the newest slot of its series is late. None of it depends on how the log was cut into polls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netpredict.types import BoolArray, Int32Array, IntArray


def slots_of(event_time_us: IntArray, period_us: int, phase_us: int) -> IntArray:
    """Nearest slot of each event time, int64 (n,); halves go up."""
    return (2 * (event_time_us - phase_us) + period_us) // (2 * period_us)


def slot_time_us(slot: IntArray, period_us: int, phase_us: int) -> IntArray:
    """Time at which a slot stands, µs since the epoch, int64 (n,)."""
    return slot * period_us + phase_us


@dataclass(slots=True)
class Aligned:
    """Verdict on n rows: masks (n,) of which exactly one holds, and for the accepted ones where they stand.

    ``previous`` int64 (n,) is the slot that the series had before the row (``NO_SLOT`` when none); ``round`` int32 (n,)
    counts from 0, -1 when not accepted.
    """

    accepted: BoolArray
    duplicate: BoolArray
    late: BoolArray
    previous: IntArray
    round: Int32Array


def align(series: Int32Array, slot: IntArray, record: Int32Array, last_slot: IntArray, stale: BoolArray) -> Aligned:
    """Judge rows in log order; ``last_slot`` int64 (n,) is the newest slot of each row's series before the poll.

    ``stale`` (n,) marks rows that are late whatever their series says: too far behind the whole topic partition.
    """
    n = len(series)
    previous = last_slot.copy()
    accepted, duplicate = np.zeros(n, bool), np.zeros(n, bool)
    fresh = np.flatnonzero(~stale) if stale.any() else slice(None)
    known = _previous(series[fresh], slot[fresh], last_slot[fresh])
    previous[fresh] = known
    accepted[fresh], duplicate[fresh] = slot[fresh] > known, slot[fresh] == known
    rounds = _rounds(series, record, accepted)
    return Aligned(accepted, duplicate, ~(accepted | duplicate), previous, rounds)


def _previous(series: Int32Array, slot: IntArray, last_slot: IntArray) -> IntArray:
    """The newest slot that the series of each row had before it."""
    order = np.argsort(series, kind="stable")
    first = np.ones(len(series), bool)
    first[1:] = series[order][1:] != series[order][:-1]
    previous = np.empty(len(series), np.int64)
    previous[order] = _newest_before(slot[order], first, last_slot[order])
    return previous


def _newest_before(slot: IntArray, first: BoolArray, last_slot: IntArray) -> IntArray:
    """Largest slot before each row within its series; rows are sorted by series, in log order inside."""
    if not len(slot):
        return slot
    group = np.cumsum(first) - 1
    low = int(slot.min())
    span = int(slot.max()) - low + 2
    running = np.maximum.accumulate(group * span + (slot - low + 1))  # a later group is always above an earlier one
    before = np.empty_like(running)
    before[1:] = running[:-1] - group[1:] * span + low - 1
    before[first] = last_slot[first]
    return np.maximum(before, last_slot)


def _rounds(series: Int32Array, record: Int32Array, accepted: BoolArray) -> Int32Array:
    """1 + the largest round among earlier records of the row's series; all rows of a record share it."""
    rounds = np.full(len(series), -1, np.int32)
    rows = np.flatnonzero(accepted)
    if not len(rows):
        return rounds
    order = np.argsort(series[rows], kind="stable")
    ordered = series[rows][order]
    first = np.ones(len(rows), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    start = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    place = np.arange(len(rows)) - start  # how many earlier rows the series has: the least round possible
    found = np.empty(len(rows), np.int64)
    found[order] = place
    report_start = np.flatnonzero(np.r_[True, record[rows][1:] != record[rows][:-1]])
    if len(report_start) < len(rows):
        found = _settle_reports(found, order, place, np.cumsum(first) - 1, report_start)
    rounds[rows] = found
    return rounds


def _settle_reports(
    found: IntArray, order: IntArray, place: IntArray, group: IntArray, report_start: IntArray
) -> IntArray:
    """Least rounds that rise within each series and are equal within each report: raise until nothing moves."""
    sizes = np.diff(np.r_[report_start, len(found)])
    span = 2 * len(found) + 2
    while True:
        raised = np.repeat(np.maximum.reduceat(found, report_start), sizes)
        running = np.maximum.accumulate(raised[order] - place + group * span) - group * span + place
        settled = np.empty_like(raised)
        settled[order] = running
        if np.array_equal(settled, found):
            return found
        found = settled

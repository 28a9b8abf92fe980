"""Radio cells of a WMN-LAB drive told apart by the continuity of their levels, since the recording has no identity.

Approximate by nature. The recording names, second by second, the serving radio cell and the two strongest neighbours of
its carrier by rank. The serving one stays the same as long as no LTE handover and no failure is recorded; everything
else is linked to the radio cell whose last level is nearest, each level to one radio cell, at least total distance. Two
ways are told apart, and results are given for both: ``LIBERAL`` links across large steps and after many seconds out of
sight, so that a radio cell is seldom lost; ``CONSERVATIVE`` only small steps after few, so that seldom two are taken
for one.

A second with a handover, a failure or no row mixes radio cells and links nothing. Where the serving radio cell after
it is none of those known (another carrier, or too large a step) a *stretch* ends, and the next begins with new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from netpredict.evaluate.handover_real_drives import LTE_RSRP, Drive
from netpredict.types import AnyArray, BoolArray, FloatArray, IntArray

SERVING_EVENTS = ("lte_handovers", "mn_handovers", "rlf")


@dataclass(frozen=True, slots=True)
class Linking:
    """How far a level may have moved (dB), and how long it may have been out of sight (s)."""

    name: str
    step_db: float
    memory_s: int


LIBERAL = Linking("liberal", 10.0, 10)
CONSERVATIVE = Linking("conservative", 5.0, 3)


@dataclass(frozen=True, slots=True)
class Stretch:
    """T seconds of a drive, from its second ``first`` on, over which M radio cells are told apart.

    ``levels`` float32 (T, M) dBm, NaN = not measured; ``serving`` (T,) the one that served, -1 in a skipped second;
    ``skipped`` (T,): a handover, a failure or no row.
    """

    drive: int
    first: int
    levels: FloatArray
    serving: IntArray
    skipped: BoolArray


@dataclass(slots=True)
class _Cell:
    level_dbm: float
    seen: int


def stretches_of(drives: Sequence[Drive], linking: Linking, least_s: int = 10) -> list[Stretch]:
    """The stretches of at least ``least_s`` seconds of every drive."""
    found = [stretch for index, drive in enumerate(drives) for stretch in _stretches(index, drive, linking)]
    return [each for each in found if len(each.serving) >= least_s]


def _stretches(index: int, drive: Drive, linking: Linking) -> Iterator[Stretch]:
    levels = drive.levels[:, LTE_RSRP].astype(np.float64)
    skipped = drive.happened(*SERVING_EVENTS) | ~drive.recorded | np.isnan(levels[:, 0])
    links = np.full(levels.shape, -1, np.int64)
    cells, first, sure = list[_Cell](), 0, -1
    for second in range(len(levels)):
        if skipped[second]:
            sure = -1
            continue
        linked = _linked(levels[second], second, cells, sure, linking)
        if linked[0] < 0:
            if cells:
                yield _stretch(index, levels, links, skipped, range(first, second), len(cells))
            cells, first = [], second
            linked = np.full(3, -1, np.int64)
        for place in np.flatnonzero((linked < 0) & np.isfinite(levels[second])).tolist():
            linked[place] = len(cells)
            cells.append(_Cell(0.0, 0))
        for place in np.flatnonzero(linked >= 0).tolist():
            cells[linked[place]].level_dbm, cells[linked[place]].seen = float(levels[second, place]), second
        links[second], sure = linked, int(linked[0])
    if cells:
        yield _stretch(index, levels, links, skipped, range(first, len(levels)), len(cells))


def _linked(levels: AnyArray, second: int, cells: Sequence[_Cell], sure: int, linking: Linking) -> IntArray:
    """Known radio cell of serving and neighbours, -1 = none of them; ``sure`` is the serving one, -1 = to be linked."""
    answer = np.full(len(levels), -1, np.int64)
    places = np.flatnonzero(np.isfinite(levels)).tolist()
    if sure >= 0:
        answer[0] = sure
        places = [place for place in places if place]
    known = [n for n, cell in enumerate(cells) if n != sure and second - cell.seen <= linking.memory_s]
    if not places or not known:
        return answer
    far = np.abs(levels[places][:, None] - np.array([cells[n].level_dbm for n in known])[None])
    for row, column in _assigned(far, linking.step_db):
        answer[places[row]] = known[column]
    return answer


def _assigned(far: AnyArray, step_db: float) -> list[tuple[int, int]]:
    """Pairs (row, column) within the step, as many as there can be, at least total distance."""
    rows, columns = far.shape
    cost = np.where(far <= step_db, far, 1e3)
    cost = np.concatenate([cost, np.full((rows, rows), 1e3)], axis=1)  # a row may be left without a partner
    nearest = sorted(
        {int(c) for row in cost for c in np.argsort(row, kind="stable")[:rows]} | set(range(columns, columns + rows))
    )
    best = min(permutations(nearest, rows), key=lambda chosen: sum(cost[r, c] for r, c in enumerate(chosen)))
    return [(r, c) for r, c in enumerate(best) if cost[r, c] < 1e3]


def _stretch(index: int, levels: AnyArray, links: IntArray, skipped: BoolArray, seconds: range, cells: int) -> Stretch:
    part = slice(seconds.start, seconds.stop)
    laid = np.full((len(seconds), cells), np.nan, np.float32)
    at, place = np.nonzero(links[part] >= 0)
    laid[at, links[part][at, place]] = levels[part][at, place]
    serving = np.where(skipped[part], -1, links[part][:, 0])
    return Stretch(index, seconds.start, laid, serving, skipped[part].copy())

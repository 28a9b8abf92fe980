"""What came due is scored against its truth, by target slot, before the series may advance over that truth.

All sums are integers in ticks (fixed point), so that no grouping of the log can change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from netpredict.forecast.calibrate import Cells, middle_of, moved
from netpredict.types import MISSING_TICKS, NO_SLOT, AnyArray, FloatArray, Int32Array, IntArray, Source

SCORED_SOURCES = (Source.MODEL, Source.SEASONAL, Source.NAIVE)
_SINGLE = 8
"""Sums of one number: n, flat, errors, squares (upper and lower 32 bits: one sum may overflow), |truth|, naive's and
seasonal naive's errors."""
ROWS_AT_FIRST = 64
"""Scored series of one column that there is room for from the beginning; a grid has thousands of columns."""


class Sums(NamedTuple):
    """Sums of one (source, KPI, lead) in the bucket in progress; see ``netpredict.store.commit.ScoreRow``."""

    source: int
    kpi: int
    lead_steps: int
    n: int
    flat: int
    abs_ticks: int
    square_ticks: int
    truth_abs_ticks: int
    naive_abs_ticks: int
    seasonal_abs_ticks: int
    below: tuple[int, ...]
    pinball: tuple[int, ...]


class Due(NamedTuple):
    """Forecasts for one target slot of n series, by lead: what was said, and what the baselines said.

    ``ticks`` int32 (n, horizon, kpis, levels); ``naive``, ``seasonal`` int32 and ``sources`` uint8 (n, horizon, kpis).
    """

    ticks: Int32Array
    naive: Int32Array
    seasonal: Int32Array
    sources: AnyArray


class PendingRing:
    """Forecasts of scored series whose truth is still to come, in rings of ``horizon`` slots.

    The forecasts for a target slot stand together, (lead, KPI * level); which of them are still meant is known from the
    ring of issued slots, so that nothing has to be cleared. Without a season the seasonal baseline is the naive one.
    """

    def __init__(self, kpis: int, horizon: int, levels: int, seasonal: bool = False) -> None:
        self._shape = (kpis, horizon, levels)
        self._seasonal = seasonal
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        kpis, horizon, levels = self._shape
        self.capacity = capacity
        self.ticks = np.zeros((capacity, horizon, horizon, kpis * levels), np.int32)
        self.issued = np.full((capacity, horizon), NO_SLOT, np.int64)
        self.observed = np.zeros((capacity, horizon, kpis), np.int32)
        self.sources = np.zeros((capacity, horizon, kpis), np.uint8)
        self.seasonal = np.zeros((capacity if self._seasonal else 0, horizon, horizon, kpis), np.int32)

    def ensure(self, rows: int) -> None:
        """Have room for this many scored series."""
        if rows <= self.capacity:
            return
        names = ("ticks", "issued", "observed", "sources", "seasonal")
        kept = {name: getattr(self, name) for name in names}
        self._allocate(max(ROWS_AT_FIRST // self._shape[0], 1 << (rows - 1).bit_length()))
        for name in names:
            getattr(self, name)[: len(kept[name])] = kept[name]

    def forget(self, rows: AnyArray) -> None:
        """Drop everything pending of these rows."""
        self.issued[rows[rows < self.capacity]] = NO_SLOT

    def add(
        self,
        rows: AnyArray,
        slot: IntArray,
        ticks: Int32Array,
        observed: Int32Array,
        sources: AnyArray,
        seasonal: Int32Array | None = None,
    ) -> None:
        """Remember forecasts issued at ``slot`` (n,).

        ticks (n, kpis, horizon, levels); observed and sources (n, kpis); seasonal (n, kpis, horizon), MISSING_TICKS
        where the season was not known.
        """
        kpis, horizon, levels = self._shape
        leads = np.arange(1, horizon + 1)
        by_lead = ticks.transpose(0, 2, 1, 3).reshape(len(rows), horizon, kpis * levels)
        self.ticks[rows[:, None], (slot[:, None] + leads) % horizon, leads - 1] = by_lead
        place = slot % horizon
        self.issued[rows, place] = slot
        self.observed[rows, place] = observed
        self.sources[rows, place] = sources
        if seasonal is not None and self._seasonal:
            self.seasonal[rows[:, None], (slot[:, None] + leads) % horizon, leads - 1] = seasonal.transpose(0, 2, 1)

    def due(self, rows: AnyArray, slot: IntArray) -> Due:
        """Forecasts for target ``slot`` (n,). Where none was issued the source is NONE."""
        kpis, horizon, levels = self._shape
        issue = slot[:, None] - np.arange(1, horizon + 1)
        place = issue % horizon
        at = rows[:, None]
        sources = np.where((self.issued[at, place] == issue)[..., None], self.sources[at, place], np.uint8(Source.NONE))
        ticks = self.ticks[rows, slot % horizon].reshape(len(rows), horizon, kpis, levels)
        naive = self.observed[at, place]
        if not self._seasonal:
            return Due(ticks, naive, naive, sources)
        seasonal = self.seasonal[rows, slot % horizon]
        return Due(ticks, naive, np.where(seasonal == MISSING_TICKS, naive, seasonal), sources)


class Scoreboard:
    """Scores and calibration of one predictor version on one stream, by lane.

    ``columns`` are forecast; the ``places`` that a KPI has on a grid stand together there and are judged together, as
    the series of a stream are. ``cells``: of the columns (None: none has classes).
    """

    def __init__(
        self,
        columns: int,
        horizon: int,
        levels: Sequence[float],
        seasonal: bool = False,
        places: int = 1,
        cells: Cells | None = None,
    ) -> None:
        self._levels = tuple(levels)
        self._milli = np.round(np.asarray(levels) * 1000).astype(np.int64)
        self._middle = middle_of(levels)
        self._cells = Cells(()) if cells is None else cells
        self._highest_below = np.where(np.arange(len(levels)) < self._middle, -1, 0)
        self._places, kpis = places, columns // places
        self.pending = PendingRing(columns, horizon, len(levels), seasonal)
        self.factor = np.ones((0, kpis, horizon, len(levels)), np.float32)
        self._sums = np.zeros((0, len(SCORED_SOURCES), horizon, kpis, self._width), np.int64)

    @property
    def _width(self) -> int:
        return _SINGLE + 2 * len(self._levels)  # the single sums, below by level, pinball by level

    def ensure_lanes(self, lanes: int) -> None:
        """Have room for this many lanes."""
        missing = lanes - len(self.factor)
        if missing > 0:
            self.factor = np.concatenate([self.factor, np.ones((missing, *self.factor.shape[1:]), np.float32)])
            self._sums = np.concatenate([self._sums, np.zeros((missing, *self._sums.shape[1:]), np.int64)])

    def clear(self, lane: int) -> None:
        """Forget a lane that was given away."""
        self.factor[lane] = 1.0
        self._sums[lane] = 0

    def score(self, rows: AnyArray, lane: AnyArray, slot: IntArray, truth: Int32Array) -> None:
        """Pair what is due at ``slot`` (n,) with ``truth`` ticks (n, kpis); rows of a lane stand together once."""
        due = self.pending.due(rows, slot)
        y = truth[:, None, :]
        known = (y != MISSING_TICKS) & (due.naive != MISSING_TICKS) & (due.sources != Source.NONE)
        if not known.any():
            return
        starts = np.flatnonzero(np.r_[True, lane[1:] != lane[:-1]])
        place = (self._cells.truth(truth, slot) - truth)[:, None, :, None]
        for source in SCORED_SOURCES:
            mine = known & (due.sources == source)
            if mine.any():
                sums = self._pooled(self._summed(y, place, due, mine, starts))
                self._sums[lane[starts], source] += sums  # lanes are unique here

    def _summed(self, y: Int32Array, place: Int32Array, due: Due, mine: AnyArray, starts: AnyArray) -> IntArray:
        """Sums over the rows of each lane where ``mine`` (n, horizon, kpis) holds: (lanes, horizon, kpis, width).

        Pinball loss * 1000 of a difference d at a level is milli * d - 1000 * min(d, 0), so two sums of d suffice.
        A truth on a level's own value counts as inside the interval, on either side: the interval is closed. That of an
        integer KPI counts at its ``place`` in its class (n, 1, kpis, 1).
        """

        def total(terms: AnyArray) -> IntArray:
            sums: IntArray = np.add.reduceat(terms, starts, axis=0, dtype=np.int64)
            return sums

        whole = bool(mine.all())
        difference = y[..., None] - due.ticks  # (n, horizon, kpis, levels); where not mine it may wrap, and is dropped
        difference = difference if whole else np.where(mine[..., None], difference, 0)
        flat = mine & (difference[..., 0] == 0) & (difference[..., -1] == 0)
        error = np.abs(difference[..., self._middle])
        square = np.square(error, dtype=np.int64)
        errors = (np.broadcast_to(np.abs(y), mine.shape), np.abs(y - due.naive), np.abs(y - due.seasonal))
        below = (difference + place <= self._highest_below) & (mine & ~flat)[..., None]
        sums = np.empty((len(starts), *mine.shape[1:], self._width), np.int64)
        single = (mine, flat, error, square >> 32, square & 0xFFFFFFFF, *(np.where(mine, e, 0) for e in errors))
        for index, terms in enumerate(single):
            sums[..., index] = total(terms)
        levels = len(self._levels)
        sums[..., _SINGLE : _SINGLE + levels] = total(below)
        sums[..., _SINGLE + levels :] = self._milli * total(difference) - 1000 * total(np.minimum(difference, 0))
        return sums

    def _pooled(self, sums: IntArray) -> IntArray:
        """The places of each KPI together: (lanes, horizon, columns, width) -> (lanes, horizon, kpis, width)."""
        if self._places == 1:
            return sums
        lanes, horizon, _, width = sums.shape
        pooled: IntArray = sums.reshape(lanes, horizon, -1, self._places, width).sum(axis=3)
        return pooled

    def sums(self, lane: int) -> Iterator[Sums]:
        """All (source, KPI, lead) of the bucket in progress that have a truth."""
        levels = len(self._levels)
        table = self._sums[lane]
        for source, lead, kpi in np.argwhere(table[..., 0]).tolist():
            n, flat, error, high, low, *baselines = table[source, lead, kpi, :_SINGLE].tolist()
            rest = table[source, lead, kpi, _SINGLE:].tolist()
            truth, naive, seasonal = baselines
            errors = (error, (high << 32) + low, truth, naive, seasonal)
            yield Sums(source, kpi, lead + 1, n, flat, *errors, tuple(rest[:levels]), tuple(rest[levels:]))

    def restore(self, lane: int, rows: Sequence[Sums]) -> None:
        """Take back the sums of a bucket in progress."""
        for row in rows:
            squares = (row.square_ticks >> 32, row.square_ticks & 0xFFFFFFFF)
            errors = (row.truth_abs_ticks, row.naive_abs_ticks, row.seasonal_abs_ticks)
            values = [row.n, row.flat, row.abs_ticks, *squares, *errors, *row.below, *row.pinball]
            self._sums[lane, row.source, row.lead_steps - 1, row.kpi] = values

    def close_bucket(self, lane: int) -> None:
        """Move the calibration by what the bucket showed of model forecasts, and begin the next bucket."""
        model = self._sums[lane, SCORED_SOURCES.index(Source.MODEL)]
        below = model[..., _SINGLE : _SINGLE + len(self._levels)].transpose(1, 0, 2)
        n = (model[..., 0] - model[..., 1]).T
        self.factor[lane] = moved(self.factor[lane], self._levels, self._middle, below, n)
        self._sums[lane] = 0

    def factors(self, lane: AnyArray) -> FloatArray:
        """Calibration of each row's lane, float32 (n or 1, columns, horizon, levels)."""
        factor = self.factor[lane[:1] if len(lane) and (lane == lane[0]).all() else lane]
        return factor if self._places == 1 else np.repeat(factor, self._places, axis=1)


HASH_SPACE = 2**32


def sampled(key_hash: int, share: float) -> bool:
    """Whether a series is in the fixed hash sample of this share; the same on every run."""
    return (key_hash % HASH_SPACE) < share * HASH_SPACE

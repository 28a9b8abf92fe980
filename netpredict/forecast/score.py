"""What came due is scored against its truth, by target slot, before the series may advance over that truth.

All sums are integers in ticks (fixed point), so that no grouping of the log can change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from netpredict.forecast.calibrate import middle_of, moved
from netpredict.types import MISSING_TICKS, NO_SLOT, AnyArray, FloatArray, Int32Array, IntArray, Source

SCORED_SOURCES = (Source.MODEL, Source.SEASONAL, Source.NAIVE)


class Sums(NamedTuple):
    """Sums of one (source, KPI, lead) in the bucket in progress; see ``netpredict.store.commit.ScoreRow``."""

    source: int
    kpi: int
    lead_steps: int
    n: int
    abs_ticks: int
    square_ticks: int
    naive_abs_ticks: int
    below: tuple[int, ...]
    pinball: tuple[int, ...]


class PendingRing:
    """Forecasts of scored series whose truth is still to come, in rings of ``horizon`` slots.

    The forecasts for a target slot stand together, (lead, KPI * level); which of them are still meant is known from the
    ring of issued slots, so that nothing has to be cleared.
    """

    def __init__(self, kpis: int, horizon: int, levels: int) -> None:
        self._shape = (kpis, horizon, levels)
        self._free: list[int] = []
        self._allocate(0)

    def _allocate(self, capacity: int) -> None:
        kpis, horizon, levels = self._shape
        self.capacity = capacity
        self.ticks = np.zeros((capacity, horizon, horizon, kpis * levels), np.int32)
        self.issued = np.full((capacity, horizon), NO_SLOT, np.int64)
        self.observed = np.zeros((capacity, horizon, kpis), np.int32)
        self.sources = np.zeros((capacity, horizon, kpis), np.uint8)

    def ensure(self, rows: int) -> None:
        """Have room for this many scored series."""
        if rows <= self.capacity:
            return
        old, names = self.capacity, ("ticks", "issued", "observed", "sources")
        kept = {name: getattr(self, name) for name in names}
        self._allocate(max(64, 1 << (rows - 1).bit_length()))
        for name in names:
            getattr(self, name)[:old] = kept[name]

    def forget(self, rows: AnyArray) -> None:
        """Drop everything pending of these rows."""
        self.issued[rows[rows < self.capacity]] = NO_SLOT

    def add(self, rows: AnyArray, slot: IntArray, ticks: Int32Array, observed: Int32Array, sources: AnyArray) -> None:
        """Remember forecasts issued at ``slot`` (n,): ticks (n, kpis, horizon, levels), rest (n, kpis)."""
        kpis, horizon, levels = self._shape
        leads = np.arange(1, horizon + 1)
        by_lead = ticks.transpose(0, 2, 1, 3).reshape(len(rows), horizon, kpis * levels)
        self.ticks[rows[:, None], (slot[:, None] + leads) % horizon, leads - 1] = by_lead
        place = slot % horizon
        self.issued[rows, place] = slot
        self.observed[rows, place] = observed
        self.sources[rows, place] = sources

    def due(self, rows: AnyArray, slot: IntArray) -> tuple[Int32Array, Int32Array, AnyArray]:
        """Forecasts for target ``slot``: ticks (n, horizon, kpis, levels), naive (n, horizon, kpis), sources likewise.

        Where no forecast was issued the source is NONE.
        """
        kpis, horizon, levels = self._shape
        issue = slot[:, None] - np.arange(1, horizon + 1)
        place = issue % horizon
        at = rows[:, None]
        sources = np.where((self.issued[at, place] == issue)[..., None], self.sources[at, place], np.uint8(Source.NONE))
        ticks = self.ticks[rows, slot % horizon].reshape(len(rows), horizon, kpis, levels)
        return ticks, self.observed[at, place], sources


class Scoreboard:
    """Scores and calibration of one predictor version on one stream, by lane."""

    def __init__(self, kpis: int, horizon: int, levels: Sequence[float]) -> None:
        self._levels = tuple(levels)
        self._milli = np.round(np.asarray(levels) * 1000).astype(np.int64)
        self._middle = middle_of(levels)
        self._cell = (kpis, horizon)
        self.pending = PendingRing(kpis, horizon, len(levels))
        self.factor = np.ones((0, kpis, horizon, len(levels)), np.float32)
        self._sums = np.zeros((0, len(SCORED_SOURCES), horizon, kpis, self._width), np.int64)

    @property
    def _width(self) -> int:
        return 4 + 2 * len(self._levels)  # n, abs, square, naive abs, below by level, pinball by level

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
        ticks, naive, sources = self.pending.due(rows, slot)
        y = truth[:, None, :]
        known = (y != MISSING_TICKS) & (naive != MISSING_TICKS) & (sources != Source.NONE)
        if not known.any():
            return
        starts = np.flatnonzero(np.r_[True, lane[1:] != lane[:-1]])
        for source in SCORED_SOURCES:
            mine = known & (sources == source)
            if mine.any():
                self._sums[lane[starts], source] += self._summed(y, ticks, naive, mine, starts)  # lanes are unique here

    def _summed(
        self, y: Int32Array, ticks: Int32Array, naive: Int32Array, mine: AnyArray, starts: AnyArray
    ) -> IntArray:
        """Sums over the rows of each lane where ``mine`` (n, horizon, kpis) holds: (lanes, horizon, kpis, width).

        Pinball loss * 1000 of a difference d at a level is milli * d - 1000 * min(d, 0), so two sums of d suffice.
        """

        def total(terms: AnyArray) -> IntArray:
            sums: IntArray = np.add.reduceat(terms, starts, axis=0, dtype=np.int64)
            return sums

        whole = bool(mine.all())
        difference = y[..., None] - ticks  # (n, horizon, kpis, levels); where not mine it may wrap, and is dropped
        difference = difference if whole else np.where(mine[..., None], difference, 0)
        error = np.abs(difference[..., self._middle])
        naive_error = np.abs(y - naive)
        below = difference <= 0
        sums = np.empty((len(starts), *mine.shape[1:], self._width), np.int64)
        levels = len(self._levels)
        sums[..., 0] = total(mine)
        sums[..., 1] = total(error)
        sums[..., 2] = total(np.square(error, dtype=np.int64))
        sums[..., 3] = total(naive_error if whole else np.where(mine, naive_error, 0))
        sums[..., 4 : 4 + levels] = total(below if whole else below & mine[..., None])
        sums[..., 4 + levels :] = self._milli * total(difference) - 1000 * total(np.minimum(difference, 0))
        return sums

    def sums(self, lane: int) -> Iterator[Sums]:
        """All (source, KPI, lead) of the bucket in progress that have a truth."""
        levels = len(self._levels)
        table = self._sums[lane]
        for source, lead, kpi in np.argwhere(table[..., 0]).tolist():
            n, absolute, square, naive, *rest = table[source, lead, kpi].tolist()
            yield Sums(source, kpi, lead + 1, n, absolute, square, naive, tuple(rest[:levels]), tuple(rest[levels:]))

    def restore(self, lane: int, rows: Sequence[Sums]) -> None:
        """Take back the sums of a bucket in progress."""
        for row in rows:
            values = [row.n, row.abs_ticks, row.square_ticks, row.naive_abs_ticks, *row.below, *row.pinball]
            self._sums[lane, row.source, row.lead_steps - 1, row.kpi] = values

    def close_bucket(self, lane: int) -> None:
        """Move the calibration by what the bucket showed of model forecasts, and begin the next bucket."""
        model = self._sums[lane, SCORED_SOURCES.index(Source.MODEL)]
        below = model[..., 4 : 4 + len(self._levels)].transpose(1, 0, 2)
        self.factor[lane] = moved(self.factor[lane], self._levels, self._middle, below, model[..., 0].T)
        self._sums[lane] = 0

    def factors(self, lane: AnyArray) -> FloatArray:
        """Calibration of each row's lane, float32 (n or 1, kpis, horizon, levels)."""
        if len(lane) and (lane == lane[0]).all():
            return self.factor[lane[:1]]
        return self.factor[lane]


HASH_SPACE = 2**32


def sampled(key_hash: int, share: float) -> bool:
    """Whether a series is in the fixed hash sample of this share; the same on every run."""
    return (key_hash % HASH_SPACE) < share * HASH_SPACE

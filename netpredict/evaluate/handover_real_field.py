"""Stretches laid side by side for a replay: levels of the linked radio cells in slots, what is strong, what is skipped.

A radio cell that is not measured is weak, not absent. The recording lists the two strongest neighbours: where it lists
two, one that is not among them stands ``BELOW_LISTED_DB`` below the weaker of the two, which is the most that it can
have; where it lists fewer, at ``WEAK_DBM``. After the memory of the linking it can never be linked again and is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.evaluate.handover_real_links import Linking, Stretch
from netpredict.types import AnyArray, BoolArray, FloatArray, IntArray

WEAK_DBM = -125.0
BELOW_LISTED_DB = 1.0
OUTAGE_DB = 6.0
"""A second is one of outage where the serving radio cell is more than this below the best one measured."""


@dataclass(frozen=True, slots=True)
class Field:
    """N stretches, the longest first, padded to T seconds and K slots.

    ``levels`` float32 (N, T, K) dBm, weak where not measured, -inf in an empty slot; ``owner`` (N, T, K): number of the
    radio cell, -1 in an empty slot; ``best`` (N, T) dBm; ``skipped`` (N, T), beyond the end too; ``start`` (N,) slot
    that serves at first; ``steps`` (N,) seconds; ``active`` (T,) stretches that last so long; ``drive`` (N,).
    """

    levels: FloatArray
    measured: BoolArray
    owner: IntArray
    best: FloatArray
    skipped: BoolArray
    start: IntArray
    steps: IntArray
    active: IntArray
    drive: IntArray

    def counted(self) -> IntArray:
        """Seconds of each stretch in which outage can be told, (N,)."""
        seconds: IntArray = (~self.skipped[:, 1:]).sum(axis=1)
        return seconds


def field_of(stretches: Sequence[Stretch], linking: Linking) -> Field:
    """Lay them out; ``stretches`` are not empty."""
    ordered = sorted(stretches, key=lambda each: -len(each.serving))
    steps = np.array([len(each.serving) for each in ordered])
    slots = [_slots(each, linking.memory_s) for each in ordered]
    shape = (len(ordered), int(steps[0]), 1 + max(int(slot.max()) for slot, _ in slots))
    levels, owner = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    measured = np.zeros(shape, np.bool_)
    best, skipped = np.full(shape[:2], np.nan, np.float32), np.ones(shape[:2], np.bool_)
    start = np.zeros(len(ordered), np.int64)
    for n, (each, (slot, alive)) in enumerate(zip(ordered, slots, strict=True)):
        seen, filled = np.isfinite(each.levels), _filled(each)
        second, cell = np.nonzero(alive)
        place = (n, second, slot[cell])
        levels[place], owner[place], measured[place] = filled[second, cell], cell, seen[second, cell]
        skipped[n, : steps[n]] = each.skipped
        best[n, : steps[n]] = np.where(seen, each.levels, -np.inf).max(axis=1)
        start[n] = slot[each.serving[0]]
    active = (steps[None] > np.arange(steps[0])[:, None]).sum(axis=1)
    drive = np.array([each.drive for each in ordered])
    return Field(levels, measured, owner, best, skipped, start, steps, active, drive)


def _filled(each: Stretch) -> FloatArray:
    """Levels (T, M) with what is not measured as weak as it must be; a skipped second keeps the last."""
    seen = np.isfinite(each.levels)
    weakest = np.where(seen, each.levels, np.inf).min(axis=1)
    bound = np.where(seen.sum(axis=1) > 2, weakest - BELOW_LISTED_DB, WEAK_DBM)
    filled = np.where(seen, each.levels, bound[:, None])
    last = np.maximum.accumulate(np.where(each.skipped, 0, np.arange(len(filled))))
    held: FloatArray = filled[last].astype(np.float32)
    return held


def _slots(each: Stretch, memory_s: int) -> tuple[IntArray, BoolArray]:
    """Slot of each radio cell (M,), and when it is alive (T, M): a slot is free again once its radio cell is gone."""
    seen = np.isfinite(each.levels)
    seconds = np.arange(len(seen))[:, None]
    first = seen.argmax(axis=0)
    until = len(seen) - 1 - seen[::-1].argmax(axis=0) + memory_s
    slot, free_from = np.zeros(seen.shape[1], np.int64), list[int]()
    for cell in np.argsort(first, kind="stable").tolist():
        place = next((k for k, free in enumerate(free_from) if free < first[cell]), len(free_from))
        free_from[place : place + 1] = [int(until[cell])]
        slot[cell] = place
    return slot, (seconds >= first) & (seconds <= until)


@dataclass(frozen=True, slots=True)
class Tally:
    """Of P settings on N stretches: seconds of outage, handovers, and those that returned in time, each (N, P).

    ``late`` are the seconds of outage more that a handover one second later would have had: a share of a second, that
    share of it.
    """

    outages: AnyArray
    handovers: AnyArray
    ping_pongs: AnyArray
    late: AnyArray

    @staticmethod
    def side_by_side(parts: Sequence[Tally]) -> Tally:
        """The settings of all of them."""
        names = ("outages", "handovers", "ping_pongs", "late")
        return Tally(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names))

"""A UE taken along the linked levels by a rule: plain event A3 over its whole grid, or any rule that names a target.

A second's levels are known at its end; what is decided then serves from the next second on. In a skipped second nothing
is measured, decided or counted. A UE whose radio cell is gone goes on in the strongest one: a handover like others.
A ping-pong is a handover back to the radio cell left by the last one within ``PING_PONG_S``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from netpredict.evaluate.handover_real_field import OUTAGE_DB, Field, Tally
from netpredict.evaluate.handover_real_links import Stretch
from netpredict.radio.events import l3_weight_at, ttt_in_slots
from netpredict.types import AnyArray, BoolArray, IntArray

PING_PONG_S = 5
PERIOD_US = 1_000_000
MEASUREMENT_PERIOD_S = 0.2
"""What the filter coefficient k of TS 38.331 5.5.3.2 refers to."""


class Rule(Protocol):
    """P settings side by side."""

    settings: int

    def target(self, step: int, rows: int, slot: IntArray, moved: BoolArray) -> IntArray:
        """Slot that the first ``rows`` stretches go to from ``slot``, (rows, P), the same where they stay.

        ``moved`` (rows, P): the UE has just come to ``slot``. Called once per step, also where a stretch skips it.
        """
        ...


def replay(field: Field, rule: Rule) -> Tally:
    """Walk all stretches at once."""
    stretches, settings = len(field.steps), rule.settings
    tally = [np.zeros((stretches, settings), np.int32) for _ in range(4)]
    slot = np.repeat(field.start[:, None], settings, axis=1)
    cell = np.take_along_axis(field.owner[:, 0], slot, axis=1)
    left, since = np.full(slot.shape, -1, np.int64), np.full(slot.shape, -PING_PONG_S - 1, np.int64)
    left_slot = np.zeros(slot.shape, np.int64)
    moved = np.ones(slot.shape, np.bool_)
    for step in range(len(field.active)):
        rows = int(field.active[step])
        now, live = slice(0, rows), ~field.skipped[: field.active[step], step, None]
        if step:
            level = np.take_along_axis(field.levels[now, step], slot[now], axis=1)
            before = np.take_along_axis(field.levels[now, step], left_slot[now], axis=1)
            bar = field.best[now, step, None] - OUTAGE_DB
            tally[0][now] += (level < bar) & live
            come = moved[now] & live & (left[now] >= 0)
            tally[3][now] += ((before < bar).astype(np.int32) - (level < bar)) * come
        gone = np.take_along_axis(field.owner[now, step], slot[now], axis=1) != cell[now]
        strongest = field.levels[now, step].argmax(axis=1)[:, None]
        is_back = np.take_along_axis(field.owner[now, step], left_slot[now], axis=1) == left[now]
        is_back &= (left[now] >= 0) & (step - since[now] <= PING_PONG_S)
        back = np.where(is_back, left_slot[now], -1)
        target = np.where(gone, strongest, rule.target(step, rows, slot[now], moved[now] | gone))
        target = np.where(live | gone, target, slot[now])
        goes = (target != slot[now]) | gone
        there = np.take_along_axis(field.owner[now, step], target, axis=1)
        tally[1][now] += goes
        tally[2][now] += goes & (target == back)
        left[now], left_slot[now] = np.where(goes, cell[now], left[now]), np.where(goes, slot[now], left_slot[now])
        since[now] = np.where(goes, step, since[now])
        slot[now], cell[now], moved[now] = target, np.where(goes, there, cell[now]), goes
    return Tally(*tally)


GRID_OFFSETS_DB = tuple(half / 2 for half in range(-30, 31))
GRID_TTTS_MS = (0, 640, 1280, 2560, 5120)
"""Of the TTTs that TS 38.331 allows, one for each number of slots of a second."""
GRID_FILTER_KS = (0, 4, 8, 11, 13, 15, 17, 19)
USUAL = (3.0, 640, 4)
"""What networks begin with: 3 dB, any TTT of 40 to 640 ms (one slot), k = 4."""


@dataclass(frozen=True, slots=True)
class A3Setting:
    """Offset with hysteresis in dB, time to trigger in ms, filter coefficient."""

    offset_db: float
    ttt_ms: int
    filter_k: int

    def __str__(self) -> str:
        return f"A3 {self.offset_db:g} dB, TTT {self.ttt_ms} ms, k {self.filter_k}"


class PlainA3:
    """Event A3 of many settings with the same filter coefficient; as ``advance_ttt``, anew in each radio cell."""

    def __init__(self, field: Field, settings: Sequence[A3Setting]) -> None:
        self.settings, self._field = len(settings), field
        (filter_k,) = {each.filter_k for each in settings}
        self._filtered = filtered(field, l3_weight_at(filter_k, PERIOD_US / 1e6, MEASUREMENT_PERIOD_S))
        self._offset = np.array([each.offset_db for each in settings], np.float32)[:, None]
        self._slots = np.array([ttt_in_slots(each.ttt_ms, PERIOD_US) for each in settings], np.int8)[:, None]
        self._held = np.zeros((len(field.steps), self.settings, field.levels.shape[2]), np.int8)

    def target(self, step: int, rows: int, slot: IntArray, moved: BoolArray) -> IntArray:
        """See ``Rule``."""
        live = ~self._field.skipped[:rows, step]
        level, held = self._filtered[:rows, step], self._held[:rows]
        held *= ~moved[:, :, None]
        serving = np.take_along_axis(level, slot, axis=1)
        entering = level[:, None] > serving[:, :, None] + self._offset
        np.copyto(held, np.where(entering, np.minimum(held + 1, 100), 0), where=live[:, None, None])
        score = np.where(held > self._slots, level[:, None], -np.inf)
        best: IntArray = score.argmax(axis=2)
        return np.where(np.isfinite(score.max(axis=2)), best, slot)


def filtered(field: Field, weight: float) -> AnyArray:
    """L3 filter of every radio cell along its stretch, (N, T, K) dBm; skipped seconds keep what was."""
    found = field.levels.copy()
    for step in range(1, found.shape[1]):
        same = (field.owner[:, step] == field.owner[:, step - 1]) & (field.owner[:, step] >= 0)
        before = np.where(same, found[:, step - 1], 0.0)
        mixed = before + np.float32(weight) * (np.where(same, found[:, step], 0.0) - before)
        mixed = np.where(field.skipped[:, step, None], before, mixed)
        found[:, step] = np.where(same, mixed, found[:, step])
    return found


def recorded_of(stretches: Sequence[Stretch]) -> tuple[int, int, int]:
    """What the network itself did in the recording: seconds of outage, handovers, ping-pongs."""
    outages, handovers, ping_pongs = 0, 0, 0
    for each in stretches:
        seconds = np.flatnonzero(each.serving >= 0)
        serving = each.serving[seconds]
        level = each.levels[seconds, serving]
        outages += int((level < np.nanmax(each.levels[seconds], axis=1) - OUTAGE_DB).sum())
        turns = np.flatnonzero(np.diff(serving))
        handovers += len(turns)
        stay_s = seconds[turns[1:] + 1] - seconds[turns[:-1] + 1]
        ping_pongs += int(((serving[turns[1:] + 1] == serving[turns[:-1]]) & (stay_s <= PING_PONG_S)).sum())
    return outages, handovers, ping_pongs

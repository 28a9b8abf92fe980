"""Handovers on known RSRP: plain A3 in many settings, and the walk of UEs under any rule (data README, TR 36.839).

What becomes of a link is that of ``radio.link_failure``. A failure costs an outage of 200 ms, after which the UE is in
the radio cell with the best filtered RSRP. Ping-pong: back in the source within 1 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from netpredict.radio.link_failure import EXECUTION, OUTAGE, PREPARATION, TICK_MS, Radio, filtered
from netpredict.radio.link_failure import radio_of as tables_of
from netpredict.traces.ns3_uma import PERIOD_MS, STEP_MS, Scene
from netpredict.types import BoolArray, FloatArray, IntArray

TICKS = PERIOD_MS // TICK_MS
"""Of one measurement period."""
PING_PONG = 100
"""Ticks."""


def radio_of(scene: Scene) -> Radio:
    """The tables of a scene."""
    return tables_of(scene.rsrp_dbm, STEP_MS, PERIOD_MS)


class Rule(Protocol):
    """Decides for many settings at once; ``wait``: ticks from a measurement to what it leads to, (settings, 1)."""

    settings: int
    wait: IntArray

    def best(self, period: int) -> IntArray:
        """Where a UE goes after a failure: the radio cell with the best filtered RSRP, (settings or 1, UEs)."""
        ...

    def decide(self, period: int, serving: IntArray, began: IntArray) -> IntArray:
        """The target of each (setting, UE), -1 to stay, by what is measured up to ``period``.

        ``serving`` is the radio cell and ``began`` the tick since when; in an outage it is that after the outage, and
        the answer is not used.
        """
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened, (settings, UEs) each; ``minutes`` of one UE."""

    handovers: IntArray
    radio_link_failures: IntArray
    handover_failures: IntArray
    ping_pongs: IntArray
    minutes: float

    @property
    def failures(self) -> IntArray:
        """Radio-link and handover failures."""
        return self.radio_link_failures + self.handover_failures


def walk(radio: Radio, rule: Rule) -> Counts:
    """All UEs through all periods, for every setting of the rule."""
    walker = _Walker(radio, rule)
    for period in range(radio.periods):
        walker.drop(period)
        walker.hand_over(period)
    handovers, lost, failed, returned = walker.counts
    return Counts(handovers, lost, failed, returned, radio.periods * PERIOD_MS / 60_000)


class _Walker:
    """Where every UE is under every setting, (settings, UEs): radio cell, since when, when its link fails, source."""

    def __init__(self, radio: Radio, rule: Rule) -> None:
        self._radio, self._rule = radio, rule
        shape = (rule.settings, radio.ues)
        self._ue = np.broadcast_to(np.arange(radio.ues), shape)
        self.serving = np.array(np.broadcast_to(rule.best(0), shape), np.int64)
        self.began = np.zeros(shape, np.int64)
        self._ends = self._link_ends(self.began, self._ue, self.serving)
        self._source = np.full(shape, -1, np.int64)
        self.counts = [np.zeros(shape, np.int64) for _ in range(4)]

    def drop(self, period: int) -> None:
        """Radio-link failures up to this measurement."""
        dropped = self._ends <= period * TICKS
        if dropped.any():
            self.counts[1] += dropped
            self._fail(dropped, self._ends.copy(), period)

    def hand_over(self, period: int) -> None:
        """What the rule decides by this measurement, with what comes of it."""
        target = self._rule.decide(period, self.serving, self.began)
        now = period * TICKS
        command = now + self._rule.wait + PREPARATION
        due = (target >= 0) & (self.began <= now) & (self._ends > command)
        if not due.any():
            return
        command = np.minimum(np.broadcast_to(command, due.shape), len(self._radio.ends) - 1 - EXECUTION)
        arrival = command + EXECUTION
        late = due & (self._radio.lost[command, self._ue, self.serving] >= self.began)
        refused = due & ~late & self._radio.out[arrival, self._ue, np.maximum(target, 0)]
        done = due & ~late & ~refused
        self.counts[0] += done
        self.counts[2] += late | refused
        self.counts[3] += done & (target == self._source) & (arrival - self.began < PING_PONG)
        self._source[done] = self.serving[done]
        self.serving[done], self.began[done] = target[done], arrival[done]
        self._ends[done] = self._link_ends(arrival[done], self._ue[done], target[done])
        if (late | refused).any():
            self._fail(late, command, period + 1)
            self._fail(refused, arrival, period + 1)

    def _fail(self, where: BoolArray, since: IntArray, period: int) -> None:
        best = np.broadcast_to(self._rule.best(min(period, self._radio.periods)), where.shape)
        self.began[where], self.serving[where], self._source[where] = since[where] + OUTAGE, best[where], -1
        self._ends[where] = self._link_ends(self.began[where], self._ue[where], best[where])

    def _link_ends(self, began: IntArray, ue: IntArray, cell: IntArray) -> IntArray:
        ends: IntArray = self._radio.ends[np.minimum(began, len(self._radio.ends) - 1), ue, cell].astype(np.int64)
        return ends


class PlainA3:
    """Event A3 of TS 38.331 on filtered RSRP, the best neighbour that has held it throughout the time to trigger.

    One setting for each filter coefficient x offset x time to trigger, in this order. The condition is evaluated at
    measurements and holds from each to the next, so that the time to trigger may end between two of them.
    """

    def __init__(
        self, measured_dbm: FloatArray, filter_ks: Sequence[int], offsets_db: Sequence[float], ttts_ms: Sequence[int]
    ) -> None:
        self._levels = np.stack([filtered(measured_dbm, k) for k in filter_ks])
        self._best = self._levels.argmax(axis=-1)
        self._shape = (len(filter_ks), len(offsets_db), len(ttts_ms), measured_dbm.shape[0])
        self.settings = int(np.prod(self._shape[:3]))
        self._offset_db = np.asarray(offsets_db, np.float32)[None, :, None, None, None]
        slots, rest_ms = np.divmod(np.asarray(ttts_ms, np.int64), PERIOD_MS)
        self._ttt = slots.astype(np.int16)[None, None, :, None, None]
        self.wait = np.broadcast_to(rest_ms // TICK_MS, self._shape[:3]).reshape(-1, 1)
        self._held = np.zeros((*self._shape, measured_dbm.shape[2]), np.int16)
        self._began = np.zeros((self.settings, self._shape[3]), np.int64)

    def best(self, period: int) -> IntArray:
        """By its own filter."""
        each = np.broadcast_to(self._best[:, None, None, :, period], self._shape)
        return each.reshape(self.settings, self._shape[3])

    def decide(self, period: int, serving: IntArray, began: IntArray) -> IntArray:
        """A new serving radio cell starts all timers anew."""
        levels = np.broadcast_to(self._levels[:, None, None, :, period], self._held.shape)
        place = serving.reshape(self._shape)[..., None]
        limit = np.take_along_axis(levels, place, axis=-1) + self._offset_db
        self._held[(began != self._began).reshape(self._shape)] = 0
        self._began = began.copy()
        self._held += 1
        self._held *= levels > limit
        met = self._held > self._ttt
        np.put_along_axis(met, place, False, axis=-1)
        some = met.any(axis=-1)
        target = np.full(self._shape, -1, np.int64)
        target[some] = np.where(met[some], levels[some], -np.inf).argmax(axis=-1)
        return target.reshape(serving.shape)

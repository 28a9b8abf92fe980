"""What becomes of a radio link of which every RSRP is known: radio-link failure, and commands that fail.

In the spirit of TR 36.839 (data README). Time is in ticks of 10 ms, RSRP linear in dB between two levels. SINR =
S / (N + load · all other radio cells), N = -174 dBm/Hz + 9 dB in 15 kHz. Out of sync below -8 dB, in sync above -6 dB,
N310 = N311 = 1, T310 = 1 s. A decision falls due at a measurement. After the preparation the command fails when T310
runs; after the execution the handover fails when the target is out of sync.

What a UE does changes nothing on the air. So all that can happen to a link follows from when it began: the tables of
``Radio`` hold it for every radio cell, and ``fates`` what of it matters at measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netpredict.types import AnyArray, BoolArray, FloatArray, Int32Array

TICK_MS = 10
LOAD = 0.3
NOISE_MW = 10 ** ((-174 + 9 + 10 * np.log10(15_000)) / 10)
OUT_OF_SYNC_DB, IN_SYNC_DB = -8.0, -6.0
T310, PREPARATION, EXECUTION, OUTAGE = 100, 5, 4, 20
"""Ticks."""
NEVER = 2**30
REPORTED_DB = 16.0
"""A UE is taken to report radio cells so close to the strongest one."""


@dataclass(frozen=True, slots=True)
class Radio:
    """What becomes of links by tick, UE and radio cell, with ``ticks`` in a measurement period.

    ``ends``: the tick of the radio-link failure of a link that begins at this tick, ``NEVER`` without one;
    ``lost``: the last tick out of sync when no tick in sync has come since, else -1; ``out``: whether out of sync now.
    """

    ends: Int32Array
    lost: Int32Array
    out: BoolArray
    ticks: int

    @property
    def ues(self) -> int:
        """Number of UEs."""
        return int(self.ends.shape[1])

    @property
    def periods(self) -> int:
        """Measurement periods that can be walked: what is decided in the last one can still be carried out."""
        return len(self.ends) // self.ticks - 1


class Fates(NamedTuple):
    """At each measurement, (periods, UEs, radio cells), in hindsight.

    ``late``: a command now would fail, T310 running; ``refused``: a handover to this radio cell would fail;
    ``drops``: a link that has stood for long fails before the next measurement.
    """

    late: BoolArray
    refused: BoolArray
    drops: BoolArray


def sinr_db(rsrp_dbm: AnyArray, load: float = LOAD) -> FloatArray:
    """SINR of each radio cell on the last axis when all others send with this load."""
    power_mw = np.exp(np.asarray(rsrp_dbm, np.float32) * np.float32(np.log(10) / 10))
    others_mw = power_mw.sum(axis=-1, keepdims=True) - power_mw
    ratio: FloatArray = rsrp_dbm - 10 * np.log10(np.float32(NOISE_MW) + np.float32(load) * others_mw)
    return ratio


def radio_of(rsrp_dbm: FloatArray, step_ms: int, period_ms: int, load: float = LOAD) -> Radio:
    """The tables of RSRP (UEs, steps, radio cells) in dBm, one every ``step_ms``; both times are multiples of 10 ms."""
    return _radio(rsrp_dbm, lambda level_dbm: sinr_db(level_dbm, load), step_ms, period_ms)


def radio_of_sinr(ratio_db: FloatArray, period_ms: int) -> Radio:
    """The tables of SINR (UEs, periods, radio cells) in dB, linear in dB between measurements."""
    return _radio(ratio_db, lambda between_db: between_db, period_ms, period_ms)


def _radio(known: FloatArray, sinr_of: Callable[[FloatArray], FloatArray], step_ms: int, period_ms: int) -> Radio:
    """Of what is known at steps, linear between them, and tells the SINR."""
    ues, steps, cells = known.shape
    fine = step_ms // TICK_MS
    share = (np.arange(fine, dtype=np.float32) / fine)[None, :, None]
    out = np.empty(((steps - 1) * fine, ues, cells), np.bool_)
    back = np.empty_like(out)
    for ue, each in enumerate(known):
        between = each[:-1, None] * (1 - share) + each[1:, None] * share
        ratio = sinr_of(between.reshape(-1, cells))
        out[:, ue], back[:, ue] = ratio < OUT_OF_SYNC_DB, ratio > IN_SYNC_DB
    return Radio(_ends(out, back), _lost(out, back), out, period_ms // TICK_MS)


def fates(radio: Radio) -> Fates:
    """What of the tables matters at measurements."""
    tick = radio.ticks * np.arange(radio.periods)
    ends = radio.ends[np.maximum(tick - T310, 0)]  # of a link that is old enough to fail whenever it can
    drops = (ends > tick[:, None, None]) & (ends <= tick[:, None, None] + radio.ticks)
    return Fates(radio.lost[tick + PREPARATION] >= 0, radio.out[tick + PREPARATION + EXECUTION], drops)


def _ends(out: BoolArray, back: BoolArray) -> Int32Array:
    """Backwards: out of sync, T310 expires unless in sync comes first, whereafter the link is as new."""
    ends = np.full(out.shape, NEVER, np.int32)
    next_back, after_back, later = (np.full(out.shape[1:], NEVER, np.int32) for _ in range(3))
    for tick in range(len(out) - 1, -1, -1):
        expiry = tick + T310 if tick + T310 < len(out) else NEVER
        now = out[tick]
        later[now] = np.where(next_back[now] - tick > T310, expiry, after_back[now])
        ends[tick] = later
        next_back[back[tick]] = tick
        np.copyto(after_back, later, where=back[tick])
    return ends


def _lost(out: BoolArray, back: BoolArray) -> Int32Array:
    lost = np.full(out.shape, -1, np.int32)
    last = np.full(out.shape[1:], -1, np.int32)
    for tick, (now, sync) in enumerate(zip(out, back, strict=True)):
        last[sync] = -1
        last[now] = tick
        lost[tick] = last
    return lost


def filtered(measured_dbm: FloatArray, k: int) -> FloatArray:
    """The L3 filter of TS 38.331 5.5.3.2 along the periods, (UEs, periods, radio cells)."""
    share = np.float32(0.5 ** (k / 4))
    level = np.array(measured_dbm, np.float32)
    for period in range(1, level.shape[1]):
        level[:, period] = (1 - share) * level[:, period - 1] + share * measured_dbm[:, period]
    return level

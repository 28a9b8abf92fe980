"""Adaptive conformal correction of quantiles, and the one rounding that all later parts see.

Per lane, predictor version, KPI, lead and level a factor widens or narrows the distance of the quantile from the
middle one. It moves at the end of a bucket by what share of truths lay under the quantile, after adaptive
conformal inference (Gibbs and Candès 2021) on the log of the width; it is a function of integer counts alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from netpredict.radio.classes import class_ticks
from netpredict.radio.quantities import Kpi
from netpredict.types import MISSING_TICKS, FloatArray, Int32Array, IntArray

GAIN = 2.0
"""Change of log width per unit of miscoverage."""
DAMPING = 50
"""Truths at which a bucket moves the factor by half of the full gain."""
LOG_FACTOR_MAX = math.log(20.0)
_GOLDEN = np.uint64(
    0x9E3779B97F4A7C15
)  # 2**64 / golden ratio: its multiples fill the range evenly, whatever the stride


def middle_of(levels: Sequence[float]) -> int:
    """Index of the level nearest to the median: the point forecast."""
    return int(np.argmin(np.abs(np.asarray(levels) - 0.5)))


def widen(values: FloatArray, factor: FloatArray, middle: int) -> FloatArray:
    """Scale each quantile's distance from the middle: (n, kpis, horizon, levels) both, a new array.

    An outer quantile that would come to lie inside the one before it takes its place. They must not change places: the
    share under a quantile moves the factor of that level, and with another level's value there it would run away.
    """
    centre = values[..., middle : middle + 1]
    corrected: FloatArray = centre + (values - centre) * factor
    if (corrected[..., 1:] < corrected[..., :-1]).any():
        outward = corrected[..., middle:]
        np.maximum.accumulate(outward, axis=-1, out=outward)
        outward = corrected[..., middle::-1]
        np.minimum.accumulate(outward, axis=-1, out=outward)
    return corrected


class Cells:
    """Where in its class a truth of an integer KPI counts as lying, in ticks.

    The forecast of such a KPI fills (c - 1/2, c + 1/2) of each class c evenly (``netpredict.radio.classes``). A truth
    that always lay in the middle would count wholly on one side of a quantile inside its class, and the factors would
    drift from 1 under forecasts that are right. So it is spread over its class by a sequence of the slots that fills it
    evenly: the randomised PIT of Czado, Gneiting and Held (2009), with Weyl's sequence in place of chance. Nothing is
    spread beyond the ends of the range, where quantiles are cut off, too.
    """

    def __init__(self, kpis: Sequence[Kpi]) -> None:
        scale = np.array([10.0**kpi.decimals for kpi in kpis])
        self.ticks: IntArray = np.array([class_ticks(kpi) for kpi in kpis], np.int64)
        self._low = np.round(np.array([kpi.low for kpi in kpis]) * scale)
        self._high = np.round(np.array([kpi.high for kpi in kpis]) * scale)

    def truth(self, ticks: Int32Array, slot: IntArray) -> Int32Array:
        """``ticks`` (n, kpis) of target slots (n,), those of KPIs with classes at their place; MISSING_TICKS stay."""
        if not self.ticks.any():
            return ticks
        with np.errstate(over="ignore"):
            turn = (np.asarray(slot, np.int64).view(np.uint64) * _GOLDEN >> np.uint64(32)).astype(np.int64)
        placed = ticks + (turn[:, None] * self.ticks >> 32) - self.ticks // 2
        inside = np.clip(placed, self._low, self._high)
        spread: Int32Array = np.where((self.ticks > 0) & (ticks != MISSING_TICKS), inside, ticks).astype(np.int32)
        return spread


def moved(factor: FloatArray, levels: Sequence[float], middle: int, below: IntArray, n: IntArray) -> FloatArray:
    """The factors after a bucket: ``below`` (kpis, horizon, levels) of ``n`` (kpis, horizon) truths lay under a level.

    Below the middle too many truths mean that the quantile is too high, above it too few: both widen. A truth on the
    quantile itself counts as inside the interval on both sides, so that the closed interval has its nominal share.
    """
    share = below / np.maximum(n, 1)[..., None]
    side = np.sign(np.arange(len(levels)) - middle)
    miss = side * (np.asarray(levels) - share)
    weight = (n / (n + DAMPING))[..., None]
    logs = np.clip(np.log(factor.astype(np.float64)) + GAIN * weight * miss, -LOG_FACTOR_MAX, LOG_FACTOR_MAX)
    return np.exp(logs).astype(np.float32)


class Rounding:
    """Fixed point of each KPI: ticks = value * 10**decimals, inside the KPI's range, quantiles never crossing."""

    def __init__(self, decimals: Sequence[int], low: Sequence[float], high: Sequence[float]) -> None:
        self._scale = np.array([10.0**places for places in decimals], np.float64)
        self._low = np.round(np.array(low, np.float64) * self._scale)
        self._high = np.round(np.array(high, np.float64) * self._scale)

    def observed(self, values: FloatArray) -> Int32Array:
        """float32 (n, k) to ticks int32 (n, k), NaN to MISSING_TICKS."""
        with np.errstate(invalid="ignore"):
            ticks = np.rint(values * self._scale)
        return np.where(np.isnan(ticks), MISSING_TICKS, np.clip(ticks, -(2**31) + 1, 2**31 - 1)).astype(np.int32)

    def natural(self, ticks: Int32Array) -> FloatArray:
        """What ``observed`` gave, back to float32 (n, k), MISSING_TICKS to NaN."""
        values = (ticks / self._scale).astype(np.float32)
        values[ticks == MISSING_TICKS] = np.nan
        return values

    def forecast(self, values: FloatArray) -> Int32Array:
        """float32 (n, k, horizon, levels) to ticks, clipped to the range and sorted along the levels."""
        shape = (1, -1, 1, 1)
        with np.errstate(invalid="ignore"):
            ticks = np.rint(values * self._scale.reshape(shape))
        missing = np.isnan(ticks)
        np.clip(ticks, self._low.reshape(shape), self._high.reshape(shape), out=ticks)
        if missing.any():
            ticks[missing] = MISSING_TICKS
        whole = ticks.astype(np.int32)
        if (whole[..., 1:] < whole[..., :-1]).any():
            whole.sort(axis=-1)
        return whole

    def values(self, ticks: Int32Array) -> FloatArray:
        """Ticks (n, k, horizon, levels) back to float32, MISSING_TICKS to NaN: what hooks and users see."""
        values = (ticks / self._scale.reshape(1, -1, 1, 1)).astype(np.float32)
        values[ticks == MISSING_TICKS] = np.nan
        return values

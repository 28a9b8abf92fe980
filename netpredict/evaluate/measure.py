"""What forecasts were worth, by lead time. Formulas of the project's evaluation reference, over arrays.

Truth ``y`` and point ``f`` are (issues, series) of one KPI and lead; NaN in either leaves the pair out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.types import AnyArray, FloatArray

INTERVAL = (0.1, 0.9)
"""Levels of the interval whose coverage is told."""


@dataclass(frozen=True, slots=True)
class Measures:
    """``mae`` and ``pinball`` (mean over the levels) in units of the KPI; None where nothing can be said."""

    n: int
    mae: float | None
    mase: float | None
    wape: float | None
    pinball: float | None
    coverage: float | None


def skill(error: float | None, baseline: float | None) -> float | None:
    """1 - error / baseline: above zero the forecast is better; None without a baseline, or one without error."""
    return None if error is None or not baseline else 1.0 - error / baseline


def mase_scale(history: FloatArray, season: int) -> AnyArray:
    """In-sample mean absolute error of the seasonal naive forecast: (series, steps) -> (series,), NaN where 0."""
    steps = np.abs(history[:, season:].astype(np.float64) - history[:, :-season])
    known = np.isfinite(steps)
    n = known.sum(axis=1)
    mean = np.where(known, steps, 0.0).sum(axis=1) / np.maximum(n, 1)
    scale: AnyArray = np.where((n > 0) & (mean > 0), mean, np.nan)
    return scale


def mean_error(y: FloatArray, f: FloatArray) -> float | None:
    """MAE over all pairs."""
    return _mean(np.abs(y.astype(np.float64) - f))


def measure(y: FloatArray, levels: Sequence[float], quantiles: FloatArray, scale: AnyArray) -> Measures:
    """Truth (issues, series) against quantiles (issues, series, levels); ``scale`` (series,) is that of the MASE.

    MASE is the mean over the series of MAE / scale; series without a scale stay out of it.
    """
    truth = y.astype(np.float64)
    error = np.abs(truth - quantiles[:, :, middle(levels)])
    known = np.isfinite(error)
    total = float(np.abs(truth[known]).sum())
    return Measures(
        n=int(known.sum()),
        mae=_mean(error),
        mase=_mean(_by_series(error) / scale),
        wape=float(error[known].sum()) / total if total else None,
        pinball=_mean(_pinball(truth, levels, quantiles)),
        coverage=_coverage(truth, levels, quantiles, known),
    )


def middle(levels: Sequence[float]) -> int:
    """Index of the point forecast."""
    return int(np.argmin(np.abs(np.asarray(levels) - 0.5)))


def _pinball(truth: AnyArray, levels: Sequence[float], quantiles: FloatArray) -> AnyArray:
    error = truth[:, :, None] - quantiles
    tau = np.asarray(levels)
    loss: AnyArray = np.maximum(tau * error, (tau - 1.0) * error).mean(axis=2)
    return loss


def _coverage(truth: AnyArray, levels: Sequence[float], quantiles: FloatArray, known: AnyArray) -> float | None:
    if not set(INTERVAL) <= set(levels) or not known.any():
        return None
    low, high = (quantiles[:, :, list(levels).index(level)] for level in INTERVAL)
    return float(((low <= truth) & (truth <= high))[known].mean())


def _by_series(error: AnyArray) -> AnyArray:
    known = np.isfinite(error)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, error, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def _mean(values: AnyArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None

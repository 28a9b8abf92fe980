"""KPIs that are integers of a short range (CQI, MCS, rank): their classes, and their distribution as quantiles.

A stream stores quantiles, whatever the predictor knows. The distribution over the classes low..high is written as the
distribution function that rises linearly through the interval (c - 1/2, c + 1/2) of each class c by its probability;
a quantile is read off that function. P(Y >= c) is then what is left of it at c - 1/2, and can be read back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.radio.quantities import KPIS, FloatArray, Kpi

_INTEGER_UNITS = ("index", "layers")
FINE_LEVELS: tuple[float, ...] = (
    *(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25),
    *(0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97),
)
"""Quantile levels by which ``probability_at_least`` is read closely where a choice by cost looks: near 1."""


def classes_of(kpi: str) -> tuple[int, ...]:
    """The classes of a KPI whose unit counts ("index" or "layers"), lowest first; ConfigError for any other KPI."""
    known = KPIS.get(kpi)
    if known is None or known.unit not in _INTEGER_UNITS:
        able = ", ".join(name for name, entry in KPIS.items() if entry.unit in _INTEGER_UNITS)
        raise ConfigError(f"{kpi!r} has no classes: only an integer index has ({able})")
    return tuple(range(int(known.low), int(known.high) + 1))


def class_ticks(kpi: Kpi) -> int:
    """Ticks (fixed point of the KPI) from one class to the next; 0 for a KPI that has no classes."""
    return int(10**kpi.decimals) if kpi.unit in _INTEGER_UNITS else 0


def probability_at_least(quantiles: npt.ArrayLike, levels: Sequence[float], classes: Sequence[int]) -> FloatArray:
    """P(Y >= c) for every class c: quantiles (…, levels) in the KPI's unit -> (…, classes), falling, 1 at the lowest.

    ``levels`` rise inside 0 and 1, ``classes`` are consecutive. Between two quantiles the distribution function is
    read linearly, beyond the outer ones towards the ends of the range. The error is therefore at most the distance of
    the two levels around the answer (0 and 1 count as levels), plus half of the last decimal that is stored; cutting
    the quantiles at the ends of the range does not change that. A NaN among the quantiles gives NaN.
    """
    points = np.asarray(quantiles, np.float64)
    low, high = classes[0] - 0.5, classes[-1] + 0.5
    ends = np.broadcast_to([low, high], (*points.shape[:-1], 2))
    points = np.concatenate([ends[..., :1], np.clip(points, low, high), ends[..., 1:]], axis=-1)
    heights = np.array([0.0, *levels, 1.0])
    edges = np.asarray(classes[1:], np.float64)[:, None] - 0.5
    left, right = points[..., None, :-1], points[..., None, 1:]
    width = np.where(right > left, right - left, np.inf)
    risen = np.where(edges >= right, 1.0, np.clip((edges - left) / width, 0.0, 1.0))
    below = risen @ np.diff(heights)
    below[np.isnan(points).any(axis=-1)] = np.nan
    first = np.where(np.isnan(points).any(axis=-1), np.nan, 1.0)[..., None]
    return np.concatenate([first, 1.0 - below], axis=-1)


def class_probabilities(quantiles: npt.ArrayLike, levels: Sequence[float], classes: Sequence[int]) -> FloatArray:
    """P(Y = c) for every class c, (…, classes), summing to 1; differences of ``probability_at_least``."""
    at_least = probability_at_least(quantiles, levels, classes)
    chance: FloatArray = -np.diff(at_least, axis=-1, append=0.0)
    return chance

"""What the predictors without weights share: which columns they forecast, and quantiles of a normal error."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from netpredict.errors import ConfigError
from netpredict.forecast.predictor import ABSURD
from netpredict.types import AnyArray, FeatureSpec, FloatArray, Outputs, OutputSpec

__all__ = ["ABSURD", "by_kpi", "forecast_columns", "normal_factors"]

_NORMAL_FROM_MEAN_ABSOLUTE = 1.2533141  # sigma of a normal error / its mean absolute value


def forecast_columns(name: str, features: FeatureSpec, output: OutputSpec) -> list[int]:
    """Places of the forecast KPIs among the observed columns; ConfigError where ``name`` cannot answer them."""
    if output.kind != "quantiles":
        raise ConfigError(f"{name} answers quantiles, not {output.kind!r}")
    if missing := [kpi for kpi in output.kpis if kpi not in features.observed]:
        raise ConfigError(f"forecast KPIs {missing} are not among the observed columns {list(features.observed)}")
    return [features.observed.index(kpi) for kpi in output.kpis]


def normal_factors(levels: Sequence[float]) -> AnyArray:
    """Of each level: the quantile of a normal error whose mean absolute value is 1, exactly 0 at 0.5."""
    factors = [_NORMAL_FROM_MEAN_ABSOLUTE * NormalDist().inv_cdf(level) for level in levels]
    return np.array([0.0 if level == 0.5 else f for level, f in zip(levels, factors, strict=True)])


def by_kpi(output: OutputSpec, quantiles: FloatArray) -> Outputs:
    """(n, kpis, horizon, levels) -> {kpi: (n, horizon, levels)}."""
    return {kpi: quantiles[:, index] for index, kpi in enumerate(output.kpis)}

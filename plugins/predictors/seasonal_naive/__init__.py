"""The mean of the same bucket of the season (hour of the day, of the week): what daily load has to be beaten by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.forecast.plain import ABSURD, forecast_columns, normal_factors
from netpredict.plugins import Plugin
from netpredict.types import AnyArray, FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, StateArray

_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_FLOAT32_HOUR_US = 10_000  # more than float32 loses of an hour of the day


class SeasonalNaiveOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the seasonal naive predictor; sample.toml explains each."""

    forget_ratio: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.2
    error_forget_ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.02


class SeasonalNaive:
    """State of each forecast KPI: ``mean`` and ``weight`` of each bucket, running mean absolute ``error``."""

    api_version = 1
    padded = False

    def __init__(self, options: SeasonalNaiveOptions, features: FeatureSpec, output: OutputSpec) -> None:
        if features.season_buckets < 1 or features.season_us < 1:
            raise ConfigError("seasonal_naive needs a season: set season_s and its number of buckets on the stream")
        self._output, self._features, self._error_forget = output, features, np.float32(options.error_forget_ratio)
        self._columns = forecast_columns("seasonal_naive", features, output)
        self._width_us = features.season_us / features.season_buckets
        per_visit = max(1.0, self._width_us / features.period_us)
        self._keep = np.float32((1.0 - options.forget_ratio) ** (1.0 / per_visit))
        self._factors = normal_factors(output.levels)
        self._leads_us = np.arange(1, output.horizon_steps + 1) * features.period_us

    def state_spec(self) -> Mapping[str, StateArray]:
        """``weight`` 0 = a bucket that was never seen, ``error`` below 0 = not known yet: hidden must be finite."""
        shape = (self._features.season_buckets, len(self._columns))
        error = StateArray(shape[1:], fill=-1.0)
        return {"mean": StateArray(shape), "weight": StateArray(shape), "error": error}

    def output_spec(self) -> OutputSpec:
        """KPIs, horizon and levels as configured."""
        return self._output

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """Elementwise and by lookup throughout, so no row can change another."""
        value, rows = features[:, self._columns], np.arange(len(features))
        observed = len(self._features.observed)
        bucket = features[:, observed + 2].astype(np.int64)
        mean, weight = hidden["mean"].copy(), hidden["weight"].copy()
        seen, known = np.abs(value) < ABSURD, weight[rows, bucket]  # not seen: NaN too
        grown = self._keep * known + np.float32(1)
        surprise = np.where(seen, value, 0) - mean[rows, bucket]
        error = self._new_error(hidden["error"], np.abs(surprise), seen & (known > 0))
        mean[rows, bucket] += np.where(seen, surprise / grown, 0)
        weight[rows, bucket] = np.where(seen, grown, known)
        ahead = self._buckets_ahead(bucket, features[:, observed])
        means = np.where(weight[rows[:, None], ahead] > 0, mean[rows[:, None], ahead], np.nan)
        spread = np.where(error >= 0, error, np.nan)[:, None, :, None] * self._factors
        quantiles = (means[:, :, :, None] + spread).astype(np.float32)
        outputs = {kpi: quantiles[:, :, index] for index, kpi in enumerate(self._output.kpis)}
        return outputs, {"mean": mean, "weight": weight, "error": error}

    def _new_error(self, error: FloatArray, miss: FloatArray, counts: AnyArray) -> FloatArray:
        learnt = np.where(error >= 0, error + self._error_forget * (miss - error), miss)
        return np.where(counts, learnt, error).astype(np.float32)

    def _buckets_ahead(self, bucket: AnyArray, hour_of_day: FloatArray) -> AnyArray:
        """Buckets (n, horizon) of the target slots; the hour tells where in its bucket a slot lies."""
        into_us = np.full(len(bucket), self._width_us / 2)  # unknown where buckets do not part a day evenly
        if _DAY_US % self._width_us == 0:
            into_us = (hour_of_day.astype(np.float64) * _HOUR_US + _FLOAT32_HOUR_US) % self._width_us
        jumps = ((into_us[:, None] + self._leads_us) // self._width_us).astype(np.int64)
        return (bucket[:, None] + jumps) % self._features.season_buckets


PLUGIN = Plugin(name="seasonal_naive", options=SeasonalNaiveOptions, build=SeasonalNaive)

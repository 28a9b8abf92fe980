"""The exponentially weighted mean for every lead: the plain answer where a level wanders under noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from netpredict.forecast.plain import ABSURD, by_kpi, forecast_columns, normal_factors
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, StateArray


class EwmaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ewma predictor; sample.toml explains each."""

    alpha: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.2
    error_forget_ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.02
    first_error_ratio: Annotated[float, msgspec.Meta(ge=0.0)] = 0.1


class Ewma:
    """State of each forecast KPI: ``mean``, ``error`` (mean absolute, one step ahead), ``age`` (steps since)."""

    api_version = 1
    padded = False

    def __init__(self, options: EwmaOptions, features: FeatureSpec, output: OutputSpec) -> None:
        self._options, self._output = options, output
        self._columns = forecast_columns("ewma", features, output)
        self._factors = normal_factors(output.levels)
        self._leads = np.arange(1, output.horizon_steps + 1)

    def state_spec(self) -> Mapping[str, StateArray]:
        """A negative ``age`` or ``error`` is one that is not known yet: a hidden state must be finite."""
        shape = (len(self._columns),)
        unknown = StateArray(shape, fill=-1.0)
        return {"mean": StateArray(shape), "error": unknown, "age": unknown}

    def output_spec(self) -> OutputSpec:
        """KPIs, horizon and levels as configured."""
        return self._output

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """Elementwise throughout, so no row can change another."""
        value = features[:, self._columns]
        mean, error, age = hidden["mean"], hidden["error"], hidden["age"]
        seen, known = np.abs(value) < ABSURD, age >= 0  # not seen: NaN too
        miss = np.where(seen, value, 0) - mean
        learnt = np.where(error >= 0, error + self._options.error_forget_ratio * (np.abs(miss) - error), np.abs(miss))
        error = np.where(seen & known, learnt, error).astype(np.float32)
        mean = np.where(seen, np.where(known, mean + self._options.alpha * miss, value), mean).astype(np.float32)
        age = np.where(seen, 0, age + known).astype(np.float32)
        return self._outputs(mean, error, age), {"mean": mean, "error": error, "age": age}

    def _outputs(self, mean: FloatArray, error: FloatArray, age: FloatArray) -> Outputs:
        """The variance of simple exponential smoothing: 1 + alpha² (lead - 1) of that one step ahead."""
        centre = np.where(age >= 0, mean, np.nan)
        first = np.where(error >= 0, error, self._options.first_error_ratio * np.abs(mean))
        steps = np.maximum(age, 0)[:, :, None] + self._leads - 1
        width = first[:, :, None] * np.sqrt(1 + self._options.alpha**2 * steps)
        quantiles = (centre[:, :, None, None] + width[:, :, :, None] * self._factors).astype(np.float32)
        return by_kpi(self._output, quantiles)


PLUGIN = Plugin(name="ewma", options=EwmaOptions, build=Ewma)

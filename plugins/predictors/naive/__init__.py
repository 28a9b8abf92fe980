"""The last value for every lead, with a spread that grows with the square root of the lead: all others must beat it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from netpredict.forecast.plain import ABSURD, by_kpi, forecast_columns, normal_factors
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, StateArray


class NaiveOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the naive predictor; sample.toml explains each."""

    forget_ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.05
    first_scale_ratio: Annotated[float, msgspec.Meta(ge=0.0)] = 0.1


class Naive:
    """State of each forecast KPI: ``last`` value, ``scale`` (mean absolute step), ``age`` (steps since then)."""

    api_version = 1
    padded = False

    def __init__(self, options: NaiveOptions, features: FeatureSpec, output: OutputSpec) -> None:
        self._options, self._output = options, output
        self._columns = forecast_columns("naive", features, output)
        self._factors = normal_factors(output.levels)
        self._leads = np.arange(1, output.horizon_steps + 1)

    def state_spec(self) -> Mapping[str, StateArray]:
        """A negative ``age`` or ``scale`` is one that is not known yet: a hidden state must be finite."""
        shape = (len(self._columns),)
        unknown = StateArray(shape, fill=-1.0)
        return {"last": StateArray(shape), "scale": unknown, "age": unknown}

    def output_spec(self) -> OutputSpec:
        """KPIs, horizon and levels as configured."""
        return self._output

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """Elementwise throughout, so no row can change another."""
        value = features[:, self._columns]
        last, scale, age = hidden["last"], hidden["scale"], hidden["age"]
        seen, known = np.abs(value) < ABSURD, age >= 0  # not seen: NaN too
        age = age + known
        step = np.abs(value - last) / np.sqrt(np.maximum(age, 1))
        learnt = np.where(scale >= 0, scale + self._options.forget_ratio * (step - scale), step)
        scale = np.where(seen & known, learnt, scale).astype(np.float32)
        last = np.where(seen, value, last).astype(np.float32)
        age = np.where(seen, 0, age).astype(np.float32)
        return self._outputs(last, scale, age), {"last": last, "scale": scale, "age": age}

    def _outputs(self, last: FloatArray, scale: FloatArray, age: FloatArray) -> Outputs:
        centre = np.where(age >= 0, last, np.nan)
        step = np.where(scale >= 0, scale, self._options.first_scale_ratio * np.abs(last))
        width = step[:, :, None] * np.sqrt(np.maximum(age, 0)[:, :, None] + self._leads)
        quantiles = (centre[:, :, None, None] + width[:, :, :, None] * self._factors).astype(np.float32)
        return by_kpi(self._output, quantiles)


PLUGIN = Plugin(name="naive", options=NaiveOptions, build=Naive)

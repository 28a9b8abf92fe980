"""The last value and the mean step so far, times the lead: the plain answer where a series grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from netpredict.forecast.plain import ABSURD, by_kpi, forecast_columns, normal_factors
from netpredict.plugins import Plugin
from netpredict.types import FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, StateArray

_STEPS_MAX = 1e6  # below 2**24, where float32 stops counting


class DriftOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the drift predictor; sample.toml explains each."""

    forget_ratio: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0
    scale_forget_ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.05
    first_scale_ratio: Annotated[float, msgspec.Meta(ge=0.0)] = 0.1


class Drift:
    """State of each forecast KPI: ``last`` value, mean ``step`` of so many ``moves``, ``scale`` around it, ``age``."""

    api_version = 1
    padded = False

    def __init__(self, options: DriftOptions, features: FeatureSpec, output: OutputSpec) -> None:
        self._options, self._output = options, output
        self._columns = forecast_columns("drift", features, output)
        self._factors = normal_factors(output.levels)
        self._leads = np.arange(1, output.horizon_steps + 1)

    def state_spec(self) -> Mapping[str, StateArray]:
        """A negative ``age`` or ``scale`` is one that is not known yet: a hidden state must be finite."""
        shape = (len(self._columns),)
        known, unknown = StateArray(shape), StateArray(shape, fill=-1.0)
        return {"last": known, "step": known, "moves": known, "scale": unknown, "age": unknown}

    def output_spec(self) -> OutputSpec:
        """KPIs, horizon and levels as configured."""
        return self._output

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """Elementwise throughout, so no row can change another; a gap counts as so many equal steps."""
        value = features[:, self._columns]
        last, step, moves, scale, age = (hidden[name] for name in ("last", "step", "moves", "scale", "age"))
        seen, known = np.abs(value) < ABSURD, age >= 0  # not seen: NaN too
        age = age + known
        gone = np.maximum(age, 1)
        moved = (np.where(seen, value, last) - last) / gone
        grown = np.minimum((1 - self._options.forget_ratio) ** gone * moves + gone, _STEPS_MAX)
        off = np.abs(moved - step) * np.sqrt(gone)
        learnt = np.where(scale >= 0, scale + self._options.scale_forget_ratio * (off - scale), np.abs(moved))
        counts = seen & known
        new = {
            "last": np.where(seen, value, last),
            "step": np.where(counts, step + gone / grown * (moved - step), step),
            "moves": np.where(counts, grown, moves),
            "scale": np.where(counts, learnt, scale),
            "age": np.where(seen, 0, age),
        }
        after = {name: array.astype(np.float32) for name, array in new.items()}
        return self._outputs(after), after

    def _outputs(self, hidden: Mapping[str, FloatArray]) -> Outputs:
        """The variance of the drift method: lead · (1 + lead / moves) of that of one step."""
        last, age = hidden["last"], hidden["age"]
        leads = np.maximum(age, 0)[:, :, None] + self._leads
        centre = np.where(age >= 0, last, np.nan)[:, :, None] + hidden["step"][:, :, None] * leads
        scale = np.where(hidden["scale"] >= 0, hidden["scale"], self._options.first_scale_ratio * np.abs(last))
        width = scale[:, :, None] * np.sqrt(leads * (1 + leads / np.maximum(hidden["moves"], 1)[:, :, None]))
        quantiles = (centre[:, :, :, None] + width[:, :, :, None] * self._factors).astype(np.float32)
        return by_kpi(self._output, quantiles)


PLUGIN = Plugin(name="drift", options=DriftOptions, build=Drift)

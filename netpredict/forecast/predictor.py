"""The contract of a predictor plugin.

An entry point of ``netpredict.predictors`` names a ``netpredict.plugins.Plugin`` whose ``build`` is called as
``build(options, features: FeatureSpec, output: OutputSpec) -> Predictor``. When ``trainable`` is set it gives a
``Trainable`` that serves only once weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from netpredict.types import (
    FloatArray,
    Hidden,
    Outputs,
    OutputSpec,
    Progress,
    StateArray,
    TrainingReport,
    TrainingSet,
)

ABSURD = 1e30
"""Larger magnitudes are taken as missing by every predictor here: their squares and differences would overflow."""


@runtime_checkable
class Predictor(Protocol):
    """Forecasts every series of a batch one step on. It keeps nothing between calls: hidden goes in and comes out.

    ``advance`` must treat each row alone (no row may change another's answer), leave its inputs unchanged, and be
    deterministic. It is called with any n >= 1; the caller pads to multiples of 16 rows when ``padded`` is true.
    """

    api_version: int
    padded: bool

    def state_spec(self) -> Mapping[str, StateArray]:
        """Name -> shape and dtype of ONE series; {} when it keeps nothing. No array is called ``steps``."""
        ...

    def output_spec(self) -> OutputSpec:
        """KPIs, horizon and levels of what ``advance`` answers."""
        ...

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """(n, f), {name: (n, …)} -> {kpi: float32 (n, horizon, m)} in natural units, new hidden."""
        ...


@runtime_checkable
class Trainable(Predictor, Protocol):
    """A predictor whose weights are learnt, saved as tensors and loaded again."""

    def fit(self, dataset: TrainingSet, progress: Progress | None = None) -> TrainingReport:
        """Train from scratch on the part before ``validation_from``, validate on the rest; seeded."""
        ...

    def weights(self) -> Mapping[str, Any]:
        """Name -> numpy array: all that ``load_weights`` needs (scalers too)."""
        ...

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take weights of the same spec; raises ArtefactError when names, shapes or dtypes differ."""
        ...

"""Adaptation of one series while it runs: what a predictor's median gets wrong for it is learnt and taken off.

Weights stay those of the weight group. For each KPI and lead time recursive least squares with forgetting (Haykin,
Adaptive Filter Theory, ch. 10) explain the error of the median by a constant, by how far the median lies from the last
value and by the last move, all in mean errors. What they offer is paired with the truth before it is believed: only the
share that has helped the series lately is taken, so that a series without a bias of its own stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.forecast.options import RecurrentOptions
from netpredict.forecast.predictor import ABSURD, Trainable
from netpredict.types import (
    AnyArray,
    FeatureSpec,
    FloatArray,
    Hidden,
    Outputs,
    OutputSpec,
    Progress,
    StateArray,
    TrainingReport,
    TrainingSet,
)

PREFIX = "adapt."
NOTHING = 1e31
"""Stands in the rings where there was no value: a state must be finite."""

BASIS_MAX = 5.0  # of a regressor, in mean errors
ERROR_MAX = 1.0  # of an error that is learnt from, in mean errors: the median is wanted, not the mean
TRUST_STEPS = 30.0  # truths after which half of a correction is believed
GAIN_STEPS = 100.0  # over which the mean error and what a correction gained are averaged
GAIN_TRUST_STEPS = 50.0
GAIN_SLOPE = 4.0  # a correction whose gain is a quarter of its swing is taken whole
COUNT_MAX = 1e6  # below 2**24, where float32 stops counting
REGRESSORS = 3
TINY = 1e-12
PAIRS = [(row, column) for row in range(REGRESSORS) for column in range(row, REGRESSORS)]

Array = npt.NDArray[np.float64]


def adapted(inner: Trainable, options: RecurrentOptions, features: FeatureSpec) -> Trainable:
    """The predictor itself, or with the adaptation that ``options.adapt`` names."""
    return inner if options.adapt == "none" else Adapted(inner, features, options.adapt_steps)


class _Ring(NamedTuple):
    """Issues whose truth is to come, flat over (age, lead > age): no lead is kept longer than it is awaited.

    ``due`` (H,) are the places whose truth comes next, by lead; ``source`` tells where each place comes from when a new
    issue of H leads stands before the old places.
    """

    due: AnyArray
    source: AnyArray

    @classmethod
    def of(cls, horizon_steps: int) -> _Ring:
        places = [(age, lead) for age in range(horizon_steps) for lead in range(age, horizon_steps)]
        number = {place: index for index, place in enumerate(places)}
        due = [number[lead, lead] for lead in range(horizon_steps)]
        source = [horizon_steps + number[age - 1, lead] if age else lead for age, lead in places]
        return cls(np.array(due), np.array(source))


class Adapted:
    """A trainable predictor of quantiles with an adaptation of each series. Its own hidden state is ``adapt.``…

    All levels of a lead move together. Every operation is element by element: no row depends on its batch.
    """

    api_version = 1

    def __init__(self, inner: Trainable, features: FeatureSpec, steps: int) -> None:
        output = inner.output_spec()
        if output.kind != "quantiles":
            raise ConfigError(f"adapt = 'rls' corrects quantiles, not {output.kind!r}: set adapt = 'none'")
        self.padded = inner.padded
        self._inner = inner
        self._columns = [features.observed.index(kpi) for kpi in output.kpis]
        self._middle = int(np.argmin([abs(level - 0.5) for level in output.levels]))
        self._ring = _Ring.of(output.horizon_steps)
        self._forget = 1.0 - 1.0 / steps

    # -- what it passes on -----------------------------------------------------------------------------------------

    def output_spec(self) -> OutputSpec:
        """As the inner predictor's."""
        return self._inner.output_spec()

    def fit(self, dataset: TrainingSet, progress: Progress | None = None) -> TrainingReport:
        """Train the inner predictor; its scores are those without the adaptation."""
        return self._inner.fit(dataset, progress)

    def weights(self) -> Mapping[str, Any]:
        """The inner predictor's: the adaptation has none."""
        return self._inner.weights()

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """See ``Trainable``."""
        self._inner.load_weights(weights)

    # -- state -----------------------------------------------------------------------------------------------------

    def state_spec(self) -> Mapping[str, StateArray]:
        """The inner state and, for each KPI (K) and lead (H) or place of the ring (R):

        ``medians`` and ``offers`` (K, R) of issues whose truth is to come; ``levels`` and ``moves`` (K, H): last value
        and last move at each of these issues; ``readout`` (K, H, 3); ``covariance`` (K, H, 6), less the identity;
        ``error``, ``gain``, ``swing``, ``count`` (K, H): mean error, what offers gained and moved on average, truths.
        """
        kpis, horizon = len(self._columns), len(self._ring.due)
        rings = {name: StateArray((kpis, len(self._ring.source)), fill=NOTHING) for name in ("medians", "offers")}
        issues = {name: StateArray((kpis, horizon), fill=NOTHING) for name in ("levels", "moves")}
        sums = {name: StateArray((kpis, horizon)) for name in ("error", "gain", "swing", "count")}
        learnt = {"readout": StateArray((kpis, horizon, REGRESSORS)), "covariance": StateArray((kpis, horizon, 6))}
        own = {**rings, **issues, **sums, **learnt}
        return {**self._inner.state_spec(), **{PREFIX + name: spec for name, spec in own.items()}}

    # -- a step ----------------------------------------------------------------------------------------------------

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """1 learn from the truth of this step; 2 advance the inner predictor; 3 correct; 4 remember the issue."""
        inner = {name: array for name, array in hidden.items() if not name.startswith(PREFIX)}
        own = {name[len(PREFIX) :]: array for name, array in hidden.items() if name.startswith(PREFIX)}
        state: dict[str, Array] = {name: array.astype(np.float64) for name, array in own.items()}
        truth = features[:, self._columns].astype(np.float64)
        with np.errstate(all="ignore"):  # what is not finite is masked
            self._learn(state, truth)  # 1
            outputs, after = self._inner.advance(features, inner)  # 2
            medians = np.stack([values[:, :, self._middle] for values in outputs.values()], axis=1).astype(np.float64)
            level, move = self._last(state, truth)
            offer = self._offer(state, medians, level[:, :, None], move[:, :, None])  # 3
            shift = (offer * self._share(state)).astype(np.float32)
            self._remember(state, medians, offer, level, move)  # 4
        corrected = {kpi: values + shift[:, index, :, None] for index, (kpi, values) in enumerate(outputs.items())}
        return corrected, {**after, **{PREFIX + name: array.astype(np.float32) for name, array in state.items()}}

    def _learn(self, state: dict[str, Array], truth: Array) -> None:
        """Pair each lead whose truth has come: mean error, what the offer gained, then the readout."""
        median, offer = (state[name][:, :, self._ring.due] for name in ("medians", "offers"))
        error = truth[:, :, None] - median
        known = (np.abs(truth)[:, :, None] < ABSURD) & (np.abs(median) < ABSURD)
        error, offer = np.where(known, error, 0.0), np.where(known, offer, 0.0)
        count = state["count"]
        rate = np.where(known, np.maximum(1.0 / (count + 1.0), 1.0 / GAIN_STEPS), 0.0)
        gained = np.abs(error) - np.abs(error - offer)
        for name, value in (("error", np.abs(error)), ("gain", gained), ("swing", np.abs(gained))):
            state[name] = state[name] + rate * (value - state[name])
        self._explain(state, error, median, known & (count > 0.5))
        state["count"] = np.minimum(count + known, COUNT_MAX)

    def _explain(self, state: dict[str, Array], error: Array, median: Array, known: AnyArray) -> None:
        """One step of recursive least squares; the covariance stays bounded where nothing excites it."""
        basis = _basis(median, state["levels"], state["moves"], state["error"])
        readout, packed = state["readout"], state["covariance"]
        covariance = {pair: packed[..., index] + (pair[0] == pair[1]) for index, pair in enumerate(PAIRS)}
        ahead = [
            _sum(covariance[min(row, column), max(row, column)] * basis[column] for column in range(REGRESSORS))
            for row in range(REGRESSORS)
        ]
        weight = self._forget + np.maximum(_sum(b * a for b, a in zip(basis, ahead, strict=True)), 0.0)
        scaled = np.clip(error / np.maximum(state["error"], TINY), -ERROR_MAX, ERROR_MAX)
        wrong = (scaled - _sum(basis[row] * readout[..., row] for row in range(REGRESSORS))) / weight
        learnt = np.stack([readout[..., row] + ahead[row] * wrong for row in range(REGRESSORS)], axis=-1)
        shrunk = {
            (row, column): (covariance[row, column] - ahead[row] * ahead[column] / weight) / self._forget
            for row, column in PAIRS
        }
        trace = _sum(shrunk[row, row] for row in range(REGRESSORS))
        bound = np.minimum(1.0, REGRESSORS / np.maximum(trace, TINY))
        kept = np.stack([shrunk[pair] * bound - (pair[0] == pair[1]) for pair in PAIRS], axis=-1)
        state["readout"] = np.where(known[..., None], np.clip(learnt, -BASIS_MAX, BASIS_MAX), readout)
        state["covariance"] = np.where(known[..., None], kept, packed)

    def _last(self, state: dict[str, Array], truth: Array) -> tuple[Array, Array]:
        """Last value (n, K), NOTHING when there was none, and how far it went in this step."""
        before = state["levels"][:, :, 0]
        level = np.where(np.abs(truth) < ABSURD, truth, before)
        both = (np.abs(level) < ABSURD) & (np.abs(before) < ABSURD)
        return level, np.where(both, level - before, 0.0)

    def _offer(self, state: dict[str, Array], median: Array, level: Array, move: Array) -> Array:
        """The correction that the readout offers, (n, K, H) in the KPI's unit, at most one mean error."""
        basis = _basis(median, level, move, state["error"])
        told = _sum(basis[row] * state["readout"][..., row] for row in range(REGRESSORS))
        believed = state["count"] / (state["count"] + TRUST_STEPS)
        return np.clip(told * believed, -1.0, 1.0) * state["error"]

    def _share(self, state: dict[str, Array]) -> Array:
        """How much of an offer is taken, 0..1: by what offers gained beside how much they moved."""
        ratio = state["gain"] / np.maximum(state["swing"], TINY)
        believed = state["count"] / (state["count"] + GAIN_TRUST_STEPS)
        share: Array = np.clip(GAIN_SLOPE * ratio, 0.0, 1.0) * believed
        return share

    def _remember(self, state: dict[str, Array], median: Array, offer: Array, level: Array, move: Array) -> None:
        known = np.where(np.abs(median) < ABSURD, median, NOTHING)
        for name, issued in (("medians", known), ("offers", offer)):
            state[name] = np.concatenate([issued, state[name]], axis=2)[:, :, self._ring.source]
        for name, value in (("levels", level), ("moves", move)):
            state[name] = np.concatenate([value[:, :, None], state[name][:, :, :-1]], axis=2)


def _basis(median: Array, level: Array, move: Array, error: Array) -> list[Array]:
    """1, median - last value and last move in mean errors; zeros where any of them is no value."""
    known = (np.abs(median) < ABSURD) & (np.abs(level) < ABSURD) & (np.abs(move) < ABSURD) & (error > 0.0)
    unit = np.where(known, error, 1.0)
    far = np.clip(np.where(known, median - level, 0.0) / unit, -BASIS_MAX, BASIS_MAX)
    moved = np.clip(np.where(known, move, 0.0) / unit, -BASIS_MAX, BASIS_MAX)
    return [known.astype(np.float64), far, moved]


def _sum(parts: Any) -> Array:
    """Left to right: a reduction of numpy's may group by the size of the batch."""
    first, *rest = parts
    total: Array = first
    for part in rest:
        total = total + part
    return total

"""What a network answers: from its last hidden vector to levels, and the loss that teaches them.

Contract of a head. It is built for an ``OutputSpec`` and a number of leads (all of them, or one that is shared by all):

- ``build(width)`` makes its weights; ``dense`` holds them;
- ``check(truth)``: DataError when the history (T, S, kpis) holds what it can never answer, before training;
- ``learn(truth)``: takes from the training part (T, S, kpis) what no gradient teaches, before the first train_epoch;
- ``raw(hidden)``: (m, width) -> (m, kpis, parts, leads), free of any constraint; when it ``sees_inputs`` those of the
  network stand behind the hidden vector;
- ``levels(raw, reference)``: -> one (m, kpis, leads) per level of the output, in units of the reference; a head with
  ``is_point`` answers one, and a ``Spread`` puts the levels around it;
- ``point(raw, reference)``: -> (m, kpis, leads), the one that is fed back where a structure feeds back;
- ``target(truth, reference)``: natural (m, kpis, leads) -> the same units;
- ``loss(raw, target, reference)``: -> (m, kpis, leads); the caller weighs it by what is valid and takes the mean;
- ``measures(raw, target, reference)``: -> one (m, kpis, leads) for each name in ``measured``, reported by the training;
- ``natural(levels, reference)``: -> (m, kpis, leads, levels) in natural units, what a predictor answers.

A unit of the reference is the scale of the series around its last value: natural = centre + scale · level. The
reference stands in every call because a head may need to know where in the natural range a series is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netpredict.errors import DataError
from netpredict.forecast.backend import keras, tf
from netpredict.forecast.encode import FAR
from netpredict.forecast.predictor import ABSURD
from netpredict.radio.quantities import KPIS
from netpredict.types import FloatArray, OutputSpec, base_name

_FIRST_WIDTH = 0.3  # distance between two levels before training, in units of the scale
_FIRST_LEAD = 2.0  # of the last value over every other candidate before training, as a logit
_GAP = 3.0  # distance between two levels before training, in units of softplus(0) and of the spread
_TARGET_CLIP = 20.0  # in units of the scale; a series that wakes from a standstill would drown all others
_LEAST_SHARE = 1e-3  # where the logit of the last value of a bounded KPI ends
_LEAST_ERRORS = 20  # of one KPI at one lead, below which its quantiles say nothing


class Reference(NamedTuple):
    """Centre (m, kpis, leads or 1) and scale (m, kpis, 1) of the forecast KPIs in natural units, and the candidates."""

    centre: Any
    scale: Any
    candidates: Any = None


class QuantileHead:
    """A median around the last value and softplus distances to the levels beside it: levels never cross.

    The ``places`` of a grid, which are its innermost columns, share the weights: hidden is (m, rows, columns, width).
    """

    is_point = False
    sees_inputs = False
    measured: tuple[str, ...] = ()

    def __init__(self, output: OutputSpec, leads: int, places: int = 1) -> None:
        self.kpis, self.probabilities, self._places = output.kpis, output.levels, places
        self.middle = int(np.argmin([abs(level - 0.5) for level in output.levels]))
        parts = self._parts(output)
        self.shape = (len(output.kpis), parts, leads)
        self._dense_shape = (len(output.kpis) // places, parts, leads)
        size = int(np.prod(self._dense_shape))
        self.dense = keras.layers.Dense(
            size, kernel_initializer="zeros", bias_initializer=self._first_bias, name="head"
        )

    def _parts(self, output: OutputSpec) -> int:
        return len(output.levels)

    def build(self, width: int) -> None:
        """Make the weights for hidden vectors of this width."""
        self.dense.build((None, width))

    def check(self, truth: FloatArray) -> None:
        """Any history will do."""

    def learn(self, truth: FloatArray) -> None:
        """Nothing but gradients teaches it."""

    def _first_bias(self, shape: Any, dtype: Any = None) -> Any:
        """Before training: the median is the last value, the levels stand evenly around it."""
        bias = np.full(self._dense_shape, np.log(np.expm1(_FIRST_WIDTH)), dtype=np.float32)
        bias[:, self.middle] = 0.0
        return tf.constant(bias.reshape(shape), dtype=dtype)

    def raw(self, hidden: Any) -> Any:
        """(m, width) -> (m, kpis, parts, leads)."""
        raw = self.dense(hidden)
        if self._places > 1:
            raw = tf.transpose(tf.reshape(raw, (-1, self._places, *self._dense_shape)), (0, 2, 1, 3, 4))
        return tf.reshape(raw, (-1, *self.shape))

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """One (m, kpis, leads) per level, none below the level before it."""
        parts = tf.unstack(raw, axis=2)
        levels = list(parts)
        for index in range(self.middle + 1, len(parts)):
            levels[index] = levels[index - 1] + tf.nn.softplus(parts[index])
        for index in range(self.middle - 1, -1, -1):
            levels[index] = levels[index + 1] - tf.nn.softplus(parts[index])
        return levels

    def point(self, raw: Any, reference: Reference) -> Any:
        """The median."""
        return raw[:, :, self.middle]

    def target(self, truth: Any, reference: Reference) -> Any:
        """How far the truth lies from the last value, in units of the scale."""
        return tf.clip_by_value((truth - reference.centre) / reference.scale, -_TARGET_CLIP, _TARGET_CLIP)

    def loss(self, raw: Any, target: Any, reference: Reference) -> Any:
        """Pinball loss, the mean over the levels."""
        return pinball(self.probabilities, self.levels(raw, reference), target)

    def measures(self, raw: Any, target: Any, reference: Reference) -> list[Any]:
        """Nothing beyond what is reported of every head."""
        return []

    def natural(self, levels: list[Any], reference: Reference) -> Any:
        """(m, kpis, leads, levels); NaN where the centre is."""
        return tf.stack([reference.centre + reference.scale * level for level in levels], axis=3)


class PointHead(QuantileHead):
    """One linear output by KPI and lead, taught by ``mse``, ``mae`` or ``pinball`` at 0.5; before training 0."""

    is_point = True

    def _parts(self, output: OutputSpec) -> int:
        return 1

    def __init__(self, output: OutputSpec, leads: int, loss: str, places: int = 1) -> None:
        super().__init__(output, leads, places)
        self._squared, self._weight = loss == "mse", 0.5 if loss == "pinball" else 1.0

    def _first_bias(self, shape: Any, dtype: Any = None) -> Any:
        return tf.zeros(shape, dtype)

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """The point alone."""
        return [self.point(raw, reference)]

    def point(self, raw: Any, reference: Reference) -> Any:
        """The linear output."""
        return raw[:, :, 0]

    def raw_of(self, point: Any, reference: Reference) -> Any:
        """The raw answer that gives this point, (m, kpis, leads) -> (m, kpis, 1, leads)."""
        return point[:, :, None]

    def loss(self, raw: Any, target: Any, reference: Reference) -> Any:
        """Squared or absolute error in units of the scale."""
        error = target - self.point(raw, reference)
        return tf.square(error) if self._squared else self._weight * tf.abs(error)


class ShareHead(PointHead):
    """Where in its range a bounded KPI will be: sigmoid(logit of the last value + output), by binary cross-entropy.

    The range is that of the catalogue of KPIs, and 0 to 1 for a KPI outside it.
    """

    def __init__(self, output: OutputSpec, leads: int, loss: str, places: int = 1) -> None:
        super().__init__(output, leads, loss, places)
        known = [KPIS.get(base_name(kpi)) for kpi in output.kpis]
        self._low = np.array([[kpi.low if kpi else 0.0] for kpi in known], dtype=np.float32)
        self._range = np.array([[kpi.high - kpi.low if kpi else 1.0] for kpi in known], dtype=np.float32)

    def check(self, truth: FloatArray) -> None:
        """DataError naming a KPI that leaves its range."""
        for index, kpi in enumerate(self.kpis):
            values = truth[:, :, index][np.abs(truth[:, :, index]) < ABSURD]
            low, high = float(self._low[index, 0]), float(self._low[index, 0] + self._range[index, 0])
            if len(values) and not low <= values.min() <= values.max() <= high:
                found = f"{values.min():g} to {values.max():g}"
                raise DataError(
                    f'loss = "bce" needs {kpi} within {low:g} and {high:g}, found {found}; take another loss'
                )

    def _share(self, natural: Any) -> Any:
        return (natural - self._low) / self._range

    def _logit(self, share: Any) -> Any:
        share = tf.clip_by_value(share, _LEAST_SHARE, 1.0 - _LEAST_SHARE)
        return tf.math.log(share) - tf.math.log1p(-share)

    def point(self, raw: Any, reference: Reference) -> Any:
        """In units of the reference, as every head."""
        share = tf.sigmoid(raw[:, :, 0] + self._logit(self._share(reference.centre)))
        return (self._low + self._range * share - reference.centre) / reference.scale

    def raw_of(self, point: Any, reference: Reference) -> Any:
        """See ``PointHead``."""
        share = self._share(reference.centre + reference.scale * point)
        return (self._logit(share) - self._logit(self._share(reference.centre)))[:, :, None]

    def target(self, truth: Any, reference: Reference) -> Any:
        """Not clipped: the range bounds it."""
        return (truth - reference.centre) / reference.scale

    def loss(self, raw: Any, target: Any, reference: Reference) -> Any:
        """Binary cross-entropy of the share."""
        share = tf.clip_by_value(self._share(reference.centre + reference.scale * target), 0.0, 1.0)
        logits = raw[:, :, 0] + self._logit(self._share(reference.centre))
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=share + tf.zeros_like(logits), logits=logits)


class MixtureHead(QuantileHead):
    """A median that is a mixture of what the encoder offers: the last value, lags, means, and a free move.

    The weights of the mixture are a softmax, so a series that stood still is forecast to stand still; the free move and
    the distances between the levels are in units of the spread of the series. Before training the last value leads.
    """

    def __init__(self, output: OutputSpec, leads: int, candidates: int) -> None:
        self._values = candidates - 1  # the last candidate is the spread
        self._mixed = self._values + 2  # and the last value before them, the free move behind them
        super().__init__(output, leads)

    def _parts(self, output: OutputSpec) -> int:
        return self._mixed + len(output.levels) - 1

    def _first_bias(self, shape: Any, dtype: Any = None) -> Any:
        bias = np.zeros(self.shape, dtype=np.float32)
        bias[:, 0] = _FIRST_LEAD
        return tf.constant(bias.reshape(shape), dtype=dtype)

    def point(self, raw: Any, reference: Reference) -> Any:
        """The median."""
        away = (reference.candidates[:, :, :-1] - reference.centre) / reference.scale
        away = tf.where(tf.abs(away) > FAR, 0.0, away)
        weights = tf.nn.softmax(raw[:, :, : self._values + 1], axis=2)
        mixed = tf.reduce_sum(weights[:, :, 1:] * away[:, :, :, None], axis=2)
        return mixed + raw[:, :, self._values + 1] * self._spread(reference)

    def _spread(self, reference: Reference) -> Any:
        return reference.candidates[:, :, -1:] / reference.scale

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """The median, and softplus distances to the levels beside it."""
        gaps = tf.unstack(
            tf.nn.softplus(raw[:, :, self._mixed :]) * (_GAP * self._spread(reference))[:, :, None], axis=2
        )
        levels = [self.point(raw, reference)]
        for gap in gaps[self.middle :]:
            levels.append(levels[-1] + gap)
        for gap in reversed(gaps[: self.middle]):
            levels.insert(0, levels[0] - gap)
        return levels


class Spread:
    """Levels around a point: quantiles of its errors by KPI and lead, measured on data that it was not trained on."""

    def __init__(self, output: OutputSpec) -> None:
        self.probabilities = output.levels
        away = _FIRST_WIDTH * (np.arange(len(output.levels)) - output.levels.index(0.5))
        first = np.broadcast_to(away[None, :, None], (len(output.kpis), len(output.levels), output.horizon_steps))
        self._residual = tf.Variable(first.astype(np.float32), trainable=False)

    def named(self) -> dict[str, Any]:
        """The measured quantiles (kpis, levels, leads), in units of the reference."""
        return {"spread.residual": self._residual}

    def levels(self, point: Any) -> list[Any]:
        """(m, kpis, leads) -> the same for each level; the point is the median."""
        return [point + self._residual[:, index] for index in range(len(self.probabilities))]

    def measure(self, errors: FloatArray) -> None:
        """Take the quantiles of truth - point, (N, kpis, leads), NaN = no truth; too few leave what was."""
        residual = self._residual.numpy()
        for kpi in range(errors.shape[1]):
            for lead in range(errors.shape[2]):
                known = errors[:, kpi, lead][~np.isnan(errors[:, kpi, lead])]
                if len(known) >= _LEAST_ERRORS:
                    residual[kpi, :, lead] = [_around_zero(level, known) for level in self.probabilities]
        self._residual.assign(residual)


def _around_zero(level: float, errors: FloatArray) -> float:
    """The quantile, but not on the other side of the median than its level."""
    if level == 0.5:
        return 0.0
    quantile = float(np.quantile(errors, level))
    return min(quantile, 0.0) if level < 0.5 else max(quantile, 0.0)


def pinball(probabilities: tuple[float, ...], levels: list[Any], target: Any) -> Any:
    """Mean over the levels of max(p · e, (p - 1) · e), e = target - level; the shape of the target."""
    losses = []
    for probability, level in zip(probabilities, levels, strict=True):
        error = target - level
        losses.append(tf.maximum(probability * error, (probability - 1.0) * error))
    return tf.add_n(losses) / len(losses)

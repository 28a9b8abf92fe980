"""What a network answers: from its last hidden vector to levels, and the loss that teaches them.

Contract of a head. It is built for an ``OutputSpec`` and a number of leads (all of them, or one that is shared by all):

- ``build(width)`` makes its weights; ``dense`` holds them;
- ``raw(hidden)``: (m, width) -> (m, kpis, parts, leads), free of any constraint;
- ``levels(raw, reference)``: -> one (m, kpis, leads) per level of the output, in units of the reference;
- ``target(truth, reference)``: natural (m, kpis, leads) -> the same units;
- ``loss(raw, target, reference)``: -> (m, kpis, leads); the caller weighs it by what is valid and takes the mean;
- ``natural(levels, reference)``: -> (m, kpis, leads, levels) in natural units, what a predictor answers.

A unit of the reference is the scale of the series around its last value: natural = centre + scale · level. The
reference stands in every call because a head may need to know where in the natural range a series is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netpredict.forecast.backend import keras, tf
from netpredict.types import OutputSpec

_FIRST_WIDTH = 0.3  # distance between two levels before training, in units of the scale
_TARGET_CLIP = 20.0  # in units of the scale; a series that wakes from a standstill would drown all others


class Reference(NamedTuple):
    """Last value and scale of the forecast KPIs in natural units, (m, kpis, 1) each."""

    centre: Any
    scale: Any


class QuantileHead:
    """A median around the last value and softplus distances to the levels beside it: levels never cross."""

    def __init__(self, output: OutputSpec, leads: int) -> None:
        self.probabilities = output.levels
        self.middle = int(np.argmin([abs(level - 0.5) for level in output.levels]))
        self.shape = (len(output.kpis), len(output.levels), leads)
        size = int(np.prod(self.shape))
        self.dense = keras.layers.Dense(
            size, kernel_initializer="zeros", bias_initializer=self._first_bias, name="head"
        )

    def build(self, width: int) -> None:
        """Make the weights for hidden vectors of this width."""
        self.dense.build((None, width))

    def _first_bias(self, shape: Any, dtype: Any = None) -> Any:
        """Before training: the median is the last value, the levels stand evenly around it."""
        bias = np.full(self.shape, np.log(np.expm1(_FIRST_WIDTH)), dtype=np.float32)
        bias[:, self.middle] = 0.0
        return tf.constant(bias.reshape(shape), dtype=dtype)

    def raw(self, hidden: Any) -> Any:
        """(m, width) -> (m, kpis, levels, leads)."""
        return tf.reshape(self.dense(hidden), (-1, *self.shape))

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """One (m, kpis, leads) per level, none below the level before it."""
        parts = tf.unstack(raw, axis=2)
        levels = list(parts)
        for index in range(self.middle + 1, len(parts)):
            levels[index] = levels[index - 1] + tf.nn.softplus(parts[index])
        for index in range(self.middle - 1, -1, -1):
            levels[index] = levels[index + 1] - tf.nn.softplus(parts[index])
        return levels

    def target(self, truth: Any, reference: Reference) -> Any:
        """How far the truth lies from the last value, in units of the scale."""
        return tf.clip_by_value((truth - reference.centre) / reference.scale, -_TARGET_CLIP, _TARGET_CLIP)

    def loss(self, raw: Any, target: Any, reference: Reference) -> Any:
        """Pinball loss, the mean over the levels."""
        return pinball(self.probabilities, self.levels(raw, reference), target)

    def natural(self, levels: list[Any], reference: Reference) -> Any:
        """(m, kpis, leads, levels); NaN where the centre is."""
        return tf.stack([reference.centre + reference.scale * level for level in levels], axis=3)


def pinball(probabilities: tuple[float, ...], levels: list[Any], target: Any) -> Any:
    """Mean over the levels of max(p · e, (p - 1) · e), e = target - level; the shape of the target."""
    losses = []
    for probability, level in zip(probabilities, levels, strict=True):
        error = target - level
        losses.append(tf.maximum(probability * error, (probability - 1.0) * error))
    return tf.add_n(losses) / len(losses)

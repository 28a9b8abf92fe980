"""The recurrent network as one pure step: encoder, stack of layers, structure with its head. No row sees another.

Its tensors are two-dimensional (rows, columns), so that the step of the daemon and the chunk of a training share every
line. The encoder has no trainable part: it runs over a whole history before the first gradient is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from netpredict.errors import ArtefactError
from netpredict.forecast.backend import check_backend, tf
from netpredict.forecast.encode import Encoded, Encoder
from netpredict.forecast.heads import Reference, Spread
from netpredict.forecast.structures import STRUCTURES, At, Frame
from netpredict.types import FeatureSpec, OutputSpec


class Seen(NamedTuple):
    """A step as the encoder gives it: what a network sees, the arrays after it, the calendar columns."""

    encoded: Encoded
    scaler: Any
    calendar: Any


class Network(Frame):
    """Weights and the pure functions over them. ``rnn`` is (n, state rows, units), ``scaler`` the encoder's arrays."""

    def __init__(
        self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec, encoder: Encoder | None = None
    ) -> None:
        """``encoder``: that of another network with the same options, to share; None makes one."""
        check_backend()
        self.observed = len(features.observed)
        with tf.device("CPU:0"):
            super().__init__(layer, options, features, output, encoder)
            self.structure = STRUCTURES[options.structure](self)
            self.head = self.structure.head
            self.spread = Spread(output) if self.head.is_point else None
        self.rnn_shape = (self.stack.rows, *self.stack.shape)

    @property
    def _parts(self) -> list[Any]:
        return [*self.stack.parts, *self.structure.parts]

    @property
    def trainable(self) -> list[Any]:
        """The Keras variables that gradients reach."""
        return [weight for part in self._parts for weight in part.trainable_weights]

    def named(self) -> dict[str, Any]:
        """Every tensor of an artefact by name: weights, the prior of the scaler, the spread around a point."""
        weights = {f"{part.name}.{weight.name}": weight for part in self._parts for weight in part.trainable_weights}
        return {**weights, **self.encoder.named(), **(self.spread.named() if self.spread else {})}

    def values(self) -> dict[str, Any]:
        """A copy of every tensor, as numpy."""
        return copied(self.named())

    def assign(self, weights: Mapping[str, Any]) -> None:
        """Take every tensor at once; ArtefactError, and nothing taken, when names, shapes or dtypes differ."""
        assigned(self.named(), weights)

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """Raw answers of all leads -> one (m, kpis, horizon) per level of the output, in units of the reference."""
        levels = self.head.levels(raw, reference)
        return self.spread.levels(levels[0]) if self.spread else levels

    def step(self, features: Any, rnn: Any, scaler: Any) -> tuple[Any, Any, Any]:
        """The whole of one step: (n, f) in natural units -> (n, kpis, horizon, levels) in natural units, new hidden."""
        seen = self.seen(features, scaler)
        answer, after = self.answer(seen, rnn)
        return self.in_grains(answer), after, seen.scaler

    def seen(self, features: Any, scaler: Any) -> Seen:
        """What the encoder makes of a step; it has no trained part."""
        values, calendar = features[:, : self.observed], features[:, self.observed :]
        after = self.encoder.scale(values, calendar, scaler)
        return Seen(self.encoder.encode(values, calendar, scaler, after), after, calendar)

    def answer(self, seen: Seen, rnn: Any) -> tuple[Any, Any]:
        """(n, kpis, horizon, levels) in natural units, new ``rnn``."""
        encoded = seen.encoded
        output, rows = self.stack.step(encoded.inputs, tf.unstack(rnn, axis=1))
        reference = self.reference(encoded)
        raw = self.structure.answer(At(output, rows, encoded, reference, seen.scaler, seen.calendar))
        known = tf.where(self.of_kpis(encoded.ever)[:, :, None], reference.centre, np.nan)
        answer = self.head.natural(self.levels(raw, reference), reference._replace(centre=known))
        return answer, tf.stack(rows, axis=1)

    def in_grains(self, answer: Any) -> Any:
        """The median in the steps that a KPI is reported in, its neighbours moved along where they would cross it.

        Where values come in whole units so does the median of what may come, and an answer between two of them is the
        trace of averaging over the possibilities. As it is without ``round_to_grain``.
        """
        if not self.options.round_to_grain:
            return answer
        grain = tf.gather(self.encoder.grain(), self.kpi_columns)[None, :, None]
        median = answer[..., self.head.middle]
        step = tf.maximum(grain, 1e-6)
        median = tf.where(grain > 0, tf.round(median / step) * step, median)
        levels = tf.unstack(answer, axis=3)
        below = [tf.minimum(level, median) for level in levels[: self.head.middle]]
        above = [tf.maximum(level, median) for level in levels[self.head.middle + 1 :]]
        return tf.stack([*below, median, *above], axis=3)


def copied(named: Mapping[str, Any]) -> dict[str, Any]:
    """Every variable's value as numpy."""
    return {name: np.array(variable.numpy()) for name, variable in named.items()}


def assigned(named: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Give every variable its value; ArtefactError, and nothing given, when names, shapes or dtypes differ."""
    if set(weights) != set(named):
        unlike = ", ".join(sorted(set(weights) ^ set(named)))
        raise ArtefactError(f"weights of another network: these names are on one side only: {unlike}")
    for name, variable in named.items():
        shape, dtype = tuple(variable.shape), np.dtype(np.float32)
        given = np.asarray(weights[name])
        if given.shape != shape or given.dtype != dtype:
            raise ArtefactError(f"weights {name!r} are {given.dtype}{given.shape}, expected {dtype}{shape}")
        if not np.isfinite(given).all():
            raise ArtefactError(f"weights {name!r} are not finite")
    for name, variable in named.items():
        variable.assign(np.asarray(weights[name]))

"""The recurrent network as one pure step: encoder, stack of layers, structure with its head. No row sees another.

Its tensors are two-dimensional (rows, columns), so that the step of the daemon and the chunk of a training share every
line. The encoder has no trainable part: it runs over a whole history before the first gradient is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netpredict.errors import ArtefactError
from netpredict.forecast.backend import check_backend, tf
from netpredict.forecast.heads import Reference, Spread
from netpredict.forecast.structures import STRUCTURES, At, Frame
from netpredict.types import FeatureSpec, OutputSpec


class Network(Frame):
    """Weights and the pure functions over them. ``rnn`` is (n, state rows, units), ``scaler`` the encoder's arrays."""

    def __init__(self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec) -> None:
        check_backend()
        self.observed = len(features.observed)
        with tf.device("CPU:0"):
            super().__init__(layer, options, features, output)
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
        return {name: np.array(variable.numpy()) for name, variable in self.named().items()}

    def assign(self, weights: Mapping[str, Any]) -> None:
        """Take every tensor at once; ArtefactError, and nothing taken, when names, shapes or dtypes differ."""
        mine = self.named()
        if set(weights) != set(mine):
            unlike = ", ".join(sorted(set(weights) ^ set(mine)))
            raise ArtefactError(f"weights of another network: these names are on one side only: {unlike}")
        for name, variable in mine.items():
            shape, dtype = tuple(variable.shape), np.dtype(np.float32)
            given = np.asarray(weights[name])
            if given.shape != shape or given.dtype != dtype:
                raise ArtefactError(f"weights {name!r} are {given.dtype}{given.shape}, expected {dtype}{shape}")
            if not np.isfinite(given).all():
                raise ArtefactError(f"weights {name!r} are not finite")
        for name, variable in mine.items():
            variable.assign(np.asarray(weights[name]))

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """Raw answers of all leads -> one (m, kpis, horizon) per level of the output, in units of the reference."""
        levels = self.head.levels(raw, reference)
        return self.spread.levels(levels[0]) if self.spread else levels

    def step(self, features: Any, rnn: Any, scaler: Any) -> tuple[Any, Any, Any]:
        """The whole of one step: (n, f) in natural units -> (n, kpis, horizon, levels) in natural units, new hidden."""
        values, calendar = features[:, : self.observed], features[:, self.observed :]
        after = self.encoder.scale(values, calendar, scaler)
        encoded = self.encoder.encode(values, calendar, scaler, after)
        output, rows = self.stack.step(encoded.inputs, tf.unstack(rnn, axis=1))
        reference = self.reference(encoded)
        raw = self.structure.answer(At(output, rows, encoded, reference, after, calendar))
        known = tf.where(self.of_kpis(encoded.ever)[:, :, None], reference.centre, np.nan)
        answer = self.head.natural(self.levels(raw, reference), reference._replace(centre=known))
        if self.options.round_to_grain:
            answer = self._rounded(answer)
        return answer, tf.stack(rows, axis=1), after

    def _rounded(self, answer: Any) -> Any:
        """The median in the steps that a KPI is reported in, its neighbours moved along where they would cross it.

        Where values come in whole units so does the median of what may come, and an answer between two of them is the
        trace of averaging over the possibilities.
        """
        grain = tf.gather(self.encoder.grain(), self.kpi_columns)[None, :, None]
        median = answer[..., self.head.middle]
        step = tf.maximum(grain, 1e-6)
        median = tf.where(grain > 0, tf.round(median / step) * step, median)
        levels = tf.unstack(answer, axis=3)
        below = [tf.minimum(level, median) for level in levels[: self.head.middle]]
        above = [tf.maximum(level, median) for level in levels[self.head.middle + 1 :]]
        return tf.stack([*below, median, *above], axis=3)

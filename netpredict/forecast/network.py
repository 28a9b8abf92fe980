"""The recurrent network as one pure step: encoder, stack of layers, head. No row of a batch sees another.

Its tensors are two-dimensional (rows, columns), so that the step of the daemon and the chunk of a training share every
line. The encoder has no trainable part: it runs over a whole history before the first gradient is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netpredict.errors import ArtefactError
from netpredict.forecast.backend import check_backend, tf
from netpredict.forecast.encode import Encoded, Encoder
from netpredict.forecast.heads import QuantileHead, Reference
from netpredict.forecast.stack import Stack
from netpredict.types import FeatureSpec, OutputSpec

__all__ = ["Network"]


class Network:
    """Weights and the pure functions over them. ``rnn`` is (n, state rows, units), ``scaler`` (n, rows, k)."""

    def __init__(self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec) -> None:
        check_backend()
        self.observed = len(features.observed)
        self.kpi_columns = [features.observed.index(kpi) for kpi in output.kpis]
        with tf.device("CPU:0"):
            self.encoder = Encoder(features, options.scaler_steps)
            self.stack, self.head = self._built(layer, options, features, output)
        self.rnn_shape = (self.stack.rows, *self.stack.shape)

    def _built(self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec) -> tuple[Any, Any]:
        """Stack and head."""
        stack, head = Stack(layer, options, self.encoder.width), QuantileHead(output, output.horizon_steps)
        head.build(options.units)
        return stack, head

    @property
    def _parts(self) -> list[Any]:
        return [*self.stack.parts, self.head.dense]

    @property
    def trainable(self) -> list[Any]:
        """The Keras variables that gradients reach."""
        return [weight for part in self._parts for weight in part.trainable_weights]

    def named(self) -> dict[str, Any]:
        """Every tensor of an artefact by name: weights and the prior of the scaler."""
        weights = {f"{part.name}.{weight.name}": weight for part in self._parts for weight in part.trainable_weights}
        return {**weights, **self.encoder.named()}

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

    def of_kpis(self, columns: Any) -> Any:
        """(n, k) of the observed columns -> (n, kpis) of the forecast ones."""
        return tf.gather(columns, self.kpi_columns, axis=1)

    def reference(self, encoded: Encoded) -> Reference:
        """What the head's units refer to."""
        return Reference(self.of_kpis(encoded.last)[:, :, None], self.of_kpis(encoded.scale)[:, :, None])

    def step(self, features: Any, rnn: Any, scaler: Any) -> tuple[Any, Any, Any]:
        """The whole of one step: (n, f) in natural units -> (n, kpis, horizon, levels) in natural units, new hidden."""
        values, calendar = features[:, : self.observed], features[:, self.observed :]
        after = self.encoder.scale(values, scaler)
        encoded = self.encoder.encode(values, calendar, scaler, after)
        hidden, rows = self.stack.step(encoded.inputs, tf.unstack(rnn, axis=1))
        reference = self.reference(encoded)
        levels = self.head.levels(self.head.raw(hidden), reference)
        known = tf.where(self.of_kpis(encoded.ever)[:, :, None], reference.centre, np.nan)
        answer = self.head.natural(levels, reference._replace(centre=known))
        return answer, tf.stack(rows, axis=1), after

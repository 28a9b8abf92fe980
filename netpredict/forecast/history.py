"""The history that a network is trained on, cut into chunks, the time axis first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from netpredict.calendar import calendar
from netpredict.forecast.backend import tf
from netpredict.forecast.encode import Encoder
from netpredict.types import AnyArray, FeatureSpec, FloatArray, IntArray, TrainingSet


class History:
    """T steps of S series; ``cut`` is the first step that is held out."""

    def __init__(self, encoder: Encoder, dataset: TrainingSet, length: int) -> None:
        self.values = np.ascontiguousarray(np.moveaxis(dataset.values, 1, 0), dtype=np.float32)
        self.steps, self.series, self.columns = self.values.shape
        self.cut = min(dataset.validation_from, self.steps)
        self.truth = np.ascontiguousarray(np.moveaxis(dataset.targets, 1, 0), dtype=np.float32)
        kpis = self.truth.shape[2]
        self._weights = np.ones((self.series, kpis), np.float32) if dataset.weights is None else dataset.weights
        self._length, self._ahead = length, length + dataset.output.horizon_steps
        slots = np.asarray(dataset.first_slot)[None, :] + np.arange(self.steps)[:, None]
        self._calendar = _calendar(slots, dataset.features)
        encoder.learn(self.values[: self.cut])
        self._scaler = self._scaled(encoder)
        self.signature = [
            tf.TensorSpec((length, None, self.columns)),
            tf.TensorSpec((self._ahead, None, kpis)),
            tf.TensorSpec((None, kpis)),
            tf.TensorSpec((length, None, self._calendar.shape[2])),
            {name: tf.TensorSpec((length + 1, None, *shape)) for name, shape in encoder.state_shapes.items()},
        ]

    def _scaled(self, encoder: Encoder) -> dict[str, FloatArray]:
        """The arrays of the encoder before every step, and after the last one: {name: (T + 1, S, *shape)}."""
        shapes = encoder.state_shapes.items()
        history = {name: np.zeros((self.steps + 1, self.series, *shape), np.float32) for name, shape in shapes}
        state = {name: tf.constant(array[0]) for name, array in history.items()}
        scale = tf.function(encoder.scale, autograph=False)
        for step in range(self.steps):
            state = scale(tf.constant(self.values[step]), tf.constant(self._calendar[step]), state)
            for name, array in state.items():
                history[name][step + 1] = array.numpy()
        return history

    def chunks(self, first: int, stop: int, rows: AnyArray) -> Iterator[tuple[int, list[Any]]]:
        """Chunks of these series from ``first``; what lies at or beyond ``stop`` is missing.

        Each is values (length, n, k), truth (length + horizon, n, kpis), weights (n, kpis), calendar (length, n, c),
        the encoder's {name: (length + 1, n, …)}.
        """
        for start in range(first, stop - 1, self._length):
            values = self.values[start : min(start + self._length, stop), rows]
            truth = self.truth[start : min(start + self._ahead, stop), rows]
            calendar = self._calendar[start : start + self._length, rows]
            scaler = {name: array[start : start + self._length + 1, rows] for name, array in self._scaler.items()}
            yield (
                start,
                [
                    _padded(values, self._length, np.nan),
                    _padded(truth, self._ahead, np.nan),
                    tf.constant(self._weights[rows]),
                    _padded(calendar, self._length, 0.0),
                    {name: _padded(array, self._length + 1, 0.0) for name, array in scaler.items()},
                ],
            )


def _calendar(slots: IntArray, features: FeatureSpec) -> FloatArray:
    """The columns that the live pipeline appends, for a (T, S) grid of slots."""
    flat = calendar(slots.ravel() * features.period_us + features.phase_us, features)
    return flat.reshape(*slots.shape, flat.shape[1])


def _padded(array: AnyArray, length: int, fill: float) -> Any:
    missing = np.full((length - len(array), *array.shape[1:]), fill, dtype=array.dtype)
    return tf.constant(np.concatenate([array, missing]))

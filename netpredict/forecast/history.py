"""The history that a network is trained on, cut into chunks: values, calendar and scaler with the time axis first."""

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
        self._length, self._ahead = length, length + dataset.output.horizon_steps
        slots = np.asarray(dataset.first_slot)[None, :] + np.arange(self.steps)[:, None]
        self._calendar = _calendar(slots, dataset.features)
        encoder.learn(self.values[: self.cut])
        self._scaler = self._scaled(encoder)
        self.shapes = [
            (self._ahead, None, self.columns),
            (length, None, self._calendar.shape[2]),
            (length + 1, None, *encoder.state_shape),
        ]

    def _scaled(self, encoder: Encoder) -> FloatArray:
        """The scaler before every step, and after the last one: (T + 1, S, *state_shape)."""
        history = np.zeros((self.steps + 1, self.series, *encoder.state_shape), dtype=np.float32)
        scale = tf.function(encoder.scale, autograph=False)
        for step in range(self.steps):
            history[step + 1] = scale(tf.constant(self.values[step]), tf.constant(history[step])).numpy()
        return history

    def chunks(self, first: int, stop: int, rows: AnyArray) -> Iterator[tuple[int, list[Any]]]:
        """Chunks of these series from ``first``; what lies at or beyond ``stop`` is missing.

        Each is values (length + horizon, n, k), calendar (length, n, c) and scaler (length + 1, n, *state_shape).
        """
        for start in range(first, stop - 1, self._length):
            values = self.values[start : min(start + self._ahead, stop), rows]
            calendar = self._calendar[start : start + self._length, rows]
            scaler = self._scaler[start : start + self._length + 1, rows]
            chunk = [(values, self._ahead, np.nan), (calendar, self._length, 0.0), (scaler, self._length + 1, 0.0)]
            yield start, [tf.constant(_padded(array, size, fill)) for array, size, fill in chunk]


def _calendar(slots: IntArray, features: FeatureSpec) -> FloatArray:
    """The columns that the live pipeline appends, for a (T, S) grid of slots."""
    flat = calendar(slots.ravel() * features.period_us + features.phase_us, features)
    return flat.reshape(*slots.shape, flat.shape[1])


def _padded(array: AnyArray, length: int, fill: float) -> AnyArray:
    if len(array) == length:
        return array
    return np.concatenate([array, np.full((length - len(array), *array.shape[1:]), fill, dtype=array.dtype)])

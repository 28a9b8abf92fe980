"""What a network sees where the level itself says something, whatever the series: a level in dBm that breaks a link.

A column is scaled by mean and deviation over the whole training part, the same for every series, instead of by what the
series itself has shown so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netpredict.forecast.backend import tf
from netpredict.forecast.encode import CLIP, COUNT_ROW, Encoded, Encoder
from netpredict.forecast.predictor import ABSURD
from netpredict.types import FeatureSpec, FloatArray

_LEAST_DEVIATION = 1e-6


class LevelsEncoder(Encoder):
    """Level and move of every column in units of the fleet's deviation, missing marks, calendar."""

    def __init__(self, features: FeatureSpec, options: Any) -> None:
        super().__init__(features, options.scaler_steps, calendar=options.calendar)
        self._mean = tf.Variable(np.zeros(self.columns, np.float32), trainable=False)
        self._deviation = tf.Variable(np.ones(self.columns, np.float32), trainable=False)

    def named(self) -> dict[str, Any]:
        """The prior of the scaler, mean and deviation of each column."""
        return {**super().named(), "levels.mean": self._mean, "levels.deviation": self._deviation}

    def learn(self, values: FloatArray) -> None:
        """Mean and standard deviation of every column over all that was seen; DataError if empty."""
        super().learn(values)
        for column in range(values.shape[2]):
            known = values[:, :, column][np.abs(values[:, :, column]) < ABSURD].astype(np.float64)
            if len(known):
                mean, deviation = self._mean.numpy(), self._deviation.numpy()
                mean[column] = known.mean()
                deviation[column] = known.std() if known.std() > _LEAST_DEVIATION else 1.0
                self._mean.assign(mean)
                self._deviation.assign(deviation)

    def encode(self, values: Any, calendar: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Encoded:
        """See the contract; a column that was never seen stands at the mean, a missing value as the last one."""
        last, _, _, count = tf.unstack(after["scaler"], axis=1)
        moved = tf.where(before["scaler"][:, COUNT_ROW] < 0.5, 0.0, last - before["scaler"][:, 0])
        level = tf.where(count < 0.5, 0.0, (last - self._mean) / self._deviation)
        missing = tf.cast(~(tf.abs(values) < ABSURD), tf.float32)
        columns = [level, moved / self._deviation, missing]
        inputs = tf.concat([tf.clip_by_value(part, -CLIP, CLIP) for part in columns], axis=1)
        scale = tf.zeros_like(last) + self._deviation
        return Encoded(
            tf.concat([inputs, self.clock(calendar)], axis=1),
            last,
            scale,
            count,
            last[:, :, None],
            last[:, :, None][:, :, :0],
        )

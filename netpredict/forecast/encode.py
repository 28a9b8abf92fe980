"""What a network sees of a series: the causal scaler, and the inputs made of scaled values and the calendar.

Contract of an encoder. It is built from the ``FeatureSpec`` and owns every assumption about natural units:

- ``state_shapes``: name -> shape of the arrays that it keeps of ONE series, float32, zero at a cold start;
- ``scale(values, calendar, state)``: one causal step, (n, k) natural values and the calendar columns -> the arrays
  after them, {name: (n, *shape)};
- ``encode(values, calendar, before, after)``: the same values, the calendar columns, those arrays before and after
  ``scale`` -> ``Encoded``: inputs (n, ``width``), and what a head needs to answer in natural units, each (n, k);
- ``clock(calendar)``: the part of the inputs that the calendar alone makes, (n, ``clock_width``);
- ``later(calendar, steps)``: the calendar so many steps later, as far as it can be told from the columns;
- ``learn(values)``: takes from the training part (T, S, k) what no gradient teaches, before the first train_epoch;
- ``candidates``: how many it offers in ``Encoded``, and ``grain()``: the step each column is reported in, 0 = unknown;
- ``named()``: its tensors by name, saved with the weights.

Nothing in it is trainable, no row sees another, and everything but ``learn`` runs inside a graph: in the step of the
daemon with n rows, in training with all steps of a chunk as rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from netpredict.errors import DataError
from netpredict.forecast.backend import tf
from netpredict.forecast.predictor import ABSURD
from netpredict.types import FeatureSpec, FloatArray

SCALER_ROWS = 4  # last value, running mean, running mean absolute deviation, number of values seen
COUNT_ROW = 3
_PLAIN = 3  # inputs of each column: level, move, missing mark
CLIP = 8.0
FAR = 5.0  # in mean deviations of a column: further off is another state (a lost signal, say), no level to average
PRIOR_STEPS = 4.0  # weight of the prior deviation, in observations
_COUNT_MAX = 1e6  # below 2**24, where float32 stops counting
_LEAST_RATIO = 0.02  # of the prior deviation, for a series that stands still
_FLOOR_RATIO = 1e-4  # of the fleet's deviation, for a series that stands at zero


class Encoded(NamedTuple):
    """Network inputs (n, width); by column (n, k): last value, scale in natural units, number of values seen.

    ``centre`` (n, k, leads or 1) is the natural value that an answer is added to. ``candidates`` (n, k, c) are natural
    values that it may lean on, c = 0 where there are none; the last of them is no value but the spread of the series.
    """

    inputs: Any
    last: Any
    scale: Any
    count: Any
    centre: Any
    candidates: Any

    @property
    def ever(self) -> Any:
        """Whether a column has been seen at all, (n, k)."""
        return self.count > 0.5


class Encoder:
    """Level and move of every column in units of its running deviation, missing marks, calendar as sine and cosine."""

    candidates = 0

    def __init__(
        self, features: FeatureSpec, scaler_steps: int, more_per_column: int = 0, calendar: bool = True
    ) -> None:
        self.columns, self.per_column = len(features.observed), _PLAIN + more_per_column
        self._told = calendar
        self.clock_width = 2 * (len(features.CALENDAR) - 1) + 1 if calendar else 0
        self.width = self.per_column * self.columns + self.clock_width
        self.state_shapes: dict[str, tuple[int, ...]] = {"scaler": (SCALER_ROWS, self.columns)}
        self._buckets = float(max(1, features.season_buckets))
        self._turn = tf.constant([2 * np.pi / cycle for cycle in (24.0, 7.0, self._buckets)], dtype=tf.float32)
        self._step_h = features.period_us / 3_600_000_000
        self._step_buckets = features.period_us * features.season_buckets / max(1, features.season_us)
        self._forget = 1.0 / scaler_steps
        ones = np.ones(self.columns, dtype=np.float32)
        self._prior_ratio = tf.Variable(0.1 * ones, trainable=False)
        self._prior_deviation = tf.Variable(ones, trainable=False)

    def named(self) -> dict[str, Any]:
        """The prior of the scaler."""
        return {"scaler.ratio": self._prior_ratio, "scaler.deviation": self._prior_deviation}

    def scale(self, values: Any, calendar: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """One causal step: (n, k) natural values, NaN = missing -> new ``scaler`` (n, SCALER_ROWS, k)."""
        last, mean, deviation, count = tf.unstack(state["scaler"], axis=1)
        is_seen = tf.abs(values) < ABSURD  # false for NaN
        seen = tf.cast(is_seen, tf.float32)
        value = tf.where(is_seen, values, last)
        is_first = count < 0.5
        prior = self._prior(value)
        before = tf.where(is_first, prior, deviation)
        surprise = tf.where(is_first, prior, tf.abs(value - mean))
        mean += seen * tf.maximum(1.0 / (count + 1.0), self._forget) * (value - mean)
        deviation = before + seen * tf.maximum(1.0 / (count + PRIOR_STEPS), self._forget) * (surprise - before)
        return {"scaler": tf.stack([value, mean, deviation, tf.minimum(count + seen, _COUNT_MAX)], axis=1)}

    def grain(self) -> Any:
        """Not known."""
        return tf.zeros(self.columns)

    def _least(self, mean: Any) -> Any:
        return _LEAST_RATIO * self._prior(mean)

    def _prior(self, value: Any) -> Any:
        return self._prior_ratio * tf.abs(value) + _FLOOR_RATIO * self._prior_deviation

    def encode(self, values: Any, calendar: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Encoded:
        """See the contract; a missing value stands as the last one, with its mark."""
        last, mean, deviation, count = tf.unstack(after["scaler"], axis=1)
        first_value = before["scaler"][:, COUNT_ROW] < 0.5
        scale = tf.maximum(deviation, self._least(mean))
        moved = tf.where(first_value, 0.0, last - before["scaler"][:, 0])
        level, move = (last - mean) / scale, moved / scale
        missing = tf.cast(~(tf.abs(values) < ABSURD), tf.float32)
        columns = [tf.clip_by_value(level, -CLIP, CLIP), tf.clip_by_value(move, -CLIP, CLIP), missing]
        inputs, none = tf.concat([*columns, self.clock(calendar)], axis=1), last[:, :, None][:, :, :0]
        return Encoded(inputs, last, scale, count, last[:, :, None], none)

    def beside(self, inputs: Any, per_column: list[Any]) -> Any:
        """The plain inputs, and those of more for each column, (n, rows, k), before what all columns share."""
        own, shared = inputs[:, : _PLAIN * self.columns], inputs[:, _PLAIN * self.columns :]
        more = tf.clip_by_value(tf.concat(per_column, axis=1), -CLIP, CLIP)
        return tf.concat([own, tf.reshape(more, (-1, more.shape[1] * self.columns)), shared], axis=1)

    def clock(self, calendar: Any) -> Any:
        """Sine and cosine of hour, weekday and season; 1 on a holiday. Nothing where the calendar is left out."""
        if not self._told:
            return calendar[:, :0]
        angle = calendar[:, :-1] * self._turn
        return tf.concat([tf.sin(angle), tf.cos(angle), tf.math.floormod(calendar[:, -1:], 2.0)], axis=1)

    def is_holiday(self, calendar: Any) -> Any:
        """Bool (n,)."""
        return tf.math.floormod(calendar[:, -1], 2.0) > 0.5

    def later(self, calendar: Any, steps: Any) -> Any:
        """Without changes of the clocks; holidays as far ahead as their column tells."""
        hour, day, bucket, holidays = tf.unstack(calendar, axis=1)
        hours = hour + steps * self._step_h
        days = tf.floor(hours / 24.0)
        buckets = tf.math.floormod(bucket + steps * self._step_buckets, self._buckets)
        holidays = tf.floor(holidays / tf.pow(2.0, days))
        return tf.stack([hours - 24.0 * days, tf.math.floormod(day + days, 7.0), buckets, holidays], axis=1)

    def learn(self, values: FloatArray) -> None:
        """What a series is assumed to vary by before it has shown it: medians over the series; DataError if empty."""
        seen = np.abs(values) < ABSURD
        if not seen.any() or len(values) < 2:
            raise DataError("the training part holds no value; move validation_from or widen the window")
        count = np.maximum(seen.sum(axis=0), 1)
        known = np.where(seen, values, 0).astype(np.float64)
        mean, size = known.sum(axis=0) / count, np.abs(known).sum(axis=0) / count
        deviation = (np.abs(known - mean) * seen).sum(axis=0) / count
        for column in range(values.shape[2]):
            usable = (seen.sum(axis=0)[:, column] > 1) & (size[:, column] > 0)
            if usable.any():
                ratio = np.median(deviation[usable, column] / size[usable, column])
                _set(self._prior_ratio, column, np.clip(ratio, 1e-4, 10.0))
                _set(self._prior_deviation, column, max(np.median(deviation[usable, column]), 1e-12))


def _set(variable: Any, column: int, value: float) -> None:
    changed = variable.numpy()
    changed[column] = value
    variable.assign(changed)

"""What a network sees of a series when it is told more than the last move: lags, weighted means, how long it stood.

Natural units stay natural: one centre and one unit a column, learnt from the training part and the same for every
series, so that an error of 1 dB weighs as much where the signal stands still as where it moves. Row by row of the
state: the last value, steps since it changed, steps since it was seen, steps since the first value, then the values
1 … ``lags`` steps ago, a weighted mean for each half-life, a weighted mean of the moves for each half-life of moves.
Between two values a series stands at the last one, in every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netpredict.errors import DataError
from netpredict.forecast.backend import tf
from netpredict.forecast.encode import CLIP, FAR, Encoded, Encoder
from netpredict.forecast.predictor import ABSURD
from netpredict.types import AnyArray, FeatureSpec

FIXED_ROWS = 4  # before the lags: last value, steps since a change, since a value, since the first value
COUNT_MAX = 1e6  # below 2**24, where float32 stops counting
CANDIDATE_LAGS = (1, 2, 4)
_FLOOR = 0.01  # of the unit: the least spread of a series
_LEAST_DEVIATION = 0.05  # of an input that hardly ever moves


class HistoryEncoder(Encoder):
    """Level, lags, weighted means and moves in fixed units, missing marks, ages, calendar."""

    def __init__(self, features: FeatureSpec, options: Any) -> None:
        super().__init__(features, options.scaler_steps, calendar=options.calendar)
        self.lags, self.means, self.moves = options.lags, options.mean_half_lives, options.move_half_lives
        self._rates = [1.0 - 0.5 ** (1.0 / half_life) for half_life in (*self.means, *self.moves)]
        self.state_shapes = {"scaler": (FIXED_ROWS + self.lags + len(self._rates), self.columns)}
        self.per_column = 4 + self.lags + len(self._rates)
        self.width = self.per_column * self.columns + self.clock_width
        self._calendar_width = len(features.CALENDAR)
        self._chosen = [lag for lag in CANDIDATE_LAGS if lag <= self.lags]
        self.candidates = len(self._chosen) + len(self.means) + 1
        ones = np.ones(self.columns, dtype=np.float32)
        self._centre = tf.Variable(0.0 * ones, trainable=False)
        self._unit = tf.Variable(ones, trainable=False)
        self._grain = tf.Variable(0.0 * ones, trainable=False)
        self._mean = tf.Variable(np.zeros(self.width, dtype=np.float32), trainable=False)
        self._deviation = tf.Variable(np.ones(self.width, dtype=np.float32), trainable=False)

    def grain(self) -> Any:
        """Step in which each column is reported, (k,) in natural units: 1 for whole numbers, 0 when not known."""
        return self._grain

    def named(self) -> dict[str, Any]:
        """Centre, unit and grain of every column, mean and deviation of every input."""
        columns = {"scaler.centre": self._centre, "scaler.unit": self._unit, "scaler.grain": self._grain}
        return {**columns, "inputs.mean": self._mean, "inputs.deviation": self._deviation}

    def scale(self, values: Any, calendar: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """One causal step: (n, k) natural values, NaN = missing -> new ``scaler`` (n, rows, k)."""
        scaler = state["scaler"]
        last, run, age, count = (scaler[:, row] for row in range(FIXED_ROWS))
        is_seen = tf.abs(values) < ABSURD  # false for NaN
        is_first = count < 0.5
        value = tf.where(is_seen, values, last)
        started = tf.cast(is_seen | ~is_first, tf.float32)
        counted = tf.minimum(count + started, COUNT_MAX)
        changed = is_first | (value != last)
        rows = [
            value,
            tf.where(changed, 0.0, tf.minimum(run + 1.0, COUNT_MAX)),
            tf.where(is_seen, 0.0, tf.minimum(age + 1.0, COUNT_MAX)),
            counted,
        ]
        ring = scaler[:, FIXED_ROWS : FIXED_ROWS + self.lags]
        lagged = tf.concat([last[:, None], ring[:, :-1]], axis=1)
        rows += tf.unstack(tf.where(is_first[:, None], value[:, None], lagged), axis=1)
        move = tf.where(is_first, 0.0, tf.minimum(tf.abs(value - last), FAR * self._unit))
        rows += self._averaged(scaler[:, FIXED_ROWS + self.lags :], value, move, counted)
        return {"scaler": tf.stack(rows, axis=1)}

    def _averaged(self, before: Any, value: Any, move: Any, counted: Any) -> list[Any]:
        """The weighted means of values and of moves one step on; those of few values are theirs, as without bias."""
        near = tf.clip_by_value(value, self._centre - FAR * self._unit, self._centre + FAR * self._unit)
        fresh = [near] * len(self.means) + [move] * len(self.moves)
        rows = []
        for old, new, rate in zip(tf.unstack(before, axis=1), fresh, self._rates, strict=True):
            share = -tf.math.expm1(counted * np.log1p(-rate))  # of all weights that the values so far have
            weight = tf.where(counted < 1.5, 1.0, rate / tf.maximum(share, rate))
            rows.append(tf.where(counted > 0.5, old + weight * (new - old), old))
        return rows

    def encode(self, values: Any, calendar: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Encoded:
        """See the contract; the candidates of an answer are natural: lags and means, and last the spread."""
        scaler = after["scaler"]
        last, run, age, count = (scaler[:, row] for row in range(FIXED_ROWS))
        ring = scaler[:, FIXED_ROWS : FIXED_ROWS + self.lags]
        means = scaler[:, FIXED_ROWS + self.lags : FIXED_ROWS + self.lags + len(self.means)]
        moves = scaler[:, FIXED_ROWS + self.lags + len(self.means) :]
        level = (last - self._centre) / self._unit
        differences = (tf.concat([ring, means], axis=1) - last[:, None]) / self._unit
        missing = tf.cast(~(tf.abs(values) < ABSURD), tf.float32)
        ages = [tf.math.log1p(run), tf.math.log1p(age)]
        parts = [level, missing, *ages, _flat(differences), _flat(moves / self._unit), self.clock(calendar)]
        inputs = (tf.concat(parts, axis=1) - self._mean) / self._deviation
        chosen = [ring[:, lag - 1] for lag in self._chosen]
        spread = tf.reduce_mean(moves, axis=1) + _FLOOR * self._unit
        candidates = tf.stack([*chosen, *tf.unstack(means, axis=1), spread], axis=2)
        unit = tf.ones_like(last) * self._unit
        return Encoded(tf.clip_by_value(inputs, -CLIP, CLIP), last, unit, count, last[:, :, None], candidates)

    def learn(self, values: AnyArray) -> None:
        """Median, mean distance from it and grain of each column, then how its inputs spread; DataError if empty."""
        seen: AnyArray = np.abs(values) < ABSURD
        if not seen.any() or len(values) < 2:
            raise DataError("the training part holds no value; move validation_from or widen the window")
        centre, unit, grain = (variable.numpy() for variable in (self._centre, self._unit, self._grain))
        for column in range(values.shape[2]):
            known = values[:, :, column][seen[:, :, column]]
            if len(known):
                centre[column] = np.median(known)
                unit[column] = max(float(np.abs(known - centre[column]).mean(dtype=np.float64)), 1e-12)
                grain[column] = float((known == np.round(known)).all())
        for variable, found in ((self._centre, centre), (self._unit, unit), (self._grain, grain)):
            variable.assign(found)
        self._learn_inputs(values, np.asarray(seen.any(axis=2)))

    def _learn_inputs(self, values: AnyArray, counted: AnyArray) -> None:
        """Mean and standard deviation of every input, the clock's aside, over steps (T, S) at which a value came."""
        quiet = tf.zeros((values.shape[1], self._calendar_width))

        def step(now: Any, before: Any, counts: Any) -> Any:
            after = self.scale(now, quiet, before)
            inputs = self.encode(now, quiet, before, after).inputs * counts[:, None]
            return after, tf.reduce_sum(inputs, axis=0), tf.reduce_sum(tf.square(inputs), axis=0)

        compiled = tf.function(step, autograph=False)
        state = {"scaler": tf.zeros((values.shape[1], *self.state_shapes["scaler"]))}
        total, square = np.zeros(self.width), np.zeros(self.width)
        for now, counts in zip(values, counted, strict=True):
            state, *sums = compiled(tf.constant(now), state, tf.constant(counts, tf.float32))
            total, square = total + sums[0].numpy(), square + sums[1].numpy()
        mean = total / counted.sum()
        deviation = np.sqrt(np.maximum(square / counted.sum() - mean**2, _LEAST_DEVIATION**2))
        clock = slice(self.width - self.clock_width, None)
        mean[clock], deviation[clock] = 0.0, 1.0
        self._mean.assign(mean.astype(np.float32))
        self._deviation.assign(deviation.astype(np.float32))


def _flat(rows: Any) -> Any:
    """(n, rows, k) -> (n, rows * k)."""
    return tf.reshape(rows, (-1, rows.shape[1] * rows.shape[2]))

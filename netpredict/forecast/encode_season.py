"""What a network sees of a series that follows the clock: how far it is off the usual hour of such a day.

The usual is a mean of each hour of three kinds of day, working day, Saturday, Sunday or holiday, by the local time of
the stream. The answer of the network is added to the usual of the target's hour in place of the last value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netpredict.errors import ConfigError
from netpredict.forecast.backend import tf
from netpredict.forecast.encode import COUNT_ROW, PRIOR_STEPS, Encoded, Encoder
from netpredict.forecast.predictor import ABSURD
from netpredict.types import FeatureSpec, OutputSpec

KINDS = 3
HOURS = 24
DAY_STEPS_MAX = 288  # of the ring that holds yesterday: one value every five minutes
_BUCKETS = KINDS * HOURS
_SATURDAY, _SUNDAY = 5.0, 6.0
_HOUR_US = 3_600_000_000


class SeasonEncoder(Encoder):
    """Beside the scaler it keeps ``miss``, the mean absolute distance from the usual, ``day``, the values of the last
    day, newest first, ``usual`` and ``weight`` of each hour of each kind. Leads lie within one day.
    """

    def __init__(self, features: FeatureSpec, output: OutputSpec, options: Any) -> None:
        self._day, self._leads = check_season(features, output), output.horizon_steps
        super().__init__(features, options.scaler_steps, 1 + 2 * self._leads)
        self._keep = (1.0 - options.season_forget_ratio) ** min(1.0, features.period_us / _HOUR_US)
        hours = (_BUCKETS, self.columns)
        self.state_shapes |= {
            "miss": (self.columns,),
            "day": (self._day, self.columns),
            "usual": hours,
            "weight": hours,
        }
        self.width += 2 * (KINDS - 1)

    def scale(self, values: Any, calendar: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """See the contract; a missing value moves ``day`` on and leaves the usual alone."""
        after = super().scale(values, calendar, state)
        is_seen, count = tf.abs(values) < ABSURD, state["scaler"][:, COUNT_ROW]
        value, miss, day = after["scaler"][:, 0], state["miss"], state["day"]
        off = tf.abs(value - self._usual(calendar[:, None], state, after)[:, 0])
        pace = tf.maximum(1.0 / (count + PRIOR_STEPS), self._forget)
        moved = tf.where(count < 0.5, after["scaler"][:, 2], tf.where(is_seen, miss + pace * (off - miss), miss))
        here = tf.one_hot(self._bucket(calendar), _BUCKETS)[:, :, None] > 0.5
        touched = tf.logical_and(here, is_seen[:, None])
        grown = self._keep * state["weight"] + 1.0
        usual = state["usual"] + (value[:, None] - state["usual"]) / grown
        older = tf.where(count[:, None] < 0.5, value[:, None], day)[:, :-1]
        return {
            **after,
            "miss": moved,
            "day": tf.concat([value[:, None], older], axis=1),
            "usual": tf.where(touched, usual, state["usual"]),
            "weight": tf.where(touched, grown, state["weight"]),
        }

    def encode(self, values: Any, calendar: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Encoded:
        """See the contract; ``centre`` is the usual of the hours of all leads."""
        plain = super().encode(values, calendar, before, after)
        mean, leads = after["scaler"][:, 1], range(1, self._leads + 1)
        unit = tf.maximum(after["miss"], self._least(mean))
        ahead = tf.stack([self.later(calendar, float(lead)) for lead in leads], axis=1)
        centre = self._usual(ahead, after, after)
        off = plain.last[:, None] - self._usual(calendar[:, None], before, after)
        yesterday = tf.stack([after["day"][:, self._day - lead] for lead in leads], axis=1)
        seen = [part / unit[:, None] for part in (off, centre - mean[:, None], yesterday - centre)]
        kinds = [tf.one_hot(self._kind(day), KINDS)[:, 1:] for day in (calendar, ahead[:, -1])]
        inputs = tf.concat([self.beside(plain.inputs, seen), *kinds], axis=1)
        return plain._replace(inputs=inputs, scale=unit, centre=tf.transpose(centre, (0, 2, 1)))

    def _usual(self, calendar: Any, state: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
        """(n, m, c) calendars -> (n, m, k): the mean of that hour; of the other kinds, then of all, where not seen."""
        means, weights, mean = state["usual"], state["weight"], after["scaler"][:, None, 1]
        flat = tf.reshape(calendar, (-1, calendar.shape[2]))
        buckets = tf.reshape(self._bucket(flat), (-1, calendar.shape[1]))
        by_kind = tf.reshape(weights, (-1, KINDS, HOURS, self.columns))
        weight = tf.reduce_sum(by_kind, axis=1)
        total = tf.reduce_sum(by_kind * tf.reshape(means, (-1, KINDS, HOURS, self.columns)), axis=1)
        any_kind = tf.where(weight > 0.0, total / tf.maximum(weight, 1e-6), mean)
        fallback = tf.gather(any_kind, buckets % HOURS, batch_dims=1)
        own, known = tf.gather(means, buckets, batch_dims=1), tf.gather(weights, buckets, batch_dims=1)
        return tf.where(known > 0.0, own, fallback)

    def _bucket(self, calendar: Any) -> Any:
        """Index of kind and hour, int32 (n,)."""
        hour = tf.cast(tf.floor(calendar[:, 0] + 1e-3), tf.int32) % HOURS
        return self._kind(calendar) * HOURS + hour

    def _kind(self, calendar: Any) -> Any:
        """0 = working day, 1 = Saturday, 2 = Sunday or holiday, int32 (n,)."""
        free = tf.logical_or(calendar[:, 1] > _SUNDAY - 0.5, self.is_holiday(calendar))
        saturday = tf.cast(tf.abs(calendar[:, 1] - _SATURDAY) < 0.5, tf.int32)
        return tf.where(free, 2, saturday)


def check_season(features: FeatureSpec, output: OutputSpec) -> int:
    """Steps of a day; ConfigError when they are too many, or leads reach beyond it."""
    steps = round(HOURS * _HOUR_US / features.period_us)
    if not 1 <= steps <= DAY_STEPS_MAX or steps * features.period_us != HOURS * _HOUR_US:
        raise ConfigError(
            f'inputs = "season" needs a period that divides a day into at most {DAY_STEPS_MAX} steps, not '
            f'{features.period_us / 1e6:g} s; take "moves"'
        )
    if output.horizon_steps > steps:
        raise ConfigError(f'inputs = "season" reaches one day ahead, {steps} steps, not {output.horizon_steps}')
    return steps

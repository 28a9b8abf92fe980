"""What a network sees of KPIs that are classes: one-hot lags, how long the last class has stood, how often each came.

A scaled number hides what a class does: CQI 9 that has stood for a minute says more about the next second than "half a
deviation above the mean". The state is explicit and causal, like the scaler's, and nothing in it is trainable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from netpredict.forecast.backend import tf
from netpredict.forecast.encode import Encoded, Encoder
from netpredict.forecast.predictor import ABSURD
from netpredict.radio.classes import classes_of
from netpredict.types import FeatureSpec, FloatArray

_STAYS = (1, 2, 3, 5, 9, 17, 33)  # steps; where the next class of run lengths begins
_MEMORIES = (30.0, 300.0)  # observations that the two frequencies look back
_PRIOR_SHARE = 0.02  # of every class, before it has been seen
_STEPS_MAX = 1e6


class Classes(NamedTuple):
    """The classes of several KPIs on one axis, as long as the longest: class i of a KPI is its value low + i."""

    low: Any
    counts: Any
    most: int

    def nearest(self, natural: Any) -> Any:
        """The nearest class of natural values (…, kpis), 0 to most - 1; NaN gives 0."""
        whole = tf.round(natural - self.low)
        return tf.clip_by_value(tf.where(tf.math.is_nan(whole), 0.0, whole), 0.0, self.counts - 1.0)


def classes_of_all(kpis: tuple[str, ...]) -> Classes:
    """ConfigError when a KPI has no classes."""
    each = [classes_of(kpi) for kpi in kpis]
    low = np.array([classes[0] for classes in each], np.float32)
    counts = np.array([len(classes) for classes in each], np.float32)
    return Classes(low, counts, int(counts.max()))


class LagEncoder(Encoder):
    """The inputs of ``scaled`` for every column, and behind them those of the KPIs that are classes."""

    def __init__(self, scaled: Encoder, features: FeatureSpec, kpis: tuple[str, ...], lags: int) -> None:
        self._scaled, self.columns = scaled, scaled.columns
        self.candidates, self.clock_width = scaled.candidates, scaled.clock_width
        self.width, self.state_shapes = scaled.width, dict(scaled.state_shapes)
        self.classes, self.first_lag = classes_of_all(kpis), self.width
        self._columns = [features.observed.index(kpi) for kpi in kpis]
        most, count = self.classes.most, len(kpis)
        self.width += count * (most * (lags + len(_STAYS) + 1 + len(_MEMORIES)) + 2)
        self.state_shapes |= {"recent": (count, lags), "stay": (count, 2), "frequency": (count, len(_MEMORIES), most)}

    def named(self) -> dict[str, Any]:
        """Those of ``scaled``."""
        return self._scaled.named()

    def learn(self, values: FloatArray) -> None:
        """What ``scaled`` learns."""
        self._scaled.learn(values)

    def grain(self) -> Any:
        """That of ``scaled``."""
        return self._scaled.grain()

    def clock(self, calendar: Any) -> Any:
        """That of ``scaled``."""
        return self._scaled.clock(calendar)

    def scale(self, values: Any, calendar: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of ``scaled``, and of the classes:

        ``recent``: 1 + class of the last steps, newest first, 0 = none yet; a missing value repeats the class before.
        ``stay``: steps for which the class has been the same, and since it was last seen. ``frequency``: decayed share
        of each class among the observations.
        """
        mine = tf.stack([values[:, column] for column in self._columns], axis=1)
        seen, before = tf.abs(mine) < ABSURD, state["recent"][:, :, 0]
        now = tf.where(seen, 1.0 + self.classes.nearest(mine), before)
        since = tf.where(seen, 0.0, state["stay"][:, :, 1] + 1.0)
        run = tf.where(now == before, state["stay"][:, :, 0] + 1.0, 0.0)
        forget = tf.constant([1.0 / memory for memory in _MEMORIES])[:, None]
        moved = state["frequency"] + forget * (self._hot(now)[:, :, None] - state["frequency"])
        return {
            **self._scaled.scale(values, calendar, state),
            "recent": tf.concat([now[:, :, None], state["recent"][:, :, :-1]], axis=2),
            "stay": tf.minimum(tf.stack([run, since], axis=2), _STEPS_MAX),
            "frequency": tf.where(seen[:, :, None, None], moved, state["frequency"]),
        }

    def encode(self, values: Any, calendar: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Encoded:
        """See the contract; one-hot lags from ``first_lag`` on, the newest of every KPI first."""
        encoded = self._scaled.encode(values, calendar, before, after)
        return encoded._replace(inputs=tf.concat([encoded.inputs, *self._of_classes(after)], axis=1))

    def _of_classes(self, state: Mapping[str, Any]) -> list[Any]:
        """One-hot lags, one-hot of (run length, class), logarithms of the frequencies and of the steps of ``stay``."""
        n, recent, stay = tf.shape(state["recent"])[0], state["recent"], state["stay"]
        lags = tf.transpose(self._hot(recent), (0, 2, 1, 3))
        length = tf.reduce_sum(tf.cast(stay[:, :, :1] >= tf.constant(_STAYS, tf.float32), tf.int32), axis=2)
        held = tf.one_hot(length, len(_STAYS) + 1)[:, :, :, None] * self._hot(recent[:, :, 0])[:, :, None]
        frequency = state["frequency"] + _PRIOR_SHARE
        share = frequency / tf.reduce_sum(frequency, axis=3, keepdims=True)
        parts = [lags, held, 0.5 * tf.math.log(share * self.classes.most), tf.math.log1p(stay) / 3.0]
        return [tf.reshape(part, (n, int(np.prod(part.shape[1:])))) for part in parts]

    def _hot(self, codes: Any) -> Any:
        """One-hot over the classes of 1 + class; all zero for 0."""
        return tf.one_hot(tf.cast(codes, tf.int32) - 1, self.classes.most)

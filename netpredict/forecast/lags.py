"""What a network sees of KPIs that are classes: one-hot lags, how long the last class has stood, how often each came.

A scaled number hides what a class does: CQI 9 that has stood for a minute says more about the next second than "half a
deviation above the mean". The state is explicit and causal, like the scaler's, and nothing in it is trainable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netpredict.forecast.backend import tf
from netpredict.radio.classes import classes_of

_STAYS = (1, 2, 3, 5, 9, 17, 33)  # steps; where the next class of run lengths begins
_MEMORIES = (30.0, 300.0)  # observations that the two frequencies look back
_PRIOR_SHARE = 0.02  # of every class, before it has been seen
_STEPS_MAX = 1e6


class Classes(NamedTuple):
    """The classes of several KPIs on one axis, as long as the longest: class i of a KPI is its value low + i."""

    low: Any
    counts: Any
    most: int

    def index(self, natural: Any) -> Any:
        """The nearest class of natural values (…, kpis), 0 to most - 1; NaN gives 0."""
        whole = tf.round(natural - self.low)
        return tf.clip_by_value(tf.where(tf.math.is_nan(whole), 0.0, whole), 0.0, self.counts - 1.0)


def classes_of_all(kpis: tuple[str, ...]) -> Classes:
    """ConfigError when a KPI has no classes."""
    each = [classes_of(kpi) for kpi in kpis]
    low = np.array([classes[0] for classes in each], np.float32)
    counts = np.array([len(classes) for classes in each], np.float32)
    return Classes(low, counts, int(counts.max()))


class Lags:
    """State and inputs of the KPIs at these columns; ``width`` inputs, the one-hot of the newest class first."""

    def __init__(self, kpis: tuple[str, ...], columns: list[int], lags: int) -> None:
        self.classes, self._columns, self._lags = classes_of_all(kpis), columns, lags
        most, count = self.classes.most, len(kpis)
        self.state_shapes = {"recent": (count, lags), "stay": (count, 2), "frequency": (count, len(_MEMORIES), most)}
        self.width = count * (most * (lags + len(_STAYS) + 1 + len(_MEMORIES)) + 2)

    def advance(self, values: Any, seen: Any, state: Any) -> dict[str, Any]:
        """One step, (n, k) natural values and whether each is there.

        ``recent``: 1 + class of the last steps, newest first, 0 = none yet; a missing value repeats the class before.
        ``stay``: steps for which the class has been the same, and since it was last seen. ``frequency``: decayed share
        of each class among the observations.
        """
        values, seen = (tf.stack([part[:, column] for column in self._columns], axis=1) for part in (values, seen))
        before = state["recent"][:, :, 0]
        now = tf.where(seen, 1.0 + self.classes.index(values), before)
        since = tf.where(seen, 0.0, state["stay"][:, :, 1] + 1.0)
        run = tf.where(now == before, state["stay"][:, :, 0] + 1.0, 0.0)
        hot = self._hot(now)[:, :, None]
        forget = tf.constant([1.0 / memory for memory in _MEMORIES])[:, None]
        moved = state["frequency"] + forget * (hot - state["frequency"])
        return {
            "recent": tf.concat([now[:, :, None], state["recent"][:, :, :-1]], axis=2),
            "stay": tf.minimum(tf.stack([run, since], axis=2), _STEPS_MAX),
            "frequency": tf.where(seen[:, :, None, None], moved, state["frequency"]),
        }

    def inputs(self, state: Any) -> Any:
        """(n, width): one-hot lags, one-hot of (run length, class), log frequencies, log steps of ``stay``."""
        n, recent, stay = tf.shape(state["recent"])[0], state["recent"], state["stay"]
        lags = tf.reshape(tf.transpose(self._hot(recent), (0, 2, 1, 3)), (n, -1))
        length = tf.reduce_sum(tf.cast(stay[:, :, :1] >= tf.constant(_STAYS, tf.float32), tf.int32), axis=2)
        held = tf.one_hot(length, len(_STAYS) + 1)[:, :, :, None] * self._hot(recent[:, :, 0])[:, :, None]
        frequency = state["frequency"]
        share = (frequency + _PRIOR_SHARE) / tf.reduce_sum(frequency + _PRIOR_SHARE, axis=3, keepdims=True)
        surprise = 0.5 * tf.math.log(share * self.classes.most)
        parts = [lags, *(tf.reshape(part, (n, -1)) for part in (held, surprise, tf.math.log1p(stay) / 3.0))]
        return tf.concat(parts, axis=1)

    def _hot(self, codes: Any) -> Any:
        """One-hot over the classes of 1 + class; all zero for 0."""
        return tf.one_hot(tf.cast(codes, tf.int32) - 1, self.classes.most)

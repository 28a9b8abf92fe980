"""The categorical head: a softmax over the classes of integer KPIs, told as quantiles, and the table it starts from.

It sees the one-hot lags twice: through the recurrent layers, and beside them. Before the first train_epoch the weights
of the newest class are the logarithm of the Markov table P(class in h steps | class now): what is learnt comes on top.
With ``by_distance`` the logit of a class is that of its place plus that of its distance from the newest class, so that
how a channel moves is learnt once and not for every class anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netpredict.forecast.backend import keras, tf
from netpredict.forecast.heads import Reference
from netpredict.forecast.lags import Classes
from netpredict.forecast.predictor import ABSURD
from netpredict.types import AnyArray, FloatArray, OutputSpec

_FIRST_STAY = 4.0  # log odds, before training, that a class stays against any one other class
_PRIOR_COUNT = 20.0  # observations by which the row of a table is drawn towards how often each class comes at all
_NO_CLASS = -1e9  # logit beyond the range of a KPI that has fewer classes than another one
_LEAST = 1e-9  # probability


class CategoricalHead:
    """Logits (m, kpis, classes, leads). Class c fills (c - 1/2, c + 1/2) evenly, and the quantiles are read off that.

    Its unit is one class, whatever the scale of the reference.
    """

    is_point = False
    sees_inputs = True
    measured = ("log_loss", "markov_log_loss")

    def __init__(self, output: OutputSpec, classes: Classes, first_lag: int, by_distance: bool = False) -> None:
        """``first_lag``: where the one-hot of the newest class begins in what the head sees."""
        self.probabilities, self._classes, self._first_lag = output.levels, classes, first_lag
        self.middle = int(np.argmin([abs(level - 0.5) for level in output.levels]))
        self.shape = (len(output.kpis), classes.most, output.horizon_steps)
        self._of_place = int(np.prod(self.shape))
        distances = 2 * classes.most - 1 if by_distance else 0
        self._distances = (len(output.kpis), distances, output.horizon_steps)
        size = self._of_place + int(np.prod(self._distances))
        self.dense = keras.layers.Dense(size, kernel_initializer="zeros", name="head")
        outside = np.arange(classes.most) >= classes.counts[:, None]
        self._mask = tf.constant(np.where(outside, _NO_CLASS, 0.0)[None, :, :, None], tf.float32)

    def build(self, width: int) -> None:
        """Make the weights; untrained, the class stays."""
        self.dense.build((None, width))
        kpis, most, leads = self.shape
        stay = np.broadcast_to(_FIRST_STAY * np.eye(most)[None, :, :, None], (kpis, most, most, leads))
        self._begin_with(stay.astype(np.float32))

    def _begin_with(self, table: FloatArray) -> None:
        """Start from log probabilities (kpis, class now, class then, leads)."""
        kpis, most, _ = self.shape
        self._table = tf.constant(table)
        kernel = self.dense.kernel.numpy()
        newest = np.zeros((kpis, most, *self.shape), np.float32)
        for kpi in range(kpis):
            newest[kpi, :, kpi] = table[kpi]
        rows = slice(self._first_lag, self._first_lag + kpis * most)
        kernel[rows, : self._of_place] = newest.reshape(kpis * most, -1)
        self.dense.kernel.assign(kernel)

    def check(self, truth: FloatArray) -> None:
        """Any history will do: a value between two classes is taken as the nearest, one beyond them as the last."""

    def learn(self, truth: FloatArray) -> None:
        """Start from the Markov table of the training part, (T, S, kpis) natural values."""
        tables = [self._markov(truth[:, :, kpi], kpi) for kpi in range(self.shape[0])]
        self._begin_with(np.log(np.maximum(np.stack(tables), _LEAST)).astype(np.float32))

    def _markov(self, values: AnyArray, kpi: int) -> AnyArray:
        """P(class then | last class seen), (class now, class then, leads), drawn towards how often each class comes."""
        _, most, leads = self.shape
        steps, seen = len(values), np.abs(values) < ABSURD
        index = np.clip(np.rint(np.where(seen, values, 0) - self._classes.low[kpi]), 0, self._classes.counts[kpi] - 1)
        newest = np.maximum.accumulate(np.where(seen, np.arange(steps)[:, None], -1), axis=0)
        now = np.take_along_axis(index, np.maximum(newest, 0), axis=0)
        known = np.arange(most) < self._classes.counts[kpi]
        table = np.empty((most, most, leads))
        for lead in range(1, leads + 1):
            both = (newest[:-lead] >= 0) & seen[lead:]
            pairs = (now[:-lead] * most + index[lead:])[both].astype(np.int64)
            count = np.bincount(pairs, minlength=most * most).reshape(most, most)
            share = known * (count.sum(axis=0) + 1.0) / (count.sum() + known.sum())
            row = count.sum(axis=1, keepdims=True)
            table[:, :, lead - 1] = (count + _PRIOR_COUNT * share) / (row + _PRIOR_COUNT)
        return table

    def raw(self, hidden: Any) -> Any:
        """(m, width) -> (m, kpis, classes, leads)."""
        logits = self.dense(hidden)
        of_place = tf.reshape(logits[:, : self._of_place], (-1, *self.shape)) + self._mask
        if not self._distances[1]:
            return of_place
        of_distance = tf.reshape(logits[:, self._of_place :], (-1, *self._distances))
        kpis, most, _ = self.shape
        newest = tf.reshape(hidden[:, self._first_lag : self._first_lag + kpis * most], (-1, kpis, most))
        first = most - 1 - tf.argmax(newest, axis=2, output_type=tf.int32)  # the distance at which class 0 lies
        distance = first[:, :, None] + tf.range(most)
        return of_place + tf.gather(of_distance, distance, axis=2, batch_dims=2)

    def levels(self, raw: Any, reference: Reference) -> list[Any]:
        """One (m, kpis, leads) per level, none below the level before it."""
        chance = tf.transpose(tf.nn.softmax(raw, axis=2), (0, 1, 3, 2))
        below = tf.cumsum(chance, axis=3, exclusive=True)
        low, count = (tf.constant(part[None, :, None]) for part in (self._classes.low, self._classes.counts))
        levels = []
        for probability in self.probabilities:
            filled = tf.clip_by_value((probability - below) / tf.maximum(chance, _LEAST), 0.0, 1.0)
            natural = low - 0.5 + tf.minimum(tf.reduce_sum(filled, axis=3), count)
            levels.append(natural - reference.centre)
        return levels

    def point(self, raw: Any, reference: Reference) -> Any:
        """The median."""
        return self.levels(raw, reference)[self.middle]

    def target(self, truth: Any, reference: Reference) -> Any:
        """How far the truth lies from the last value, in classes."""
        return truth - reference.centre

    def loss(self, raw: Any, target: Any, reference: Reference) -> Any:
        """Cross-entropy in nats: -log P(class of the truth)."""
        logits = tf.transpose(raw, (0, 1, 3, 2))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(self._class(target, reference), logits)

    def measures(self, raw: Any, target: Any, reference: Reference) -> list[Any]:
        """The log-loss, and beside it that of the Markov table: where it is not below, the table is enough."""
        kpis, _, leads = self.shape
        now = self._classes.nearest(reference.centre[:, :, 0])
        then, where = self._class(target, reference), tf.zeros_like(target, tf.int32)
        place = [tf.range(kpis)[None, :, None], tf.cast(now, tf.int32)[:, :, None], then, tf.range(leads)[None, None]]
        table = -tf.gather_nd(self._table, tf.stack([where + part for part in place], axis=3))
        return [self.loss(raw, target, reference), table]

    def _class(self, target: Any, reference: Reference) -> Any:
        index = self._classes.nearest(tf.transpose(reference.centre + target, (0, 2, 1)))
        return tf.cast(tf.transpose(index, (0, 2, 1)), tf.int32)

    def natural(self, levels: list[Any], reference: Reference) -> Any:
        """(m, kpis, leads, levels); NaN where the centre is."""
        return tf.stack([reference.centre + level for level in levels], axis=3)

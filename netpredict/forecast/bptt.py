"""Training of a recurrent network: backpropagation through time, truncated at chunks that hand on their hidden state.

A chunk is ``bptt_steps`` long; its gradients end where it begins, its hidden state does not. The scaling has no
trainable part, so it runs over the history once, before the first train_epoch. Everything is seeded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from netpredict.errors import NetpredictError
from netpredict.forecast.backend import tf
from netpredict.forecast.encode import ABSURD, COUNT_ROW
from netpredict.forecast.heads import Reference, pinball
from netpredict.forecast.network import Network
from netpredict.forecast.optimisers import optimiser
from netpredict.forecast.series import calendar
from netpredict.types import (
    AnyArray,
    FeatureSpec,
    FloatArray,
    IntArray,
    Progress,
    TrainingReport,
    TrainingSet,
    base_name,
)

WARM_STEPS = 8.0  # values a column has seen before its scale is trusted in a loss
_VALIDATION_WARM_CHUNKS = 2


def fit(network: Network, options: Any, dataset: TrainingSet, progress: Progress | None) -> TrainingReport:
    """Train the fresh network in place, keep the weights of the best validation; DataError without training data."""
    tf.config.experimental.enable_op_determinism()
    started_s = time.monotonic()
    with tf.device("CPU:0"):
        run = _Run(network, options, dataset)
        best, best_weights, scores, since = math.inf, network.values(), dict[str, float](), 0
        losses: list[float] = []
        validation_losses: list[float] = []
        for done in range(1, options.train_epochs + 1):
            losses.append(run.train_once())
            found = run.validate()
            validation_losses.append(found.get("pinball", math.nan))
            if not math.isfinite(losses[-1]):
                raise NetpredictError(f"training diverged in train_epoch {done}: lower learning_rate or clip_norm")
            if progress is not None:
                left_s = (time.monotonic() - started_s) / done * (options.train_epochs - done)
                progress(done, options.train_epochs, losses[-1], validation_losses[-1], left_s)
            since += 1
            if not found or found["pinball"] < best:
                best, best_weights, scores, since = found.get("pinball", math.inf), network.values(), found, 0
            if since >= options.patience:
                break
        network.assign(best_weights)
    return TrainingReport(len(losses), time.monotonic() - started_s, losses, validation_losses, scores)


class _Forward(NamedTuple):
    """A chunk's raw answers, what they refer to, scaled targets, 1 where they count (steps * n, …), and last hidden."""

    raw: Any
    reference: Reference
    target: Any
    valid: Any
    rnn: Any


class _Run:
    """One training: the history with the time axis first, the compiled chunk functions, the optimiser."""

    def __init__(self, network: Network, options: Any, dataset: TrainingSet) -> None:
        self.network, self.options, self.output = network, options, dataset.output
        self.values = np.ascontiguousarray(np.moveaxis(dataset.values, 1, 0), dtype=np.float32)
        steps = len(self.values)
        self.cut = min(dataset.validation_from, steps)
        slots = np.asarray(dataset.first_slot)[None, :] + np.arange(steps)[:, None]
        self.calendar = _calendar(slots, dataset.features)
        self.order = np.random.default_rng(options.seed)
        network.encoder.learn(self.values[: self.cut])
        self.scaler = self._scaler_history()
        self.optimiser = optimiser(options)
        self.optimiser.build(network.trainable)
        self.train_chunk = self._compiled(self._train_chunk)
        self.score_chunk = self._compiled(self._score_chunk)

    def _scaler_history(self) -> FloatArray:
        """The scaler before every step, and after the last one: (T + 1, S, *state_shape)."""
        steps, series, _ = self.values.shape
        history = np.zeros((steps + 1, series, *self.network.encoder.state_shape), dtype=np.float32)
        scale = tf.function(self.network.encoder.scale, autograph=False)
        for step in range(steps):
            history[step + 1] = scale(tf.constant(self.values[step]), tf.constant(history[step])).numpy()
        return history

    def _compiled(self, chunk: Any) -> Any:
        """One graph for minibatches of every size."""
        k, length = self.values.shape[2], self.options.bptt_steps
        shapes = [
            (length + self.output.horizon_steps, None, k),
            (length, None, self.calendar.shape[2]),
            (length + 1, None, *self.network.encoder.state_shape),
            (None, *self.network.rnn_shape),
        ]
        signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        return tf.function(chunk, input_signature=signature, autograph=False).get_concrete_function()

    def _chunks(self, first: int, stop: int, rows: AnyArray) -> Iterator[tuple[int, list[Any]]]:
        """Chunks of these series from ``first``; what lies at or beyond ``stop`` is missing."""
        length, ahead = self.options.bptt_steps, self.options.bptt_steps + self.output.horizon_steps
        for start in range(first, stop - 1, length):
            values = self.values[start : min(start + ahead, stop), rows]
            calendar = self.calendar[start : start + length, rows]
            scaler = self.scaler[start : start + length + 1, rows]
            chunk = [(values, ahead, np.nan), (calendar, length, 0.0), (scaler, length + 1, 0.0)]
            yield start, [tf.constant(_padded(array, size, fill)) for array, size, fill in chunk]

    def train_once(self) -> float:
        """One train_epoch: every series once, in a seeded order, its chunks in theirs; the mean loss."""
        order = self.order.permutation(self.values.shape[1])
        total, weight = 0.0, 0.0
        for rows in np.split(order, range(self.options.minibatch_size, len(order), self.options.minibatch_size)):
            rnn = self._cold(len(rows))
            for _, chunk in self._chunks(0, self.cut, rows):
                loss, count, rnn = self.train_chunk(*chunk, rnn)
                total, weight = total + float(loss), weight + float(count)
        return total / weight if weight else math.nan

    def _cold(self, rows: int) -> Any:
        return tf.zeros((rows, *self.network.rnn_shape))

    def _train_chunk(self, values: Any, calendar: Any, scaler: Any, rnn: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            forward = self._forward(values, calendar, scaler, rnn, training=True)
            count = tf.reduce_sum(forward.valid)
            losses = self.network.head.loss(forward.raw, forward.target, forward.reference)
            total = tf.reduce_sum(losses * forward.valid)
            penalties = [tf.reduce_sum(tf.square(w)) for w in self.network.trainable if "kernel" in w.name]
            loss = total / tf.maximum(count, 1.0) + self.options.l2 * tf.add_n(penalties)
        self.optimiser.apply(tape.gradient(loss, self.network.trainable), self.network.trainable)
        return total, count, forward.rnn

    def _forward(self, values: Any, calendar: Any, scaler: Any, rnn: Any, training: bool) -> _Forward:
        network, length, columns = self.network, self.options.bptt_steps, self.values.shape[2]
        before, after = (tf.reshape(part, (-1, *scaler.shape[2:])) for part in (scaler[:-1], scaler[1:]))
        now = tf.reshape(values[:length], (-1, columns))
        encoded = network.encoder.encode(now, tf.reshape(calendar, (-1, calendar.shape[2])), before, after)
        sequence = tf.reshape(encoded.inputs, (length, -1, network.encoder.width))
        outputs, rows = network.stack.along(sequence, tf.unstack(rnn, axis=1), training)
        ahead = [values[lead : lead + length] for lead in range(1, self.output.horizon_steps + 1)]
        truth = tf.stack([network.of_kpis(tf.reshape(part, (-1, columns))) for part in ahead], axis=2)
        reference = network.reference(encoded)
        trusted = network.of_kpis(after[:, COUNT_ROW]) >= WARM_STEPS
        valid = (tf.abs(truth) < ABSURD) & trusted[:, :, None]
        target = tf.where(valid, network.head.target(truth, reference), 0.0)
        raw = network.head.raw(outputs)
        return _Forward(raw, reference, target, tf.cast(valid, tf.float32), tf.stack(rows, axis=1))

    def _score_chunk(self, values: Any, calendar: Any, scaler: Any, rnn: Any) -> tuple[Any, Any]:
        """Per step and KPI, summed over series and leads: count, pinball, error, naive's error, covered per level."""
        raw, reference, target, valid, rnn = self._forward(values, calendar, scaler, rnn, training=False)
        levels = self.network.head.levels(raw, reference)
        error = tf.abs(target - levels[self.network.head.middle])
        covered = [tf.cast(target <= level, tf.float32) for level in levels]
        parts = [1.0, pinball(self.output.levels, levels, target), error, tf.abs(target), *covered]
        sums = [tf.reduce_sum(part * valid, axis=2) for part in parts]
        by_step = tf.reshape(tf.stack(sums, axis=2), (self.options.bptt_steps, -1, valid.shape[1], len(sums)))
        return tf.reduce_sum(by_step, axis=1), rnn

    def validate(self) -> dict[str, float]:
        """Scores of the forecasts issued at or after the cut, errors in units of the scale; {} when there are none."""
        steps, series, _ = self.values.shape
        first = max(0, self.cut - _VALIDATION_WARM_CHUNKS * self.options.bptt_steps)
        sums: FloatArray | Any = np.zeros((len(self.output.kpis), 4 + len(self.output.levels)))
        for rows in np.split(np.arange(series), range(512, series, 512)):
            rnn = self._cold(len(rows))
            for start, chunk in self._chunks(first, steps, rows):
                by_step, rnn = self.score_chunk(*chunk, rnn)
                sums = sums + by_step.numpy()[max(0, self.cut - start) :].sum(axis=0, dtype=np.float64)
        return _scores(sums, self.output.kpis, self.output.levels)


def _calendar(slots: IntArray, features: FeatureSpec) -> FloatArray:
    """The columns that the live pipeline appends, for a (T, S) grid of slots."""
    flat = calendar(slots.ravel() * features.period_us + features.phase_us, features.season_us, features.season_buckets)
    return flat.reshape(*slots.shape, flat.shape[1])


def _padded(array: AnyArray, length: int, fill: float) -> AnyArray:
    if len(array) == length:
        return array
    return np.concatenate([array, np.full((length - len(array), *array.shape[1:]), fill, dtype=array.dtype)])


def _scores(sums: Any, kpis: tuple[str, ...], levels: tuple[float, ...]) -> dict[str, float]:
    """``skill`` is 1 - mae / naive_mae: above zero the network beats the last value; all places of a KPI together."""
    scores: dict[str, float] = {}
    names = np.array([base_name(kpi) for kpi in kpis])
    by_kpi = [(f".{name}", sums[names == name].sum(axis=0)) for name in dict.fromkeys(names.tolist())]
    for suffix, row in [("", sums.sum(axis=0)), *by_kpi]:
        if row[0] > 0:
            pinball, mae, naive_mae = (float(total / row[0]) for total in row[1:4])
            skill = 1.0 - mae / naive_mae if naive_mae else 0.0
            scores |= {f"pinball{suffix}": pinball, f"mae{suffix}": mae, f"naive_mae{suffix}": naive_mae}
            scores |= {f"skill{suffix}": skill}
            scores |= {
                f"covered_{level:g}{suffix}": float(n / row[0]) for level, n in zip(levels, row[4:], strict=True)
            }
    return scores

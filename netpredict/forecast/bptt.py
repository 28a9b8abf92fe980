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
from netpredict.forecast.heads import pinball
from netpredict.forecast.history import History
from netpredict.forecast.network import Network
from netpredict.forecast.optimisers import Schedule, clipped, optimiser
from netpredict.forecast.options import RecurrentOptions
from netpredict.forecast.predictor import ABSURD
from netpredict.forecast.structures import At, Teacher
from netpredict.types import AnyArray, OutputSpec, Progress, TrainingReport, TrainingSet, base_name

WARM_STEPS = 8.0  # values a column has seen before its scale is trusted in a loss
_VALIDATION_WARM_CHUNKS = 2
_VALIDATION_SERIES = 512
_ERRORS_MAX = 20_000_000  # that quantiles of errors are taken of; beyond it a seeded sample of the series


def fit(network: Network, options: RecurrentOptions, dataset: TrainingSet, progress: Progress | None) -> TrainingReport:
    """Train the fresh network in place, keep the weights of the best validation; DataError without training data."""
    tf.config.experimental.enable_op_determinism()
    started_s = time.monotonic()
    with tf.device("CPU:0"):
        run = _Run(network, options, dataset)
        best, best_weights, scores, since = math.inf, network.values(), dict[str, float](), 0
        losses: list[float] = []
        validation_losses: list[float] = []
        for done in range(1, options.train_epochs + 1):
            losses.append(run.train_once(done - 1))
            validation_loss, found = run.validate()
            validation_losses.append(validation_loss)
            if not math.isfinite(losses[-1]):
                raise NetpredictError(f"training diverged in train_epoch {done}: lower learning_rate or clip_norm")
            if progress is not None:
                left_s = (time.monotonic() - started_s) / done * (options.train_epochs - done)
                progress(done, options.train_epochs, losses[-1], validation_losses[-1], left_s)
            improved = not found or validation_loss < best
            run.schedule.judge(improved)
            since += 1
            if improved:
                best, best_weights, scores, since = validation_loss, network.values(), found, 0
            if since >= options.patience:
                break
        network.assign(best_weights)
        if network.spread is not None:
            network.spread.measure(run.errors())
            scores = run.validate()[1]
    return TrainingReport(len(losses), time.monotonic() - started_s, losses, validation_losses, scores)


class _Lesson(NamedTuple):
    """A chunk walked through: what is known at its steps, the targets there, and the hidden state after it."""

    at: At
    teacher: Teacher
    rnn: Any


class _Run:
    """One training: the history, the compiled chunk functions, the optimiser."""

    def __init__(self, network: Network, options: RecurrentOptions, dataset: TrainingSet) -> None:
        self.network, self.options, self.output = network, options, dataset.output
        self.history = History(network.encoder, dataset, options.bptt_steps)
        network.head.check(self.history.truth)
        network.head.learn(self.history.truth[: self.history.cut])
        self.order = np.random.default_rng(options.seed)
        self.schedule = Schedule(options)
        self.optimiser = optimiser(options)
        self.optimiser.build(network.trainable)
        self.train_chunk = self._compiled(self._train_chunk)
        self.score_chunk = self._compiled(self._score_chunk)

    def _compiled(self, chunk: Any) -> Any:
        """One graph for minibatches of every size. XLA would take 2 to 3 s to compile and gain little on this."""
        signature = [*self.history.signature, tf.TensorSpec((None, *self.network.rnn_shape))]
        return tf.function(chunk, input_signature=signature, autograph=False).get_concrete_function()

    def train_once(self, train_epoch: int) -> float:
        """Every series once, in a seeded order, its chunks in theirs; the mean loss."""
        minibatches = self._minibatches(self.order.permutation(self.history.series), self.options.minibatch_size)
        total, weight = 0.0, 0.0
        self.network.structure.begin(train_epoch / max(1, self.options.train_epochs - 1))
        for index, rows in enumerate(minibatches):
            self.optimiser.learning_rate = self.schedule.rate(train_epoch + index / len(minibatches))
            rnn = self._cold(len(rows))
            for _, chunk in self.history.chunks(self._first_step(), self.history.cut, rows):
                loss, count, rnn = self.train_chunk(*chunk, rnn)
                total, weight = total + float(loss), weight + float(count)
        return total / weight if weight else math.nan

    def _first_step(self) -> int:
        """Where the first chunk begins: when only its last step is taught, not always at the same hour."""
        if self.network.structure.taught_steps == "all":
            return 0
        length = self.options.bptt_steps
        return int(self.order.integers(min(length, max(1, self.history.cut - length))))

    @staticmethod
    def _minibatches(rows: AnyArray, size: int) -> list[AnyArray]:
        return np.split(rows, range(size, len(rows), size))

    def _cold(self, rows: int) -> Any:
        return tf.zeros((rows, *self.network.rnn_shape))

    def _train_chunk(
        self, values: Any, truth: Any, weights: Any, calendar: Any, scaler: Any, rnn: Any
    ) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            lesson = self._walked(values, truth, weights, calendar, scaler, rnn, training=True)
            at, teacher = self._taught(lesson)
            raw = self.network.structure.teach(at, teacher)
            target, valid = (part[:, :, : self.network.structure.taught_leads] for part in teacher)
            count = tf.reduce_sum(valid)
            counted = tf.repeat(weights[None], tf.shape(valid)[0] // tf.shape(weights)[0], axis=0)
            counted = tf.reshape(counted, (-1, weights.shape[1], 1)) * valid
            total = tf.reduce_sum(self.network.head.loss(raw, target, at.reference) * counted)
            loss = total / tf.maximum(count, 1.0) + self._penalty()
        gradients = clipped(tape.gradient(loss, self.network.trainable), self.options)
        self.optimiser.apply(gradients, self.network.trainable)
        return total, count, lesson.rnn

    def _penalty(self) -> Any:
        kernels = [weight.value for weight in self.network.trainable if "kernel" in weight.name]
        squares = self.options.l2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
        return squares + self.options.l1 * tf.add_n([tf.reduce_sum(tf.abs(kernel)) for kernel in kernels])

    def _taught(self, lesson: _Lesson) -> tuple[At, Teacher]:
        """The steps of a chunk that the loss is taken of."""
        if self.network.structure.taught_steps == "all":
            return lesson.at, lesson.teacher
        n = tf.shape(lesson.rnn)[0]
        last: tuple[At, Teacher] = tf.nest.map_structure(lambda part: part[-n:], (lesson.at, lesson.teacher))
        return last

    def _walked(
        self, values: Any, truth: Any, weights: Any, calendar: Any, scaler: Any, rnn: Any, training: bool
    ) -> _Lesson:
        """Every step of a chunk as rows (steps * n, …), the first step first."""
        network, length, columns = self.network, self.options.bptt_steps, self.history.columns
        before = {name: tf.reshape(part[:-1], (-1, *part.shape[2:])) for name, part in scaler.items()}
        after = {name: tf.reshape(part[1:], (-1, *part.shape[2:])) for name, part in scaler.items()}
        now, calendar = tf.reshape(values, (-1, columns)), tf.reshape(calendar, (-1, calendar.shape[2]))
        encoded = network.encoder.encode(now, calendar, before, after)
        sequence = tf.reshape(encoded.inputs, (length, -1, network.encoder.width))
        walked = network.stack.along(sequence, tf.unstack(rnn, axis=1), training)
        reference = network.reference(encoded)
        ahead = [truth[lead : lead + length] for lead in range(1, self.output.horizon_steps + 1)]
        truth = tf.stack([tf.reshape(part, (-1, truth.shape[2])) for part in ahead], axis=2)
        trusted = network.of_kpis(encoded.count) >= WARM_STEPS
        valid = (tf.abs(truth) < ABSURD) & trusted[:, :, None]
        target = tf.where(valid, network.head.target(truth, reference), 0.0)
        at = At(walked.outputs, walked.states, encoded, reference, after, calendar)
        return _Lesson(at, Teacher(target, tf.cast(valid, tf.float32)), tf.stack(walked.rows, axis=1))

    def _score_chunk(
        self, values: Any, truth: Any, weights: Any, calendar: Any, scaler: Any, rnn: Any
    ) -> tuple[Any, Any]:
        """Per step and KPI, over series and leads, sums of: count, loss, pinball, error, naive's, covered per level,
        and what the head measures.
        """
        at, (target, valid), rnn = self._walked(values, truth, weights, calendar, scaler, rnn, training=False)
        raw = self.network.structure.answer(at)
        loss, levels = self.network.head.loss(raw, target, at.reference), self.network.levels(raw, at.reference)
        error = tf.abs(target - levels[self.network.head.middle])
        covered = [tf.cast(target <= level, tf.float32) for level in levels]
        last = self.network.of_kpis(at.encoded.last)[:, :, None]
        naive = tf.abs(target - self.network.head.target(last, at.reference))
        parts = [1.0, loss, pinball(self.output.levels, levels, target), error, naive, *covered]
        parts += self.network.head.measures(raw, target, at.reference)
        sums = [tf.reduce_sum(part * valid, axis=2) for part in parts]
        by_step = tf.reshape(tf.stack(sums, axis=2), (self.options.bptt_steps, -1, valid.shape[1], len(sums)))
        return tf.reduce_sum(by_step, axis=1), rnn

    def _error_chunk(
        self, values: Any, truth: Any, weights: Any, calendar: Any, scaler: Any, rnn: Any
    ) -> tuple[Any, Any]:
        """Truth - point of every step of a chunk, (steps, n, kpis, horizon), NaN where nothing is known."""
        at, (target, valid), rnn = self._walked(values, truth, weights, calendar, scaler, rnn, training=False)
        point = self.network.head.point(self.network.structure.answer(at), at.reference)
        errors = tf.where(valid > 0.5, target - point, np.nan)
        return tf.reshape(errors, (self.options.bptt_steps, -1, *errors.shape[1:])), rnn

    def _held_out(self, chunk_function: Any, first: int, series: AnyArray) -> Iterator[Any]:
        """What a chunk function says of the steps at or after ``first``, its hidden state warmed before them."""
        begin = max(0, first - _VALIDATION_WARM_CHUNKS * self.options.bptt_steps)
        for rows in self._minibatches(series, _VALIDATION_SERIES):
            rnn = self._cold(len(rows))
            for start, chunk in self.history.chunks(begin, self.history.steps, rows):
                answer, rnn = chunk_function(*chunk, rnn)
                yield answer.numpy()[max(0, first - start) :]

    def validate(self) -> tuple[float, dict[str, float]]:
        """Loss and scores of the forecasts issued at or after the cut, in units of the scale; NaN, {} without any."""
        measured = self.network.head.measured
        sums: Any = np.zeros((len(self.output.kpis), 5 + len(self.output.levels) + len(measured)))
        for by_step in self._held_out(self.score_chunk, self.history.cut, np.arange(self.history.series)):
            sums = sums + by_step.sum(axis=0, dtype=np.float64)
        count, loss = sums[:, 0].sum(), sums[:, 1].sum()
        scores = _scores(np.delete(sums, 1, axis=1), self.output, measured)
        return (float(loss / count) if count else math.nan), scores

    def errors(self) -> AnyArray:
        """Errors of the point (N, kpis, horizon) on what is held out, on the training part when nothing is."""
        first = self.history.cut if self.history.cut < self.history.steps - 1 else 0
        each = (self.history.steps - first) * len(self.output.kpis) * self.output.horizon_steps
        sample = self.order.permutation(self.history.series)[: max(1, _ERRORS_MAX // each)]
        found = list(self._held_out(self._compiled(self._error_chunk), first, sample))
        return np.concatenate([errors.reshape(-1, *errors.shape[2:]) for errors in found])


def _scores(sums: Any, output: OutputSpec, measured: tuple[str, ...]) -> dict[str, float]:
    """``skill`` is 1 - mae / naive_mae: above zero the network beats the last value; all places of a KPI together."""
    scores: dict[str, float] = {}
    columns = [*(f"covered_{level:g}" for level in output.levels), *measured]
    names = np.array([base_name(kpi) for kpi in output.kpis])
    by_kpi = [(f".{name}", sums[names == name].sum(axis=0)) for name in dict.fromkeys(names.tolist())]
    for suffix, row in [("", sums.sum(axis=0)), *by_kpi]:
        if row[0] > 0:
            pinball, mae, naive_mae = (float(total / row[0]) for total in row[1:4])
            skill = 1.0 - mae / naive_mae if naive_mae else 0.0
            scores |= {f"pinball{suffix}": pinball, f"mae{suffix}": mae, f"naive_mae{suffix}": naive_mae}
            scores |= {f"skill{suffix}": skill}
            scores |= {f"{name}{suffix}": float(part / row[0]) for name, part in zip(columns, row[4:], strict=True)}
    return scores

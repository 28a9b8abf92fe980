"""Training of a recurrent network: backpropagation through time, truncated at chunks that hand on their hidden state.

A chunk is ``bptt_steps`` long; its gradients end where it begins, its hidden state does not. The scaling has no
trainable part, so it runs over the history once, before the first train_epoch. Everything is seeded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from netpredict.errors import DataError, NetpredictError
from netpredict.forecast.network import ABSURD, SCALER_ROWS, Network, keras, tf
from netpredict.forecast.series import calendar
from netpredict.types import AnyArray, FeatureSpec, FloatArray, IntArray, Progress, TrainingReport, TrainingSet

WARM_STEPS = 8.0  # values a column has seen before its scale is trusted in a loss
_TARGET_CLIP = 20.0  # in units of the scale; a series that wakes from a standstill would drown all others
_VALIDATION_WARM_CHUNKS = 2
_OPTIMISERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


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
        self._learn_prior(self.values[: self.cut])
        self.scaler = self._scaler_history()
        self.optimiser = _OPTIMISERS[options.optimiser](options.learning_rate, global_clipnorm=options.clip_norm)
        self.optimiser.build(network.trainable)
        self.train_chunk = self._compiled(self._train_chunk)
        self.score_chunk = self._compiled(self._score_chunk)

    def _learn_prior(self, values: FloatArray) -> None:
        """What a series is assumed to vary by before it has shown it: medians over the series of the training part."""
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
                self._set(self.network.prior_ratio, column, np.clip(ratio, 1e-4, 10.0))
                self._set(self.network.prior_deviation, column, max(np.median(deviation[usable, column]), 1e-12))

    @staticmethod
    def _set(variable: Any, column: int, value: float) -> None:
        changed = variable.numpy()
        changed[column] = value
        variable.assign(changed)

    def _scaler_history(self) -> FloatArray:
        """The scaler before every step, and after the last one: (T + 1, S, SCALER_ROWS, k)."""
        steps, series, columns = self.values.shape
        history = np.zeros((steps + 1, series, SCALER_ROWS, columns), dtype=np.float32)
        scale = tf.function(self.network.scale, autograph=False)
        for step in range(steps):
            history[step + 1] = scale(tf.constant(self.values[step]), tf.constant(history[step])).numpy()
        return history

    def _compiled(self, chunk: Any) -> Any:
        """One graph for minibatches of every size."""
        k, length, units = self.values.shape[2], self.options.bptt_steps, self.options.units
        rows = self.options.layers * self.network.states_per_cell
        shapes = [
            (length + self.output.horizon_steps, None, k),
            (length, None, self.calendar.shape[2]),
            (length + 1, None, SCALER_ROWS, k),
            (None, rows, units),
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
        return tf.zeros((rows, self.options.layers * self.network.states_per_cell, self.options.units))

    def _train_chunk(self, values: Any, calendar: Any, scaler: Any, rnn: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            levels, target, valid, rnn = self._forward(values, calendar, scaler, rnn, training=True)
            count = tf.reduce_sum(valid)
            total = tf.reduce_sum(self._pinball(levels, target) * valid)
            penalties = [tf.reduce_sum(tf.square(w)) for w in self.network.trainable if "kernel" in w.name]
            loss = total / tf.maximum(count, 1.0) + self.options.l2 * tf.add_n(penalties)
        self.optimiser.apply(tape.gradient(loss, self.network.trainable), self.network.trainable)
        return total, count, rnn

    def _forward(self, values: Any, calendar: Any, scaler: Any, rnn: Any, training: bool) -> tuple[Any, Any, Any, Any]:
        """A chunk: per level (steps * n, kpis, horizon), scaled targets and whether they count, last hidden."""
        network, length, columns = self.network, self.options.bptt_steps, self.values.shape[2]
        flat = [tf.reshape(part, (-1, SCALER_ROWS, columns)) for part in (scaler[:-1], scaler[1:])]
        now = tf.reshape(values[:length], (-1, columns))
        inputs, last, scale, _ = network.encode(now, tf.reshape(calendar, (-1, calendar.shape[2])), *flat)
        sequence = tf.reshape(inputs, (length, -1, network.input_width))
        outputs, rows = self._along(sequence, tf.unstack(rnn, axis=1), training)
        levels = network.quantiles(outputs)
        ahead = [values[lead : lead + length] for lead in range(1, self.output.horizon_steps + 1)]
        truth = tf.stack([network.of_kpis(tf.reshape(part, (-1, columns))) for part in ahead], axis=2)
        target = (truth - network.of_kpis(last)[:, :, None]) / network.of_kpis(scale)[:, :, None]
        trusted = network.of_kpis(flat[1][:, 3]) >= WARM_STEPS
        valid = (tf.abs(truth) < ABSURD) & trusted[:, :, None]
        target = tf.where(valid, tf.clip_by_value(target, -_TARGET_CLIP, _TARGET_CLIP), 0.0)
        return levels, target, tf.cast(valid, tf.float32), tf.stack(rows, axis=1)

    def _along(self, sequence: Any, rows: list[Any], training: bool) -> tuple[Any, list[Any]]:
        """The rnn_cells along a chunk (length, n, input_width) -> outputs (length * n, units), last state rows."""
        self._forget_dropout()
        if training:
            self._draw_dropout(tf.shape(sequence)[1])
        length, units = self.options.bptt_steps, self.options.units
        outputs = tf.TensorArray(tf.float32, size=length, element_shape=(None, units))

        def body(index: Any, outputs: Any, *rows: Any) -> Any:
            output, new = self.network.recur(sequence[index], list(rows), training)
            return index + 1, outputs.write(index, output), *new

        _, outputs, *rows = tf.while_loop(
            lambda index, *_: index < length, body, (tf.constant(0), outputs, *rows), maximum_iterations=length
        )
        self._forget_dropout()
        return tf.reshape(outputs.stack(), (-1, units)), rows

    def _draw_dropout(self, n: Any) -> None:
        """One mask for all steps of the chunk, drawn outside the loop."""
        width = self.network.input_width
        for cell in self.network.cells:
            cell.get_dropout_mask(tf.zeros((n, width)))
            cell.get_recurrent_dropout_mask(tf.zeros((n, self.options.units)))
            width = self.options.units

    def _forget_dropout(self) -> None:
        """A cell keeps its dropout masks for the steps of one sequence; they must not outlive the chunk."""
        for cell in self.network.cells:
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()

    def _pinball(self, levels: list[Any], target: Any) -> Any:
        losses = []
        for probability, level in zip(self.output.levels, levels, strict=True):
            error = target - level
            losses.append(tf.maximum(probability * error, (probability - 1.0) * error))
        return tf.add_n(losses) / len(losses)

    def _score_chunk(self, values: Any, calendar: Any, scaler: Any, rnn: Any) -> tuple[Any, Any]:
        """Per step and KPI, summed over series and leads: count, pinball, error, naive's error, covered per level."""
        levels, target, valid, rnn = self._forward(values, calendar, scaler, rnn, training=False)
        error = tf.abs(target - levels[self.network.middle])
        covered = [tf.cast(target <= level, tf.float32) for level in levels]
        sums = [
            tf.reduce_sum(part * valid, axis=2) for part in (1.0, self._pinball(levels, target), error, tf.abs(target))
        ]
        sums += [tf.reduce_sum(part * valid, axis=2) for part in covered]
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
    """``skill`` is 1 - mae / naive_mae: above zero the network beats the last value."""
    scores: dict[str, float] = {}
    for suffix, row in [("", sums.sum(axis=0)), *((f".{kpi}", row) for kpi, row in zip(kpis, sums, strict=True))]:
        if row[0] > 0:
            pinball, mae, naive_mae = (float(total / row[0]) for total in row[1:4])
            skill = 1.0 - mae / naive_mae if naive_mae else 0.0
            scores |= {f"pinball{suffix}": pinball, f"mae{suffix}": mae, f"naive_mae{suffix}": naive_mae}
            scores |= {f"skill{suffix}": skill}
            scores |= {
                f"covered_{level:g}{suffix}": float(n / row[0]) for level, n in zip(levels, row[4:], strict=True)
            }
    return scores

"""The recurrent network as one pure step: causal scaling, rnn_cells, quantiles. No row of a batch sees another.

Its tensors are two-dimensional (rows, columns), so that the step of the daemon and the chunk of a training share every
line. The scaling has no trainable part: it runs over a whole history before the first gradient is taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from netpredict.errors import ArtefactError, ConfigError, PluginError
from netpredict.types import FeatureSpec, OutputSpec


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """TensorFlow's C++ side logs while it is imported, before any level applies; TF_CPP_MIN_LOG_LEVEL=0 keeps that."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


with _hushed():
    import keras
    import tensorflow as tf

__all__ = ["ABSURD", "SCALER_ROWS", "Network", "keras", "tf"]

SCALER_ROWS = 4  # last value, running mean, running mean absolute deviation, number of values seen
ABSURD = 1e30  # larger magnitudes are taken as missing: their squares and differences would overflow
CLIP = 8.0
_PRIOR_STEPS = 4.0  # weight of the prior deviation, in observations
_COUNT_MAX = 1e6  # below 2**24, where float32 stops counting
_LEAST_RATIO = 0.02  # of the prior deviation, for a series that stands still
_FLOOR_RATIO = 1e-4  # of the fleet's deviation, for a series that stands at zero
_FIRST_WIDTH = 0.3  # distance between two levels before training, in units of the scale


def rnn_cell(layer: str, index: int, options: Any) -> Any:
    """The rnn_cell of one layer, from a closed list; PluginError for a name outside it."""
    common = {
        "units": options.units,
        "activation": options.activation,
        "dropout": options.dropout,
        "recurrent_dropout": options.recurrent_dropout,
        "kernel_initializer": keras.initializers.GlorotUniform(seed=options.seed + 10 * index),
        "recurrent_initializer": keras.initializers.Orthogonal(seed=options.seed + 10 * index + 1),
        "seed": options.seed + 10 * index + 2,
        "name": f"rnn_{index}",
    }
    if layer == "lstm":
        return keras.layers.LSTMCell(unit_forget_bias=options.unit_forget_bias, **common)
    if layer == "gru":
        return keras.layers.GRUCell(reset_after=options.reset_after, **common)
    if layer == "simple_rnn":
        return keras.layers.SimpleRNNCell(**common)
    raise PluginError(f"unknown recurrent layer {layer!r}; known: lstm, gru, simple_rnn")


class Network:
    """Weights and the pure functions over them. ``rnn`` is (n, state rows, units), ``scaler`` (n, SCALER_ROWS, k)."""

    def __init__(self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ConfigError(f"KERAS_BACKEND is {keras.backend.backend()!r}; netpredict needs tensorflow")
        self.observed = len(features.observed)
        self.kpi_columns = [features.observed.index(kpi) for kpi in output.kpis]
        self.shape = (len(output.kpis), len(output.levels), output.horizon_steps)
        self.middle = int(np.argmin([abs(level - 0.5) for level in output.levels]))
        self._turn = tf.constant(
            [2 * np.pi / 24, 2 * np.pi / 7, 2 * np.pi / max(1, features.season_buckets)], dtype=tf.float32
        )
        self._forget = 1.0 / options.scaler_steps
        self.input_width = 3 * self.observed + 2 * len(features.CALENDAR)
        self.cells = [rnn_cell(layer, index, options) for index in range(options.layers)]
        self.norms = [keras.layers.LayerNormalization(name=f"norm_{i}") for i in range(options.layers)]
        if not options.layer_normalisation:
            self.norms = []
        self.head = keras.layers.Dense(
            int(np.prod(self.shape)), kernel_initializer="zeros", bias_initializer=self._first_bias, name="head"
        )
        self.states_per_cell = 2 if layer == "lstm" else 1
        self._build(options.units)

    def _build(self, units: int) -> None:
        with tf.device("CPU:0"):
            width = self.input_width
            for cell in self.cells:
                cell.build((None, width))
                width = units
            for norm in self.norms:
                norm.build((None, units))
            self.head.build((None, units))
            ones = np.ones(self.observed, dtype=np.float32)
            self.prior_ratio = tf.Variable(0.1 * ones, trainable=False)
            self.prior_deviation = tf.Variable(ones, trainable=False)

    def _first_bias(self, shape: Any, dtype: Any = None) -> Any:
        """Before training: the median is the last value, the levels stand evenly around it."""
        bias = np.full(self.shape, np.log(np.expm1(_FIRST_WIDTH)), dtype=np.float32)
        bias[:, self.middle] = 0.0
        return tf.constant(bias.reshape(shape), dtype=dtype)

    @property
    def trainable(self) -> list[Any]:
        """The Keras variables that gradients reach."""
        return [weight for part in (*self.cells, *self.norms, self.head) for weight in part.trainable_weights]

    def named(self) -> dict[str, Any]:
        """Every tensor of an artefact by name: weights and the prior of the scaler."""
        parts = (*self.cells, *self.norms, self.head)
        weights = {f"{part.name}.{weight.name}": weight for part in parts for weight in part.trainable_weights}
        return {**weights, "scaler.ratio": self.prior_ratio, "scaler.deviation": self.prior_deviation}

    def values(self) -> dict[str, Any]:
        """A copy of every tensor, as numpy."""
        return {name: np.array(variable.numpy()) for name, variable in self.named().items()}

    def assign(self, weights: Mapping[str, Any]) -> None:
        """Take every tensor at once; ArtefactError, and nothing taken, when names, shapes or dtypes differ."""
        mine = self.named()
        if set(weights) != set(mine):
            unlike = ", ".join(sorted(set(weights) ^ set(mine)))
            raise ArtefactError(f"weights of another network: these names are on one side only: {unlike}")
        for name, variable in mine.items():
            shape, dtype = tuple(variable.shape), np.dtype(np.float32)
            given = np.asarray(weights[name])
            if given.shape != shape or given.dtype != dtype:
                raise ArtefactError(f"weights {name!r} are {given.dtype}{given.shape}, expected {dtype}{shape}")
            if not np.isfinite(given).all():
                raise ArtefactError(f"weights {name!r} are not finite")
        for name, variable in mine.items():
            variable.assign(np.asarray(weights[name]))

    def scale(self, values: Any, scaler: Any) -> Any:
        """One causal step of the scaler: (n, k) natural values, NaN = missing -> new (n, SCALER_ROWS, k)."""
        last, mean, deviation, count = tf.unstack(scaler, axis=1)
        is_seen = tf.abs(values) < ABSURD  # false for NaN
        seen = tf.cast(is_seen, tf.float32)
        value = tf.where(is_seen, values, last)
        is_first = count < 0.5
        prior = self._prior(value)
        before = tf.where(is_first, prior, deviation)
        surprise = tf.where(is_first, prior, tf.abs(value - mean))
        mean += seen * tf.maximum(1.0 / (count + 1.0), self._forget) * (value - mean)
        deviation = before + seen * tf.maximum(1.0 / (count + _PRIOR_STEPS), self._forget) * (surprise - before)
        return tf.stack([value, mean, deviation, tf.minimum(count + seen, _COUNT_MAX)], axis=1)

    def _prior(self, value: Any) -> Any:
        return self.prior_ratio * tf.abs(value) + _FLOOR_RATIO * self.prior_deviation

    def encode(self, values: Any, calendar: Any, before: Any, after: Any) -> tuple[Any, Any, Any, Any]:
        """Network inputs (n, input_width), and last value, scale and "was ever seen" of each column, (n, k)."""
        last, mean, deviation, count = tf.unstack(after, axis=1)
        scale = tf.maximum(deviation, _LEAST_RATIO * self._prior(mean))
        ever = count > 0.5
        moved = tf.where(before[:, 3] > 0.5, last - before[:, 0], 0.0)
        level, move = (last - mean) / scale, moved / scale
        missing = tf.cast(~(tf.abs(values) < ABSURD), tf.float32)
        angle = calendar * self._turn
        columns = [tf.clip_by_value(level, -CLIP, CLIP), tf.clip_by_value(move, -CLIP, CLIP), missing]
        return tf.concat([*columns, tf.sin(angle), tf.cos(angle)], axis=1), last, scale, ever

    def recur(self, inputs: Any, rows: list[Any], training: bool = False) -> tuple[Any, list[Any]]:
        """One step of every rnn_cell: (n, input_width) and the state rows, each (n, units) -> (n, units), new rows."""
        states: list[Any] = []
        for index, cell in enumerate(self.cells):
            mine = rows[index * self.states_per_cell : (index + 1) * self.states_per_cell]
            inputs, new = cell(inputs, mine, training=training)
            states += list(new) if isinstance(new, list | tuple) else [new]
            inputs = self.norms[index](inputs) if self.norms else inputs
        return inputs, states

    def quantiles(self, hidden: Any) -> list[Any]:
        """(n, units) -> one (n, kpis, horizon) per level on the normalised scale, none below the level before it."""
        raw = tf.unstack(tf.reshape(self.head(hidden), (-1, *self.shape)), axis=2)
        levels = list(raw)
        for index in range(self.middle + 1, len(raw)):
            levels[index] = levels[index - 1] + tf.nn.softplus(raw[index])
        for index in range(self.middle - 1, -1, -1):
            levels[index] = levels[index + 1] - tf.nn.softplus(raw[index])
        return levels

    def of_kpis(self, columns: Any) -> Any:
        """(n, k) of the observed columns -> (n, kpis) of the forecast ones."""
        return tf.stack([columns[:, column] for column in self.kpi_columns], axis=1)

    def step(self, features: Any, rnn: Any, scaler: Any) -> tuple[Any, Any, Any]:
        """The whole of one step: (n, f) in natural units -> (n, kpis, horizon, levels) in natural units, new hidden."""
        values, calendar = features[:, : self.observed], features[:, self.observed :]
        after = self.scale(values, scaler)
        inputs, last, scale, ever = self.encode(values, calendar, scaler, after)
        output, rows = self.recur(inputs, tf.unstack(rnn, axis=1))
        centre = tf.where(self.of_kpis(ever), self.of_kpis(last), np.nan)[:, :, None]
        width = self.of_kpis(scale)[:, :, None]
        return (
            tf.stack([centre + width * level for level in self.quantiles(output)], axis=3),
            tf.stack(rows, axis=1),
            after,
        )

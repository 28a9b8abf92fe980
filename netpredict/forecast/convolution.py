"""ConvLSTM over a grid of radio cells: the same kernels at every place, so that each place sees its neighbours.

The hidden state of a series, which is a whole grid, is h and c of every layer, (rows, columns, units) each. A step is
that of Keras' ConvLSTM2D with padding "same" (Shi et al. 2015, without peepholes). Scaler, quantiles and training are
those of the other recurrent predictors, to which a KPI at a place is a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.forecast.backend import keras, tf
from netpredict.forecast.heads import QuantileHead
from netpredict.forecast.network import Network
from netpredict.forecast.options import Count
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.types import FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, base_name, place_columns

KernelSide = Annotated[int, msgspec.Meta(ge=1, le=15)]


class ConvLstmOptions(RecurrentOptions, frozen=True, kw_only=True):
    """What a ConvLSTM can be told; ``units`` are the filters of each layer, the hidden values of a place."""

    kernel_size: tuple[KernelSide, KernelSide] = (3, 3)
    unit_forget_bias: bool = True
    train_epochs: Count = 60
    patience: Count = 10
    minibatch_size: Count = 8
    bptt_steps: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 24


class ConvLstmLayer:
    """One layer with the weights of a ConvLSTM2D: project its inputs (any number of steps), then recur step by step."""

    def __init__(self, index: int, options: ConvLstmOptions, inputs: tuple[int, ...]) -> None:
        seed = options.seed + 10 * index
        self.inputs, self.shape = inputs, (*inputs[:2], options.units)
        self._layer = keras.layers.ConvLSTM2D(
            options.units,
            options.kernel_size,
            padding="same",
            activation=options.activation,
            unit_forget_bias=options.unit_forget_bias,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 1),
            name=f"rnn_{index}",
        )
        self._layer.build((None, None, *inputs))
        self._rates = options.dropout, options.recurrent_dropout
        self._seeds = keras.random.SeedGenerator(seed + 2)
        self._norm = keras.layers.LayerNormalization(name=f"norm_{index}") if options.layer_normalisation else None
        if self._norm is not None:
            self._norm.build((None, *self.shape))

    @property
    def parts(self) -> list[Any]:
        """The Keras objects that hold weights."""
        return [self._layer] if self._norm is None else [self._layer, self._norm]

    def project(self, inputs: Any) -> Any:
        """(m, *inputs) -> (m, rows, columns, 4 * units): all that does not need the hidden state."""
        cell = self._layer.cell
        return tf.nn.conv2d(inputs, cell.kernel, 1, "SAME") + cell.bias

    def recur(self, projected: Any, h: Any, c: Any, mask: Any = None) -> tuple[Any, Any]:
        """One step: projected inputs, h and c (n, *shape) -> new h and c; ``mask`` drops hidden values."""
        cell = self._layer.cell
        kept = h if mask is None else h * mask
        i, f, g, o = tf.split(projected + tf.nn.conv2d(kept, cell.recurrent_kernel, 1, "SAME"), 4, axis=-1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * cell.activation(g)
        return tf.sigmoid(o) * cell.activation(c), c

    def output(self, h: Any) -> Any:
        """What the next layer sees of h; the normalisation of a place needs no other."""
        return h if self._norm is None else self._norm(h)

    def mask(self, which: int, n: Any) -> Any:
        """Seeded dropout mask of the inputs (0) or of the hidden state (1), the same for all steps; None without."""
        rate, shape = self._rates[which], (self.inputs, self.shape)[which]
        return keras.random.dropout(tf.ones((n, *shape)), rate, seed=self._seeds) if rate else None

    def along(self, sequence: Any, rows: list[Any], training: bool) -> tuple[Any, list[Any]]:
        """A chunk (length, n, *inputs) of fixed length -> outputs of every step, the h and c after it."""
        length, n = sequence.shape[0], tf.shape(sequence)[1]
        dropped, kept = (self.mask(0, n), self.mask(1, n)) if training else (None, None)
        sequence = sequence if dropped is None else sequence * dropped
        projected = self.project(tf.reshape(sequence, (-1, *self.inputs)))
        projected = tf.reshape(projected, (length, -1, *projected.shape[1:]))
        outputs = tf.TensorArray(tf.float32, size=length, element_shape=(None, *self.shape))

        def body(index: Any, outputs: Any, h: Any, c: Any) -> Any:
            h, c = self.recur(projected[index], h, c, kept)
            return index + 1, outputs.write(index, h), h, c

        start = (tf.constant(0), outputs, *rows)
        _, outputs, h, c = tf.while_loop(lambda index, *_: index < length, body, start, maximum_iterations=length)
        return self.output(outputs.stack()), [h, c]


class ConvLstmStack:
    """ConvLSTM layers on one another. Its state is ``rows`` arrays (n, *shape): h and c of each layer.

    Inputs are those of the encoder: ``planes`` values of each place, one plane after the other, then what is the same
    everywhere (the calendar).
    """

    def __init__(self, options: ConvLstmOptions, grid: tuple[int, int], planes: int, width: int) -> None:
        self.grid, self.width, self.planes = grid, width, planes
        self.shared = width - planes * grid[0] * grid[1]
        self.shape = (*grid, options.units)
        channels = [self.planes + self.shared, *[options.units] * (options.layers - 1)]
        self.layers = [ConvLstmLayer(index, options, (*grid, width)) for index, width in enumerate(channels)]
        self.rows = 2 * options.layers

    @property
    def parts(self) -> list[Any]:
        """The Keras objects that hold weights."""
        return [part for layer in self.layers for part in layer.parts]

    def frames(self, inputs: Any) -> Any:
        """(m, width) of the encoder -> (m, rows, columns, channels)."""
        own, shared = inputs[:, : -self.shared], inputs[:, -self.shared :]
        planes = tf.transpose(tf.reshape(own, (-1, self.planes, *self.grid)), (0, 2, 3, 1))
        everywhere = tf.tile(shared[:, None, None, :], (1, *self.grid, 1))
        return tf.concat([planes, everywhere], axis=3)

    def step(self, inputs: Any, rows: list[Any]) -> tuple[Any, list[Any]]:
        """One step of every layer: (n, width) and the state rows, each (n, *shape) -> (n, *shape), new rows."""
        states: list[Any] = []
        outputs = self.frames(inputs)
        for layer in self.layers:
            states += layer.recur(layer.project(outputs), *rows[len(states) : len(states) + 2])
            outputs = layer.output(states[-2])
        return outputs, states

    def along(self, sequence: Any, rows: list[Any], training: bool) -> tuple[Any, list[Any]]:
        """A chunk (length, n, width) of fixed length -> outputs (length * n, *shape), the state rows after it."""
        length, states = sequence.shape[0], list[Any]()
        outputs = self.frames(tf.reshape(sequence, (-1, self.width)))
        for layer in self.layers:
            outputs = tf.reshape(outputs, (length, -1, *layer.inputs))
            outputs, after = layer.along(outputs, rows[len(states) : len(states) + 2], training)
            states += after
        return tf.reshape(outputs, (-1, *self.shape)), states


class PlaceHead(QuantileHead):
    """The quantile head at every place with the same weights: a 1 x 1 convolution."""

    def __init__(self, output: OutputSpec, leads: int) -> None:
        super().__init__(replace(output, kpis=tuple(dict.fromkeys(map(base_name, output.kpis)))), leads)
        self._columns = len(output.kpis)

    def raw(self, hidden: Any) -> Any:
        """(m, rows, columns, units) -> (m, kpis * places, levels, leads)."""
        kpis, levels, leads = self.shape
        by_place = tf.reshape(self.dense(hidden), (-1, self._columns // kpis, kpis, levels, leads))
        return tf.reshape(tf.transpose(by_place, (0, 2, 1, 3, 4)), (-1, self._columns, levels, leads))


class ConvLstmNetwork(Network):
    """A network whose hidden state lies on a grid."""

    def _built(
        self, layer: str, options: Any, features: FeatureSpec, output: OutputSpec
    ) -> tuple[ConvLstmStack, PlaceHead]:
        rows, columns = features.grid or (1, len(features.observed))
        planes = self.encoder.per_column * len(features.observed) // (rows * columns)
        stack = ConvLstmStack(options, (rows, columns), planes, self.encoder.width)
        head = PlaceHead(output, output.horizon_steps)
        head.build(options.units)
        return stack, head


class ConvLstmPredictor(RecurrentPredictor):
    """ConvLSTM layers over the series of a grid stream, which share their weights.

    Convolutions of several rows are not bit-equal to those of one, so every row has a call of its own.
    """

    padded = False
    network = ConvLstmNetwork

    def __init__(self, options: ConvLstmOptions, features: FeatureSpec, output: OutputSpec) -> None:
        grid = features.grid
        if grid is None:
            raise ConfigError('conv_lstm needs a grid: give the stream schema = "grid" and the key grid')
        if place_columns(tuple(dict.fromkeys(map(base_name, output.kpis))), *grid) != output.kpis:
            raise ConfigError("conv_lstm forecasts whole grids: all places of a KPI in the order of its columns")
        super().__init__("conv_lstm", options, features, output)

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """See ``Predictor``."""
        calls = [
            super(ConvLstmPredictor, self).advance(
                features[row : row + 1], {name: array[row : row + 1] for name, array in hidden.items()}
            )
            for row in range(len(features))
        ]
        outputs, states = zip(*calls, strict=True)
        return _joined(outputs), _joined(states)


def _joined(parts: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

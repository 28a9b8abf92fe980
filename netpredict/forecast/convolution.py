"""ConvLSTM over a grid of radio cells: the same kernels at every place, so that each place sees its neighbours.

The hidden state of a series, which is a whole grid, is h and c of every layer, (rows, columns, units) each. A step is
that of Keras' ConvLSTM2D with padding "same" (Shi et al. 2015, without peepholes). Scaler, quantiles and training are
those of the other recurrent predictors, to which a KPI at a place is a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.forecast.backend import keras, tf
from netpredict.forecast.network import Network
from netpredict.forecast.options import Count
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.forecast.stack import Layer, Stack, lstm_gate
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


class ConvLstmLayer(Layer):
    """One layer with the weights of a ConvLSTM2D."""

    states = 2

    def __init__(self, index: int, options: ConvLstmOptions, inputs: tuple[int, ...]) -> None:
        name, seed = f"rnn_{index}", options.seed + 10 * index
        super().__init__(name, seed, options, inputs, (*inputs[:2], options.units))
        self.weights = keras.layers.ConvLSTM2D(
            options.units,
            options.kernel_size,
            padding="same",
            activation=options.activation,
            unit_forget_bias=options.unit_forget_bias,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 1),
            name=name,
        )
        self.weights.build((None, None, *inputs))

    def project(self, inputs: Any) -> Any:
        """(m, *inputs) -> (m, rows, columns, 4 * units): all that does not need the hidden state."""
        cell = self.weights.cell
        return tf.nn.conv2d(inputs, cell.kernel.value, 1, "SAME") + cell.bias.value

    @property
    def recurrent(self) -> list[Any]:
        """The recurrent kernel."""
        return [self.weights.cell.recurrent_kernel.value]

    def inner(self, hidden: Any, recurrent: list[Any]) -> Any:
        """(m, *shape) -> (m, rows, columns, 4 * units)."""
        return tf.nn.conv2d(hidden, recurrent[0], 1, "SAME")

    def gate(self, projected: Any, inner: Any, rows: list[Any]) -> list[Any]:
        """See ``Layer``."""
        return lstm_gate(self.weights.cell.activation, projected + inner, rows)


class ConvLstmStack(Stack):
    """ConvLSTM layers on one another.

    Inputs are those of the encoder: ``planes`` values of each place, one plane after the other, then what is the same
    everywhere (the calendar).
    """

    def __init__(self, options: ConvLstmOptions, grid: tuple[int, int], planes: int, width: int) -> None:
        self.grid, self.planes = grid, planes
        self.shared = width - planes * grid[0] * grid[1]
        channels = [self.planes + self.shared, *[options.units] * (options.layers - 1)]
        super().__init__([ConvLstmLayer(index, options, (*grid, n)) for index, n in enumerate(channels)], width)

    def enter(self, inputs: Any) -> Any:
        """(m, width) of the encoder -> (m, rows, columns, channels)."""
        own, shared = inputs[:, : -self.shared], inputs[:, -self.shared :]
        planes = tf.transpose(tf.reshape(own, (-1, self.planes, *self.grid)), (0, 2, 3, 1))
        everywhere = tf.tile(shared[:, None, None, :], (1, *self.grid, 1))
        return tf.concat([planes, everywhere], axis=3)


class ConvLstmNetwork(Network):
    """A network whose hidden state lies on a grid."""

    def _stacked(self, features: FeatureSpec) -> ConvLstmStack:
        rows, columns = features.grid or (1, len(features.observed))
        self.places = rows * columns
        planes = self.encoder.per_column * len(features.observed) // self.places
        return ConvLstmStack(self.options, (rows, columns), planes, self.encoder.width)


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
        if options.loss == "cross_entropy":
            raise ConfigError('conv_lstm has no classes: loss = "cross_entropy" is for gru, lstm, simple_rnn')
        if options.inputs in ("history", "levels") or options.head_units or not options.calendar:
            named = "history" if options.inputs == "history" else "levels"
            raise ConfigError(
                f'inputs = "{named}", head_units and calendar = false are for gru, lstm, simple_rnn, not for conv_lstm'
            )
        if options.structure in ("one_to_many", "seq2seq"):
            raise ConfigError(
                f'conv_lstm has no decoder: structure = "{options.structure}" is for gru, lstm, simple_rnn'
            )
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

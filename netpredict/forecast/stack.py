"""A stack of recurrent layers: one step for the daemon, a chunk of steps for training, the same lines for both."""

from __future__ import annotations

from typing import Any

from netpredict.errors import PluginError
from netpredict.forecast.backend import keras, tf


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


class Stack:
    """``layers`` rnn_cells, each normalised when asked. Its state is ``rows`` arrays (n, units): h (and c) a layer."""

    def __init__(self, layer: str, options: Any, width: int) -> None:
        self.width, self.units = width, options.units
        self.cells = [rnn_cell(layer, index, options) for index in range(options.layers)]
        self.norms = [keras.layers.LayerNormalization(name=f"norm_{i}") for i in range(options.layers)]
        if not options.layer_normalisation:
            self.norms = []
        self.states_per_cell = 2 if layer == "lstm" else 1
        self.rows = self.states_per_cell * options.layers
        self.shape = (options.units,)
        for cell in self.cells:
            cell.build((None, width))
            width = self.units
        for norm in self.norms:
            norm.build((None, self.units))

    @property
    def parts(self) -> list[Any]:
        """The Keras objects that hold weights."""
        return [*self.cells, *self.norms]

    def step(self, inputs: Any, rows: list[Any], training: bool = False) -> tuple[Any, list[Any]]:
        """One step of every rnn_cell: (n, width) and the state rows, each (n, units) -> (n, units), new rows."""
        states: list[Any] = []
        for index, cell in enumerate(self.cells):
            mine = rows[index * self.states_per_cell : (index + 1) * self.states_per_cell]
            inputs, new = cell(inputs, mine, training=training)
            states += list(new) if isinstance(new, list | tuple) else [new]
            inputs = self.norms[index](inputs) if self.norms else inputs
        return inputs, states

    def along(self, sequence: Any, rows: list[Any], training: bool) -> tuple[Any, list[Any]]:
        """A chunk (length, n, width) of fixed length -> outputs (length * n, units), the state rows after it."""
        self._forget_dropout()
        if training:
            self._draw_dropout(tf.shape(sequence)[1])
        length = sequence.shape[0]
        outputs = tf.TensorArray(tf.float32, size=length, element_shape=(None, self.units))

        def body(index: Any, outputs: Any, *rows: Any) -> Any:
            output, new = self.step(sequence[index], list(rows), training)
            return index + 1, outputs.write(index, output), *new

        _, outputs, *rows = tf.while_loop(
            lambda index, *_: index < length, body, (tf.constant(0), outputs, *rows), maximum_iterations=length
        )
        self._forget_dropout()
        return tf.reshape(outputs.stack(), (-1, self.units)), rows

    def _draw_dropout(self, n: Any) -> None:
        """One mask for all steps of the chunk, drawn outside the loop."""
        width = self.width
        for cell in self.cells:
            cell.get_dropout_mask(tf.zeros((n, width)))
            cell.get_recurrent_dropout_mask(tf.zeros((n, self.units)))
            width = self.units

    def _forget_dropout(self) -> None:
        """A cell keeps its dropout masks for the steps of one sequence; they must not outlive the chunk."""
        for cell in self.cells:
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()

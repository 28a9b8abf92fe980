"""A stack of recurrent layers: one step for the daemon, a chunk of steps for training, the same lines for both.

The weights are those of Keras cells (LSTMCell, GRUCell, SimpleRNNCell), so a Keras layer with the same weights gives
the same answers. What they compute stands here a second time because a chunk multiplies all its inputs by the kernel
in one go, before its loop, which Keras does on cuDNN only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from netpredict.errors import PluginError
from netpredict.forecast.backend import keras, tf

STATES = {"lstm": 2, "gru": 1, "simple_rnn": 1}
"""State rows of one layer: h, and c of an LSTM."""


class Walked(NamedTuple):
    """Along a chunk: outputs (length * n, *shape), state rows after every step if wanted, and after the last (n, …)."""

    outputs: Any
    states: list[Any]
    rows: list[Any]


def rnn_cell(layer: str, name: str, seed: int, options: Any) -> Any:
    """The rnn_cell of one layer, from a closed list; PluginError for a name outside it."""
    common = {
        "units": options.units,
        "activation": options.activation,
        "kernel_initializer": keras.initializers.GlorotUniform(seed=seed),
        "recurrent_initializer": keras.initializers.Orthogonal(seed=seed + 1),
        "name": name,
    }
    if layer == "lstm":
        return keras.layers.LSTMCell(unit_forget_bias=options.unit_forget_bias, **common)
    if layer == "gru":
        return keras.layers.GRUCell(reset_after=options.reset_after, **common)
    if layer == "simple_rnn":
        return keras.layers.SimpleRNNCell(**common)
    raise PluginError(f"unknown recurrent layer {layer!r}; known: lstm, gru, simple_rnn")


def _lstm(cell: Any, projected: Any, hidden: Any, rows: list[Any]) -> list[Any]:
    gates = projected + tf.matmul(hidden, cell.recurrent_kernel.value)
    i, f, c, o = tf.split(gates, 4, axis=1)
    carry = tf.sigmoid(f) * rows[1] + tf.sigmoid(i) * cell.activation(c)
    return [tf.sigmoid(o) * cell.activation(carry), carry]


def _gru(cell: Any, projected: Any, hidden: Any, rows: list[Any]) -> list[Any]:
    x_z, x_r, x_h = tf.split(projected, 3, axis=1)
    if cell.reset_after:
        inner = tf.matmul(hidden, cell.recurrent_kernel.value) + cell.bias.value[1]
        z, r, h = tf.split(inner, 3, axis=1)
        recurrent = tf.sigmoid(x_r + r) * h
    else:
        gates, new = tf.split(cell.recurrent_kernel.value, [2 * cell.units, cell.units], axis=1)
        z, r = tf.split(tf.matmul(hidden, gates), 2, axis=1)
        recurrent = tf.matmul(tf.sigmoid(x_r + r) * hidden, new)
    update = tf.sigmoid(x_z + z)
    return [update * rows[0] + (1.0 - update) * cell.activation(x_h + recurrent)]


def _simple_rnn(cell: Any, projected: Any, hidden: Any, rows: list[Any]) -> list[Any]:
    return [cell.activation(projected + tf.matmul(hidden, cell.recurrent_kernel.value))]


_RECUR: dict[str, Callable[..., list[Any]]] = {"lstm": _lstm, "gru": _gru, "simple_rnn": _simple_rnn}


class Layer:
    """One recurrent layer: project its inputs (any number of steps), then recur step by step.

    ``inputs`` and ``shape`` are the shapes of one row of its inputs and of each of its ``states`` (h, c of an LSTM).
    A subclass has the weights (``weights``, a Keras object) and says what ``project`` and ``recur`` do with them.
    """

    weights: Any
    states: int

    def __init__(self, name: str, seed: int, options: Any, inputs: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.inputs, self.shape = inputs, shape
        self._rates = options.dropout, options.recurrent_dropout
        self._seeds = keras.random.SeedGenerator(seed + 2)
        norm = keras.layers.LayerNormalization(name=f"{name}_norm")
        self.norm = norm if options.layer_normalisation else None
        if self.norm is not None:
            self.norm.build((None, *shape))

    @property
    def parts(self) -> list[Any]:
        """The Keras objects that hold weights."""
        return [self.weights] if self.norm is None else [self.weights, self.norm]

    def project(self, inputs: Any) -> Any:
        """(m, *inputs) -> (m, …, gates * units): all that does not need the hidden state."""
        raise NotImplementedError

    def recur(self, projected: Any, rows: list[Any], mask: Any = None) -> list[Any]:
        """One step: projected inputs and state rows -> new state rows, h first; ``mask`` drops hidden values."""
        raise NotImplementedError

    def output(self, hidden: Any) -> Any:
        """What the next layer sees of h."""
        return hidden if self.norm is None else self.norm(hidden)

    def masks(self, n: Any) -> tuple[Any, Any]:
        """Seeded dropout masks of the inputs and of the hidden state for all steps of a chunk; None without."""
        shapes = (self.inputs, self.shape)
        masks = [
            keras.random.dropout(tf.ones((n, *shape)), rate, seed=self._seeds) if rate else None
            for shape, rate in zip(shapes, self._rates, strict=True)
        ]
        return masks[0], masks[1]

    def along(self, sequence: Any, rows: list[Any], training: bool, keep_states: bool) -> Walked:
        """A chunk (length, n, *inputs) of fixed length."""
        length = sequence.shape[0]
        dropped, mask = self.masks(tf.shape(sequence)[1]) if training else (None, None)
        sequence = sequence if dropped is None else sequence * dropped
        projected = self.project(tf.reshape(sequence, (-1, *self.inputs)))
        shape = projected.shape[1:]
        steps = tf.TensorArray(tf.float32, size=length, element_shape=(None, *shape))
        steps = steps.unstack(tf.reshape(projected, (length, -1, *shape)))

        def step(index: Any, rows: list[Any]) -> tuple[list[Any], list[Any]]:
            rows = self.recur(steps.read(index), rows, mask)
            return (rows if keep_states else rows[:1]), rows

        kept, rows = repeated(length, step, list(rows), [self.shape] * (self.states if keep_states else 1))
        states = [tf.reshape(one, (-1, *self.shape)) for one in kept]
        return Walked(self.output(states[0]), states if keep_states else [], rows)


class RecurrentLayer(Layer):
    """One layer with the weights of an rnn_cell."""

    def __init__(self, layer: str, name: str, seed: int, options: Any, width: int) -> None:
        super().__init__(name, seed, options, (width,), (options.units,))
        self.weights = rnn_cell(layer, name, seed, options)
        self.weights.build((None, width))
        self.states, self._recur = STATES[layer], _RECUR[layer]

    def project(self, inputs: Any) -> Any:
        """(m, width) -> (m, gates * units)."""
        bias = self.weights.bias.value
        return tf.matmul(inputs, self.weights.kernel.value) + (bias[0] if len(bias.shape) == 2 else bias)

    def recur(self, projected: Any, rows: list[Any], mask: Any = None) -> list[Any]:
        """See ``Layer``."""
        return self._recur(self.weights, projected, rows[0] if mask is None else rows[0] * mask, rows)


def repeated(length: int, step: Callable[[Any, Any], Any], state: Any, shapes: list[tuple[int, ...]]) -> Any:
    """``step(index, state) -> (tensors to keep, state)``, ``length`` times -> kept (length, m, *shape) each, state."""
    arrays = [tf.TensorArray(tf.float32, size=length, element_shape=(None, *shape)) for shape in shapes]

    def body(index: Any, arrays: list[Any], state: Any) -> Any:
        kept, state = step(index, state)
        return index + 1, [array.write(index, one) for array, one in zip(arrays, kept, strict=True)], state

    _, arrays, state = tf.while_loop(
        lambda index, *_: index < length, body, (tf.constant(0), arrays, state), maximum_iterations=length
    )
    return [array.stack() for array in arrays], state


class Stack:
    """Recurrent layers on one another. Its state is ``rows`` arrays (n, *shape): h (and c) of each layer."""

    def __init__(self, layers: Sequence[Layer], width: int) -> None:
        self.layers, self.width, self.shape = layers, width, layers[-1].shape
        self.rows = sum(one.states for one in layers)

    @property
    def parts(self) -> list[Any]:
        """The Keras objects that hold weights."""
        return [part for layer in self.layers for part in layer.parts]

    def enter(self, inputs: Any) -> Any:
        """(m, width) -> what the first layer takes."""
        return inputs

    def masks(self, n: Any) -> list[tuple[Any, Any]]:
        """Dropout masks of every layer, for the steps of one chunk."""
        return [layer.masks(n) for layer in self.layers]

    def step(self, inputs: Any, rows: list[Any], masks: list[tuple[Any, Any]] | None = None) -> tuple[Any, list[Any]]:
        """One step of every layer: (n, width) and the state rows, each (n, *shape) -> (n, *shape), new rows."""
        states: list[Any] = []
        outputs = self.enter(inputs)
        for index, layer in enumerate(self.layers):
            dropped, mask = masks[index] if masks else (None, None)
            mine = rows[len(states) : len(states) + layer.states]
            states += layer.recur(layer.project(outputs if dropped is None else outputs * dropped), mine, mask)
            outputs = layer.output(states[-layer.states])
        return outputs, states

    def along(self, sequence: Any, rows: list[Any], training: bool, keep_states: bool = False) -> Walked:
        """A chunk (length, n, width) of fixed length, layer after layer."""
        length, states, last = sequence.shape[0], list[Any](), list[Any]()
        outputs = self.enter(tf.reshape(sequence, (-1, self.width)))
        for layer in self.layers:
            outputs = tf.reshape(outputs, (length, -1, *layer.inputs))
            mine = rows[len(last) : len(last) + layer.states]
            outputs, after, end = layer.along(outputs, mine, training, keep_states)
            states, last = states + after, last + end
        return Walked(outputs, states, last)


def stacked(layer: str, name: str, seed: int, options: Any, width: int) -> Stack:
    """As many layers of one kind as the options say."""
    widths = enumerate([width, *[options.units] * (options.layers - 1)])
    return Stack([RecurrentLayer(layer, f"{name}_{i}", seed + 10 * i, options, w) for i, w in widths], width)

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


class Walked(NamedTuple):
    """Along a chunk: outputs (length * n, *shape), state rows after every step, and after the last (n, …)."""

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


class Layer:
    """One recurrent layer: project its inputs (any number of steps), then recur step by step.

    ``inputs`` and ``shape`` are the shapes of one row of its inputs and of each of its ``states`` (h, c of an LSTM).
    A subclass has the weights (``weights``, a Keras object) and says what ``project``, ``inner`` and ``gate`` do.
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

    @property
    def recurrent(self) -> list[Any]:
        """The weights of ``inner``, as tensors."""
        raise NotImplementedError

    def project(self, inputs: Any) -> Any:
        """(m, *inputs) -> (m, …, gates * units): all that does not need the hidden state."""
        raise NotImplementedError

    def inner(self, hidden: Any, recurrent: list[Any]) -> Any:
        """(m, *shape) -> (m, …, gates * units), linear: what the gates need of the hidden state."""
        raise NotImplementedError

    def gate(self, projected: Any, inner: Any, rows: list[Any]) -> list[Any]:
        """New state rows, h first; without weights."""
        raise NotImplementedError

    def recur(self, projected: Any, rows: list[Any], mask: Any = None) -> list[Any]:
        """One step: projected inputs and state rows -> new state rows, h first; ``mask`` drops hidden values."""
        return self._step(projected, rows, mask, self.recurrent)

    def _step(self, projected: Any, rows: list[Any], mask: Any, recurrent: list[Any]) -> list[Any]:
        return self.gate(projected, self.inner(rows[0] if mask is None else rows[0] * mask, recurrent), rows)

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

    def along(self, sequence: Any, rows: list[Any], training: bool) -> Walked:
        """A chunk (length, n, *inputs) of fixed length."""
        length = sequence.shape[0]
        dropped, mask = self.masks(tf.shape(sequence)[1]) if training else (None, None)
        sequence = sequence if dropped is None else sequence * dropped
        projected = self.project(tf.reshape(sequence, (-1, *self.inputs)))
        states = self._walk(tf.reshape(projected, (length, -1, *projected.shape[1:])), rows, mask)
        flat = [tf.reshape(state, (-1, *self.shape)) for state in states]
        return Walked(self.output(flat[0]), flat, [state[-1] for state in states])

    def _walk(self, projected: Any, rows: list[Any], mask: Any) -> list[Any]:
        """State rows after every step, (length, n, *shape) each, with a gradient of their own.

        That of a loop keeps every intermediate value of every step in lists, which costs more than it is worth for
        matrices this small; this one goes back through the steps once more and multiplies for the weights at the end.
        """
        count = len(self.recurrent)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def walk(projected: Any, *parts: Any) -> Any:
            recurrent, rows = list(parts[:count]), list(parts[count:])

            def step(index: Any, rows: list[Any]) -> tuple[list[Any], list[Any]]:
                rows = self._step(projected[index], rows, mask, recurrent)
                return rows, rows

            states, _ = repeated(projected.shape[0], step, rows, [self.shape] * self.states)

            def gradient(*upstream: Any) -> list[Any]:
                before = [tf.concat([row[None], state[:-1]], axis=0) for row, state in zip(rows, states, strict=True)]
                return self._gradient(projected, before, mask, recurrent, list(upstream))

            return states, gradient

        walked: list[Any] = walk(projected, *self.recurrent, *rows)
        return walked

    def _gradient(
        self, projected: Any, before: list[Any], mask: Any, recurrent: list[Any], upstream: list[Any]
    ) -> list[Any]:
        """Of projected, recurrent weights and first rows; ``before`` are the rows before every step."""
        length = projected.shape[0]

        def step(index: Any, behind: list[Any]) -> tuple[list[Any], list[Any]]:
            at = length - 1 - index
            now, rows = projected[at], [row[at] for row in before]
            with tf.GradientTape() as tape:
                tape.watch([now, *rows])
                inner = self.inner(rows[0] if mask is None else rows[0] * mask, recurrent)
                new = self.gate(now, inner, rows)
            ahead = [one + two[at] for one, two in zip(behind, upstream, strict=True)]
            of_now, of_inner, *of_rows = tape.gradient(new, [now, inner, *rows], ahead)
            return [of_now, of_inner], of_rows

        cold = [tf.zeros_like(row[0]) for row in before]
        (of_now, of_inner), of_rows = repeated(length, step, cold, [projected.shape[2:]] * 2)
        hidden = tf.reshape(before[0] if mask is None else before[0] * mask, (-1, *self.shape))
        with tf.GradientTape() as tape:
            tape.watch(recurrent)
            inner = self.inner(hidden, recurrent)
        of_inner = tf.reshape(tf.reverse(of_inner, [0]), tf.shape(inner))
        return [tf.reverse(of_now, [0]), *tape.gradient(inner, recurrent, of_inner), *of_rows]


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


class RecurrentLayer(Layer):
    """One layer with the weights of an rnn_cell."""

    def __init__(self, layer: str, name: str, seed: int, options: Any, width: int) -> None:
        super().__init__(name, seed, options, (width,), (options.units,))
        self.weights = rnn_cell(layer, name, seed, options)
        self.weights.build((None, width))

    @property
    def recurrent(self) -> list[Any]:
        """The recurrent kernel."""
        return [self.weights.recurrent_kernel.value]

    def project(self, inputs: Any) -> Any:
        """(m, width) -> (m, gates * units)."""
        return tf.matmul(inputs, self.weights.kernel.value) + self.weights.bias.value

    def inner(self, hidden: Any, recurrent: list[Any]) -> Any:
        """(m, units) -> (m, gates * units)."""
        return tf.matmul(hidden, recurrent[0])


class SimpleRnnLayer(RecurrentLayer):
    """h = activation(x W + h U + b)."""

    states = 1

    def gate(self, projected: Any, inner: Any, rows: list[Any]) -> list[Any]:
        """See ``Layer``."""
        return [self.weights.activation(projected + inner)]


class LstmLayer(RecurrentLayer):
    """Input, forget and output gates around a carry c."""

    states = 2

    def gate(self, projected: Any, inner: Any, rows: list[Any]) -> list[Any]:
        """See ``Layer``."""
        return lstm_gate(self.weights.activation, projected + inner, rows)


class GruLayer(RecurrentLayer):
    """Update and reset gates; the reset gate is applied after the recurrent product."""

    states = 1

    @property
    def recurrent(self) -> list[Any]:
        """The recurrent kernel and its bias."""
        return [self.weights.recurrent_kernel.value, self.weights.bias.value[1]]

    def project(self, inputs: Any) -> Any:
        """(m, width) -> (m, 3 * units)."""
        return tf.matmul(inputs, self.weights.kernel.value) + self.weights.bias.value[0]

    def inner(self, hidden: Any, recurrent: list[Any]) -> Any:
        """(m, units) -> (m, 3 * units)."""
        return tf.matmul(hidden, recurrent[0]) + recurrent[1]

    def gate(self, projected: Any, inner: Any, rows: list[Any]) -> list[Any]:
        """See ``Layer``."""
        (x_z, x_r, x_h), (z, r, h) = tf.split(projected, 3, axis=1), tf.split(inner, 3, axis=1)
        update = tf.sigmoid(x_z + z)
        return [update * rows[0] + (1.0 - update) * self.weights.activation(x_h + tf.sigmoid(x_r + r) * h)]


class EarlyResetGruLayer(RecurrentLayer):
    """The reset gate is applied before the recurrent product, which therefore is not linear in h."""

    states = 1

    def _step(self, projected: Any, rows: list[Any], mask: Any, recurrent: list[Any]) -> list[Any]:
        hidden, units = rows[0] if mask is None else rows[0] * mask, self.shape[0]
        x_z, x_r, x_h = tf.split(projected, 3, axis=1)
        gates, new = tf.split(recurrent[0], [2 * units, units], axis=1)
        z, r = tf.split(tf.matmul(hidden, gates), 2, axis=1)
        update, reset = tf.sigmoid(x_z + z), tf.sigmoid(x_r + r)
        return [update * rows[0] + (1.0 - update) * self.weights.activation(x_h + tf.matmul(reset * hidden, new))]

    def _walk(self, projected: Any, rows: list[Any], mask: Any) -> list[Any]:
        length, shape = projected.shape[0], projected.shape[2:]
        steps = tf.TensorArray(tf.float32, size=length, element_shape=(None, *shape)).unstack(projected)

        def step(index: Any, rows: list[Any]) -> tuple[list[Any], list[Any]]:
            rows = self.recur(steps.read(index), rows, mask)
            return rows, rows

        states: list[Any] = repeated(length, step, list(rows), [self.shape])[0]
        return states


def lstm_gate(activation: Callable[[Any], Any], gates: Any, rows: list[Any]) -> list[Any]:
    """h and c from the sums (…, 4 * units) of all that goes into the gates i, f, c and o, and the h and c before."""
    i, f, c, o = tf.split(gates, 4, axis=-1)
    carry = tf.sigmoid(f) * rows[1] + tf.sigmoid(i) * activation(c)
    return [tf.sigmoid(o) * activation(carry), carry]


def recurrent_layer(layer: str, name: str, seed: int, options: Any, width: int) -> RecurrentLayer:
    """The layer by its name in the config."""
    kinds: dict[str, type[RecurrentLayer]] = {"lstm": LstmLayer, "gru": GruLayer, "simple_rnn": SimpleRnnLayer}
    kind = EarlyResetGruLayer if layer == "gru" and not options.reset_after else kinds.get(layer, RecurrentLayer)
    return kind(layer, name, seed, options, width)


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

    def along(self, sequence: Any, rows: list[Any], training: bool) -> Walked:
        """A chunk (length, n, width) of fixed length, layer after layer."""
        length, states, last = sequence.shape[0], list[Any](), list[Any]()
        outputs = self.enter(tf.reshape(sequence, (-1, self.width)))
        for layer in self.layers:
            outputs = tf.reshape(outputs, (length, -1, *layer.inputs))
            mine = rows[len(last) : len(last) + layer.states]
            outputs, after, end = layer.along(outputs, mine, training)
            states, last = states + after, last + end
        return Walked(outputs, states, last)


def stacked(layer: str, name: str, seed: int, options: Any, width: int) -> Stack:
    """As many layers of one kind as the options say."""
    widths = enumerate([width, *[options.units] * (options.layers - 1)])
    return Stack([recurrent_layer(layer, f"{name}_{i}", seed + 10 * i, options, w) for i, w in widths], width)

"""What the tests of recurrent networks share."""

import numpy as np

from netpredict.forecast.backend import keras
from netpredict.forecast.recurrent import RecurrentOptions

LAYERS = ("lstm", "gru", "simple_rnn")
KERAS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}


class Options(RecurrentOptions, frozen=True, kw_only=True):
    """All settings of all three plugins."""

    reset_after: bool = True
    unit_forget_bias: bool = True


def shaken(predictor):
    """Weights far from the even start, so that a mistake shows."""
    rng = np.random.default_rng(7)
    weights = {}
    for name, tensor in predictor.weights().items():
        noise = 0.0 if name.startswith(("scaler", "spread")) else 0.3
        weights[name] = (tensor + noise * rng.normal(size=tensor.shape)).astype(np.float32)
    predictor.load_weights(weights)
    return predictor


def cold(predictor, n):
    return {name: np.full((n, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}


def walked(predictor, features):
    """All outputs of a walk over (T, n, f), and the last hidden."""
    hidden = cold(predictor, features.shape[1])
    outputs = []
    for step in features:
        output, hidden = predictor.advance(step, hidden)
        outputs.append(np.stack([output[kpi] for kpi in predictor.output_spec().kpis], axis=1))
    return np.stack(outputs), hidden


def keras_layer(layer, mine, **options):
    """The Keras layer with the weights and settings of one of ours; answers outputs (n, T, units) and last states."""
    own = {"reset_after": mine.weights.reset_after} if layer == "gru" else {}
    activation = keras.activations.serialize(mine.weights.activation)
    settings = {"activation": activation, "return_sequences": True, "return_state": True, **own, **options}
    made = KERAS[layer](mine.shape[0], **settings)
    made.build((None, None, mine.inputs[0]))
    made.set_weights([weight.numpy() for weight in mine.weights.trainable_weights])
    return made

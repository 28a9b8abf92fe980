"""Every structure, served step by step, against a model of standard Keras layers run over the whole sequence."""

import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.backend import keras, tf
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.types import FeatureSpec, OutputSpec
from tests.forecast.networks import LAYERS, Options, cold, keras_layer, shaken, walked

FEATURES = FeatureSpec(("load", "users", "sinr_db"), 900_000_000, 24, 86_400_000_000)
KPIS, HORIZON, LEVELS, STEPS, SERIES = ("sinr_db", "load"), 4, (0.1, 0.5, 0.9), 7, 16


def predictor_of(layer, structure, horizon=HORIZON, kpis=KPIS, levels=LEVELS, **options):
    settings = Options(structure=structure, units=8, **options)
    return shaken(RecurrentPredictor(layer, settings, FEATURES, OutputSpec(kpis, horizon, levels)))


def random_features(missing=0.1):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(STEPS, SERIES, FEATURES.width)).astype(np.float32)
    features[:, :, :3][rng.random((STEPS, SERIES, 3)) < missing] = np.nan
    features[0, :, :3] = 1.0
    features[:, :, 3:] = rng.uniform(0, 7, size=(STEPS, SERIES, 4))
    features[:, :, 6] = rng.integers(0, 2, size=(STEPS, SERIES))
    return features


class Encoded:
    """The inputs of every step (n, T, width), and what the last step says of centre, scale and scaler."""

    def __init__(self, network, features):
        encoder, inputs = network.encoder, []
        scaler = {name: tf.zeros((SERIES, *shape)) for name, shape in encoder.state_shapes.items()}
        for step in features:
            after = encoder.scale(step[:, :3], step[:, 3:], scaler)
            encoded = encoder.encode(step[:, :3], step[:, 3:], scaler, after)
            inputs.append(encoded.inputs)
            scaler = after
        self.inputs, self.last, self.scaler = tf.stack(inputs, axis=1), encoded, scaler
        self.reference, self.calendar = network.reference(encoded), tf.constant(features[-1][:, 3:])


def through(layer, stack, sequence, states=None):
    """Standard Keras layers with the weights of a stack: outputs (n, T, units), last states of each layer."""
    ends = []
    for index, one in enumerate(stack.layers):
        sequence, *end = keras_layer(layer, one)(sequence, initial_state=states[index] if states else None)
        ends.append(end)
        if one.norm is not None:
            norm = keras.layers.LayerNormalization()
            norm.build(sequence.shape)
            norm.set_weights([weight.numpy() for weight in one.norm.trainable_weights])
            sequence = norm(sequence)
    return sequence, ends


def dense(head, width):
    made = keras.layers.Dense(int(np.prod(head.shape)))
    made.build((None, width))
    made.set_weights([weight.numpy() for weight in head.dense.trainable_weights])
    return made


def answered(predictor, features):
    """The served forecast of the last step in units of the scale, (n, kpis, horizon, levels)."""
    outputs, hidden = walked(predictor, features)
    encoded = Encoded(predictor._network, features)
    np.testing.assert_allclose(hidden["scaler"], encoded.scaler["scaler"], rtol=1e-5, atol=1e-5)
    centre, scale = (part.numpy()[..., None] for part in (encoded.reference.centre, encoded.reference.scale))
    return (outputs[-1] - centre) / scale, encoded


def expected(network, raw, encoded):
    """(n, kpis, parts, leads) of the Keras model -> (n, kpis, leads, levels) in units of the scale."""
    return np.stack([level.numpy() for level in network.levels(raw, encoded.reference)], axis=3)


@pytest.mark.parametrize("options", [{}, {"layers": 3, "layer_normalisation": True, "reset_after": False}])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("structure", ["many_to_many", "many_to_one", "one_to_one"])
def test_a_dense_head_served_step_by_step_is_keras_over_the_whole_sequence(structure, layer, options):
    predictor = predictor_of(layer, structure, 1 if structure == "one_to_one" else HORIZON, **options)
    network, features = predictor._network, random_features()
    found, encoded = answered(predictor, features)
    outputs, _ = through(layer, network.stack, encoded.inputs)
    raw = tf.reshape(dense(network.head, 8)(outputs[:, -1]), (-1, *network.head.shape))
    np.testing.assert_allclose(found, expected(network, raw, encoded), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"layers": 2, "layer_normalisation": True, "activation": "softsign"}])
@pytest.mark.parametrize("layer", LAYERS)
def test_one_to_many_served_step_by_step_is_keras_with_a_repeated_vector(layer, options):
    predictor = predictor_of(layer, "one_to_many", **options)
    network, features = predictor._network, random_features()
    found, encoded = answered(predictor, features)
    outputs, _ = through(layer, network.stack, encoded.inputs)
    decoder = network.structure._decoder
    repeated = keras.layers.RepeatVector(HORIZON)(outputs[:, -1])
    hidden, *_ = keras_layer(layer, decoder)(repeated)
    raw = dense(network.head, 8)(decoder.output(hidden))
    raw = tf.transpose(tf.reshape(raw, (SERIES, HORIZON, *network.head.shape[:2])), (0, 2, 3, 1))
    np.testing.assert_allclose(found, expected(network, raw, encoded), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"layers": 2, "layer_normalisation": True, "loss": "mae"}])
@pytest.mark.parametrize("layer", LAYERS)
def test_seq2seq_served_step_by_step_is_a_keras_decoder_from_the_encoders_state(layer, options):
    predictor = predictor_of(layer, "seq2seq", **options)
    network, features = predictor._network, random_features()
    found, encoded = answered(predictor, features)
    _, states = through(layer, network.stack, encoded.inputs)
    medians = np.clip(found[..., 1], -8, 8)
    before = np.concatenate([np.zeros((SERIES, 2, 1)), medians[:, :, :-1]], axis=2).transpose(0, 2, 1)
    clock = [network.encoder.clock(network.encoder.later(encoded.calendar, lead)) for lead in range(1, HORIZON + 1)]
    inputs = tf.concat([tf.constant(before, tf.float32), tf.stack(clock, axis=1)], axis=2)
    hidden, _ = through(layer, network.structure._decoder, inputs, states)
    raw = dense(network.head, 8)(hidden)
    raw = tf.transpose(tf.reshape(raw, (SERIES, HORIZON, *network.head.shape[:2])), (0, 2, 3, 1))
    np.testing.assert_allclose(found, expected(network, raw, encoded), atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"layers": 2, "layer_normalisation": True}])
@pytest.mark.parametrize("layer", LAYERS)
def test_autoregressive_is_the_one_step_keras_model_fed_with_its_own_answers(layer, options):
    predictor = predictor_of(layer, "autoregressive", **options)
    network, features = predictor._network, random_features()
    found, encoded = answered(predictor, features)
    head, encoder = dense(network.head, 8), network.encoder
    outputs, states = through(layer, network.stack, encoded.inputs)
    scaler, last, reference, path = encoded.scaler, encoded.last, encoded.reference, []
    for lead in range(1, HORIZON + 1):
        natural = reference.centre[:, :, 0] + reference.scale[:, :, 0] * head(outputs[:, -1])
        path.append(natural)
        fed = tf.stack([natural[:, 1], last.last[:, 1], natural[:, 0]], axis=1)
        later = encoder.later(encoded.calendar, lead)
        after = encoder.scale(fed, later, scaler)
        last = encoder.encode(fed, later, scaler, after)
        scaler, reference = after, network.reference(last)
        outputs, states = through(layer, network.stack, last.inputs[:, None], states)
    point = (tf.stack(path, axis=2) - encoded.reference.centre) / encoded.reference.scale
    np.testing.assert_allclose(found[..., 1], point, atol=2e-5)
    np.testing.assert_allclose(found[..., 2] - found[..., 1], 0.3, atol=1e-5)


def test_the_roll_out_leaves_the_carried_state_where_the_observation_brought_it():
    features = random_features()
    rolled, plain = (predictor_of("gru", structure) for structure in ("autoregressive", "many_to_many"))
    _, hidden = walked(rolled, features)
    _, expected_hidden = walked(plain, features)
    np.testing.assert_array_equal(hidden["scaler"], expected_hidden["scaler"])
    outputs = through("gru", rolled._network.stack, Encoded(rolled._network, features).inputs)[1]
    np.testing.assert_allclose(hidden["rnn"][:, 0], outputs[0][0], atol=1e-5)


@pytest.mark.parametrize("structure", ["one_to_many", "seq2seq", "autoregressive"])
def test_a_kpi_never_seen_harms_no_other_in_any_structure(structure):
    features = random_features()
    features[:, :8, 2] = np.nan
    outputs, hidden = walked(predictor_of("gru", structure), features)
    assert np.isnan(outputs[:, :8, 0]).all()
    assert np.isfinite(outputs[:, :8, 1]).all()
    assert np.isfinite(outputs[:, 8:]).all()
    assert all(np.isfinite(array).all() for array in hidden.values())
    assert (np.diff(outputs[:, 8:], axis=-1) >= 0).all()


@pytest.mark.parametrize("structure", ["many_to_many", "one_to_many", "seq2seq", "autoregressive"])
@pytest.mark.parametrize("loss", ["pinball", "bce"])
def test_a_fresh_network_of_any_structure_answers_the_last_value(structure, loss):
    predictor = RecurrentPredictor(
        "gru", Options(structure=structure, loss=loss), FEATURES, OutputSpec(("load",), HORIZON, LEVELS)
    )
    features = np.tile(np.float32([[0.25, 1.0, 1.0, 2.0, 3.0, 4.0, 0.0]]), (16, 1))
    outputs, _ = predictor.advance(features, cold(predictor, 16))
    np.testing.assert_allclose(outputs["load"][:, :, 1], 0.25, rtol=1e-5)
    assert (np.diff(outputs["load"], axis=2) > 0).all()


def test_the_calendar_of_the_roll_out_goes_on_into_the_next_day():
    network = predictor_of("gru", "autoregressive")._network
    sunday_night = tf.constant([[23.75, 6.0, 23.0, 1.0]])
    found = network.encoder.later(sunday_night, 2.0).numpy()
    np.testing.assert_allclose(found, [[0.25, 0.0, 23.5, 0.0]], atol=1e-6)
    np.testing.assert_allclose(network.encoder.later(sunday_night, 0.0), sunday_night)


@pytest.mark.parametrize(
    ("options", "output", "said"),
    [
        ({"structure": "one_to_one"}, {}, "horizon_steps = 1"),
        ({"structure": "seq2seq"}, {"levels": (0.1, 0.9)}, "level 0.5"),
        ({"structure": "autoregressive"}, {"levels": (0.1, 0.9)}, "level 0.5"),
        ({"loss": "mse"}, {"levels": (0.9,)}, "level 0.5"),
        ({"optimiser": "adam", "momentum": 0.9}, {}, "momentum"),
        ({"optimiser": "rmsprop", "momentum": 0.9, "nesterov": True}, {}, "nesterov"),
        ({"optimiser": "sgd", "nesterov": True}, {}, "momentum above 0"),
        ({"optimiser": "sgd", "weight_decay": 0.1}, {}, "weight_decay"),
        ({"warmup_epochs": 20.0}, {}, "warmup_epochs"),
        ({"teacher_forcing": 0.5}, {}, "seq2seq"),
        ({"structure": "seq2seq", "teacher_forcing": 0.2, "teacher_forcing_last": 0.5}, {}, "at most"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, output, said):
    spec = {"kpis": KPIS, "horizon_steps": HORIZON, "levels": LEVELS, **output}
    with pytest.raises(ConfigError, match=said):
        RecurrentPredictor("gru", Options(**options), FEATURES, OutputSpec(**spec))

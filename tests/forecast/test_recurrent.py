import numpy as np
import pytest

from netpredict.errors import ArtefactError, ConfigError
from netpredict.forecast.backend import keras, tf
from netpredict.forecast.convolution import ConvLstmOptions, ConvLstmStack
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.forecast.networks import LAYERS, Options, cold, keras_layer, shaken, walked

FEATURES = FeatureSpec(("load", "users", "rsrp_dbm", "sinr_db"), 900_000_000, 24, 86_400_000_000)


def predictor_of(layer="gru", kpis=("load",), horizon=6, levels=(0.1, 0.5, 0.9), features=FEATURES, **options):
    predictor = RecurrentPredictor(layer, Options(**options), features, OutputSpec(kpis, horizon, levels))
    return shaken(predictor)


def random_features(steps, n, width=4, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(steps, n, width + 4)) * np.exp(4 * rng.normal(size=(1, n, 1)))
    values[:, :, width:] = rng.uniform(0, 7, size=(steps, n, 4))
    values[:, :, :width][rng.random((steps, n, width)) < missing] = np.nan
    return values.astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 4, "reset_after": False, "unit_forget_bias": False},
        {"layers": 2, "layer_normalisation": True, "activation": "softsign"},
        {"activation": "relu"},
        {"activation": "selu", "reset_after": False},
    ],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_step_applied_over_and_over_is_the_keras_layer_over_the_whole_sequence(layer, options):
    stack = predictor_of(layer, units=24, **options)._network.stack
    steps = 40 if stack.layers[0].weights.activation is keras.activations.tanh else 12  # the others may grow
    sequence = tf.constant(np.random.default_rng(1).normal(size=(8, steps, stack.width)), tf.float32)

    rows, stepped = [tf.zeros((8, 24))] * stack.rows, []
    for step in tf.unstack(sequence, axis=1):
        output, rows = stack.step(step, rows)
        stepped.append(output)
    chunk = stack.along(tf.transpose(sequence, (1, 0, 2)), [tf.zeros((8, 24))] * stack.rows, training=False)

    whole = sequence
    for one in stack.layers:
        whole, *last = keras_layer(layer, one)(whole)
        whole = one.output(whole)
    atol = 1e-5 * max(1.0, np.abs(whole).max())
    np.testing.assert_allclose(np.stack(stepped, axis=1), whole, atol=atol)
    np.testing.assert_allclose(np.reshape(chunk.outputs, (steps, 8, 24)), np.stack(stepped), atol=atol)
    for mine, kept, theirs in zip(rows[-len(last) :], chunk.states[-len(last) :], last, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)
        np.testing.assert_allclose(kept[-8:], theirs, atol=atol)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("lstm", {}),
        ("gru", {"activation": "softsign"}),
        ("gru", {"reset_after": False}),
        ("simple_rnn", {}),
        ("conv_lstm", {"kernel_size": (1, 3)}),
    ],
)
def test_the_gradient_of_a_chunk_is_that_of_its_steps(layer, options):
    rng = np.random.default_rng(4)
    if layer == "conv_lstm":
        stack = ConvLstmStack(ConvLstmOptions(units=3, **options), (2, 3), planes=1, width=8)
    else:
        stack = predictor_of(layer, units=5, **options)._network.stack
    (one,), length, n = stack.layers, 6, 4
    sequence, mask = (
        tf.constant(rng.normal(size=size), tf.float32) for size in [(length, n, *one.inputs), (n, *one.shape)]
    )
    rows = [tf.constant(rng.normal(size=(n, *one.shape)), tf.float32) for _ in range(one.states)]
    weigh = [tf.constant(rng.normal(size=(length, n, *one.shape)), tf.float32) for _ in rows]
    one.masks = lambda n: (None, mask)
    watched = [sequence, *rows, *one.weights.trainable_variables]

    with tf.GradientTape(persistent=True) as tape:
        tape.watch([sequence, *rows])
        along = [
            tf.reshape(state, (length, n, *one.shape)) for state in one.along(sequence, rows, training=True).states
        ]
        states, stepped = rows, []
        for step in tf.unstack(sequence):
            states = one.recur(one.project(step), states, mask)
            stepped.append(states)
        losses = [
            sum(tf.reduce_sum(a * b) for a, b in zip(parts, weigh, strict=True))
            for parts in (along, [tf.stack(s) for s in zip(*stepped, strict=True)])
        ]

    mine, theirs = (tape.gradient(loss, watched) for loss in losses)
    for found, expected in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"units": 33, "layers": 2, "layer_normalisation": True},
        {"units": 50, "structure": "one_to_many"},
        {"structure": "seq2seq", "layers": 2},
        {"units": 33, "structure": "autoregressive"},
    ],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_row_is_bit_equal_whatever_else_is_in_the_batch(layer, options):
    predictor = predictor_of(layer, kpis=("load", "sinr_db"), levels=(0.05, 0.5, 0.8, 0.95), **options)
    features = random_features(3, 8192)
    whole, hidden = walked(predictor, features)
    rng = np.random.default_rng(3)
    for n in (16, 32, 512, 2048, 8192, 16):
        rows = rng.permutation(8192)[:n]
        some, some_hidden = walked(predictor, features[:, rows])
        np.testing.assert_array_equal(some, whole[:, rows])
        for name, array in some_hidden.items():
            np.testing.assert_array_equal(array, hidden[name][rows])


def test_batches_of_every_size_share_one_graph():
    predictor = predictor_of()
    before = predictor._step
    for n in (16, 32, 64, 48, 1):
        outputs, _ = predictor.advance(random_features(1, n)[0], cold(predictor, n))
        assert outputs["load"].shape == (n, 6, 3)
    assert predictor._step is before
    assert predictor._step.structured_input_signature[0][0].shape[0] is None


def test_advance_leaves_its_inputs_alone():
    predictor = predictor_of()
    features, hidden = random_features(1, 16)[0], cold(predictor, 16)
    _, hidden = predictor.advance(features, hidden)
    copies = features.copy(), {name: array.copy() for name, array in hidden.items()}
    predictor.advance(features, hidden)
    np.testing.assert_equal((features, dict(hidden)), copies)


def test_the_levels_never_cross():
    outputs, _ = walked(predictor_of(levels=(0.05, 0.25, 0.5, 0.75, 0.95)), random_features(20, 64, missing=0.0))
    assert np.isfinite(outputs).all()
    assert (np.diff(outputs, axis=-1) >= 0).all()


def test_a_kpi_that_was_never_seen_is_nan_and_harms_no_other():
    predictor = predictor_of(kpis=("load", "sinr_db"))
    features = random_features(10, 16, missing=0.0)
    features[:, :8, 3] = np.nan
    features[:5, :8, 0] = np.nan
    outputs, _ = walked(predictor, features)
    assert np.isnan(outputs[:, :8, 1]).all()
    assert np.isnan(outputs[:5, :8, 0]).all()
    assert np.isfinite(outputs[5:, :8, 0]).all()
    assert np.isfinite(outputs[:, 8:]).all()


def test_missing_steps_advance_the_hidden_state_and_stay_finite():
    predictor = predictor_of()
    features = random_features(60, 16, missing=0.0)
    features[10:50, :, :4] = np.nan
    outputs, hidden = walked(predictor, features)
    assert np.isfinite(outputs).all()
    _, at_gap = walked(predictor, features[:10])
    _, in_gap = walked(predictor, features[:11])
    assert not np.array_equal(at_gap["rnn"], in_gap["rnn"])
    np.testing.assert_array_equal(at_gap["scaler"], in_gap["scaler"])
    assert np.isfinite(hidden["rnn"]).all()


@pytest.mark.parametrize("poison", [np.inf, -np.inf, 3e38, -3e38])
def test_an_absurd_value_counts_as_missing(poison):
    predictor = predictor_of()
    features = random_features(6, 16, missing=0.0)
    without = features.copy()
    features[3, 2, 0], without[3, 2, 0] = poison, np.nan
    np.testing.assert_array_equal(walked(predictor, features)[0], walked(predictor, without)[0])


def test_series_of_very_different_scale_share_weights():
    predictor = predictor_of()
    features = np.abs(random_features(30, 16, missing=0.0)) + np.float32(1e3)
    features[:, 1:] = features[:, :1]
    factors = np.float32(10.0) ** np.arange(0, 16, dtype=np.float32)
    features[:, :, :4] *= factors[None, :, None]
    outputs, _ = walked(predictor, features)
    relative = outputs[:, :, 0] / factors[None, :, None, None]
    np.testing.assert_allclose(relative, np.broadcast_to(relative[:, :1], relative.shape), rtol=2e-3)


def test_a_constant_series_is_forecast_as_itself():
    predictor = RecurrentPredictor("gru", Options(), FEATURES, OutputSpec(("load",), 6, (0.1, 0.5, 0.9)))
    features = np.zeros((300, 16, 8), dtype=np.float32)
    features[:, 8:, :4] = 7.0
    outputs, _ = walked(predictor, features)
    np.testing.assert_allclose(outputs[-1, 8:], 7.0, rtol=0.01)
    np.testing.assert_allclose(outputs[-1, :8], 0.0, atol=1e-3)


def test_weights_travel_and_give_the_same_answers():
    first, second = predictor_of(), predictor_of(seed=99)
    second.load_weights(first.weights())
    features = random_features(5, 16)
    np.testing.assert_array_equal(walked(first, features)[0], walked(second, features)[0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weights: weights.pop("head.bias"),
        lambda weights: weights.update(extra=np.zeros(1, np.float32)),
        lambda weights: weights.update({"head.bias": weights["head.bias"][:-1]}),
        lambda weights: weights.update({"head.bias": weights["head.bias"].astype(np.float64)}),
        lambda weights: weights.update({"head.bias": weights["head.bias"] * np.nan}),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(spoil):
    predictor = predictor_of()
    before = predictor.weights()
    weights = dict(before)
    spoil(weights)
    with pytest.raises(ArtefactError):
        predictor.load_weights(weights)
    np.testing.assert_equal(predictor.weights(), before)


@pytest.mark.parametrize(
    "output",
    [
        OutputSpec(("unknown",), 6, (0.5,)),
        OutputSpec(("load",), 0, (0.5,)),
        OutputSpec(("load",), 6, (0.9, 0.1)),
        OutputSpec(("load",), 6, (0.0, 0.5)),
        OutputSpec(("load",), 6, (1.0, 2.0), kind="categorical"),
    ],
)
def test_a_spec_that_cannot_be_answered_is_refused(output):
    with pytest.raises(ConfigError):
        RecurrentPredictor("gru", Options(), FEATURES, output)


def aligned(array):
    """A copy on a 64-byte boundary, which TensorFlow may use without copying it."""
    raw = np.zeros(array.nbytes + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_inputs_and_answers_never_share_memory():
    predictor = predictor_of()
    features = aligned(random_features(1, 4096)[0])
    _, hidden = predictor.advance(features, cold(predictor, 4096))
    hidden = {name: aligned(array) for name, array in hidden.items()}
    before = features.copy(), {name: array.copy() for name, array in hidden.items()}
    outputs, new = predictor.advance(features, hidden)
    kept = {**{kpi: array.copy() for kpi, array in outputs.items()}, **{k: array.copy() for k, array in new.items()}}
    np.testing.assert_equal((features, hidden), before)
    for array in (features, *hidden.values()):
        array.fill(99.0)
    np.testing.assert_equal({**outputs, **new}, kept)


@pytest.mark.parametrize("options", [{}, {"ensemble": 2}, {"inputs": "history"}])
def test_a_column_that_is_left_out_is_not_seen(options):
    fewer = FeatureSpec(("load", "rsrp_dbm"), 900_000_000, 24, 86_400_000_000)
    output = OutputSpec(("load", "rsrp_dbm"), 6, (0.1, 0.5, 0.9))
    full = RecurrentPredictor("gru", Options(leave_out=("sinr_db", "users"), **options), FEATURES, output)
    plain = RecurrentPredictor("gru", Options(**options), fewer, output)
    steps = random_features(20, 16)
    rng = np.random.default_rng(3)
    history = steps[..., :4].transpose(1, 0, 2)
    slots = np.zeros(16, np.int64)
    full.fit(TrainingSet(FEATURES, output, history, slots, 15))
    plain.fit(TrainingSet(fewer, output, history[..., [0, 2]], slots, 15))
    for name, tensor in plain.weights().items():
        np.testing.assert_array_equal(full.weights()[name], tensor)
    found, _ = walked(full, steps)
    np.testing.assert_array_equal(found, walked(plain, steps[..., [0, 2, 4, 5, 6, 7]])[0])
    steps[..., [1, 3]] = rng.normal(size=steps[..., [1, 3]].shape)
    np.testing.assert_array_equal(found, walked(full, steps)[0])


@pytest.mark.parametrize(("names", "why"), [(("speed",), "no column is named speed"), (("load",), "load is forecast")])
def test_a_column_that_is_not_there_or_is_forecast_cannot_be_left_out(names, why):
    with pytest.raises(ConfigError, match=why):
        predictor_of(leave_out=names)

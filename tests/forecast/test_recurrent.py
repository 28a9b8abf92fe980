import numpy as np
import pytest

from netpredict.errors import ArtefactError, ConfigError
from netpredict.forecast.backend import keras, tf
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.types import FeatureSpec, OutputSpec


class Options(RecurrentOptions, frozen=True, kw_only=True):
    reset_after: bool = True
    unit_forget_bias: bool = True


FEATURES = FeatureSpec(("load", "users", "rsrp_dbm", "sinr_db"), 900_000_000, 24, 86_400_000_000)
LAYERS = ("lstm", "gru", "simple_rnn")


def predictor_of(layer="gru", kpis=("load",), horizon=6, levels=(0.1, 0.5, 0.9), features=FEATURES, **options):
    predictor = RecurrentPredictor(layer, Options(**options), features, OutputSpec(kpis, horizon, levels))
    return shaken(predictor)


def shaken(predictor):
    """Weights far from the even start, so that a mistake shows."""
    rng = np.random.default_rng(7)
    weights = {}
    for name, tensor in predictor.weights().items():
        noise = 0.0 if name.startswith("scaler") else 0.3
        weights[name] = (tensor + noise * rng.normal(size=tensor.shape)).astype(np.float32)
    predictor.load_weights(weights)
    return predictor


def cold(predictor, n):
    return {name: np.full((n, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}


def random_features(steps, n, width=4, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(steps, n, width + 3)) * np.exp(4 * rng.normal(size=(1, n, 1)))
    values[:, :, width:] = rng.uniform(0, 7, size=(steps, n, 3))
    values[:, :, :width][rng.random((steps, n, width)) < missing] = np.nan
    return values.astype(np.float32)


def walked(predictor, features):
    """All outputs of a walk over (T, n, f), and the last hidden."""
    hidden = cold(predictor, features.shape[1])
    outputs = []
    for step in features:
        output, hidden = predictor.advance(step, hidden)
        outputs.append(np.stack([output[kpi] for kpi in predictor.output_spec().kpis], axis=1))
    return np.stack(outputs), hidden


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_step_applied_over_and_over_is_the_keras_layer_over_the_whole_sequence(layer, reset_after, layers):
    network = predictor_of(layer, layers=layers, units=24, reset_after=reset_after)._network
    sequence = tf.constant(np.random.default_rng(1).normal(size=(8, 40, network.encoder.width)), tf.float32)

    rows, stepped = [tf.zeros((8, 24))] * (layers * network.stack.states_per_cell), []
    for step in tf.unstack(sequence, axis=1):
        output, rows = network.stack.step(step, rows)
        stepped.append(output)

    kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}[layer]
    whole = sequence
    for cell in network.stack.cells:
        own = {"reset_after": reset_after} if layer == "gru" else {}
        reference = kind(24, return_sequences=True, return_state=True, **own)
        reference.build(whole.shape)
        reference.set_weights([weight.numpy() for weight in cell.trainable_weights])
        whole, *last = reference(whole)
    assert np.abs(np.stack(stepped, axis=1) - whole.numpy()).max() < 1e-5
    for mine, theirs in zip(rows[-len(last) :], last, strict=True):
        assert np.abs(mine.numpy() - theirs.numpy()).max() < 1e-5


@pytest.mark.parametrize("options", [{}, {"units": 33, "layers": 2, "layer_normalisation": True}, {"units": 50}])
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
    features = np.zeros((300, 16, 7), dtype=np.float32)
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

from itertools import islice

import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.backend import tf
from netpredict.forecast.heads import Reference
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.radio.classes import class_probabilities, classes_of
from netpredict.testing import check_predictor
from netpredict.traces import ucc5g
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.forecast.networks import LAYERS, Options, cold, keras_layer, walked

FEATURES = FeatureSpec(("sinr_db", "cqi"), 1_000_000)
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
HORIZON = 3
STAYS = np.array([1, 2, 3, 5, 9, 17, 33])


def predictor_of(layer="gru", kpis=("cqi",), features=FEATURES, levels=LEVELS, horizon=HORIZON, **options):
    settings = {"loss": "cross_entropy", "units": 24, **options}
    return RecurrentPredictor(layer, Options(**settings), features, OutputSpec(kpis, horizon, levels))


def shaken(predictor):
    """Weights off the start, so that a mistake shows, but no class without a chance."""
    rng = np.random.default_rng(7)
    weights = {
        name: (tensor + (0.0 if name.startswith("scaler") else 0.05) * rng.normal(size=tensor.shape)).astype(np.float32)
        for name, tensor in predictor.weights().items()
    }
    predictor.load_weights(weights)
    return predictor


def random_features(steps, n, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    stays = rng.random((steps, n)) < 0.7
    cqi = rng.integers(0, 16, size=(steps, n))
    for step in range(1, steps):
        cqi[step] = np.where(stays[step], cqi[step - 1], cqi[step])
    values = np.stack([rng.normal(8, 5, size=(steps, n)), cqi], axis=2)
    values[rng.random(values.shape) < missing] = np.nan
    return np.concatenate([values, rng.uniform(0, 7, size=(steps, n, 4))], axis=2).astype(np.float32)


def holding(series=24, steps=300, hold=5):
    """A class stays for exactly ``hold`` steps, then one beside it begins, which no table of the class foresees."""
    rng = np.random.default_rng(3)
    moves = rng.choice([-1, 1], size=(series, steps // hold + 1))
    walk = 7 + np.cumsum(moves, axis=1)
    cqi = np.repeat(np.abs((walk - 15) % 30 - 15), hold, axis=1)[:, :steps]
    sinr = rng.normal(size=cqi.shape)
    values = np.stack([sinr, cqi], axis=2).astype(np.float32)
    output = OutputSpec(("cqi",), HORIZON, LEVELS)
    return TrainingSet(FEATURES, output, values, np.zeros(series, np.int64), steps * 3 // 4)


def fitted(dataset, layer="gru", **options):
    settings = {"units": 16, "train_epochs": 4, "minibatch_size": 8, "learning_rate": 0.01, **options}
    predictor = RecurrentPredictor(layer, Options(loss="cross_entropy", **settings), dataset.features, dataset.output)
    return predictor, predictor.fit(dataset)


def class_inputs(cqi, lags):
    """The inputs of one series that come from its classes, at every step, told a second time without TensorFlow."""
    codes, run, since, frequency, rows = [-1] * lags, 0, 0, np.zeros((2, 16)), []
    for value in cqi:
        now = codes[0] if np.isnan(value) else int(value)
        run = run + 1 if now == codes[0] else 0
        since = since + 1 if np.isnan(value) else 0
        codes = [now, *codes[:-1]]
        hot = (np.array(codes)[:, None] == np.arange(16)).astype(float)
        if since == 0:
            frequency += (hot[0] - frequency) / np.array([[30.0], [300.0]])
        held = np.zeros((8, 16))
        held[np.searchsorted(STAYS, run, side="right")] = hot[0]
        share = (frequency + 0.02) / (frequency + 0.02).sum(axis=1, keepdims=True)
        parts = [hot.ravel(), held.ravel(), 0.5 * np.log(16 * share).ravel(), np.log1p([run, since]) / 3]
        rows.append(np.concatenate(parts))
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        *((layer, {}) for layer in LAYERS),
        ("gru", {"by_distance": True}),
        ("gru", {"inputs": "history"}),
    ],
)
def test_steps_from_the_carried_state_equal_the_keras_layer_over_the_whole_sequence(layer, options):
    predictor, features = shaken(predictor_of(layer, **options)), random_features(25, 16)
    features[0, :, :2] = [[5.0, 9.0]]
    network = predictor._network

    outputs, _ = walked(predictor, features)

    shared = {name: value for name, value in options.items() if name == "inputs"}
    plain = predictor_of(layer, loss="pinball", **shared)._network.encoder
    for name, tensor in plain.named().items():
        tensor.assign(predictor.weights()[name])
    state = {name: tf.zeros((16, *shape)) for name, shape in plain.state_shapes.items()}
    scaled = []
    for step in features:
        after = plain.scale(step[:, :2], step[:, 2:], state)
        scaled.append(plain.encode(step[:, :2], step[:, 2:], state, after).inputs)
        state = after
    classes = np.stack([class_inputs(features[:, row, 1], 4) for row in range(16)])
    inputs = np.concatenate([np.stack(scaled, axis=1), classes], axis=2)
    hidden, *_ = keras_layer(layer, network.stack.layers[0])(inputs)
    kernel, bias = (weight.numpy() for weight in network.head.dense.weights)
    both = np.concatenate([hidden, inputs], axis=2) @ kernel + bias
    logits = both[:, :, : 16 * HORIZON].reshape(16, 25, 16, HORIZON)
    if options.get("by_distance"):
        of_distance = both[:, :, 16 * HORIZON :].reshape(16, 25, 31, HORIZON)
        newest = np.array([[np.flatnonzero(one[-classes.shape[2] :][:16])[0] for one in row] for row in inputs])
        for row, step in np.ndindex(16, 25):
            logits[row, step] += of_distance[row, step, 15 - newest[row, step] : 31 - newest[row, step]]
    chance = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    knots = np.concatenate([np.zeros((16, 25, 1, HORIZON)), np.cumsum(chance, axis=2)], axis=2)
    near = (
        1e-3 if "inputs" in options else 2e-4
    )  # wide inputs: a class of 0.1 % makes 1e-6 of a chance so much of a CQI
    for row, step, lead in np.ndindex(16, 25, HORIZON):
        expected = np.interp(LEVELS, knots[row, step, :, lead], np.arange(17) - 0.5)
        np.testing.assert_allclose(outputs[step, row, 0, lead], expected, atol=near)
        heights = np.interp(outputs[step, row, 0, lead], np.arange(17) - 0.5, knots[row, step, :, lead])
        np.testing.assert_allclose(heights, LEVELS, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_it_keeps_the_contract_of_a_predictor(layer):
    check_predictor(shaken(predictor_of(layer)), FEATURES)


@pytest.mark.parametrize("options", [{}, {"by_distance": True, "inputs": "history"}])
def test_a_row_is_bit_equal_whatever_else_is_in_the_batch(options):
    predictor, features = shaken(predictor_of(**options)), random_features(12, 512)
    whole, hidden = walked(predictor, features)
    rows = np.random.default_rng(3).permutation(512)[:48]
    some, some_hidden = walked(predictor, features[:, rows])
    np.testing.assert_array_equal(some, whole[:, rows])
    for name, array in some_hidden.items():
        np.testing.assert_array_equal(array, hidden[name][rows])


@pytest.mark.parametrize("by_distance", [False, True])
def test_quantiles_rise_within_the_range_of_each_kpi_and_state_stays_finite(by_distance):
    features = FeatureSpec(("cqi", "rank", "mcs"), 1_000_000)
    predictor = shaken(predictor_of(kpis=("mcs", "rank", "cqi"), features=features, by_distance=by_distance))
    rng = np.random.default_rng(1)
    steps = rng.uniform(-3, 40, size=(40, 32, features.width)).astype(np.float32)
    steps[rng.random(steps.shape) < 0.3] = np.nan
    steps[:, :, 3:] = 0.0
    steps[0, :, :3] = 4.0

    outputs, hidden = walked(predictor, steps)

    assert (np.diff(outputs, axis=-1) >= 0).all()
    for index, (low, high) in enumerate([(0, 31), (1, 8), (0, 15)]):
        assert outputs[:, :, index].min() >= low - 0.5 - 1e-4
        assert outputs[:, :, index].max() <= high + 0.5 + 1e-4
    for name, array in hidden.items():
        assert np.isfinite(array).all(), name


def test_a_kpi_that_was_never_seen_has_no_forecast():
    predictor = predictor_of()
    features = random_features(3, 16)
    features[:, :, 1] = np.nan
    outputs, _ = walked(predictor, features)
    assert np.isnan(outputs).all()


@pytest.mark.parametrize("by_distance", [False, True])
def test_untrained_it_answers_the_last_class(by_distance):
    predictor = predictor_of(by_distance=by_distance)
    features = np.tile(np.array([[3.0, 11.0, 0, 0, 0, 0]], np.float32), (16, 1))
    outputs, _ = predictor.advance(features, cold(predictor, 16))
    np.testing.assert_array_equal(np.rint(outputs["cqi"][:, :, LEVELS.index(0.5)]), 11)


def test_the_probabilities_are_read_back_from_its_quantiles():
    levels = (0.01, 0.02, *np.round(np.arange(0.05, 0.96, 0.05), 2).tolist(), 0.98, 0.99)
    head = predictor_of(levels=levels)._network.head
    rng = np.random.default_rng(2)
    raw = tf.constant(rng.normal(0, 3, size=(200, 1, 16, HORIZON)), tf.float32)
    reference = Reference(tf.constant(rng.uniform(0, 15, size=(200, 1, 1)), tf.float32), tf.ones((200, 1, 1)))

    quantiles = head.natural(head.levels(raw, reference), reference).numpy()
    read = class_probabilities(np.round(np.clip(quantiles, 0, 15), 2), levels, classes_of("cqi"))

    chance = np.moveaxis(tf.nn.softmax(raw, axis=2).numpy(), 2, 3)
    assert np.abs(read - chance).max() < 2 * (0.05 + 0.005)
    assert np.abs(read - chance).mean() < 0.02


def test_weights_saved_and_loaded_give_the_same_forecasts():
    predictor, features = shaken(predictor_of("lstm")), random_features(6, 16)
    other = predictor_of("lstm")
    other.load_weights(predictor.weights())
    np.testing.assert_array_equal(walked(other, features)[0], walked(predictor, features)[0])


def test_what_it_has_not_learnt_yet_is_the_markov_table():
    _, report = fitted(holding(series=8, steps=120), learning_rate=1e-12, train_epochs=1)
    assert report.scores["log_loss"] == pytest.approx(report.scores["markov_log_loss"], abs=1e-3)


def test_it_learns_how_long_a_class_stays_which_no_table_of_the_class_can():
    _, report = fitted(holding())
    assert report.scores["markov_log_loss"] > 0.8
    assert report.scores["log_loss.cqi"] == report.scores["log_loss"] < 0.6 * report.scores["markov_log_loss"]
    assert min(report.validation_loss) == pytest.approx(report.scores["log_loss"])
    assert report.scores["mae"] <= report.scores["naive_mae"]


def test_by_distance_a_move_learnt_of_some_classes_is_foreseen_of_one_seen_a_few_times():
    """Each series climbs by one every step from a class of its own; few of them pass through the highest classes."""
    rng = np.random.default_rng(3)
    low = np.concatenate([rng.integers(0, 6, size=30), [10, 10]])
    cqi = low[:, None] + (np.arange(160) + rng.integers(0, 4, size=(32, 1))) % 4
    values = np.stack([rng.normal(size=cqi.shape), cqi], axis=2).astype(np.float32)
    dataset = TrainingSet(FEATURES, OutputSpec(("cqi",), HORIZON, LEVELS), values, np.zeros(32, np.int64), 120)
    rare = TrainingSet(FEATURES, dataset.output, values[30:], np.zeros(2, np.int64), 120)
    missed = {}
    for by_distance in (False, True):
        predictor, _ = fitted(dataset, by_distance=by_distance)
        calendar = np.zeros((*rare.values.shape[:2], 4), np.float32)
        features = np.moveaxis(np.concatenate([rare.values, calendar], axis=2), 0, 1)
        outputs, _ = walked(predictor, np.repeat(features, 8, axis=1))
        middle = outputs[120:-1, :, 0, 0, LEVELS.index(0.5)]
        missed[by_distance] = np.abs(middle - np.repeat(rare.values[:, 121:, 1].T, 8, axis=1)).mean()
    assert missed[True] < 0.5 * missed[False], missed


@pytest.mark.parametrize("layer", LAYERS)
def test_it_beats_the_markov_table_on_real_cqi(layer, data_folder):
    observed = ("cqi", "sinr_db", "rsrp_dbm")
    steps = 1000
    series = np.full((8, steps, 3), np.nan, np.float32)
    for row, trace in enumerate(islice(ucc5g.read(data_folder / "ucc5g"), 8)):
        frame = trace.frame.drop_duplicates("event_time_us")
        slot = np.rint((frame["event_time_us"] - frame["event_time_us"].min()) / 1e6).astype(int).to_numpy()
        kept = slot < steps
        series[row, slot[kept]] = frame[list(observed)].to_numpy(np.float32)[kept]
    output = OutputSpec(("cqi",), 5, LEVELS)
    dataset = TrainingSet(FeatureSpec(observed, 1_000_000), output, series, np.zeros(8, np.int64), 700)

    _, report = fitted(dataset, layer, train_epochs=6, dropout=0.2)

    assert report.scores["log_loss"] < report.scores["markov_log_loss"] - 0.02


@pytest.mark.parametrize(
    ("options", "kpis", "says"),
    [
        ({}, ("sinr_db",), "sinr_db.*no classes.*cqi, rank, mcs.*features"),
        ({"structure": "seq2seq"}, ("cqi",), "many_to_many.*seq2seq"),
        ({"structure": "autoregressive"}, ("cqi",), "many_to_many.*autoregressive"),
        ({"loss": "pinball", "lags": 8}, ("cqi",), "lags is for"),
        ({"loss": "pinball", "by_distance": True}, ("cqi",), "by_distance is for"),
        ({"inputs": "season"}, ("cqi",), 'use "moves" or "history"'),
        ({"head_units": 8}, ("cqi",), "leave head_units out"),
    ],
)
def test_settings_that_cannot_go_with_classes_are_refused(options, kpis, says):
    with pytest.raises(ConfigError, match=says):
        predictor_of(kpis=kpis, **options)

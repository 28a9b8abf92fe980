import numpy as np
import pytest
import tensorflow as tf

from netpredict.errors import ConfigError
from netpredict.forecast.encode_history import HistoryEncoder
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet


class Options(RecurrentOptions, frozen=True, kw_only=True):
    reset_after: bool = True
    unit_forget_bias: bool = True


FEATURES = FeatureSpec(("level", "other"), 1_000_000)
OUTPUT = OutputSpec(("level",), 3, (0.1, 0.5, 0.9))
RECIPE = {"inputs": "history", "lags": 12, "mixture": True, "round_to_grain": True, "head_units": 8}


def predictor_of(layer="gru", output=OUTPUT, **options):
    return RecurrentPredictor(layer, Options(**{"units": 8, **RECIPE, **options}), FEATURES, output)


def cold(predictor, rows=16):
    return {name: np.full((rows, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}


def advanced(predictor, column, rows=16):
    """Every answer (steps, horizon, levels) for one series whose other column is missing."""
    hidden, answers = cold(predictor, rows), []
    for value in column:
        features = np.tile(np.array([[value, np.nan, *[0.0] * len(FEATURES.CALENDAR)]], np.float32), (rows, 1))
        outputs, hidden = predictor.advance(features, hidden)
        answers.append(outputs["level"][0])
    return np.stack(answers)


def encoded(encoder, column):
    """Scaler state and encoded step after each value of one column, the other always missing."""
    state = {name: tf.zeros((1, *shape)) for name, shape in encoder.state_shapes.items()}
    steps = []
    for value in column:
        now = tf.constant([[value, np.nan]], tf.float32)
        after = encoder.scale(now, tf.zeros((1, 4)), state)
        steps.append((after["scaler"].numpy()[0, :, 0], encoder.encode(now, tf.zeros((1, 4)), state, after)))
        state = after
    return steps


def noisy_levels(series=12, steps=240, weights=None, truth=None):
    """Whole numbers around a level that wanders slowly: a mean of the last values is better than the last."""
    rng = np.random.default_rng(3)
    level = np.cumsum(0.2 * rng.normal(size=(series, steps)), axis=1)
    values = np.round(np.stack([level + 3 * rng.normal(size=level.shape), level * 0], axis=2)).astype(np.float32)
    return TrainingSet(FEATURES, OUTPUT, values, np.zeros(series, np.int64), 180, (), truth, weights)


SMALL = {"train_epochs": 4, "minibatch_size": 6, "bptt_steps": 60, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def trained():
    """A predictor trained on noisy levels, its report and the data set."""
    predictor, dataset = predictor_of(**SMALL), noisy_levels()
    return predictor, predictor.fit(dataset), dataset


@pytest.mark.parametrize("layer", ["gru", "lstm", "simple_rnn"])
def test_it_keeps_the_contract_of_a_predictor_with_every_layer(layer):
    check_predictor(predictor_of(layer), FEATURES)


def test_lags_are_the_values_before_and_means_lie_within_them():
    encoder = HistoryEncoder(FEATURES, Options(inputs="history", lags=3))
    column = [5.0, 7.0, 7.0, np.nan, 1.0]

    state, _ = encoded(encoder, column)[-1]

    last, run, age, count, *lags = state[:7]
    assert (last, run, age, count) == (1.0, 0.0, 0.0, 5.0)
    assert lags == [7.0, 7.0, 7.0]
    means = state[7 : 7 + len(encoder.means)]
    assert (means > 1.0).all()
    assert (means < 7.0).all()
    assert (np.diff(means) > 0).all()  # the shorter the half-life, the nearer to the last value


def test_a_mean_of_few_values_is_their_mean():
    encoder = HistoryEncoder(FEATURES, Options(inputs="history", lags=1, mean_half_lives=(1e6,)))
    state, _ = encoded(encoder, [2.0, 4.0, 3.0])[-1]
    assert state[5] == pytest.approx(3.0, rel=1e-4)


def test_steps_since_a_change_and_since_a_value_are_counted():
    encoder = HistoryEncoder(FEATURES, Options(inputs="history"))
    states = [state[:3].tolist() for state, _ in encoded(encoder, [4.0, 4.0, np.nan, 6.0])]
    assert states == [[4.0, 0.0, 0.0], [4.0, 1.0, 0.0], [4.0, 2.0, 1.0], [6.0, 0.0, 0.0]]


def test_before_its_first_value_a_series_has_no_forecast_and_then_it_stands(trained):
    answers = advanced(trained[0], [np.nan, np.nan, -9.0])
    assert np.isnan(answers[:2]).all()
    np.testing.assert_array_equal(answers[2, :, 1], -9.0)


def test_the_code_of_a_lost_signal_is_no_level_that_a_mean_leans_on(trained):
    answers = advanced(trained[0], [*[0.0, 1.0] * 30, *[-200.0] * 30, *[0.0, 1.0] * 5])
    np.testing.assert_allclose(answers[62:90, :, 1], -200.0, atol=10.0)
    assert np.abs(answers[95:, :, 1]).max() < 5.0


def test_a_series_that_stood_still_is_forecast_to_stand_still_by_a_trained_network(trained):
    answers = advanced(trained[0], [12.0] * 400)
    np.testing.assert_array_equal(answers[-1, :, 1], 12.0)


def test_whole_numbers_are_forecast_as_whole_numbers_and_levels_never_cross(trained):
    predictor, _, dataset = trained

    answers = advanced(predictor, dataset.values[0, :, 0])

    np.testing.assert_array_equal(answers[:, :, 1], np.round(answers[:, :, 1]))
    assert (np.diff(answers, axis=2) >= 0).all()
    assert len(np.unique(answers[:, :, 1])) > 3


def test_fractions_are_left_as_they_are():
    dataset = noisy_levels()
    predictor = predictor_of(**{**SMALL, "train_epochs": 1})
    predictor.fit(TrainingSet(FEATURES, OUTPUT, dataset.values * np.float32(0.3), dataset.first_slot, 180))
    answers = advanced(predictor, 0.3 * dataset.values[0, :50, 0])
    assert (answers[10:, :, 1] != np.round(answers[10:, :, 1])).any()


def test_on_held_out_steps_it_finds_the_mean_that_the_last_value_hides(trained):
    _, report, _ = trained
    assert report.scores["skill"] > 0.2


def test_given_targets_are_learnt_in_place_of_the_values(trained):
    plain, _, dataset = trained
    taught = predictor_of(**SMALL)
    taught.fit(noisy_levels(truth=np.full((12, 240, 1), 40.0, np.float32)))

    column = dataset.values[0, :60, 0]
    assert advanced(taught, column)[-1, :, 1].mean() > advanced(plain, column)[-1, :, 1].mean() + 2


def test_a_series_of_no_weight_teaches_nothing():
    weights = np.ones((12, 1), np.float32)
    weights[6:] = 0.0
    spoilt = np.array(noisy_levels().values[:, :, :1])
    spoilt[6:] = 1000.0
    options = {**SMALL, "train_epochs": 1, "minibatch_size": 12}
    first, second = predictor_of(**options), predictor_of(**options)
    first.fit(noisy_levels(weights=weights))
    second.fit(noisy_levels(weights=weights, truth=spoilt))
    np.testing.assert_equal(dict(first.weights()), dict(second.weights()))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"inputs": "moves"}, "history"),
        ({"loss": "cross_entropy", "mixture": False}, "cross_entropy"),
        ({"loss": "mae"}, "pinball"),
        ({"structure": "seq2seq"}, "head_units"),
        ({"structure": "seq2seq", "head_units": 0}, "mixture"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        predictor_of(**options)


def test_without_the_calendar_the_hour_changes_nothing():
    predictor = predictor_of(calendar=False)
    hidden = cold(predictor)
    features = np.tile(np.array([[3.0, np.nan, 5.0, 2.0, 0.0, 0.0]], np.float32), (16, 1))
    other = features + np.array([[0.0, 0.0, 7.0, 1.0, 0.0, 1.0]], np.float32)
    one, two = (predictor.advance(each, hidden)[1]["rnn"] for each in (features, other))
    np.testing.assert_array_equal(one, two)

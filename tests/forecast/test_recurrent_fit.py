import math

import numpy as np
import pytest

from netpredict.calendar import calendar
from netpredict.errors import ConfigError, DataError
from netpredict.forecast.recurrent import RecurrentOptions, RecurrentPredictor
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet


class Options(RecurrentOptions, frozen=True, kw_only=True):
    reset_after: bool = True
    unit_forget_bias: bool = True


FEATURES = FeatureSpec(("load", "users"), 900_000_000, 24, 86_400_000_000)
OUTPUT = OutputSpec(("load",), 4, (0.1, 0.5, 0.9))


def noisy_sines(series=48, steps=400, missing=0.0, validation_from=320):
    rng = np.random.default_rng(5)
    t = np.arange(steps) + rng.integers(0, 24, size=(series, 1))
    size = np.exp(3 * rng.normal(size=(series, 1)))
    load = size * (5 + 3 * np.sin(2 * np.pi * t / 24) + 0.3 * rng.normal(size=(series, steps)))
    values = np.stack([load, rng.normal(size=load.shape)], axis=2).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return TrainingSet(FEATURES, OUTPUT, values, np.zeros(series, dtype=np.int64), validation_from)


def fitted(dataset, layer="gru", progress=None, **options):
    settings = {
        "units": 16,
        "train_epochs": 4,
        "minibatch_size": 24,
        "bptt_steps": 24,
        "learning_rate": 0.01,
        **options,
    }
    predictor = RecurrentPredictor(layer, Options(**settings), dataset.features, dataset.output)
    return predictor, predictor.fit(dataset, progress)


@pytest.mark.parametrize("layer", ["lstm", "gru", "simple_rnn"])
def test_training_on_noisy_sines_beats_naive_clearly(layer):
    _, report = fitted(noisy_sines(missing=0.05), layer)
    assert report.scores["skill"] > 0.4
    assert report.scores["skill.load"] == report.scores["skill"]
    assert report.scores["covered_0.1"] < report.scores["covered_0.5"] < report.scores["covered_0.9"]
    assert min(report.validation_loss) == pytest.approx(report.scores["pinball"])


def test_the_skill_of_the_report_is_that_of_the_live_steps():
    dataset = noisy_sines(series=16)
    predictor, report = fitted(dataset)
    hidden = {name: np.full((16, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    errors, naive_errors = [], []
    for t in range(396):
        columns = calendar(np.full(16, t * FEATURES.period_us), FEATURES)
        values = dataset.values[:, t]
        outputs, hidden = predictor.advance(np.concatenate([values, columns], axis=1), hidden)
        if t >= 320:
            truth, scale = dataset.values[:, t + 1 : t + 5, 0], hidden["scaler"][:, 2, :1]
            errors.append(np.abs(truth - outputs["load"][:, :, 1]) / scale)
            naive_errors.append(np.abs(truth - values[:, :1]) / scale)
    assert 1 - np.mean(errors) / np.mean(naive_errors) == pytest.approx(report.scores["skill"], abs=0.02)


def test_two_trainings_with_one_seed_are_bit_equal_and_with_another_are_not():
    options = {"train_epochs": 2, "dropout": 0.1, "recurrent_dropout": 0.1, "layers": 2, "layer_normalisation": True}
    (first, one), (second, two) = (fitted(noisy_sines(12, 120, 0.1, 96), **options) for _ in range(2))
    np.testing.assert_equal(dict(first.weights()), dict(second.weights()))
    assert (one.loss, one.validation_loss, one.scores) == (two.loss, two.validation_loss, two.scores)
    other, _ = fitted(noisy_sines(12, 120, 0.1, 96), **options, seed=2)
    assert not np.array_equal(first.weights()["head.kernel"], other.weights()["head.kernel"])


def test_what_is_held_out_does_not_reach_the_weights():
    dataset = noisy_sines(12, 120, 0.0, 96)
    spoilt = dataset.values.copy()
    spoilt[:, 96:] = 1e6
    other = TrainingSet(FEATURES, OUTPUT, spoilt, dataset.first_slot, 96)
    first, _ = fitted(dataset, train_epochs=1)
    second, _ = fitted(other, train_epochs=1)
    np.testing.assert_equal(dict(first.weights()), dict(second.weights()))


def test_early_stopping_keeps_the_best_weights():
    _, report = fitted(noisy_sines(12, 120, 0.0, 96), train_epochs=40, patience=1, learning_rate=0.1)
    assert report.train_epochs < 40
    assert report.train_epochs == len(report.loss) == len(report.validation_loss)
    assert min(report.validation_loss) == pytest.approx(report.scores["pinball"])


def test_progress_is_told_each_train_epoch_and_may_cancel():
    told = []

    def progress(done, total, loss, validation_loss, left_s):
        told.append((done, total))
        assert math.isfinite(loss)
        assert left_s >= 0
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(noisy_sines(6, 80, 0.0, 64), progress=progress)
    assert told == [(1, 4), (2, 4)]


def test_without_held_out_steps_there_are_no_scores_and_all_train_epochs_run():
    _, report = fitted(noisy_sines(6, 80, 0.0, 80), train_epochs=3, patience=1)
    assert report.scores == {}
    assert report.train_epochs == 3
    assert all(math.isnan(loss) for loss in report.validation_loss)


@pytest.mark.parametrize(
    "extra", [{"optimiser": "rmsprop"}, {"optimiser": "sgd"}, {"optimiser": "adamw"}, {"l2": 0.01}]
)
def test_every_optimiser_and_penalty_learns(extra):
    _, report = fitted(noisy_sines(12, 120, 0.0, 96), train_epochs=2, **extra)
    assert report.loss[1] < report.loss[0]


def test_a_history_without_values_is_refused():
    dataset = noisy_sines(6, 80, 1.0, 64)
    with pytest.raises(DataError):
        fitted(dataset)


def test_a_training_set_of_other_columns_is_refused():
    dataset = noisy_sines(6, 80, 0.0, 64)
    predictor = RecurrentPredictor("gru", Options(), FEATURES, OutputSpec(("users",), 4, (0.5,)))
    with pytest.raises(ConfigError):
        predictor.fit(dataset)

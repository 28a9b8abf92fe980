"""What a training can be told: structures, losses, optimisers, clipping, schedules, penalties, teacher forcing."""

import msgspec
import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.forecast import bptt
from netpredict.forecast.backend import tf
from netpredict.forecast.network import Network
from netpredict.forecast.optimisers import Schedule, clipped
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.forecast.networks import Options, walked

FEATURES = FeatureSpec(("load", "prb_use_dl_percent"), 3_600_000_000, 24, 86_400_000_000)
LEVELS = (0.1, 0.5, 0.9)
HELD_OUT = 60


def sines(series=24, steps=240, horizon=3, kpis=("load",)):
    """A noisy daily wave of many sizes, and the same as percent."""
    rng = np.random.default_rng(5)
    t = np.arange(steps) + rng.integers(0, 24, size=(series, 1))
    wave = 0.5 + 0.3 * np.sin(2 * np.pi * t / 24) + 0.03 * rng.normal(size=t.shape)
    values = np.stack([wave * np.exp(rng.normal(size=(series, 1))), 100 * wave], axis=2).astype(np.float32)
    output = OutputSpec(kpis, horizon, LEVELS)
    return TrainingSet(FEATURES, output, values, np.zeros(series, dtype=np.int64), steps - HELD_OUT)


def fitted(dataset, layer="gru", **options):
    settings = {"units": 12, "train_epochs": 4, "minibatch_size": 8, "bptt_steps": 24, "learning_rate": 0.02, **options}
    predictor = RecurrentPredictor(layer, Options(**settings), dataset.features, dataset.output)
    return predictor, predictor.fit(dataset)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("lstm", {"structure": "many_to_one", "train_epochs": 12, "bptt_steps": 8}),
        ("simple_rnn", {"structure": "one_to_many", "optimiser": "rmsprop", "momentum": 0.5, "learning_rate": 0.005}),
        ("lstm", {"structure": "seq2seq", "schedule": "cosine", "warmup_epochs": 0.5}),
        ("gru", {"structure": "autoregressive", "l1": 1e-5, "l2": 1e-5}),
    ],
)
def test_every_structure_learns_to_beat_the_last_value(layer, options):
    _, report = fitted(sines(), layer, **options)
    assert report.scores["skill"] > 0.4
    assert report.scores["covered_0.1"] < report.scores["covered_0.5"] < report.scores["covered_0.9"]


def test_one_to_one_learns_a_single_step():
    _, report = fitted(
        sines(horizon=1), structure="one_to_one", optimiser="sgd", momentum=0.9, nesterov=True, learning_rate=0.1
    )
    assert report.scores["skill"] > 0.3


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "mse", "optimiser": "adamw", "weight_decay": 0.001},
        {"loss": "mae", "optimiser": "adagrad", "learning_rate": 0.1},
        {"loss": "bce"},
        {"loss": "bce", "structure": "autoregressive"},
    ],
)
def test_levels_around_a_point_cover_what_was_held_out(options):
    dataset = sines(kpis=("prb_use_dl_percent",))
    predictor, report = fitted(dataset, **options)
    assert report.scores["skill"] > 0.3
    assert min(report.validation_loss) < report.validation_loss[0] or len(report.validation_loss) == 1
    assert report.scores["covered_0.9"] - report.scores["covered_0.1"] == pytest.approx(0.8, abs=0.03)
    residual = predictor.weights()["spread.residual"]
    assert residual.shape == (1, 3, 3)
    assert (residual[:, 1] == 0).all()
    assert (np.diff(residual, axis=1) > 0).all()
    assert residual[0, 2, 2] > residual[0, 2, 0]  # farther ahead, wider


def test_the_spread_travels_with_the_weights():
    dataset = sines(series=8)
    first, _ = fitted(dataset, loss="mse", train_epochs=1)
    second = RecurrentPredictor("gru", first.options, FEATURES, dataset.output)
    second.load_weights(first.weights())
    features = np.random.default_rng(1).uniform(1, 9, size=(4, 16, FEATURES.width)).astype(np.float32)
    np.testing.assert_array_equal(walked(first, features)[0], walked(second, features)[0])


def test_binary_cross_entropy_refuses_a_kpi_outside_its_range_by_name():
    dataset = sines(series=8)
    dataset.values[3, 7, 0] = 1.5
    with pytest.raises(DataError, match="load within 0 and 1"):
        fitted(dataset, loss="bce")
    percent = sines(series=8, kpis=("prb_use_dl_percent",))
    percent.values[3, 7, 1] = 130.0
    with pytest.raises(DataError, match="prb_use_dl_percent within 0 and 100, found"):
        fitted(percent, loss="bce")


def test_two_trainings_of_a_decoder_with_dropout_and_a_teacher_are_bit_equal():
    options = {"structure": "seq2seq", "dropout": 0.1, "recurrent_dropout": 0.1, "train_epochs": 2}
    (first, one), (second, two) = (fitted(sines(series=8, steps=120), **options) for _ in range(2))
    np.testing.assert_equal(dict(first.weights()), dict(second.weights()))
    assert one.loss == two.loss
    other, _ = fitted(sines(series=8, steps=120), **options, teacher_forcing_last=1.0)
    assert not np.array_equal(first.weights()["head.kernel"], other.weights()["head.kernel"])


@pytest.mark.parametrize(
    ("structure", "steps", "leads"), [("many_to_many", 24, 3), ("many_to_one", 1, 3), ("autoregressive", 24, 1)]
)
def test_the_loss_is_taken_where_the_structure_says(structure, steps, leads):
    dataset, options = sines(), Options(structure=structure, units=4, bptt_steps=24)
    network = Network("gru", options, FEATURES, dataset.output)
    run = bptt._Run(network, options, dataset)
    _, chunk = list(run.history.chunks(24, run.history.cut, np.arange(8)))[1]
    _, count, _ = run.train_chunk(*chunk, run._cold(8))
    assert float(count) == 8 * steps * leads


def test_learning_rates_rise_then_follow_their_schedule():
    def rates(*done, **options):
        schedule = Schedule(Options(learning_rate=1.0, train_epochs=12, warmup_epochs=2, **options))
        return [schedule.rate(epochs) for epochs in done]

    assert rates(1.0, 2.0, 11.9) == pytest.approx([0.5, 1.0, 1.0])
    assert 0 < rates(0.0)[0] < 0.1
    assert rates(2.0, 7.0, 12.0, schedule="cosine", final_rate_ratio=0.2) == pytest.approx([1.0, 0.6, 0.2])
    assert rates(2.0, 7.0, 12.0, schedule="exponential", final_rate_ratio=0.01) == pytest.approx([1.0, 0.1, 0.01])


def test_a_plateau_halves_the_learning_rate_until_its_last_ratio():
    schedule = Schedule(Options(learning_rate=1.0, schedule="plateau", patience=4, final_rate_ratio=0.3))
    found = []
    for improved in (True, False, False, True, False, False, False, False):
        schedule.judge(improved)
        found.append(schedule.rate(5.0))
    assert found == [1.0, 1.0, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]


def test_gradients_are_clipped_by_value_and_then_by_their_common_norm():
    gradients = [tf.constant([3.0, -0.5]), tf.constant([-40.0])]
    values = clipped(gradients, Options(clip_value=1.0, clip_norm=0.0))
    assert [value.numpy().tolist() for value in values] == [[1.0, -0.5], [-1.0]]
    both = clipped(gradients, Options(clip_value=1.0, clip_norm=0.75))
    assert np.linalg.norm(np.concatenate(both)) == pytest.approx(0.75)
    assert float(both[0][0] / both[0][1]) == pytest.approx(-2.0)
    assert clipped(gradients, Options(clip_norm=0.0)) is gradients


def test_settings_outside_their_range_are_refused():
    for options in ({"l1": -1.0}, {"schedule": "cyclic"}, {"momentum": 1.0}, {"structure": "many"}, {"loss": "huber"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(options, Options)

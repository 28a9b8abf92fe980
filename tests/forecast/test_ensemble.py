"""Networks that answer as one: the mean of the members, in one graph, one hidden state and one artefact."""

from __future__ import annotations

import numpy as np
import pytest

from netpredict import plugins
from netpredict.errors import ArtefactError, ConfigError
from netpredict.forecast.convolution import ConvLstmOptions, ConvLstmPredictor
from netpredict.forecast.ensemble import SEEDS
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.learn.registry import load_artefact
from netpredict.learn.train import train
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec, place_columns
from tests.forecast.networks import LAYERS, Options, cold, shaken, walked
from tests.learn.noisy import OPTIONS, noisy_sines

FEATURES = FeatureSpec(("load", "users"), 900_000_000, 24, 86_400_000_000)
OUTPUT = OutputSpec(("load",), 6, (0.1, 0.5, 0.9))


def predictor_of(layer="gru", members=3, features=FEATURES, **options):
    return RecurrentPredictor(layer, Options(ensemble=members, units=12, **options), features, OUTPUT)


def random_features(steps, n):
    rng = np.random.default_rng(4)
    values = rng.normal(size=(steps, n, 6)) + 20.0
    values[:, :, 2:] = rng.uniform(0, 7, size=(steps, n, 4))
    values[:, :, :2][rng.random((steps, n, 2)) < 0.2] = np.nan
    return values.astype(np.float32)


def member_of(weights, number):
    """What a network alone would be given of these weights."""
    prefix = f"member_{number}."
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return own | {name: tensor for name, tensor in weights.items() if not name.startswith("member_")}


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        *((layer, {"layers": 2}) for layer in LAYERS),
        ("gru", {"inputs": "medians"}),
        ("gru", {"inputs": "levels", "loss": "bce", "head_units": 8, "calendar": False}),
        ("lstm", {"structure": "seq2seq"}),
        ("lstm", {"structure": "autoregressive"}),
    ],
)
def test_step_by_step_it_answers_the_mean_of_its_members(layer, options):
    together = shaken(predictor_of(layer, **options))
    features = random_features(30, 16)
    alone = [predictor_of(layer, 1, **options) for _ in range(3)]
    for number, one in enumerate(alone):
        one.load_weights(member_of(together.weights(), number))

    answers, hidden = walked(together, features)
    each, last = zip(*(walked(one, features) for one in alone), strict=True)

    assert np.abs(each[0] - each[1])[np.isfinite(each[0])].max() > 0.01
    mean = np.mean([one.astype(np.float64) for one in each], axis=0)
    np.testing.assert_allclose(answers, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(hidden["rnn"], np.concatenate([one["rnn"] for one in last], axis=1), atol=1e-5)
    for name in hidden.keys() - {"rnn"}:
        np.testing.assert_array_equal(hidden[name], last[0][name])


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(predictor_of(inputs="medians"), FEATURES)
    plugin = plugins.load("predictors", "lstm")
    check_predictor(plugin.build(plugin.options(ensemble=2, adapt="rls"), FEATURES, OUTPUT), FEATURES)


def test_a_series_pays_for_the_encoder_once():
    one, three = (predictor_of("lstm", members, layers=2, inputs="medians").state_spec() for members in (1, 3))
    assert (one["rnn"].shape, three["rnn"].shape) == ((4, 12), (12, 12))
    assert {name: one[name] for name in one if name != "rnn"} == {name: three[name] for name in one if name != "rnn"}


def test_the_mean_of_whole_numbers_is_a_whole_number_again():
    options = {"inputs": "history", "round_to_grain": True, "train_epochs": 1, "units": 8}
    dataset = noisy_sines(8, 120)
    dataset.values[:] = np.round(dataset.values)
    predictor = RecurrentPredictor("gru", Options(ensemble=2, **options), dataset.features, dataset.output)
    predictor.fit(dataset)
    step = np.concatenate([dataset.values[:, 0], np.zeros((8, 4), np.float32)], axis=1)
    median = predictor.advance(step, cold(predictor, 8))[0]["load"][:, :, 1]
    np.testing.assert_array_equal(median, np.round(median))


def test_a_grid_of_radio_cells_has_one_too():
    features = FeatureSpec(place_columns(("load",), 2, 3), 900_000_000)
    output = OutputSpec(features.observed, 2, (0.1, 0.5, 0.9))
    check_predictor(ConvLstmPredictor(ConvLstmOptions(ensemble=2, units=4), features, output), features)


def test_each_member_is_trained_as_the_network_of_its_seed():
    dataset, told = noisy_sines(8, 120), []
    options = OPTIONS | {"train_epochs": 2, "dropout": 0.1}
    together = RecurrentPredictor("gru", Options(ensemble=2, **options), dataset.features, dataset.output)
    report = together.fit(dataset, lambda *each: told.append(each[:2]))

    reports = []
    for number in range(2):
        own = Options(**options, seed=1 + SEEDS * number)
        alone = RecurrentPredictor("gru", own, dataset.features, dataset.output)
        reports.append(alone.fit(dataset))
        np.testing.assert_equal(member_of(together.weights(), number), dict(alone.weights()))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert report.loss == pytest.approx(np.mean([each.loss for each in reports], axis=0))
    assert report.scores["mae"] == pytest.approx(np.mean([each.scores["mae"] for each in reports]))


def test_the_report_goes_on_as_long_as_the_last_member():
    dataset = noisy_sines(8, 120)
    options = Options(ensemble=3, units=8, train_epochs=12, patience=1, learning_rate=0.05)
    report = RecurrentPredictor("gru", options, dataset.features, dataset.output).fit(dataset)
    assert report.train_epochs == len(report.loss) == len(report.validation_loss) <= 12
    assert np.isfinite(report.loss).all()


def test_an_artefact_of_it_serves_and_the_same_training_is_the_same_version(tmp_path):
    dataset = noisy_sines(8, 120)
    options = OPTIONS | {"ensemble": 2, "train_epochs": 1}
    first, _ = train(dataset, "gru", options, tmp_path / "one", now_us=1)
    again, _ = train(dataset, "gru", options, tmp_path / "two", now_us=2)
    other, _ = train(dataset, "gru", options | {"ensemble": 3}, tmp_path / "three", now_us=2)
    assert first.version == again.version != other.version

    artefact = load_artefact(tmp_path / "one", first.version)
    plugin = plugins.load("predictors", "gru")
    decoded = plugins.options_of(plugin, artefact.manifest.identity.options, "test")
    served, fresh = (plugin.build(decoded, dataset.features, dataset.output) for _ in range(2))
    served.load_weights(artefact.weights)
    fresh.fit(dataset)
    features = np.concatenate([dataset.values, np.ones((8, 120, 4), np.float32)], axis=2).swapaxes(0, 1)
    np.testing.assert_array_equal(walked(served, features[:20])[0], walked(fresh, features[:20])[0])


def test_weights_of_fewer_members_are_refused_and_nothing_is_taken():
    predictor = predictor_of(members=2)
    before = predictor.weights()
    with pytest.raises(ArtefactError, match=r"member_1\.head"):
        predictor.load_weights({name: each for name, each in before.items() if not name.startswith("member_1.")})
    with pytest.raises(ArtefactError, match="one side only"):
        predictor.load_weights(predictor_of(members=1).weights())
    np.testing.assert_equal(predictor.weights(), before)


def test_classes_have_no_mean():
    options = Options(ensemble=2, loss="cross_entropy")
    output = OutputSpec(("cqi",), 2, (0.1, 0.5, 0.9))
    with pytest.raises(ConfigError, match="set ensemble = 1"):
        RecurrentPredictor("gru", options, FeatureSpec(("cqi",), 1_000_000), output)

import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec
from tests.forecast.networks import Options, walked

FEATURES = FeatureSpec(("load",), 60_000_000)
OUTPUT = OutputSpec(("load",), 3, (0.1, 0.5, 0.9))


def predictor_of(**options):
    return RecurrentPredictor("gru", Options(inputs="medians", units=4, **options), FEATURES, OUTPUT)


def features_of(load):
    features = np.zeros((len(load), 16, FEATURES.width), np.float32)
    features[:, :, 0] = np.asarray(load)[:, None]
    return features


def test_untrained_it_answers_the_running_median_whatever_the_spikes():
    load = np.random.default_rng(0).normal(20.0, 1.0, 60)
    load[[20, 33, 34]] = 500.0
    outputs, _ = walked(predictor_of(median_steps=(5, 9)), features_of(load))
    for step in range(4, 60):
        np.testing.assert_allclose(outputs[step, 0, 0, :, 1], np.median(load[step - 4 : step + 1]), rtol=1e-5)


def test_a_missing_value_leaves_the_median_alone():
    load = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan, np.nan, 9.0])
    outputs, _ = walked(predictor_of(median_steps=(3,)), features_of(load))
    np.testing.assert_allclose(outputs[4:, 0, 0, 0, 1], [4.0, 4.0, 4.0, 5.0])


def test_one_value_is_enough():
    outputs, _ = walked(predictor_of(), features_of([np.nan, 7.0]))
    assert np.isnan(outputs[0]).all()
    np.testing.assert_allclose(outputs[1, 0, 0, :, 1], 7.0)


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(predictor_of(), FEATURES)


def test_even_medians_and_classes_are_refused():
    with pytest.raises(ConfigError, match="odd"):
        predictor_of(median_steps=(4,))
    with pytest.raises(ConfigError, match="cross_entropy"):
        predictor_of(loss="cross_entropy")

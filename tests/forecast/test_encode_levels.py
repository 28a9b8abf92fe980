import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.forecast.networks import Options, walked

FEATURES = FeatureSpec(("rsrp_dbm", "rlf"), 1_000_000)
OUTPUT = OutputSpec(("rlf",), 1, (0.1, 0.5, 0.9))


def predictor_of(**options):
    return RecurrentPredictor("gru", Options(inputs="levels", units=4, **options), FEATURES, OUTPUT)


def features_of(rsrp_dbm):
    features = np.zeros((len(rsrp_dbm), 16, FEATURES.width), np.float32)
    features[:, :, 0] = np.asarray(rsrp_dbm)[:, None]
    return features


def test_a_level_counts_as_such_whatever_the_series_is_used_to():
    """Each series stands still: by its own mean and deviation none could be told from another."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(-120, -70, 64), 40).reshape(64, 40)
    values = np.stack([level, np.zeros_like(level)], axis=2).astype(np.float32)
    truth = (level < -100)[:, :, None].astype(np.float32)
    options = {
        "loss": "bce",
        "train_epochs": 8,
        "learning_rate": 0.03,
        "minibatch_size": 4,
        "patience": 99,
        "calendar": False,
    }
    predictor = predictor_of(**options)
    predictor.fit(TrainingSet(FEATURES, OUTPUT, values, np.zeros(64, np.int64), 40, (), truth))

    weak, strong = (walked(predictor, features_of([dbm] * 12))[0][-1, 0, 0, 0, 1] for dbm in (-112.0, -80.0))

    assert weak > 0.8
    assert strong < 0.2


def test_untrained_it_answers_the_last_value():
    predictor = RecurrentPredictor(
        "gru", Options(inputs="levels", units=4), FEATURES, OutputSpec(("rsrp_dbm",), 2, (0.5,))
    )
    outputs, _ = walked(predictor, features_of([np.nan, -90.0, np.nan]))
    assert np.isnan(outputs[0]).all()
    np.testing.assert_allclose(outputs[1:, 0, 0, :, 0], -90.0)


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(predictor_of(), FEATURES)


def test_classes_are_refused():
    with pytest.raises(ConfigError, match="cross_entropy"):
        predictor_of(loss="cross_entropy")

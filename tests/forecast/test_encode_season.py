import datetime

import numpy as np
import pytest

from netpredict.calendar import calendar
from netpredict.errors import ConfigError
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.forecast.networks import Options, walked

HOUR_US = 3_600_000_000
FEATURES = FeatureSpec(("load",), HOUR_US, holidays=("2013-12-25",), time_zone="Europe/Rome")
OUTPUT = OutputSpec(("load",), 24, (0.1, 0.5, 0.9))
MONDAY = int(datetime.datetime(2013, 11, 4, tzinfo=datetime.UTC).timestamp()) // 3600 - 1  # 0 h in Rome


def predictor_of(features=FEATURES, output=OUTPUT, **options):
    return RecurrentPredictor("gru", Options(inputs="season", units=4, **options), features, output)


def load_of(hours, days_of_week, holiday):
    """A clear rhythm: the hour on working days, 100 more on Saturdays, 200 more on Sundays and holidays."""
    kind = np.where((days_of_week == 6) | holiday, 2, np.where(days_of_week == 5, 1, 0))
    return (hours + 100.0 * kind).astype(np.float32)


def features_of(steps):
    columns = calendar((MONDAY + np.arange(steps)) * HOUR_US, FEATURES)
    load = load_of(np.floor(columns[:, 0]), columns[:, 1], columns[:, 3] % 2 == 1)
    return np.concatenate([load[:, None], columns], axis=1)[:, None].repeat(16, axis=1)


def test_untrained_it_answers_the_usual_of_the_hour_on_such_a_day():
    features = features_of(9 * 24)
    outputs, _ = walked(predictor_of(), features[:-24])
    for step in range(168, len(outputs), 5):
        np.testing.assert_allclose(outputs[step, 0, 0, :, 1], features[step + 1 : step + 25, 0, 0], atol=1e-3)


def test_a_holiday_is_foreseen_as_a_sunday():
    christmas = 51 * 24
    features = features_of(christmas + 24)
    outputs, _ = walked(predictor_of(), features[:christmas])
    np.testing.assert_allclose(outputs[-1, 0, 0, :, 1], np.arange(24) + 200.0, atol=1e-3)


def test_an_hour_never_seen_on_such_a_day_is_taken_from_the_other_days():
    features = features_of(5 * 24 + 24)
    outputs, _ = walked(predictor_of(), features[: 5 * 24])
    np.testing.assert_allclose(outputs[-1, 0, 0, :, 1], np.arange(24), atol=1e-3)


def test_a_missing_value_leaves_the_usual_alone():
    features = features_of(9 * 24)
    features[200:210, :, 0] = np.nan
    outputs, _ = walked(predictor_of(), features)
    assert np.isfinite(outputs[1:]).all()
    np.testing.assert_allclose(outputs[209, 0, 0, :3, 1], features[210:213, 0, 0], atol=1e-3)


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(predictor_of(), FEATURES)


def test_the_naive_error_of_a_training_stays_that_of_the_last_value():
    values = features_of(16 * 24)[:, :4, 0].T[:, :, None]
    dataset = TrainingSet(FEATURES, OUTPUT, values, np.full(4, MONDAY), 14 * 24)
    scores = predictor_of(train_epochs=1).fit(dataset).scores
    assert scores["mae"] < 0.2 * scores["naive_mae"]


@pytest.mark.parametrize(
    ("features", "output", "told"),
    [
        (FeatureSpec(("load",), 60_000_000), OUTPUT, "288"),
        (FeatureSpec(("load",), 7 * HOUR_US), OUTPUT, "divides a day"),
        (FEATURES, OutputSpec(("load",), 25, (0.5,)), "one day ahead"),
    ],
)
def test_what_has_no_day_of_steps_is_refused(features, output, told):
    with pytest.raises(ConfigError, match=told):
        predictor_of(features, output)

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from netpredict.calendar import calendar, check_holidays, check_time_zone
from netpredict.errors import ConfigError
from netpredict.types import FeatureSpec, OutputSpec
from netpredict_plugins.predictors.seasonal_naive import PLUGIN

HOUR_US = 3_600_000_000


def spec(**fields):
    return FeatureSpec(("load",), HOUR_US, **{"season_us": 24 * HOUR_US, "season_buckets": 24, **fields})


def time_us(*fields, zone="UTC"):
    return round(datetime(*fields, tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


def test_hour_weekday_and_bucket_of_the_season_are_utc_by_default():
    thursday, monday = 0, 4 * 24 * HOUR_US + 90 * 60_000_000
    found = calendar(np.array([thursday, monday, -HOUR_US]), spec())
    assert found.tolist() == [[0, 3, 0, 0], [1.5, 0, 1, 0], [23, 2, 23, 0]]
    assert calendar(np.array([monday]), spec(season_us=0, season_buckets=0))[0, 2] == 0


def test_a_holiday_lasts_from_midnight_to_midnight_of_the_time_zone_and_is_told_ahead():
    features = spec(holidays=("2013-12-25", "2014-01-01"), time_zone="Europe/Rome")
    eve, first, last, after = (
        time_us(2013, 12, *day, zone="Europe/Rome") for day in [(24, 23), (25, 0), (25, 23), (26, 0)]
    )
    assert calendar(np.array([eve, first, last, after]), features)[:, 3].tolist() == [2 + 256, 1 + 128, 1 + 128, 64]
    assert calendar(np.array([first]), spec(holidays=features.holidays))[0, 3] == 2 + 256  # still the eve, by UTC


@pytest.mark.parametrize("zone", ["Europe/Rome", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_the_columns_of_a_zone_follow_its_clock_through_the_year(zone):
    times = np.arange(time_us(2013, 1, 1), time_us(2014, 1, 1), HOUR_US // 2)
    found = calendar(times, spec(time_zone=zone))
    local = [datetime.fromtimestamp(time // 1_000_000, UTC).astimezone(ZoneInfo(zone)) for time in times.tolist()]
    assert found[:, 0].tolist() == [moment.hour + moment.minute / 60 for moment in local]
    assert found[:, 1].tolist() == [moment.weekday() for moment in local]
    assert found[:, 2].tolist() == [moment.hour for moment in local]


def test_an_unknown_zone_or_a_date_that_is_none_is_refused_by_name():
    with pytest.raises(ConfigError, match="Mars/Olympus"):
        check_time_zone("Mars/Olympus")
    with pytest.raises(ConfigError, match="no time zone"):
        check_time_zone("../../etc/passwd")
    with pytest.raises(ConfigError, match="2013-12-25"):
        check_holidays(["25.12.2013"])
    with pytest.raises(ConfigError):
        calendar(np.array([0]), spec(time_zone="Nowhere"))


def test_seasonal_naive_finds_the_buckets_of_a_zone_half_an_hour_off():
    features = FeatureSpec(("load",), HOUR_US // 2, 24, 24 * HOUR_US, time_zone="Asia/Kolkata")
    predictor = PLUGIN.build(PLUGIN.options(), features, OutputSpec(("load",), 5, (0.5,)))
    hidden = {name: np.full((1, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    columns = calendar(np.arange(96) * features.period_us, features)
    load = columns[:, 2] + 1.0  # by the local hour
    for step in range(90):
        row = np.concatenate([load[step : step + 1, None], columns[step : step + 1]], axis=1)
        outputs, hidden = predictor.advance(row.astype(np.float32), hidden)
    np.testing.assert_allclose(outputs["load"][0, :, 0], load[90:95])

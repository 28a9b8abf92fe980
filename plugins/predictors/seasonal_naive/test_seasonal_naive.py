import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.predictor import Predictor
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec
from netpredict_plugins.predictors.seasonal_naive import PLUGIN

HOUR_US = 3_600_000_000
HOURLY = FeatureSpec(("load",), HOUR_US, 24, 24 * HOUR_US)
OUTPUT = OutputSpec(("load",), 6, (0.1, 0.5, 0.9))


def calendar_columns(features, slot):
    """As the pipeline appends them: hour of the day, weekday, bucket of the season."""
    time_us = np.asarray(slot, dtype=np.int64) * features.period_us
    bucket = time_us % features.season_us * features.season_buckets // features.season_us
    return np.stack([time_us % (24 * HOUR_US) / HOUR_US, time_us // (24 * HOUR_US) % 7, bucket], axis=-1).astype("f4")


def built(features=HOURLY, output=OUTPUT):
    return PLUGIN.build(PLUGIN.options(), features, output)


def walked(predictor, load, features=HOURLY, first_slot=0):
    """Outputs for (T, n) values of load, and the last hidden."""
    n, outputs = load.shape[1], []
    hidden = {name: np.full((n, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    for t, values in enumerate(np.asarray(load, dtype=np.float32)):
        calendar = calendar_columns(features, np.full(n, first_slot + t))
        output, hidden = predictor.advance(np.concatenate([values[:, None], calendar], axis=1), hidden)
        outputs.append(output["load"])
    return np.stack(outputs), hidden


def test_the_commented_defaults_are_the_real_ones():
    sample = (Path(__file__).parent / "sample.toml").read_text()
    defaults = tomllib.loads("\n".join(line[2:] for line in sample.splitlines() if line.startswith("# ")))
    assert defaults == msgspec.to_builtins(PLUGIN.options())


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(built(), HOURLY)


def test_the_hidden_state_is_finite_from_the_first_step_on():
    _, hidden = walked(built(), np.array([[np.nan, 1.0, np.inf, 1e38]]))
    assert all(np.isfinite(array).all() for array in hidden.values())


def test_a_pure_season_is_forecast_exactly_once_it_was_seen():
    predictor = built()
    assert isinstance(predictor, Predictor)
    load = np.sin(np.arange(72) * 2 * np.pi / 24)[:, None]
    outputs, _ = walked(predictor, load, first_slot=1000)
    assert np.isnan(outputs[:24]).all()
    for t in range(24, 66):
        np.testing.assert_allclose(outputs[t, 0, :, 1], load[t + 1 : t + 7, 0], atol=1e-5)


def test_a_bucket_that_was_not_seen_yet_is_nan():
    load = np.ones((48, 1))
    load[3] = load[27] = np.nan
    outputs, _ = walked(built(), load)
    for t in range(24, 48):
        unseen = (t + np.arange(1, 7)) % 24 == 3
        np.testing.assert_array_equal(np.isnan(outputs[t, 0, :, 1]), unseen)


@pytest.mark.parametrize("minutes", [5, 15, 20, 60])
def test_the_bucket_of_a_target_slot_is_that_of_the_calendar(minutes):
    features = FeatureSpec(("load",), minutes * 60_000_000, 168, 168 * HOUR_US)
    predictor = built(features, OutputSpec(("load",), 30, (0.5,)))
    slot = np.random.default_rng(0).integers(5_000_000, 6_000_000, size=5000)
    now = calendar_columns(features, slot)
    ahead = predictor._buckets_ahead(now[:, 2].astype(np.int64), now[:, 0])
    truth = calendar_columns(features, slot[:, None] + np.arange(1, 31))[..., 2]
    np.testing.assert_array_equal(ahead, truth)


def test_older_seasons_are_forgotten():
    load = np.concatenate([np.full((240, 1), 10.0), np.full((480, 1), 20.0)])
    outputs, _ = walked(built(), load)
    assert outputs[230, 0, 0, 1] == pytest.approx(10.0)
    assert outputs[250, 0, 0, 1] == pytest.approx(10.0)
    assert outputs[-1, 0, 0, 1] == pytest.approx(20.0, abs=0.3)


def test_many_slots_of_a_bucket_give_its_mean():
    features = FeatureSpec(("load",), HOUR_US // 60, 24, 24 * HOUR_US)
    rng = np.random.default_rng(0)
    load = rng.normal(size=(3 * 1440, 1)) + 5
    outputs, _ = walked(built(features), load, features)
    assert outputs[-1, 0, :, 1] == pytest.approx(5.0, abs=0.3)
    assert (outputs[-1, 0, :, 2] - outputs[-1, 0, :, 1]) == pytest.approx(1.28, abs=0.3)


def test_rows_do_not_see_each_other_and_inputs_are_left_alone():
    rng = np.random.default_rng(1)
    load = rng.normal(size=(60, 301))
    load[rng.random(load.shape) < 0.2] = np.nan
    predictor = built()
    whole, hidden = walked(predictor, load)
    for rows in (rng.permutation(301)[:100], [5]):
        np.testing.assert_array_equal(walked(predictor, load[:, rows])[0], whole[:, rows])
    features, before = np.ones((301, 4), dtype=np.float32), {name: array.copy() for name, array in hidden.items()}
    predictor.advance(features, hidden)
    np.testing.assert_equal((features, dict(hidden)), (np.ones((301, 4)), before))
    for name, array in predictor.state_spec().items():
        assert (hidden[name].shape, hidden[name].dtype) == ((301, *array.shape), array.dtype)


def test_what_it_cannot_answer_is_refused():
    for features, output in (
        (FeatureSpec(("load",), HOUR_US), OUTPUT),
        (HOURLY, OutputSpec(("unknown",), 1, (0.5,))),
        (HOURLY, OutputSpec(("load",), 1, (1.0, 2.0), kind="categorical")),
    ):
        with pytest.raises(ConfigError):
            built(features, output)

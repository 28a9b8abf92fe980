import tomllib
from pathlib import Path
from statistics import NormalDist

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.predictor import Predictor
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec
from netpredict_plugins.predictors.naive import PLUGIN

FEATURES = FeatureSpec(("load", "rsrp_dbm"), 60_000_000)
OUTPUT = OutputSpec(("load",), 4, (0.1, 0.5, 0.9))


def built(output=OUTPUT):
    return PLUGIN.build(PLUGIN.options(), FEATURES, output)


def cold(predictor, n):
    return {name: np.full((n, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}


def walked(predictor, load):
    """Outputs for (T, n) values of load, and the last hidden."""
    hidden, outputs = cold(predictor, load.shape[1]), []
    for values in np.asarray(load, dtype=np.float32):
        features = np.full((len(values), 5), -90.0, dtype=np.float32)
        features[:, 0] = values
        output, hidden = predictor.advance(features, hidden)
        outputs.append(output["load"])
    return np.stack(outputs), hidden


def test_the_commented_defaults_are_the_real_ones():
    sample = (Path(__file__).parent / "sample.toml").read_text()
    defaults = tomllib.loads("\n".join(line[2:] for line in sample.splitlines() if line.startswith("# ")))
    assert defaults == msgspec.to_builtins(PLUGIN.options())


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(built(), FEATURES)


def test_the_hidden_state_is_finite_from_the_first_step_on():
    _, hidden = walked(built(), np.array([[np.nan, 1.0, np.inf, 1e38]]))
    assert all(np.isfinite(array).all() for array in hidden.values())


def test_on_a_ramp_it_errs_by_exactly_the_lead():
    predictor = built()
    assert isinstance(predictor, Predictor)
    outputs, _ = walked(predictor, np.arange(10.0)[:, None])
    for t in range(10):
        np.testing.assert_array_equal(t + np.arange(1, 5) - outputs[t, 0, :, 1], [1, 2, 3, 4])


def test_the_levels_cover_a_random_walk_as_often_as_they_say():
    rng = np.random.default_rng(0)
    load = np.cumsum(rng.normal(size=(400, 200)), axis=0)
    outputs, _ = walked(built(), load)
    for lead in (1, 4):
        truth = load[100 + lead : 390 + lead]
        below = [(truth <= outputs[100:390, :, lead - 1, level]).mean() for level in (0, 2)]
        assert below == pytest.approx([0.1, 0.9], abs=0.02)


def test_the_spread_grows_with_the_root_of_the_lead_and_of_missing_steps():
    load = np.array([1.0, 2.0, 1.0, np.nan, np.nan, np.nan])[:, None]
    outputs, hidden = walked(built(), load)
    width = outputs[:, 0, :, 2] - outputs[:, 0, :, 1]
    sigma = 1.2533141 * NormalDist().inv_cdf(0.9)
    np.testing.assert_allclose(width[2], sigma * np.sqrt([1, 2, 3, 4]), rtol=1e-6)
    np.testing.assert_allclose(width[5], sigma * np.sqrt([4, 5, 6, 7]), rtol=1e-6)
    assert (outputs[2:, 0, :, 1] == 1.0).all()
    assert hidden["age"].tolist() == [[3.0]]


def test_one_value_is_enough_and_none_gives_nan():
    outputs, _ = walked(built(), np.array([[np.nan, 8.0]]))
    assert np.isnan(outputs[0, 0]).all()
    assert (np.diff(outputs[0, 1], axis=1) > 0).all()


def test_rows_do_not_see_each_other_and_inputs_are_left_alone():
    rng = np.random.default_rng(1)
    load = rng.normal(size=(20, 1001)) * np.exp(5 * rng.normal(size=1001))
    load[rng.random(load.shape) < 0.2] = np.nan
    predictor = built(OutputSpec(("load",), 7, (0.05, 0.3, 0.5, 0.95)))
    whole, hidden = walked(predictor, load)
    for rows in (rng.permutation(1001)[:333], [5], np.arange(7, 24)):
        np.testing.assert_array_equal(walked(predictor, load[:, rows])[0], whole[:, rows])
    features, before = np.ones((1001, 5), dtype=np.float32), {name: array.copy() for name, array in hidden.items()}
    predictor.advance(features, hidden)
    np.testing.assert_equal((features, dict(hidden)), (np.ones((1001, 5)), before))


def test_the_answer_and_the_hidden_state_are_float32():
    predictor = built()
    outputs, hidden = walked(predictor, np.ones((3, 2)))
    assert outputs.dtype == np.float32
    for name, array in predictor.state_spec().items():
        assert hidden[name].dtype == array.dtype
        assert hidden[name].shape == (2, *array.shape)


def test_what_it_cannot_answer_is_refused():
    for output in (OutputSpec(("unknown",), 1, (0.5,)), OutputSpec(("load",), 1, (1.0, 2.0), kind="categorical")):
        with pytest.raises(ConfigError):
            built(output)

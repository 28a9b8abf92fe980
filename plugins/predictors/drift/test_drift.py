import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec
from netpredict_plugins.predictors.drift import PLUGIN

FEATURES = FeatureSpec(("load", "rsrp_dbm"), 60_000_000)
OUTPUT = OutputSpec(("load",), 4, (0.1, 0.5, 0.9))


def built(output=OUTPUT, **options):
    return PLUGIN.build(PLUGIN.options(**options), FEATURES, output)


def walked(predictor, load):
    """Outputs for (T, n) values of load, and the last hidden."""
    spec, n = predictor.state_spec(), np.asarray(load).shape[1]
    hidden, outputs = {name: np.full((n, *a.shape), a.fill, a.dtype) for name, a in spec.items()}, []
    for values in np.asarray(load, dtype=np.float32):
        features = np.full((n, FEATURES.width), -90.0, dtype=np.float32)
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


def test_one_value_is_enough_and_none_gives_nan():
    outputs, _ = walked(built(), np.array([[np.nan, 8.0]]))
    assert np.isnan(outputs[0, 0]).all()
    assert (np.diff(outputs[0, 1], axis=1) > 0).all()


def test_what_it_cannot_answer_is_refused():
    for output in (OutputSpec(("unknown",), 1, (0.5,)), OutputSpec(("load",), 1, (1.0, 2.0), kind="categorical")):
        with pytest.raises(ConfigError):
            built(output)


def test_on_a_ramp_it_does_not_err():
    outputs, _ = walked(built(), 3.0 * np.arange(10.0)[:, None])
    for t in range(1, 10):
        np.testing.assert_allclose(outputs[t, 0, :, 1], 3.0 * (t + np.arange(1, 5)), rtol=1e-6)


def test_it_goes_along_the_line_through_the_first_and_the_last_value_whatever_was_missing():
    load = np.array([2.0, 9.0, np.nan, np.nan, 4.0, 7.0, np.nan])[:, None]
    outputs, _ = walked(built(), load)
    np.testing.assert_allclose(outputs[5, 0, :, 1], 7.0 + np.arange(1, 5), rtol=1e-6)
    np.testing.assert_allclose(outputs[6, 0, :3, 1], outputs[5, 0, 1:, 1], rtol=1e-6)


def test_the_levels_cover_a_random_walk_with_drift_as_often_as_they_say():
    rng = np.random.default_rng(0)
    load = np.cumsum(0.5 + rng.normal(size=(400, 200)), axis=0)
    outputs, _ = walked(built(), load)
    for lead in (1, 4):
        truth = load[100 + lead : 390 + lead]
        below = [(truth <= outputs[100:390, :, lead - 1, level]).mean() for level in (0, 2)]
        assert below == pytest.approx([0.1, 0.9], abs=0.02)

import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec
from netpredict_plugins.predictors.ewma import PLUGIN

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


def test_the_median_is_the_weighted_mean_for_every_lead():
    outputs, _ = walked(built(alpha=0.5), [[4.0], [8.0], [8.0]])
    np.testing.assert_allclose(outputs[:, 0, :, 1], [[4.0] * 4, [6.0] * 4, [7.0] * 4])


def test_a_missing_value_leaves_the_mean_alone_and_widens_the_spread():
    outputs, _ = walked(built(), [[4.0], [8.0], [6.0], [np.nan], [np.nan]])
    np.testing.assert_array_equal(outputs[4, 0, :, 1], outputs[2, 0, :, 1])
    np.testing.assert_allclose(outputs[4, 0, :2], outputs[2, 0, 2:])


def test_the_levels_cover_a_wandering_level_under_noise_as_often_as_they_say():
    rng = np.random.default_rng(0)
    load = np.cumsum(0.25 * rng.normal(size=(600, 200)), axis=0) + rng.normal(size=(600, 200))
    outputs, _ = walked(built(alpha=0.22), load)
    for lead in (1, 4):
        truth = load[200 + lead : 590 + lead]
        below = [(truth <= outputs[200:590, :, lead - 1, level]).mean() for level in (0, 2)]
        assert below == pytest.approx([0.1, 0.9], abs=0.02)

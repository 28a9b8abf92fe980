import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError
from netpredict.forecast.predictor import Trainable
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec, place_columns
from netpredict_plugins.predictors.conv_lstm import PLUGIN

PLACES = place_columns(["load"], 2, 3)
FEATURES = FeatureSpec((*PLACES, *place_columns(["ues"], 2, 3)), 60_000_000, 24, 86_400_000_000)
OUTPUT = OutputSpec(PLACES, 3, (0.1, 0.5, 0.9))


def test_the_commented_defaults_are_the_real_ones():
    sample = (Path(__file__).parent / "sample.toml").read_text()
    defaults = tomllib.loads("\n".join(line[2:] for line in sample.splitlines() if line.startswith("# ")))
    assert defaults == msgspec.json.decode(msgspec.json.encode(PLUGIN.options()))


@pytest.mark.parametrize("options", [{}, {"units": 5, "layers": 2, "kernel_size": [1, 3], "layer_normalisation": True}])
def test_it_keeps_the_contract_of_a_predictor(options):
    check_predictor(PLUGIN.build(msgspec.convert(options, PLUGIN.options), FEATURES, OUTPUT), FEATURES)


def test_it_is_trainable_and_starts_as_the_last_value_of_each_place():
    predictor = PLUGIN.build(PLUGIN.options(), FEATURES, OUTPUT)
    hidden = {name: np.full((1, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    features = np.arange(1, FEATURES.width + 1, dtype=np.float32)[None]

    outputs, hidden = predictor.advance(features, hidden)

    assert PLUGIN.trainable
    assert isinstance(predictor, Trainable)
    for number, place in enumerate(PLACES, start=1):
        assert outputs[place].shape == (1, 3, 3)
        np.testing.assert_allclose(outputs[place][:, :, 1], number)
        assert (np.diff(outputs[place], axis=2) > 0).all()


def test_it_is_refused_where_there_is_no_grid():
    with pytest.raises(ConfigError, match="conv_lstm needs a grid"):
        PLUGIN.build(PLUGIN.options(), FeatureSpec(("load",), 60_000_000), OutputSpec(("load",), 3, (0.5,)))
    with pytest.raises(ConfigError, match="forecasts whole grids"):
        PLUGIN.build(PLUGIN.options(), FEATURES, OutputSpec(PLACES[:2], 3, (0.5,)))

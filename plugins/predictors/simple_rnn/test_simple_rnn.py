import tomllib
from pathlib import Path

import msgspec
import numpy as np

from netpredict.forecast.predictor import Trainable
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec
from netpredict_plugins.predictors.simple_rnn import PLUGIN

FEATURES = FeatureSpec(("load", "rsrp_dbm"), 60_000_000, 24, 86_400_000_000)
OUTPUT = OutputSpec(("load",), 3, (0.1, 0.5, 0.9))


def test_the_commented_defaults_are_the_real_ones():
    sample = (Path(__file__).parent / "sample.toml").read_text()
    defaults = tomllib.loads("\n".join(line[2:] for line in sample.splitlines() if line.startswith("# ")))
    assert defaults == msgspec.json.decode(msgspec.json.encode(PLUGIN.options()))


def test_it_keeps_the_contract_of_a_predictor():
    check_predictor(PLUGIN.build(PLUGIN.options(), FEATURES, OUTPUT), FEATURES)


def test_it_is_trainable_and_starts_as_the_last_value():
    predictor = PLUGIN.build(PLUGIN.options(), FEATURES, OUTPUT)
    hidden = {name: np.full((16, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    features = np.tile(np.array([[5.0, -90.0, 1.0, 2.0, 3.0, 0.0]], dtype=np.float32), (16, 1))

    outputs, hidden = predictor.advance(features, hidden)

    assert PLUGIN.trainable
    assert isinstance(predictor, Trainable)
    assert outputs["load"].shape == (16, 3, 3)
    np.testing.assert_allclose(outputs["load"][:, :, 1], 5.0)
    assert (np.diff(outputs["load"], axis=2) > 0).all()

import numpy as np
import pytest

from netpredict import plugins
from netpredict.errors import ConfigError, PluginError
from netpredict.learn.registry import load_artefact
from netpredict.learn.train import LOSS_CURVE, train
from tests.learn.noisy import OPTIONS, noisy_sines


def test_two_trainings_give_the_same_version_and_an_artefact_that_serves(tmp_path):
    dataset = noisy_sines()
    first, report = train(dataset, "gru", OPTIONS, tmp_path / "one", now_us=1)
    second, _ = train(dataset, "gru", OPTIONS, tmp_path / "two", now_us=2)

    assert first.version == second.version
    assert report.scores["skill"] > 0
    assert first.manifest.identity.scores == report.scores
    assert first.manifest.identity.window_us == (1000 * 3_600_000_000, 1240 * 3_600_000_000)
    assert (tmp_path / "one" / LOSS_CURVE).read_bytes().startswith(b"\x89PNG")

    artefact = load_artefact(tmp_path / "one", first.version)
    plugin = plugins.load("predictors", artefact.manifest.identity.predictor)
    options = plugins.options_of(plugin, artefact.manifest.identity.options, "test")
    predictor = plugin.build(options, artefact.manifest.identity.features, artefact.manifest.identity.output)
    predictor.load_weights(artefact.weights)
    hidden = {name: np.full((16, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    outputs, _ = predictor.advance(np.ones((16, dataset.features.width), dtype=np.float32), hidden)
    assert np.isfinite(outputs["load"]).all()


def test_what_cannot_be_trained_is_refused_before_any_work(tmp_path):
    dataset = noisy_sines(2, 40)
    with pytest.raises(PluginError, match="nothing to train"):
        train(dataset, "naive", {}, tmp_path / "one", now_us=1)
    with pytest.raises(PluginError, match="0 plugins"):
        train(dataset, "nobody", {}, tmp_path / "one", now_us=1)
    for options in ({"units": 0}, {"unknown": 1}, {"activation": "eval"}, {"loss": "huber"}):
        with pytest.raises(ConfigError):
            train(dataset, "gru", options, tmp_path / "one", now_us=1)
    assert not (tmp_path / "one").exists()

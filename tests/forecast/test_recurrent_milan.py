"""Every structure and layer on real traffic: three weeks of 48 squares of Milan, hour by hour."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.calendar import calendar
from netpredict.forecast.recurrent import RecurrentPredictor
from netpredict.learn.registry import load_artefact
from netpredict.learn.train import train
from netpredict.traces import milan
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.forecast.networks import Options, walked

FIRST_SLOT, STEPS, VALIDATION_FROM, HORIZON = 384_719, 21 * 24, 14 * 24, 6  # 2013-11-21T23:00Z
FEATURES = FeatureSpec(("activity_count",), 3_600_000_000, 24, 86_400_000_000, time_zone="Europe/Rome")
SETTINGS = {"units": 12, "train_epochs": 5, "minibatch_size": 16, "bptt_steps": 24, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def weeks():
    folder = Path(os.environ.get("NETPREDICT_DATA") or Path(__file__).parents[3] / "shared/data") / "milan-hourly"
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not at {folder.parent}; set NETPREDICT_DATA")
    traces = [trace for trace in milan.read(folder) if not trace.noted]
    planes = [msgspec.json.decode(message.value)["activity_count"] for message in milan.frames(traces)][:STEPS]
    return np.array([[value for row in plane for value in row[36:60]] for plane in planes], np.float32).T[:, :, None]


def dataset_of(values, horizon=HORIZON):
    output = OutputSpec(FEATURES.observed, horizon, (0.1, 0.5, 0.9))
    return TrainingSet(FEATURES, output, values, np.full(len(values), FIRST_SLOT), VALIDATION_FROM)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("gru", {"structure": "many_to_many", "layers": 2, "reset_after": False, "l1": 1e-6, "activation": "softsign"}),
        ("lstm", {"structure": "many_to_one", "bptt_steps": 12, "train_epochs": 8}),
        ("simple_rnn", {"structure": "one_to_many", "learning_rate": 0.005, "layer_normalisation": True}),
        ("lstm", {"structure": "seq2seq"}),
        ("gru", {"structure": "autoregressive", "dropout": 0.05, "recurrent_dropout": 0.05}),
    ],
)
def test_every_structure_beats_the_last_value_on_a_week_it_was_not_trained_on(weeks, layer, options):
    dataset = dataset_of(weeks)
    predictor = RecurrentPredictor(layer, Options(**{**SETTINGS, **options}), FEATURES, dataset.output)
    report = predictor.fit(dataset)
    assert report.scores["skill"] > 0.3
    assert 0.6 < report.scores["covered_0.9"] - report.scores["covered_0.1"] < 0.95


def test_an_autoregressive_gru_comes_back_from_its_artefact_and_serves_the_same(weeks, tmp_path):
    mine = weeks[np.isfinite(weeks).all(axis=(1, 2))][:16]
    dataset, options = dataset_of(mine), {**SETTINGS, "structure": "autoregressive", "train_epochs": 1}
    train(dataset, "gru", options, tmp_path / "artefact", now_us=0)
    fitted, loaded = (RecurrentPredictor("gru", Options(**options), FEATURES, dataset.output) for _ in range(2))
    fitted.fit(dataset)
    loaded.load_weights(load_artefact(tmp_path / "artefact").weights)
    times = (FIRST_SLOT + np.arange(30)[:, None] + np.zeros(16, np.int64)) * FEATURES.period_us
    columns = calendar(times.ravel(), FEATURES).reshape(30, 16, -1)
    features = np.concatenate([mine[:, :30].swapaxes(0, 1), columns], axis=2)
    outputs, again = (walked(predictor, features)[0] for predictor in (fitted, loaded))
    np.testing.assert_array_equal(outputs, again)
    assert np.isfinite(outputs).all()
    assert (np.diff(outputs, axis=-1) >= 0).all()

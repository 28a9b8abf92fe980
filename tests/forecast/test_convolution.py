"""ConvLSTM: the step of the daemon against Keras' own layer, rows alone, neighbours, and training on real frames."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.forecast.convolution import ConvLstmOptions, ConvLstmPredictor, ConvLstmStack
from netpredict.learn.registry import load_artefact
from netpredict.learn.train import train
from netpredict.traces import milan
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet, place_columns

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

REPOSITORY = Path(__file__).parents[2]
ROWS, COLUMNS = 3, 7
PLACES = place_columns(["load"], ROWS, COLUMNS)
FEATURES = FeatureSpec((*PLACES, *place_columns(["ues"], ROWS, COLUMNS)), 3_600_000_000, 24, 86_400_000_000)
OUTPUT = OutputSpec(PLACES, 3, (0.1, 0.5, 0.9))


def predictor(features=FEATURES, output=OUTPUT, **options):
    """With weights that are not those of a fresh network, whose head answers the last value whatever comes."""
    made = ConvLstmPredictor(ConvLstmOptions(**{"units": 6, **options}), features, output)
    rng = np.random.default_rng(5)
    weights = {name: np.array(array) for name, array in made.weights().items()}
    weights["head.kernel"] = rng.normal(0, 0.3, weights["head.kernel"].shape).astype(np.float32)
    made.load_weights(weights)
    return made


def cold(made, n=1):
    return {name: np.full((n, *spec.shape), spec.fill, spec.dtype) for name, spec in made.state_spec().items()}


def steps(n, length, seed=1):
    rng = np.random.default_rng(seed)
    features = rng.uniform(1, 9, (length, n, FEATURES.width)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    features[:, :, len(FEATURES.observed) :] = 1.0
    return features


def medians(outputs):
    return np.nan_to_num(np.stack([outputs[place][0, :, 1] for place in PLACES]))


@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 5)])
def test_step_by_step_it_equals_the_keras_layers_over_the_whole_sequence(kernel_size):
    options = ConvLstmOptions(units=5, layers=2, kernel_size=kernel_size, activation="softsign")
    stack = ConvLstmStack(options, (ROWS, COLUMNS), planes=2, width=2 * ROWS * COLUMNS + 3)
    rng = np.random.default_rng(2)
    sequence = rng.normal(size=(6, 1, stack.width)).astype(np.float32)

    frames = tf.reshape(stack.enter(tf.reshape(sequence, (-1, stack.width))), (1, 6, ROWS, COLUMNS, 5))
    whole, states = frames, []
    for layer in stack.layers:
        twin = keras.layers.ConvLSTM2D(
            5, kernel_size, padding="same", activation="softsign", return_sequences=True, return_state=True
        )
        twin.build(whole.shape)
        twin.set_weights([weight.numpy() for weight in layer.parts[0].trainable_weights])
        whole, *last = twin(whole)
        states += last
    rows = [tf.zeros((1, *stack.shape))] * stack.rows
    along, _, after_chunk = stack.along(tf.constant(sequence), rows, training=False)
    outputs = []
    for step in sequence:
        output, rows = stack.step(tf.constant(step), rows)
        outputs.append(output[0])

    np.testing.assert_allclose(np.stack(outputs), whole[0], atol=1e-5)
    np.testing.assert_allclose(along, whole[0], atol=1e-5)
    for mine, chunk, theirs in zip(rows, after_chunk, states, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
        np.testing.assert_allclose(chunk, theirs, atol=1e-5)


def test_a_plane_of_the_frames_is_a_kpi_at_its_places_and_the_calendar_is_everywhere():
    stack = ConvLstmStack(ConvLstmOptions(), (2, 3), planes=2, width=14)
    frames = np.asarray(stack.enter(tf.range(14, dtype=tf.float32)[None]))
    np.testing.assert_array_equal(frames[0, :, :, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(frames[0, :, :, 1], [[6, 7, 8], [9, 10, 11]])
    assert (frames[0, :, :, 2] == 12).all()
    assert (frames[0, :, :, 3] == 13).all()


def test_a_grid_has_the_same_bits_alone_and_among_others():
    made, features = predictor(), steps(5, 4)
    hidden, alone = cold(made, 5), cold(made)
    for step in features:
        outputs, hidden = made.advance(step, hidden)
        one, alone = made.advance(step[3:4], alone)
        for place in PLACES:
            np.testing.assert_array_equal(outputs[place][3], one[place][0])
    for name in hidden:
        np.testing.assert_array_equal(hidden[name][3], alone[name][0])


def test_a_place_sees_its_neighbours_at_once_and_the_others_step_by_step():
    made, features = predictor(), steps(1, 4)
    other = features.copy()
    other[1, 0, PLACES.index("load[1,1]")] = 20.0
    here, there, farthest_column = cold(made), cold(made), []
    for mine, theirs in zip(features, other, strict=True):
        one, here = made.advance(mine, here)
        two, there = made.advance(theirs, there)
        changed = (medians(one) != medians(two)).any(axis=1).reshape(ROWS, COLUMNS)
        farthest_column.append(int(np.flatnonzero(changed.any(axis=0)).max(initial=-1)))
    assert farthest_column == [-1, 2, 3, 4]


def test_a_place_never_shown_is_nan_and_disturbs_nobody():
    made, features = predictor(), steps(1, 6)
    never = PLACES.index("load[0,2]")
    features[:, :, never] = np.nan
    hidden = cold(made)
    for step in features:
        outputs, hidden = made.advance(step, hidden)
    assert np.isnan(outputs["load[0,2]"]).all()
    rest = [outputs[place] for place in PLACES if place != "load[0,2]"]
    assert np.isfinite(rest).all()
    assert all(np.isfinite(array).all() for array in hidden.values())
    assert (np.diff(np.stack(rest), axis=-1) > 0).all()


def test_seeded_training_gives_the_same_weights_and_its_artefact_serves_them(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.uniform(1, 9, (2, 60, len(FEATURES.observed))).astype(np.float32)
    dataset = TrainingSet(FEATURES, OUTPUT, values, np.array([0, 7]), 48, ("north", "south"))
    options = {"units": 3, "train_epochs": 1, "bptt_steps": 8, "dropout": 0.2, "recurrent_dropout": 0.1}

    artefact, report = train(dataset, "conv_lstm", options, tmp_path / "one", now_us=1)
    again, _ = train(dataset, "conv_lstm", options, tmp_path / "two", now_us=2)

    loaded = load_artefact(tmp_path / "one", artefact.version)
    assert again.version == artefact.version
    assert {"skill", "skill.load", "mae.load"} <= set(report.scores)
    assert not any("[" in name for name in report.scores), "the places of a KPI count as one"
    made = ConvLstmPredictor(
        msgspec.convert(loaded.manifest.identity.options, ConvLstmOptions), FEATURES, loaded.manifest.identity.output
    )
    made.load_weights(loaded.weights)
    outputs, _ = made.advance(steps(1, 1)[0], cold(made))
    assert set(outputs) == set(PLACES)


@pytest.fixture(scope="module")
def frames():
    """Three weeks of the 2 x 24 places in the middle of Milan, hour by hour: float32 (T, places)."""
    folder = Path(os.environ.get("NETPREDICT_DATA") or REPOSITORY / "../shared/data") / "milan-hourly"
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not at {folder.parent}; set NETPREDICT_DATA")
    traces = [trace for trace in milan.read(folder) if not trace.noted]
    planes = [msgspec.json.decode(message.value)["activity_count"] for message in milan.frames(traces)][: 21 * 24]
    return np.array([[value for row in plane for value in row[36:60]] for plane in planes], np.float64)


def test_trained_on_two_weeks_of_milan_it_beats_the_last_value_on_the_third(frames):
    places = place_columns(["activity_count"], 2, 24)
    features = FeatureSpec(places, 3_600_000_000, 24, 86_400_000_000)
    output = OutputSpec(places, 6, (0.1, 0.5, 0.9))
    dataset = TrainingSet(features, output, frames[None].astype(np.float32), np.array([423_000]), 14 * 24)
    made = ConvLstmPredictor(ConvLstmOptions(units=8, train_epochs=5, learning_rate=0.01), features, output)

    report = made.fit(dataset)

    assert report.scores["skill"] > 0.3
    assert 0.6 < report.scores["covered_0.9"] - report.scores["covered_0.1"] < 0.95

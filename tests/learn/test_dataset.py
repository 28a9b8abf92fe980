from dataclasses import replace

import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.learn.dataset import align, build, mase_scales, newest, read_arrays, write_arrays
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet
from tests.learn.noisy import FEATURES, OUTPUT, noisy_sines


def built(**changes):
    given = {"series_names": ["a", "b"], "first_slot": [0, 5], "values": np.ones((2, 50, 1)), "columns": ["load"]}
    return build(FEATURES, OUTPUT, **{**given, **changes})


def test_the_last_share_of_the_steps_is_held_out():
    assert built(validation_ratio=0.2).validation_from == 40
    assert built(validation_ratio=0.0).validation_from == 50


def test_columns_are_picked_by_name():
    features = FeatureSpec(("users", "load"), 60_000_000)
    values = np.stack([np.full((1, 9), column) for column in (1.0, 2.0, 3.0)], axis=2)
    dataset = build(
        features, OUTPUT, series_names=["a"], first_slot=[0], values=values, columns=["load", "spare", "users"]
    )
    assert dataset.values[0, 0].tolist() == [3.0, 1.0]
    assert dataset.values.dtype == np.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"values": np.ones((2, 50))},
        {"values": np.ones((2, 50, 2))},
        {"columns": ["users"]},
        {"series_names": ["a"]},
        {"first_slot": [0]},
        {"validation_ratio": 1.0},
        {"validation_ratio": -0.1},
        {"values": np.ones((2, 3, 1))},
    ],
)
def test_a_history_that_does_not_fit_is_refused(changes):
    with pytest.raises(DataError):
        built(**changes)


def test_loose_rows_are_aligned_and_the_first_of_two_wins():
    series, slot = np.array([0, 1, 0, 0]), np.array([10, 12, 11, 10])
    first_slot, values = align(series, slot, np.array([[1.0], [2.0], [3.0], [9.0]]), 2)
    assert first_slot.tolist() == [10, 10]
    np.testing.assert_array_equal(values[:, :, 0], np.float32([[1, 3, np.nan], [np.nan, np.nan, 2]]))
    with pytest.raises(DataError):
        align(series[:0], slot[:0], np.zeros((0, 1)), 2)


def test_arrays_travel_through_a_file(tmp_path):
    dataset = noisy_sines(3, 40)
    write_arrays(tmp_path / "dataset.npz", dataset)
    back = read_arrays(tmp_path / "dataset.npz", FEATURES, OUTPUT, dataset.validation_from)
    np.testing.assert_array_equal(back.values, dataset.values)
    assert back.series_names == dataset.series_names
    assert back.first_slot.tolist() == dataset.first_slot.tolist()


def test_targets_and_weights_of_their_own_are_written_and_read_too(tmp_path):
    plain = built()
    own = replace(plain, truth=np.full((2, 50, 1), 7.0, np.float32), weights=np.array([[1.0], [2.0]], np.float32))
    write_arrays(tmp_path / "own.npz", own)
    back = read_arrays(tmp_path / "own.npz", FEATURES, OUTPUT, own.validation_from)
    np.testing.assert_array_equal(back.truth, own.truth)
    np.testing.assert_array_equal(back.weights, own.weights)
    write_arrays(tmp_path / "plain.npz", plain)
    assert read_arrays(tmp_path / "plain.npz", FEATURES, OUTPUT, plain.validation_from).truth is None


def test_a_file_that_is_no_data_set_is_refused(tmp_path):
    path = tmp_path / "dataset.npz"
    objects = np.array([{"a": 1}], dtype=object)
    for spoil in (
        lambda: path.write_bytes(b"junk"),
        lambda: path.write_bytes(b""),
        lambda: np.savez(path, values=objects, first_slot=objects, series_names=objects),
        lambda: np.savez(path, values=np.ones((2, 5, 1))),
        lambda: np.savez(path, values=np.ones((2, 5, 3)), first_slot=np.zeros(2), series_names=np.array(["a", "b"])),
    ):
        spoil()
        with pytest.raises(DataError):
            read_arrays(path, FEATURES, OUTPUT, 4)
    path.unlink()
    with pytest.raises(DataError):
        read_arrays(path, FEATURES, OUTPUT, 4)


def test_the_scale_of_mase_is_the_error_of_seasonal_naive_on_the_training_part():
    features = FeatureSpec(("load", "flat"), 3_600_000_000, 24, 4 * 3_600_000_000)
    output = OutputSpec(("load", "flat"), 2, (0.5,))
    load = np.array([1, 2, 3, 4, 2, 4, 6, np.nan, 100, 100, 100, 100], np.float32)
    values = np.stack([load, np.ones(12, np.float32)], axis=1)[None]
    dataset = TrainingSet(features, output, values, np.zeros(1, np.int64), 8)
    assert mase_scales(dataset) == {"mase_scale.load": pytest.approx(2.0)}


def test_series_of_a_group_share_the_grid_of_their_newest_slots():
    series, slot = np.array([0, 0, 1, 2, 2]), np.array([10, 14, 13, 90, 95])
    values = np.arange(5.0)[:, None]
    first_slot, grid = newest(series, slot, values, 3, 4, [0, 0, 1])
    assert first_slot.tolist() == [11, 11, 92]
    nan = np.nan
    np.testing.assert_array_equal(grid[..., 0], [[nan, nan, nan, 1], [nan, nan, 2, nan], [nan, nan, nan, 4]])

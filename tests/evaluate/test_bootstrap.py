from __future__ import annotations

import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.evaluate.bootstrap import change, estimate


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def test_equal_blocks_leave_no_doubt() -> None:
    found = change(np.full(12, 9.0), np.full(12, 10.0))
    assert (found.value, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert found.excludes_zero


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    found = estimate(np.stack([values, np.ones(400)], axis=1), mean)
    assert found.value == pytest.approx(values.mean())
    width = 2 * 1.96 * values.std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        ours, theirs = rng.gamma(4.0, 0.9, 60), rng.gamma(4.0, 1.0, 60)
        found = change(ours, theirs, draws=300)
        covered += found.low <= -0.1 <= found.high
    assert 180 <= covered <= 200


def test_many_series_of_the_same_days_are_no_surer_than_the_days() -> None:
    by_day = np.random.default_rng(7).normal(10.0, 2.0, 7)
    ours = np.repeat(by_day[None], 500, axis=0)
    theirs = np.full((500, 7), 10.0)
    both, as_if_apart = change(ours, theirs), change(ours.ravel(), theirs.ravel())
    assert both.high - both.low > 10 * (as_if_apart.high - as_if_apart.low)


def test_it_says_the_same_each_time() -> None:
    ours, theirs = np.arange(1.0, 20.0), np.arange(2.0, 21.0)
    assert change(ours, theirs) == change(ours, theirs)
    assert change(ours, theirs, seed=2) != change(ours, theirs)


def test_a_loss_of_nothing_has_no_relative_change() -> None:
    found = change(np.zeros(5), np.zeros(5))
    assert np.isnan([found.value, found.low, found.high]).all()
    assert not found.excludes_zero


@pytest.mark.parametrize("shape", [(0, 2), (4,), (3, 0, 2), (2, 2, 2, 2)])
def test_nothing_to_draw_from_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="blocks"):
        estimate(np.zeros(shape), mean)

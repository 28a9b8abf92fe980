import numpy as np
import pytest

from netpredict.evaluate.measure import mase_scale, mean_error, measure, skill

LEVELS = (0.1, 0.5, 0.9)


def reference(y, f, train, season, q, tau):
    """The formulas of the evaluation reference, as they stand there, of one series."""
    d = [abs(train[i] - train[i - season]) for i in range(season, len(train))]
    mae = sum(abs(a - b) for a, b in zip(y, f, strict=True)) / len(y)
    wape = sum(abs(a - b) for a, b in zip(y, f, strict=True)) / sum(map(abs, y))
    pinball = [max(tau * (a - b), (tau - 1) * (a - b)) for a, b in zip(y, q, strict=True)]
    return mae, mae / (sum(d) / len(d)), wape, sum(pinball) / len(pinball)


def test_the_measures_are_those_of_the_reference_for_one_series():
    rng = np.random.default_rng(0)
    y, train = rng.gamma(2.0, 5.0, 50), rng.gamma(2.0, 5.0, 200)
    quantiles = np.sort(rng.gamma(2.0, 5.0, (50, 1, 3)), axis=2)
    found = measure(y[:, None], LEVELS, quantiles, mase_scale(train[None], 24))
    by_level = [reference(y, quantiles[:, 0, 1], train, 24, quantiles[:, 0, i], LEVELS[i]) for i in range(3)]
    assert (found.mae, found.mase, found.wape) == pytest.approx(by_level[1][:3])
    assert found.pinball == pytest.approx(np.mean([row[3] for row in by_level]))
    inside = (quantiles[:, 0, 0] <= y) & (y <= quantiles[:, 0, 2])
    assert found.coverage == pytest.approx(inside.mean())
    assert found.n == 50


def test_mase_is_the_mean_over_series_and_leaves_out_one_that_never_moved():
    history = np.array([[0.0, 1.0] * 10, [0.0, 10.0] * 10, [5.0] * 20])
    scale = mase_scale(history, 1)
    np.testing.assert_array_equal(scale, [1.0, 10.0, np.nan])
    y = np.zeros((4, 3))
    quantiles = np.repeat(np.array([2.0, 5.0, 9.0])[None, :, None], 4, axis=0).repeat(3, axis=2)
    assert measure(y, LEVELS, quantiles, scale).mase == pytest.approx((2.0 + 0.5) / 2)


def test_a_missing_truth_is_left_out_of_everything():
    quantiles = np.tile(np.array([0.0, 1.0, 2.0]), (3, 1, 1))
    found = measure(np.array([[1.0], [np.nan], [3.0]]), LEVELS, quantiles, np.array([1.0]))
    assert (found.n, found.mae, found.coverage) == (2, 1.0, 0.5)
    nothing = measure(np.full((3, 1), np.nan), LEVELS, quantiles, np.array([1.0]))
    assert (nothing.n, nothing.mae, nothing.mase, nothing.wape, nothing.coverage) == (0, None, None, None, None)


def test_skill_is_the_share_of_the_baselines_error_that_is_saved():
    assert skill(3.0, 4.0) == 0.25
    assert skill(4.0, 0.0) is None
    assert skill(None, 4.0) is None
    assert mean_error(np.array([[1.0, np.nan]]), np.array([[3.0, 1.0]])) == 2.0

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from netpredict.forecast.calibrate import Cells, Rounding, middle_of, moved, widen
from netpredict.radio.quantities import kpi_of
from netpredict.types import MISSING_TICKS

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
MIDDLE = 2
ONES = np.ones((1, 1, len(LEVELS)), np.float32)


def after(share, n=1000, factor=ONES, levels=LEVELS):
    below = np.round(np.array(share) * n).astype(np.int64).reshape(1, 1, -1)
    return moved(factor, levels, middle_of(levels), below, np.array([[n]]))[0, 0]


def test_an_interval_that_holds_too_few_truths_widens_on_both_sides():
    factor = after([0.3, 0.4, 0.5, 0.6, 0.7])
    assert (factor[[0, 1, 3, 4]] > 1).all()
    assert factor[MIDDLE] == 1


def test_an_interval_that_holds_too_many_narrows():
    factor = after([0.0, 0.1, 0.5, 0.9, 1.0])
    assert (factor[[0, 1, 3, 4]] < 1).all()


def test_each_side_moves_alone():
    factor = after([0.3, 0.25, 0.5, 0.75, 0.9])
    assert factor[0] > 1
    assert factor[1:].tolist() == [1, 1, 1, 1]


def test_nominal_coverage_and_no_truth_change_nothing():
    assert after(LEVELS).tolist() == pytest.approx([1] * 5, abs=1e-6)
    assert (
        moved(ONES, LEVELS, MIDDLE, np.zeros((1, 1, 5), np.int64), np.zeros((1, 1), np.int64)).tolist() == ONES.tolist()
    )


def test_few_truths_move_less_than_many():
    assert 1 < after([0.3, 0.25, 0.5, 0.75, 0.9], 5)[0] < after([0.3, 0.25, 0.5, 0.75, 0.9], 500)[0]


def test_the_factor_is_bounded():
    wide = narrow = ONES
    for _ in range(100):
        wide = moved(wide, LEVELS, MIDDLE, np.array([[[1000, 1000, 500, 0, 0]]]), np.array([[1000]]))
        narrow = moved(narrow, LEVELS, MIDDLE, np.array([[[0, 0, 500, 1000, 1000]]]), np.array([[1000]]))
    assert wide.max() == pytest.approx(20.0, rel=1e-5)
    assert narrow.min() == pytest.approx(1 / 20, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("noise", ["normal", "laplace", "exponential"])
def test_stationary_noise_converges_to_nominal_coverage(sigma, noise):
    """Whatever width the predictor claims, after some buckets each quantile holds what it says, within 2 %."""
    rng = np.random.default_rng(0)
    draw = {"normal": rng.normal, "laplace": rng.laplace, "exponential": lambda size: rng.exponential(size=size) - 0.7}
    claimed = np.array([-1.28, -0.67, 0.0, 0.67, 1.28], np.float32) * np.float32(sigma)
    factor, covered = ONES, []
    for bucket in range(120):
        quantiles = widen(claimed.reshape(1, 1, 1, 5), factor[None], MIDDLE)[0, 0, 0]
        truth = draw[noise](size=400)
        below = (truth[:, None] <= quantiles).sum(axis=0)
        if bucket >= 40:
            covered.append(below / 400)
        factor = moved(factor, LEVELS, MIDDLE, below.reshape(1, 1, 5), np.array([[400]]))
    mean = np.mean(covered, axis=0)
    sides = [0, 1, 3, 4] if noise != "exponential" else [0, 3, 4]  # the quarter of this one lies beyond the middle
    np.testing.assert_allclose(mean[sides], np.array(LEVELS)[sides], atol=0.02)


def test_levels_that_have_crossed_find_back():
    """A hook adds its level beside those of the config; a burst of misses may throw the inner one beyond the outer."""
    rng, levels = np.random.default_rng(0), (0.1, 0.5, 0.8, 0.9, 10 / 11)
    claimed = np.array([48.7, 50.0, 50.7, 51.2, 51.4], np.float32).reshape(1, 1, 1, 5)
    factor, covered = np.array([[[1.0, 1.0, 5.5, 1.5, 0.1]]], np.float32), []
    for _ in range(240):
        quantiles = widen(claimed, factor[None], 1)[0, 0, 0]
        below = (rng.normal(50.0, 0.6, 60)[:, None] <= np.sort(quantiles)).sum(axis=0)
        covered.append(below / 60)
        factor = moved(factor, levels, 1, below.reshape(1, 1, 5), np.array([[60]]))
    np.testing.assert_allclose(np.mean(covered[120:], axis=0), levels, atol=0.03)


def test_a_quantile_inside_the_one_before_it_takes_its_place():
    values = np.array([[[[-2, -1, 0, 1, 2]]], [[[-2, -1, 0, 1, 2]]]], np.float32)
    factor = np.array([0.1, 1, 1, 3, 1], np.float32)
    assert widen(values, factor, MIDDLE)[1, 0, 0].tolist() == [-1, -1, 0, 3, 3]


def test_widen_leaves_the_middle_alone_and_its_input_too():
    values = np.array([[[[1, 2, 3, 4, 5]]]], np.float32)
    factor = np.full((1, 1, 1, 5), 2, np.float32)
    assert widen(values, factor, MIDDLE)[0, 0, 0].tolist() == [-1, 1, 3, 5, 7]
    assert values[0, 0, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("levels", "middle"), [((0.5,), 0), ((0.1, 0.5, 0.9), 1), ((0.1, 0.4, 0.8), 1)])
def test_the_middle(levels, middle):
    assert middle_of(levels) == middle


ROUNDING = Rounding((1, 2), (0, -156), (100, -31))


@given(arrays(np.float32, (3, 2, 4, 5), elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_ticks_rise_with_the_level_and_stay_inside_the_range(values):
    ticks = ROUNDING.forecast(values)
    assert (np.diff(ticks, axis=-1) >= 0).all()
    assert ((ticks[:, 0] >= 0) & (ticks[:, 0] <= 1000)).all()
    assert ((ticks[:, 1] >= -15600) & (ticks[:, 1] <= -3100)).all()


@given(arrays(np.float32, (3, 2, 4, 5), elements=st.floats(-200, 200, width=32)))
def test_rounding_twice_is_rounding_once(values):
    ticks = ROUNDING.forecast(values)
    np.testing.assert_array_equal(ROUNDING.forecast(ROUNDING.values(ticks)), ticks)


def test_crossing_quantiles_are_sorted_not_flattened():
    values = np.array([[[[40.0, 30.0, 35.0]], [[-90, -80, -70]]]], np.float32)
    assert ROUNDING.forecast(values)[0, 0, 0].tolist() == [300, 350, 400]


def test_what_is_missing_stays_missing():
    values = np.full((2, 2, 1, 3), 50.0, np.float32)
    values[1, 0] = np.nan
    ticks = ROUNDING.forecast(values)
    assert (ticks[1, 0] == MISSING_TICKS).all()
    back = ROUNDING.values(ticks)
    assert np.isnan(back[1, 0]).all()
    assert np.isfinite(back[0]).all()


def test_observed_ticks():
    seen = ROUNDING.observed(np.array([[33.34, np.nan], [33.36, -90.125], [1e30, -1e30]], np.float32))
    assert seen.tolist() == [[333, MISSING_TICKS], [334, -9012], [2**31 - 1, -(2**31) + 1]]


CQI_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def cqi_forecasts(n, rng):
    """Distributions over the CQI as sharp and as wide as real ones, their quantiles in ticks, and truths drawn."""
    place, width = rng.uniform(4, 12, n), rng.choice([0.3, 1.0, 2.5], n)
    chance = np.exp(-np.abs(np.arange(16) - place[:, None]) / width[:, None])
    below = np.concatenate([np.zeros((n, 1)), np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1)], axis=1)
    quantiles = np.stack([np.interp(CQI_LEVELS, one, np.arange(17) - 0.5) for one in below])
    truth = (rng.random(n)[:, None] > below[:, 1:]).sum(axis=1)
    return np.rint(np.clip(quantiles, 0, 15) * 100).astype(np.int32), (100 * truth).astype(np.int32)


def test_truths_of_an_integer_kpi_lie_under_each_level_of_a_right_forecast_as_often_as_it_says():
    ticks, truth = cqi_forecasts(40_000, np.random.default_rng(5))
    placed = Cells([kpi_of("cqi")]).truth(truth[:, None], np.arange(-20_000, 20_000) * 10)
    np.testing.assert_allclose((placed <= ticks).mean(axis=0), CQI_LEVELS, atol=0.01)
    assert np.abs((truth[:, None] < ticks).mean(axis=0) - CQI_LEVELS).max() > 0.05  # why it has to be spread


def test_a_truth_is_spread_within_its_class_evenly_at_every_stride_and_never_beyond_the_range():
    cells = Cells([kpi_of("cqi"), kpi_of("rsrp_dbm")])
    for stride in (1, 7, 10, 64, 100, 3600):
        slot = np.arange(-1000, 1000) * stride
        ticks = np.tile(np.array([[900, -900]], np.int32), (2000, 1))
        placed = cells.truth(ticks, slot)
        counts = np.bincount(placed[:, 0] - 850, minlength=100)
        assert len(counts) == 100
        assert counts.min() >= 12, stride  # 20 on average
        assert (placed[:, 1] == -900).all()
    ends = cells.truth(np.array([[1500, -900], [0, MISSING_TICKS], [MISSING_TICKS, 0]] * 50, np.int32), np.arange(150))
    known = ends[:, 0] != MISSING_TICKS
    assert ends[known, 0].min() == 0
    assert ends[known, 0].max() == 1500
    assert (ends[2::3, 0] == MISSING_TICKS).all()
    assert (ends[1::3, 1] == MISSING_TICKS).all()

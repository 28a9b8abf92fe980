import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.radio.classes import class_probabilities, classes_of, probability_at_least

CQI = classes_of("cqi")
FINE = (0.01, 0.02, *np.round(np.arange(0.05, 0.96, 0.05), 2), 0.98, 0.99)


def quantiles_of(chance, levels, low=0):
    """The quantiles of the distribution function that rises linearly through each class, by inverting its knots."""
    knots = np.concatenate([[0.0], np.cumsum(chance)])
    return np.array([np.interp(level, knots, low - 0.5 + np.arange(len(knots))) for level in levels])


def random_chances(seed, classes=16):
    """From nearly certain to nearly even."""
    rng = np.random.default_rng(seed)
    chance = np.exp(rng.uniform(0, 6) * rng.normal(size=classes))
    return chance / chance.sum()


@pytest.mark.parametrize(("kpi", "low", "high"), [("cqi", 0, 15), ("mcs", 0, 31), ("rank", 1, 8)])
def test_an_integer_index_has_the_classes_of_its_range(kpi, low, high):
    assert classes_of(kpi) == tuple(range(low, high + 1))


@pytest.mark.parametrize("kpi", ["rsrp_dbm", "dl_throughput_kbps", "serving", "no_such_kpi"])
def test_any_other_kpi_has_none_and_the_error_names_those_that_have(kpi):
    with pytest.raises(ConfigError, match=f"{kpi}.*cqi, rank, mcs"):
        classes_of(kpi)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 99), min_size=1, max_size=25, unique=True))
def test_what_is_read_back_is_off_by_no_more_than_the_distance_of_the_levels(seed, percents):
    levels = tuple(percent / 100 for percent in sorted(percents))
    chance = random_chances(seed)
    stored = np.round(np.clip(quantiles_of(chance, levels), CQI[0], CQI[-1]), 2)

    read = probability_at_least(stored, levels, CQI)

    true = 1.0 - np.concatenate([[0.0], np.cumsum(chance)[:-1]])
    around = np.array([0.0, *levels, 1.0])
    below = 1.0 - true
    last = np.clip(np.searchsorted(around, below, side="right"), 1, len(around) - 1)
    slack = 0.005 + 1e-9  # half a hundredth of a class, the rounding of what is stored
    nearest = np.abs(below[:, None] - around[1:-1]).min(axis=1) <= slack  # rounding may move it across this level
    gap = np.where(nearest, 2 * np.diff(around).max(), around[last] - around[last - 1])
    assert (np.abs(read - true) <= gap + slack).all()
    assert read[0] == 1.0
    assert (np.diff(read) <= 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_fine_levels_give_the_class_probabilities_within_twice_their_distance(seed):
    chance = random_chances(seed)
    read = class_probabilities(np.round(np.clip(quantiles_of(chance, FINE), 0, 15), 2), FINE, CQI)
    assert read.sum() == pytest.approx(1.0)
    assert (read >= -1e-12).all()
    assert np.abs(read - chance).max() <= 2 * (0.05 + 0.005) + 1e-9


def test_a_certain_class_is_read_back_as_certain_up_to_the_outer_levels():
    stored = quantiles_of(np.eye(16)[9], (0.1, 0.5, 0.9))
    at_least = probability_at_least(stored, (0.1, 0.5, 0.9), CQI)
    assert at_least[9] >= 0.9
    assert at_least[10] <= 0.1


def test_many_forecasts_are_read_at_once_and_a_missing_one_stays_missing():
    stored = np.stack([quantiles_of(random_chances(seed), FINE) for seed in range(6)]).reshape(2, 3, -1)
    stored[1, 2] = np.nan
    read = probability_at_least(stored, FINE, CQI)
    assert read.shape == (2, 3, 16)
    assert np.isnan(read[1, 2]).all()
    assert np.isfinite(read[:1]).all()
    np.testing.assert_array_equal(read[0, 1], probability_at_least(stored[0, 1], FINE, CQI))


def test_classes_may_begin_above_zero():
    chance = np.array([0.1, 0.2, 0.3, 0.4])
    read = class_probabilities(quantiles_of(chance, (0.1, 0.3, 0.6), low=1), (0.1, 0.3, 0.6), (1, 2, 3, 4))
    np.testing.assert_allclose(read, chance, atol=1e-9)

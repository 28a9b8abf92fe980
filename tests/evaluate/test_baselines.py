import numpy as np
import pytest

from netpredict.evaluate.baselines import answers, at_lead, ewma, filled, rolling_median


def test_the_last_value_stands_for_a_missing_one_and_nothing_before_the_first():
    found = filled(np.array([[np.nan, 2.0, np.nan, 5.0, np.nan]]))
    np.testing.assert_array_equal(found, [[np.nan, 2.0, 2.0, 5.0, 5.0]])


def test_ewma_and_rolling_median_are_what_pandas_says():
    pandas = pytest.importorskip("pandas")
    values = np.random.default_rng(0).normal(size=(3, 60))
    for row, means, medians in zip(values, ewma(0.3)(values), rolling_median(5)(values), strict=True):
        series = pandas.Series(row)
        np.testing.assert_allclose(means, series.ewm(alpha=0.3, adjust=False).mean(), rtol=1e-5)
        np.testing.assert_allclose(medians[4:], series.rolling(5).median()[4:], rtol=1e-5)


def test_a_baseline_of_a_season_takes_the_last_value_known_at_the_targets_hour():
    values = np.arange(200.0)[None]
    plain = answers(values, values, {"daily": 24}, (1, 24, 25))
    for lead, back in ((1, 24), (24, 24), (25, 48)):
        answer = plain["daily"](lead)
        assert answer[0, 100] == 100 + lead - back


def test_on_a_ramp_naive_errs_by_exactly_the_lead():
    values = np.arange(30.0)[None]
    plain = answers(values, values, {}, (1, 5))
    for lead in (1, 5):
        error = at_lead(values, lead) - plain["naive"](lead)
        assert np.nanmin(error) == np.nanmax(error) == lead


def test_tuning_looks_at_the_training_part_only():
    rng = np.random.default_rng(0)
    training, noise = np.cumsum(rng.normal(size=(1, 400)), axis=1), rng.normal(size=(1, 400))
    plain = answers(training, noise, {}, (1,))
    np.testing.assert_allclose(plain["ewma"](1), ewma(0.7)(noise))
    np.testing.assert_allclose(plain["rolling_median"](1), rolling_median(3)(noise))


def test_no_baseline_sees_what_comes_after_the_issue():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 90))
    other = values.copy()
    other[:, 60:] = 1e3
    for lead in (1, 30):
        for name in ("naive", "daily", "ewma", "rolling_median"):
            first, second = (answers(values, v, {"daily": 24}, (lead,))[name](lead) for v in (values, other))
            np.testing.assert_array_equal(first[:, :60], second[:, :60], err_msg=name)

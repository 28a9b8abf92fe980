import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.evaluate.datasets import Period, Task, in_segments, on_grid
from netpredict.evaluate.forecasting import calibrated, forecasts, trained
from netpredict.evaluate.lead_times import Judge
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet

LEVELS = (0.1, 0.5, 0.9)


def task_of(values, first, horizon=3, places=(), kpi="activity_count"):
    features, output = FeatureSpec((kpi,), 3_600_000_000), OutputSpec((kpi,), horizon, LEVELS)
    values = np.asarray(values, np.float32)[:, :, None]
    slots = np.zeros(len(values), np.int64)
    training = TrainingSet(features, output, values[:, :first], slots, first)
    period = Period("rest", training, training.values, values, slots, first - 1, values.shape[1], first - 1)
    names = tuple(str(row) for row in range(len(values)))
    task = Task("test", (period,), features, output, names, {"daily": 24}, 24, 24, (1,), {}, places)
    return task, period


def rows_of(name, task, period):
    predictor, _ = trained(name, task, period, {}, None)
    return list(Judge(task, period).rows(forecasts(predictor, task, period)))


def test_on_a_ramp_naive_errs_by_exactly_the_lead_and_has_no_skill_against_itself():
    task, period = task_of(np.arange(100.0)[None], 60)
    rows = rows_of("naive", task, period)
    assert [row["mae"] for row in rows] == [1.0, 2.0, 3.0, 2.0]
    assert [row["n"] for row in rows] == [40, 39, 38, 117]
    assert rows[0]["skill"]["naive"] == 0.0
    assert rows[0]["mase"] == pytest.approx(1 / 24)
    assert rows[0]["baseline_mae"]["daily"] == 24.0


def test_what_comes_after_an_issue_changes_nothing_of_it():
    values = np.random.default_rng(0).normal(10.0, 2.0, (5, 150))
    other = values.copy()
    other[:, 120:] = 1e3
    for name in ("naive", "ewma", "drift"):
        answers = []
        for each in (values, other):
            task, period = task_of(each, 72)
            answers.append(forecasts(trained(name, task, period, {}, None)[0], task, period))
        np.testing.assert_array_equal(answers[0][: 120 - 71], answers[1][: 120 - 71])


def test_calibration_brings_the_interval_to_its_share():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 600))
    task, period = task_of(values, 1, horizon=1, kpi="sinr_db")
    raw = np.tile(np.array([-0.3, 0.0, 4.0], np.float32), (599, 40, 1, 1, 1))
    found = calibrated(raw, period.values, task, 0)[300:, :, 0, 0]
    truth = values[:, 301:].T
    assert (truth <= found[..., 0]).mean() == pytest.approx(0.1, abs=0.015)
    assert (truth <= found[..., 2]).mean() == pytest.approx(0.9, abs=0.015)


def test_long_series_become_segments_with_their_own_times():
    features, output = FeatureSpec(("activity_count",), 60_000_000), OutputSpec(("activity_count",), 1, LEVELS)
    values = np.arange(20.0, dtype=np.float32).reshape(2, 10, 1)
    values[1, 4:] = np.nan
    cut = in_segments(TrainingSet(features, output, values, np.array([100, 200]), 10, ("a", "b")), 4)
    np.testing.assert_array_equal(cut.values[:, :, 0], [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13]])
    assert cut.first_slot.tolist() == [100, 104, 200]
    assert cut.series_names == ("a", "a", "b")
    assert cut.validation_from == 4


def test_series_with_places_become_one_grid_and_others_do_not():
    task, period = task_of(np.arange(30.0).reshape(3, 10), 6, places=((0, 0), (1, 1), (0, 1)))
    whole, frames = on_grid(task, period)
    assert whole.features.grid == (2, 2)
    np.testing.assert_array_equal(frames.values[0, 0], [0.0, 20.0, np.nan, 10.0])
    assert frames.training.values.shape == (1, 6, 4)
    with pytest.raises(DataError, match="no grid"):
        on_grid(*task_of(np.ones((1, 9)), 5))


def test_calibration_leaves_a_right_forecast_of_an_integer_kpi_alone():
    rng, n = np.random.default_rng(0), 40
    chance = np.array([0.04, 0.06, 0.8, 0.06, 0.04])
    truth = rng.choice(np.arange(7, 12), p=chance, size=(n, 900))
    task, period = task_of(truth, 1, horizon=1, kpi="cqi")
    right = np.interp(LEVELS, np.concatenate([[0.0], np.cumsum(chance)]), np.arange(7, 13) - 0.5).astype(np.float32)
    found = calibrated(np.tile(right, (899, n, 1, 1, 1)), period.values, task, 0)
    np.testing.assert_allclose(found[-1, 0, 0, 0], right, atol=0.03)

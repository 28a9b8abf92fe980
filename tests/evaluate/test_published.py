import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.evaluate import published
from netpredict.types import StateArray

GROUPS = ("static_strm", "driving_strm", "static_down", "driving_down")


class LastValue:
    """Forecasts the last value that it saw, and NaN before the first; ``away`` is added to it."""

    api_version, padded = 1, True

    def __init__(self, away=0.0):
        self.away, self.rows = away, set()

    def state_spec(self):
        return {"last": StateArray((3,), fill=np.nan)}

    def output_spec(self):
        return published.OUTPUT

    def advance(self, features, hidden):
        self.rows.add(len(features))
        last = np.where(np.isnan(features[:, :3]), hidden["last"], features[:, :3]).astype(np.float32)
        answer = np.repeat(np.repeat(last[:, :, None], 10, axis=2)[..., None], 3, axis=3) + self.away
        return {kpi: answer[:, index] for index, kpi in enumerate(published.KPIS)}, {"last": last}


def walk(steps, seed, missing=0.1):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.integers(-1, 2, size=(steps, 3)), axis=0).astype(np.float32)
    values[rng.random(steps) < missing] = np.nan
    values[0] = 0.0
    return values


def recordings(per_group=5, steps=200):
    return [
        published.Recording(f"{group}-{number}", group, walk(steps + 10 * number, 7 * number + index))
        for index, group in enumerate(GROUPS)
        for number in range(per_group)
    ]


def test_of_two_rows_of_one_second_the_first_stays_and_a_second_without_row_is_missing():
    made = published.recording("a", "static_strm", np.array([7, 8, 8, 10]), np.arange(12.0).reshape(4, 3))

    np.testing.assert_array_equal(made.values[:, 0], [0.0, 3.0, np.nan, 9.0])


def test_windows_of_50_and_10_seconds_begin_every_60():
    assert published.issue_steps(59).tolist() == []
    assert published.issue_steps(60).tolist() == [49]
    assert published.issue_steps(180).tolist() == [49, 109, 169]


def test_the_truth_is_filled_linearly_but_the_naive_forecast_knows_nothing_from_behind_a_gap():
    values = np.array([[1.0], [np.nan], [np.nan], [4.0]])

    np.testing.assert_array_equal(published.filled(values)[:, 0], [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(published.last_values(values)[:, 0], [1.0, 1.0, 1.0, 4.0])


def test_every_trace_is_in_one_fold_and_every_fold_has_its_share_of_each_group():
    made = recordings(per_group=7)

    fold = published.folds_of(made)

    assert fold.tolist() == published.folds_of(made).tolist()
    for group in GROUPS:
        shares = np.bincount(fold[[each.group == group for each in made]], minlength=5)
        assert shares.max() - shares.min() <= 1


def test_the_last_value_has_no_skill_in_any_row_whatever_its_state():
    result = published.run(recordings(), lambda dataset, fold: LastValue())

    assert result.traces == 20
    assert [(row.kpi, row.group) for row in result.table.rows] == [(k, g) for k in published.KPIS for g in GROUPS]
    for table in (result.table, result.reset):
        assert [row.skill for row in table.rows] == pytest.approx([0.0] * 12, abs=1e-6)
        assert table.skill_by_lead == pytest.approx([0.0] * 10, abs=1e-6)
        assert all(row.mae == pytest.approx(row.naive_mae) for row in table.rows)


def test_a_worse_forecast_has_negative_skill_and_its_error_is_in_natural_units():
    result = published.run(recordings(), lambda dataset, fold: LastValue(away=100.0))

    assert result.table.mean_skill < 0
    assert all(90 < row.mae < 110 and row.rmse >= row.mae for row in result.table.rows)


def test_a_trace_is_never_in_the_training_set_of_its_own_fold():
    made = recordings()
    fold, seen = published.folds_of(made), {}

    def fit(dataset, number):
        seen[number] = {name.rpartition("@")[0] for name in dataset.series_names}
        return LastValue()

    published.run(made, fit)

    for number in range(5):
        assert seen[number] == {each.name for each, mine in zip(made, fold, strict=True) if mine != number}


def test_the_training_set_holds_every_measured_value_once_and_targets_without_gaps():
    made = recordings(steps=700)

    dataset = published.training_set(made)

    kept = sum(int((~np.isnan(each.values)).sum()) for each in made)
    assert int((~np.isnan(dataset.values)).sum()) == kept
    lengths = sum(each.values.size for each in made)
    assert int((~np.isnan(dataset.truth)).sum()) == lengths
    assert dataset.validation_from == dataset.values.shape[1]


def test_a_short_group_weighs_more_and_the_mean_over_all_steps_is_one():
    made = [*recordings(per_group=2, steps=960), published.Recording("more", "driving_strm", walk(9600, 99))]

    dataset = published.training_set(made)

    by_group = {
        group: dataset.weights[[name.startswith(group) for name in dataset.series_names]].mean() for group in GROUPS
    }
    assert by_group["driving_strm"] < min(by_group[group] for group in GROUPS if group != "driving_strm")
    steps = [(~np.isnan(truth[:, 0])).sum() for truth in dataset.truth]
    assert np.average(dataset.weights.mean(axis=1), weights=steps) == pytest.approx(1.0, rel=1e-4)


def test_with_the_state_set_back_a_predictor_sees_50_samples_only():
    values = np.zeros((200, 3), np.float32)
    values[60:] = np.nan  # nothing more is measured: from the second issue on the state has not seen a value
    at = published.issue_steps(200)

    (cold,) = published.issued_cold(LastValue(), [values], [at])
    (warm,) = published.issued(LastValue(), [values], [at])

    assert np.isfinite(warm).all()
    assert np.isfinite(cold[0]).all()
    assert np.isnan(cold[1:]).all()


def test_a_predictor_is_called_with_rows_padded_as_live():
    predictor = LastValue()

    published.issued(predictor, [walk(60, seed) for seed in range(17)], [np.array([49])] * 17)

    assert predictor.rows == {32}


def test_folds_without_a_trace_are_told():
    with pytest.raises(DataError, match="take more"):
        published.run(recordings(per_group=1)[:1], lambda dataset, fold: LastValue())

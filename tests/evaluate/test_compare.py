"""The comparison scores what was forecast, on the same forecasts for all, and the held-out part stays held out."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from netpredict.errors import ConfigError, PluginError
from netpredict.evaluate.cases import SineConfig, sine_case
from netpredict.evaluate.compare import Asked, Comparison, compare
from netpredict.evaluate.rolling import issue_steps, roll
from netpredict.plugins import load
from tests.evaluate.ramp import case_of, silent

RAMP = case_of([np.arange(200.0), 5 + np.arange(200.0)])


def naive(case):
    plugin = load("predictors", "naive")
    return plugin.build(plugin.options(), case.training.features, case.training.output)


def test_on_a_ramp_the_last_value_errs_by_exactly_the_lead():
    (entry,) = compare(RAMP, ["naive"], Asked(), silent).entries
    assert [score.mae for score in entry.by_lead] == [1.0, 2.0, 3.0]
    assert [score.naive_mae for score in entry.by_lead] == [1.0, 2.0, 3.0]
    assert entry.overall.skill == 0.0
    # two series; 39 forecasts are issued in the scored part and the last two lack a truth one or two steps ahead
    assert [score.n for score in entry.by_lead] == [2 * 39, 2 * 38, 2 * 37]


def test_a_roll_out_begins_at_the_last_value_and_leaves_the_forecasts_alone():
    (example, *_) = compare(RAMP, ["naive"], Asked(), silent).examples
    seen = example.truth[-example.truth_from]
    assert set(example.rollout["naive"]) == {seen}
    assert example.truth[-example.truth_from + 1] == seen + 1
    assert example.ahead["naive"][0][1] == seen

    whole, issues = RAMP.whole, [(0, 165), (1, 180)]
    with_issues, without = roll(naive(RAMP), whole, issues, 8), roll(naive(RAMP), whole, [], 8)
    np.testing.assert_array_equal(with_issues.answers, without.answers)


def test_a_missing_truth_is_not_scored_and_missing_values_are_null_in_the_json():
    values = np.tile(np.arange(200.0), (2, 1))
    values[1, 150:] = np.nan
    values[0, 190] = np.nan
    comparison = compare(case_of(values), ["naive"], Asked(), silent)
    assert comparison.entries[0].overall.n < 120
    text = msgspec.json.encode(comparison)
    assert b"NaN" not in text
    assert msgspec.json.decode(text)["entries"][0]["overall"]["n"] == comparison.entries[0].overall.n


def test_examples_lie_in_the_scored_part_where_the_truth_is_known():
    values = np.random.default_rng(1).normal(size=(4, 300))
    values[0, 240:] = np.nan
    values[:, 250:260] = np.nan
    for row, step in issue_steps(values, 240, 20, 3):
        assert 240 <= step <= 279
        assert np.isfinite(values[row, step])


def test_seasonal_naive_wins_clearly_where_only_the_season_moves():
    steps = np.arange(600)
    noise = np.random.default_rng(1).normal(size=600)
    case = case_of([np.sin(2 * np.pi * steps / 24) * 10 + noise])
    features = replace(case.training.features, season_buckets=24, season_us=24_000_000)
    case = replace(case, training=replace(case.training, features=features))
    comparison = compare(case, ["naive", "seasonal_naive"], Asked(), silent)
    assert [entry.predictor for entry in comparison.entries] == ["seasonal_naive", "naive"]
    assert comparison.verdict.best == "seasonal_naive"
    assert comparison.verdict.is_clear
    assert comparison.entries[0].overall.skill > 0.3


@pytest.mark.parametrize(
    ("predictors", "error", "message"),
    [
        ([], ConfigError, "name some predictors"),
        (["naive", "naive"], ConfigError, "each once"),
        (["nothing"], PluginError, "installed: .*naive"),
        (["seasonal_naive"], ConfigError, "season"),
    ],
)
def test_what_cannot_be_compared_is_told_before_any_training(predictors, error, message):
    with pytest.raises(error, match=message):
        compare(RAMP, predictors, Asked(), silent)


@pytest.mark.slow
def test_a_network_learns_the_sine_and_never_sees_what_it_is_scored_on():
    told: list[tuple] = []
    case = sine_case(SineConfig(series=4, steps=400), horizon_steps=8)
    asked = Asked(units=8, train_epochs=3)
    comparison = compare(case, ["simple_rnn", "naive"], asked, lambda *words: told.append(words))

    entry = next(entry for entry in comparison.entries if entry.predictor == "simple_rnn")
    assert comparison.entries[0] is entry
    assert [words[:3] for words in told] == [("simple_rnn", done, 3) for done in (1, 2, 3)]
    assert [words[3] for words in told] == entry.loss
    assert [words[4] for words in told] == entry.validation_loss
    assert len(entry.train_epoch_s) == 3
    assert 0 < entry.usual_train_epoch_s <= entry.training_s
    assert (entry.options["units"], entry.options["train_epochs"], entry.options["seed"]) == (8, 3, 1)
    assert entry.overall.mae > comparison.least_mae

    shaken = case.values.copy()
    shaken[:, case.scored_from :] = 100.0
    again = compare(replace(case, values=shaken), ["simple_rnn"], asked, silent).entries[0]
    assert (again.loss, again.validation_loss) == (entry.loss, entry.validation_loss)
    assert isinstance(comparison, Comparison)

"""The evaluator on hand-made series: what it trains on, how it costs, and that the opponent is the tuned one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netpredict.evaluate.bandwidth import judge, laid_out, with_levels
from netpredict.evaluate.bandwidth_report import write_report
from netpredict.evaluate.bandwidth_result import Evaluation, PeriodResult, by_day
from netpredict.evaluate.bandwidth_setups import COSTS, LEVELS, SETUPS, Setup
from netpredict.evaluate.datasets import Period, Task
from netpredict.evaluate.provision import Bases, Family
from netpredict.evaluate.reserved import reserved
from netpredict.types import FeatureSpec, OutputSpec, TrainingSet

DAY = 24
CUT, STOP = 10 * DAY, 14 * DAY
PLAIN = Family(windows=(2, 3), shares=(0.5, 1.0), alphas=(0.3,), seasons={"same hour yesterday": (DAY, 1)})
USUAL = ("last value", "same hour yesterday")
SETUP = Setup({"1 h": 1, "6 h": 6}, DAY, PLAIN, USUAL, "naive", {}, bucket_steps=DAY, percent=1.0, shown_steps=24)


def series() -> np.ndarray:
    """Three radio cells with a daily turn and noise, (3, STOP)."""
    rng = np.random.default_rng(8)
    turn = 20 + 8 * np.sin(2 * np.pi * np.arange(STOP) / DAY)
    return (turn + rng.normal(0, 3, (3, STOP)) + np.array([[0], [4], [9]])).astype(np.float32)


def task_of(values: np.ndarray) -> Task:
    features = FeatureSpec(("activity_count",), 3_600_000_000)
    output = OutputSpec(features.observed, 6, (0.1, 0.5, 0.9))
    first_slot = np.full(len(values), 1_000, np.int64)
    names = ("a", "b", "c")
    training = TrainingSet(features, output, values[:, :CUT, None], first_slot, CUT, names)
    period = Period("later days", training, training.values, values[:, :, None], first_slot, CUT - 1, STOP, CUT - 48)
    return Task("hand-made", (period,), features, output, names, {}, DAY, DAY, (1,), {})


def quantiles_of(values: np.ndarray, off: float = 0.0) -> np.ndarray:
    """(issues, S, leads, levels): the truth itself, less or more."""
    issues = np.arange(CUT - 1, STOP - 1)
    ahead = np.full((len(issues), len(values), 6, len(LEVELS)), np.nan, np.float32)
    for lead in range(1, 7):
        known = issues[issues + lead < STOP]
        ahead[: len(known), :, lead - 1] = values[:, known + lead].T[:, :, None] + off
    return ahead


def judged(values: np.ndarray, quantiles: np.ndarray):
    task = with_levels(task_of(values), 6)
    return judge(task, SETUP, "later days", laid_out(task.periods[0], quantiles))


def test_who_knows_what_comes_pays_nothing() -> None:
    values = series()
    results, overall, _ = judged(values, quantiles_of(values))
    assert [result.sooner.cost for result in results] == [0.0] * 6
    assert all(result.sooner.change.value == result.sooner.change.high == -1.0 for result in results)
    assert [each.sooner.value for each in overall] == [-1.0, -1.0]


@pytest.mark.parametrize(("off", "paid"), [(2.0, (2.0, 2.0, 2.0)), (-2.0, (2.0, 8.0, 20.0))])
def test_a_unit_too_few_costs_c_under_and_a_unit_too_many_one(off: float, paid: tuple[float, ...]) -> None:
    values = series()
    results, _, _ = judged(values, quantiles_of(values, off))
    assert [result.sooner.cost for result in results[:3]] == pytest.approx(paid, rel=1e-5)
    assert [result.c_under for result in results[:3]] == list(COSTS)


def test_the_plain_rule_does_not_see_the_period_it_is_scored_on() -> None:
    values = series()
    changed = values.copy()
    changed[:, CUT:] = 90.0
    before, after = (judged(each, quantiles_of(each))[0] for each in (values, changed))
    assert [result.plain for result in before] == [result.plain for result in after]
    assert before[0].sooner.plain_cost != after[0].sooner.plain_cost


def test_the_rule_of_hindsight_is_never_dearer_than_the_chosen_one() -> None:
    values = series()
    results, _, _ = judged(values, quantiles_of(values, 1.0))
    assert all(result.hindsight.plain_cost <= result.sooner.plain_cost for result in results)


def test_the_usual_rule_is_one_of_the_usual_bases_with_a_factor() -> None:
    values = series()
    results, _, _ = judged(values, quantiles_of(values, 1.0))
    assert all(result.usual_plain.startswith(("last value x", "same hour yesterday x")) for result in results)
    assert results[0].usual.cost == results[0].sooner.cost


def test_only_the_first_lead_can_be_late_and_late_is_dearer() -> None:
    values = series()
    results, _, _ = judged(values, quantiles_of(values))
    assert [result.late.cost > 0 for result in results] == [True] * 3 + [False] * 3
    moved = np.abs(np.diff(values[:, CUT:].astype(np.float64), axis=1)).sum() / (3 * (STOP - CUT))
    assert results[0].late.cost == pytest.approx(moved * 1.1 / 3600, rel=1e-5)


def test_what_is_set_by_the_hook_is_the_quantile_in_whole_percents() -> None:
    percent = np.array([[12.2, 12.9, 30.0, 31.5], [0.0, 120.0, -5.0, 50.0]])
    standing, actions = reserved(percent, 4.0, 60_000_000)
    assert standing.tolist() == [[13, 13, 30, 32], [0, 100, 0, 50]]
    assert actions == 7


def test_days_are_added_up_and_the_rest_of_a_day_counts() -> None:
    each = np.ones((2, 50))
    assert by_day(each, DAY).tolist() == [[24, 24, 2], [24, 24, 2]]
    assert by_day(each[:1], DAY).tolist() == [24, 24, 2]


def test_times_and_values_of_an_example_belong_together() -> None:
    values = series()
    _, _, examples = judged(values, quantiles_of(values))
    example = examples[0]
    row = ["a", "b", "c"].index(example.series)
    step = example.time_us[0] // 3_600_000_000 - 1_000
    assert step >= CUT
    np.testing.assert_allclose(example.demand, values[row, step : step + 24], atol=1e-3)
    assert example.ours == pytest.approx(example.demand, abs=1e-3)


def test_the_part_before_the_period_is_joined_where_it_ends() -> None:
    values = series()
    task = with_levels(task_of(values), 6)
    short = replace(task.periods[0], values=values[:, 100:, None], first=CUT - 1 - 100, stop=STOP - 100)
    short = replace(short, first_slot=short.first_slot + 100)
    walked = laid_out(short, quantiles_of(values))
    np.testing.assert_array_equal(walked.values, values)
    assert (walked.cut, walked.first_slot) == (CUT, 1_000)


def test_every_setup_names_bases_of_its_own_family() -> None:
    for setup in SETUPS.values():
        values = np.zeros((1, setup.family.lookback_steps + 2), np.float32)
        assert set(setup.usual) <= {name for name, _ in Bases(values, setup.family).at(1)}
        assert min(setup.leads.values()) == 1
        assert set(setup.family.shares) <= {round(share, 2) for share in np.linspace(0.5, 1.0, 51)}


def test_the_report_tells_the_numbers_and_takes_nothing_for_markup() -> None:
    values = series()
    period = PeriodResult("<b>later", 0, 3_600_000_000, 1.5, *judged(values, quantiles_of(values, 1.0)))
    said = Evaluation("hand-made", "activity_count", "count", 3600.0, DAY, 3, "naive", {}, COSTS, (0, 1_100), [period])
    page = write_report(said)
    assert "<b>later" not in page
    assert page.index("<h1>") < page.index("<table>")
    assert "best plain rule" in page
    result = period.results[1]
    assert f"{100 * result.sooner.change.value:+.1f} %" in page

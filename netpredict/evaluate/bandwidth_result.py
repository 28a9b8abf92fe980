"""What ``netpredict evaluate bandwidth`` finds, as plain values: the same for table, JSON and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netpredict.evaluate.bootstrap import Estimate, change
from netpredict.types import AnyArray


@dataclass(frozen=True, slots=True)
class Change:
    """Cost of ours over that of the plain rule, less 1, with its interval; below zero ours is cheaper."""

    cost: float
    plain_cost: float
    change: Estimate

    @staticmethod
    def of(ours: AnyArray, plain: AnyArray, day_steps: int) -> Change:
        """From the cost of each (series, step), drawn by series and days, or by days where there is one series."""
        found = change(by_day(ours, day_steps), by_day(plain, day_steps))
        return Change(float(ours.mean()), float(plain.mean()), found)


@dataclass(frozen=True, slots=True)
class Result:
    """One period, lead and ratio of costs. Costs are means of a step and series, in units of the KPI.

    ``late``: each decision of ours comes ``DAEMON_DELAY_MS`` late. ``as_set``: both set by the hook itself, in whole
    percents, with ``actions_per_day`` of a series. ``hindsight``: against the plain rule that turned out cheapest in
    the period, which nobody could have chosen. ``usual``: against the best of the setup's usual rules, by training too.
    """

    period: str
    lead: str
    lead_steps: int
    c_under: float
    plain: str
    sooner: Change
    late: Change
    as_set: Change
    hindsight_plain: str
    hindsight: Change
    usual_plain: str
    usual: Change
    covered: float
    plain_covered: float
    actions_per_day: float
    daily: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Overall:
    """The mean of the relative changes of all ratios of costs, at one period and lead."""

    period: str
    lead: str
    lead_steps: int
    sooner: Estimate
    late: Estimate


@dataclass(frozen=True, slots=True)
class Example:
    """Some steps of one series: when they are, what was needed, and what both provided at the first lead."""

    period: str
    series: str
    c_under: float
    lead: str
    time_us: list[int]
    demand: list[float]
    ours: list[float]
    plain: list[float]


@dataclass(frozen=True, slots=True)
class PeriodResult:
    """One period that was scored."""

    period: str
    from_us: int
    until_us: int
    training_s: float
    results: list[Result]
    overall: list[Overall]
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All of a data set; ``decision_delay_ms`` are the delays of ``sooner`` and ``late``."""

    dataset: str
    kpi: str
    unit: str
    period_s: float
    day_steps: int
    series: int
    predictor: str
    options: Mapping[str, Any]
    costs: tuple[float, ...]
    decision_delay_ms: tuple[int, int]
    periods: list[PeriodResult]


def by_day(each: AnyArray, day_steps: int) -> AnyArray:
    """Sums by day of the period: (series, steps) -> (series, days); (days,) where there is one series."""
    days: AnyArray = np.add.reduceat(each, np.arange(0, each.shape[1], day_steps), axis=1)
    return days[0] if len(days) == 1 else days

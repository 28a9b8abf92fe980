"""What the bandwidth hook would have reserved on a public data set, beside the plain rules tuned as hard.

A predictor is trained before each period and walked along it as live; its calibrated quantile at
``cost_quantile(c_under, 1)`` is what the hook reserves. A step costs c_under for every unit that was lacking and 1 for
every unit too many. The plain rule is the cheapest on the training part of a whole family, for this lead and these
costs; margins, choices and weights see nothing of the period.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netpredict.evaluate.bandwidth_result import Change, Evaluation, Example, Overall, PeriodResult, Result, by_day
from netpredict.evaluate.bandwidth_setups import COSTS, DAEMON_DELAY_MS, LEVELS, Setup
from netpredict.evaluate.bootstrap import Estimate, estimate
from netpredict.evaluate.datasets import Period, Task
from netpredict.evaluate.forecasting import forecasts, trained
from netpredict.evaluate.provision import Bases, PlainRule, cost, cost_of_late, tuned
from netpredict.evaluate.reserved import reserved
from netpredict.radio.policy import cost_quantile
from netpredict.radio.quantities import KPIS
from netpredict.types import AnyArray, OutputSpec

Told = Callable[[str, int, int, float, float], None]
"""Period, train_epochs done and in all, loss, time left in s."""


@dataclass(frozen=True, slots=True)
class Walked:
    """A period laid out: the whole history, where the scored part begins, and quantiles (issues, S, leads, levels)."""

    values: AnyArray
    cut: int
    quantiles: AnyArray
    first_slot: int

    def issues(self, lead: int) -> AnyArray:
        """Steps of the forecasts that are judged at a lead."""
        return np.arange(self.cut - 1, self.values.shape[1] - lead)

    def demand(self, lead: int) -> AnyArray:
        """What came of each issue, (series, issues)."""
        answer: AnyArray = self.values[:, self.issues(lead) + lead].astype(np.float64)
        return answer

    def ours(self, lead: int, c_under: float) -> AnyArray:
        """The quantile of least cost at each issue, (series, issues)."""
        issues = len(self.issues(lead))
        level = LEVELS.index(cost_quantile(c_under, 1.0))
        answer: AnyArray = self.quantiles[:issues, :, lead - 1, level].T.astype(np.float64)
        return answer


def run(
    task: Task, setup: Setup, predictor: str | None, options: Mapping[str, Any], progress: Told | None
) -> Evaluation:
    """Every period of a task, by the predictor of the setup or another one; ``options`` over those of both."""
    name, kpi = predictor or setup.predictor, task.output.kpis[0]
    given = {**(setup.options if name == setup.predictor else {}), **options}
    asked = replace(with_levels(task, max(setup.leads.values())), bucket_steps=setup.bucket_steps)
    return Evaluation(
        task.name,
        kpi,
        KPIS[kpi].unit if kpi in KPIS else "",
        task.features.period_us / 1e6,
        setup.day_steps,
        len(task.series),
        name,
        {**task.settings.get("", {}), **task.settings.get(name, {}), **given},
        COSTS,
        (0, DAEMON_DELAY_MS),
        [_period(asked, setup, period, name, given, progress) for period in asked.periods],
    )


def with_levels(task: Task, horizon_steps: int) -> Task:
    """The task asked for the levels of the costs, as far ahead as is judged."""
    output = OutputSpec(task.output.kpis, horizon_steps, LEVELS)
    periods = [replace(period, training=replace(period.training, output=output)) for period in task.periods]
    return replace(task, output=output, periods=tuple(periods))


def _period(
    task: Task, setup: Setup, period: Period, name: str, options: Mapping[str, Any], progress: Told | None
) -> PeriodResult:
    def step(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
        if progress is not None:
            progress(period.name, done, total, loss, left_s)

    predictor, report = trained(name, task, period, options, step)
    walked = laid_out(period, forecasts(predictor, task, period)[:, :, 0])
    period_us = task.features.period_us
    return PeriodResult(
        period.name,
        (walked.first_slot + walked.cut) * period_us,
        (walked.first_slot + walked.values.shape[1]) * period_us,
        0.0 if report is None else round(report.training_s, 1),
        *judge(task, setup, period.name, walked),
    )


def laid_out(period: Period, quantiles: AnyArray) -> Walked:
    """History and period as one; ``quantiles`` (issues, S, leads, levels) begin at the last step of the history."""
    new = period.values[:, period.first + 1 : period.stop, 0]
    values = np.concatenate([period.history[:, :, 0], new], axis=1)
    cut = period.history.shape[1]
    return Walked(values, cut, quantiles, int(period.first_slot.min()) + period.first + 1 - cut)


def judge(task: Task, setup: Setup, name: str, walked: Walked) -> tuple[list[Result], list[Overall], list[Example]]:
    """Every lead and ratio; an example of each ratio at the first lead."""
    bases = Bases(walked.values, setup.family)
    results, overall, examples = [], [], []
    for label, lead in setup.leads.items():
        pairs = []
        for c_under in COSTS:
            ranked = tuned(walked.values, bases, range(setup.family.lookback_steps, walked.cut - lead), lead, c_under)
            one = _One(task, setup, walked, lead, c_under, ranked)
            results.append(one.result(name, label))
            pairs.append(one.costs())
            if lead == min(setup.leads.values()):
                examples.append(one.example(name, label))
        overall.append(Overall(name, label, lead, *(_mean_change(pair, setup) for pair in zip(*pairs, strict=True))))
    return results, overall, examples


def _mean_change(pairs: Sequence[tuple[AnyArray, AnyArray]], setup: Setup) -> Estimate:
    """The mean over the ratios of ours / plain - 1, all drawn together."""
    parts = np.stack([by_day(each, setup.day_steps) for pair in pairs for each in pair], axis=-1)
    return estimate(parts, lambda sums: (sums[:, 0::2] / sums[:, 1::2]).mean(axis=1) - 1.0)


class _One:
    """One lead and ratio of a period."""

    def __init__(
        self,
        task: Task,
        setup: Setup,
        walked: Walked,
        lead: int,
        c_under: float,
        ranked: Sequence[tuple[PlainRule, AnyArray]],
    ) -> None:
        self.task, self.setup, self.walked, self.lead, self.c_under = task, setup, walked, lead, c_under
        self.issues, self.demand = walked.issues(lead), walked.demand(lead)
        self.ours = walked.ours(lead, c_under)
        self.rule, self.plain = ranked[0][0], self._provided(*ranked[0])
        costs = [cost(self.demand, self._provided(*each), c_under) for each in ranked]
        best = int(np.argmin([each.mean() for each in costs]))
        self.hindsight, self.hindsight_cost = ranked[best][0], costs[best]
        usual = next(
            place for place, (rule, _) in enumerate(ranked) if rule.base in setup.usual and rule.kind == "times"
        )
        self.usual, self.usual_cost = ranked[usual][0], costs[usual]

    def _provided(self, rule: PlainRule, base: AnyArray) -> AnyArray:
        return np.maximum(rule.provided(base[:, self.issues]), 0.0)

    def costs(self) -> tuple[tuple[AnyArray, AnyArray], tuple[AnyArray, AnyArray]]:
        """Of each (series, step): ours and the plain rule's, and the same with ours late."""
        plain = cost(self.demand, self.plain, self.c_under)
        late_ratio = DAEMON_DELAY_MS * 1_000 / self.task.features.period_us if self.lead == 1 else 0.0
        late = cost_of_late(self.demand, self.ours, late_ratio, self.c_under)
        return (cost(self.demand, self.ours, self.c_under), plain), (late, plain)

    def result(self, period: str, label: str) -> Result:
        sooner, late = self.costs()
        day = self.setup.day_steps
        (ours_set, actions), (plain_set, _) = (self._as_set(each) for each in (self.ours, self.plain))
        set_costs = [cost(self.demand, each, self.c_under) for each in (ours_set, plain_set)]
        daily = [by_day(each, day).reshape(len(self.demand), -1).sum(axis=0) for each in sooner]
        return Result(
            period,
            label,
            self.lead,
            self.c_under,
            str(self.rule),
            Change.of(*sooner, day),
            Change.of(*late, day),
            Change.of(set_costs[0], set_costs[1], day),
            str(self.hindsight),
            Change.of(sooner[0], self.hindsight_cost, day),
            str(self.usual),
            Change.of(sooner[0], self.usual_cost, day),
            float((self.demand <= self.ours).mean()),
            float((self.demand <= self.plain).mean()),
            actions / self.demand.size * day,
            [(float(ours), float(plain)) for ours, plain in zip(*daily, strict=True)],
        )

    def _as_set(self, provided: AnyArray) -> tuple[AnyArray, int]:
        percent, actions = reserved(provided * self.setup.percent, self.c_under, self.task.features.period_us)
        return percent / self.setup.percent, actions

    def example(self, period: str, label: str) -> Example:
        """The middle of the period, of the series whose own change is the usual one."""
        (ours, plain), _ = self.costs()
        ratio = ours.sum(axis=1) / plain.sum(axis=1)
        row = int(np.argsort(ratio, kind="stable")[len(ratio) // 2])
        begin = max(0, (self.demand.shape[1] - self.setup.shown_steps) // 2)
        span = slice(begin, begin + self.setup.shown_steps)
        slots = self.walked.first_slot + self.issues[span] + self.lead
        lines = [np.round(each[row, span], 3).tolist() for each in (self.demand, self.ours, self.plain)]
        times = (slots * self.task.features.period_us).tolist()
        return Example(period, self.task.series[row], self.c_under, label, times, *lines)

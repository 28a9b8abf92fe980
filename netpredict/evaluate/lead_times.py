"""Forecasts of one period against their truth and the plain baselines, by KPI and lead time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from netpredict.evaluate import baselines
from netpredict.evaluate.datasets import Period, Task
from netpredict.evaluate.measure import Measures, mase_scale, mean_error, measure, skill
from netpredict.types import AnyArray, FloatArray

Row = dict[str, Any]
"""What a predictor was worth at one lead of one KPI: measures, skill by baseline; ``lead_steps`` 0 = all leads."""


class Judge:
    """Holds truth and baselines of a period, so that they are made once for all predictors."""

    def __init__(self, task: Task, period: Period) -> None:
        self._task, self._period = task, period
        self._issues = np.arange(period.first, period.stop - 1)
        self._truth: dict[str, list[FloatArray]] = {}
        self._errors: dict[str, list[dict[str, float | None]]] = {}
        self._scale: dict[str, AnyArray] = {}
        for kpi in task.output.kpis:
            self._prepare(kpi, task.features.observed.index(kpi))

    def _prepare(self, kpi: str, column: int) -> None:
        task, values = self._task, self._period.values[:, :, column]
        training = self._period.history[:, :, column]
        leads = range(1, task.output.horizon_steps + 1)
        plain = baselines.answers(training, values, task.seasons, leads)
        self._truth[kpi] = [self._at_issues(baselines.at_lead(values[:, : self._period.stop], lead)) for lead in leads]
        self._errors[kpi] = [
            {name: mean_error(truth, self._at_issues(answer(lead))) for name, answer in plain.items()}
            for lead, truth in zip(leads, self._truth[kpi], strict=True)
        ]
        self._scale[kpi] = self._mase(training, values)

    def _mase(self, training: FloatArray, values: FloatArray) -> AnyArray:
        """By series where the same series are trained and scored, else one for all."""
        if len(training) == len(values):
            return mase_scale(training, self._task.mase_steps)
        season = min(self._task.mase_steps, training.shape[1] - 1)
        return np.full(len(values), mase_scale(training.reshape(1, -1), season)[0])

    def _at_issues(self, answer: FloatArray) -> FloatArray:
        padded: FloatArray = answer[:, self._issues[self._issues < answer.shape[1]]].T
        return padded

    def rows(self, forecasts: FloatArray) -> Iterator[Row]:
        """Of quantiles (issues, S, kpis, horizon, levels): each KPI and lead, and the mean over the leads as lead 0."""
        for index, kpi in enumerate(self._task.output.kpis):
            rows = []
            for lead, truth in enumerate(self._truth[kpi], start=1):
                found = measure(truth, self._task.output.levels, forecasts[:, :, index, lead - 1], self._scale[kpi])
                rows.append(_row(kpi, lead, found, self._errors[kpi][lead - 1]))
            yield from rows
            yield _overall(kpi, rows)


def _row(kpi: str, lead: int, found: Measures, errors: Mapping[str, float | None]) -> Row:
    return {
        "kpi": kpi,
        "lead_steps": lead,
        "n": found.n,
        "mae": found.mae,
        "mase": found.mase,
        "wape": found.wape,
        "pinball": found.pinball,
        "coverage": found.coverage,
        "baseline_mae": dict(errors),
        "skill": {name: skill(found.mae, error) for name, error in errors.items()},
    }


def _overall(kpi: str, rows: list[Row]) -> Row:
    """Every lead counts alike."""
    found = {name: _mean([row[name] for row in rows]) for name in ("mae", "mase", "wape", "pinball", "coverage")}
    errors = {name: _mean([row["baseline_mae"][name] for row in rows]) for name in rows[0]["baseline_mae"]}
    measures = Measures(n=sum(row["n"] for row in rows), **found)
    return _row(kpi, 0, measures, errors)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

"""``netpredict backtest --dataset NAME``: predictors trained and scored on a public data set, by lead time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netpredict.cli.terminal import print_json, print_table, progress, say, utc
from netpredict.errors import ConfigError

if TYPE_CHECKING:
    from netpredict.evaluate.datasets import Period, Task
    from netpredict.evaluate.lead_times import Judge
    from netpredict.types import Progress

DATASETS = ("milan-hourly", "nist-prosas", "tractor")
PREDICTORS = "simple_rnn,gru,lstm,naive,ewma"
COLUMNS = ("lead", "mae", "mase", "wape", "pinball", "in 80%", "best plain", "skill")


def backtest_dataset(
    name: str, predictors: str, limit_traces: int | None, train_epochs: int | None, as_json: bool
) -> None:
    """Train each predictor on the training part of each period, score it by lead time, print."""
    from netpredict.evaluate.datasets import TASKS
    from netpredict.traces.datasets import data_folder

    started_s = time.monotonic()
    names = named(predictors)
    folder, task_of = TASKS[name]
    task = task_of(data_folder() / folder, limit_traces)
    options = {} if train_epochs is None else {"train_epochs": train_epochs}
    found = [_scored(task, period, names, options) for period in task.periods]
    told = {"dataset": name, "series": len(task.series), "predictors": names, "periods": found}
    told["took_s"] = round(time.monotonic() - started_s, 1)
    if as_json:
        print_json(told)
    else:
        _print(task, told)


def named(predictors: str) -> list[str]:
    """Names between commas; ConfigError when there is none."""
    names = [name.strip() for name in predictors.split(",") if name.strip()]
    if not names:
        raise ConfigError("--predictors names no predictor; for instance: --predictors gru,naive")
    return names


def _scored(task: Task, period: Period, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    from netpredict.evaluate.lead_times import Judge

    judge = Judge(task, period)
    start_us = [
        int(period.first_slot.min() + step) * task.features.period_us for step in (period.first + 1, period.stop)
    ]
    results = [_predictor(task, period, name, options, judge) for name in names]
    return {"period": period.name, "targets_from": utc(start_us[0]), "targets_until": utc(start_us[1])} | {
        "results": results
    }


def _predictor(task: Task, period: Period, name: str, options: dict[str, Any], judge: Judge) -> dict[str, Any]:
    from netpredict.evaluate.forecasting import forecasts, trained

    with progress() as shown:
        told = f"{period.name}: {name}"
        bar = shown.add_task(told, total=None)

        def step(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
            shown.update(bar, completed=done, total=total, description=f"{told}, loss {loss:.4f}, {left_s:.0f} s left")

        callback: Progress = step
        predictor, report = trained(name, task, period, options, callback)
        rows = list(judge.rows(forecasts(predictor, task, period)))
    training_s = None if report is None else round(report.training_s, 1)
    say(told + ("" if report is None else f", {report.train_epochs} train_epochs in {report.training_s:.0f} s"))
    return {"predictor": name, "training_s": training_s, "rows": rows}


def _print(task: Task, told: dict[str, Any]) -> None:
    shown = {0, *task.shown_leads}
    for period in told["periods"]:
        print(f"{told['dataset']}, {period['period']}: {period['targets_from']} to {period['targets_until']}")
        for result in period["results"]:
            for kpi in task.output.kpis:
                rows = [row for row in result["rows"] if row["kpi"] == kpi and row["lead_steps"] in shown]
                print_table(f"{result['predictor']}, {kpi}", COLUMNS, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[object]:
    """Beside the measures the plain forecast with the smallest error, and the skill against it."""
    known = {name: error for name, error in row["baseline_mae"].items() if error is not None}
    best = min(known, key=known.__getitem__) if known else ""
    skill, coverage = row["skill"].get(best), row["coverage"]
    shares = [None if share is None else f"{share:.1%}" for share in (coverage, skill)]
    return [
        row["lead_steps"] or "all",
        *(row[name] for name in ("mae", "mase", "wape", "pinball")),
        shares[0],
        best,
        shares[1],
    ]

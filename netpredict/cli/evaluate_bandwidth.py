"""``netpredict evaluate bandwidth``: what reserving by forecast costs beside the plain rules; table, JSON and HTML."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netpredict.cli.options import AsJson
from netpredict.cli.terminal import print_json, print_table, progress, say, utc
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.evaluate.bandwidth_result import Evaluation, Overall, PeriodResult, Result
    from netpredict.evaluate.bootstrap import Estimate

COLUMNS = ("lead", "costs", "plain", "ours", "change", "95 %", "delayed", "as set")
RULES = ("lead", "costs", "best plain rule", "usual", "hindsight")


def bandwidth(
    dataset: Annotated[
        Literal["nist-prosas", "milan-hourly"], typer.Option("--dataset", help="Below $NETPREDICT_DATA.")
    ],
    predictor: Annotated[
        str | None, typer.Option("--predictor", help="A trainable predictor plugin [default: that of the data set].")
    ] = None,
    train_epochs: Annotated[
        int | None, typer.Option("--train-epochs", min=1, max=10_000, help="Most of them [default: the data set's].")
    ] = None,
    limit_traces: Annotated[
        int | None,
        typer.Option("--limit-traces", min=1, help="Only the first series, of nist-prosas 2,000 minutes each."),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML report too, with plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """What reserving at the quantile of least cost would have cost, beside the best plain rule.

    The predictor and the plain rules (base and margin, a whole grid of them) are trained and chosen on the time before
    the one that is scored. Costs of too little to too much: 1, 4 and 10 to 1.
    """
    from netpredict.evaluate.bandwidth import run
    from netpredict.evaluate.bandwidth_setups import SETUPS
    from netpredict.evaluate.datasets import TASKS
    from netpredict.traces.datasets import data_folder

    started_s = time.monotonic()
    if report is not None and not report.parent.is_dir():
        raise DataError(f"there is no folder {report.parent} for the report")
    folder, task_of = TASKS[dataset]
    task = task_of(data_folder() / folder, limit_traces)
    with progress() as shown:
        bar = shown.add_task(dataset, total=None)

        def step(period: str, done: int, total: int, loss: float, left_s: float) -> None:
            told = f"{dataset}, {period}: loss {loss:.4f}, {left_s:.0f} s left"
            shown.update(bar, completed=done, total=total, description=told)

        options = {} if train_epochs is None else {"train_epochs": train_epochs}
        found = run(task, SETUPS[dataset], predictor, options, step)
    if report is not None:
        _write(found, report)
    if as_json:
        print_json({"evaluation": found, "took_s": round(time.monotonic() - started_s, 1)})
    else:
        _print(found)
    if report is not None:
        say(f"{report} (opens without a network)")


def _write(found: Evaluation, report: Path) -> None:
    from netpredict.evaluate.bandwidth_report import write_report

    try:
        report.write_text(write_report(found), encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {report}: {error.strerror}") from error


def _print(found: Evaluation) -> None:
    for period in found.periods:
        title = f"{found.dataset}, {period.period}: {utc(period.from_us)} to {utc(period.until_us)}"
        print_table(f"{title}\ncosts in {found.kpi} a step and series", COLUMNS, _rows(period))
        rules = [
            [
                *(each.lead, f"{each.c_under:g} : 1", each.plain),
                *(_percent(change.change.value) for change in (each.usual, each.hindsight)),
            ]
            for each in period.results
        ]
        print_table("the best plain rules, and the change against usual ones and by hindsight", RULES, rules)


def _rows(period: PeriodResult) -> list[list[object]]:
    """The ratios of each lead, then their mean."""
    rows: list[list[object]] = []
    for overall in period.overall:
        rows += [_row(result) for result in period.results if result.lead == overall.lead]
        rows.append(_mean_row(overall))
    return rows


def _row(result: Result) -> list[object]:
    costs = [round(each, 3) for each in (result.sooner.plain_cost, result.sooner.cost)]
    change = result.sooner.change
    shown = [_percent(change.value), _span(change), *(_percent(x.change.value) for x in (result.late, result.as_set))]
    return [result.lead, f"{result.c_under:g} : 1", *costs, *shown]


def _mean_row(overall: Overall) -> list[object]:
    shown = [_percent(overall.sooner.value), _span(overall.sooner), _percent(overall.late.value)]
    return [overall.lead, "mean", None, None, *shown, None]


def _percent(ratio: float) -> str:
    return f"{100 * ratio:+.1f} %"


def _span(found: Estimate) -> str:
    return f"{100 * found.low:+.1f} .. {100 * found.high:+.1f}"

"""``netpredict evaluate mcs``: goodput of the mcs hook's policy beside the plain rules; table, JSON and HTML."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import AsJson
from netpredict.cli.terminal import print_json, print_table, progress, say
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.evaluate.mcs_result import Result, Row
    from netpredict.evaluate.published import Recording
    from netpredict.forecast.predictor import Trainable
    from netpredict.types import TrainingSet

DATASET = "ucc5g"
FOLDS = 5
DECISION_DELAY_MS = 200
PREDICTOR = "gru"
RECIPE: dict[str, Any] = {
    "loss": "cross_entropy",
    "inputs": "history",
    "by_distance": True,
    "calendar": False,
    "units": 64,
    "lags": 8,
    "dropout": 0.3,
    "schedule": "cosine",
    "final_rate_ratio": 0.02,
    "train_epochs": 16,
    "minibatch_size": 14,
    "bptt_steps": 240,
}
COLUMNS: tuple[str, ...] = ("delay", "CQI table", "BLER limit", "decided", "goodput", "BLER", "> 12 %")
COLUMNS += ("best plain rule", "its goodput", "its BLER", "its > 12 %", "gain", "95 %")


def mcs(
    dataset: Annotated[str, typer.Option("--dataset", help=f"Traces in $NETPREDICT_DATA: {DATASET}.")] = DATASET,
    limit_traces: Annotated[int | None, typer.Option("--limit-traces", min=10, help="Only some, for a look.")] = None,
    folds: Annotated[int, typer.Option("--folds", min=1, max=FOLDS, help="So many of the five are scored.")] = FOLDS,
    train_epochs: Annotated[
        int | None, typer.Option("--train-epochs", min=1, help="Another number, for a quick look.")
    ] = None,
    decision_delay_ms: Annotated[
        int, typer.Option("--decision-delay-ms", min=0, max=5000, help="A second figure: our index comes so late.")
    ] = DECISION_DELAY_MS,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML report here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Goodput and block errors of the mcs hook's policy beside the best plain rule.

    CQI reports come 1, 2, 3 or 5 s late. Weights, prices and the plain rules' parameters are chosen on other traces
    than those scored.
    """
    from netpredict.evaluate.mcs import run
    from netpredict.traces.datasets import data_folder

    if dataset != DATASET:
        raise typer.BadParameter(f"there is {DATASET}", param_hint="--dataset")
    if report is not None and not report.parent.is_dir():
        raise DataError(f"there is no folder {report.parent} for the report")
    started_s = time.monotonic()
    recordings = read_recordings(data_folder() / DATASET, limit_traces)
    recipe = RECIPE | ({} if train_epochs is None else {"train_epochs": train_epochs})
    result = run(recordings, _fitting(recipe), folds=folds, decision_delay_ms=decision_delay_ms, tell=say)
    took_s = round(time.monotonic() - started_s, 1)
    if report is not None:
        from netpredict.evaluate.mcs_report import write_report

        report.write_text(write_report(result), encoding="utf-8")
        say(f"report: {report}")
    if as_json:
        print_json({"dataset": dataset, "predictor": PREDICTOR, "options": recipe, "took_s": took_s, "result": result})
    else:
        _print(result, took_s)


def read_recordings(folder: Path, limit_traces: int | None) -> list[Recording]:
    """CQI, SINR and RSRP of the traces on their grids of seconds; what was not measured is missing."""
    from netpredict.cli.backtest_published import spread_over_groups
    from netpredict.evaluate.mcs_forecasts import FEATURES
    from netpredict.evaluate.published import recording
    from netpredict.traces import ucc5g

    names = None if limit_traces is None else spread_over_groups(folder, limit_traces)
    return [
        recording(
            trace.name,
            str(trace.group),
            trace.frame["event_time_us"].to_numpy() // FEATURES.period_us,
            trace.frame[list(FEATURES.observed)].to_numpy(),
        )
        for trace in ucc5g.read(folder, names=names)
    ]


def _fitting(recipe: dict[str, Any]) -> Callable[[TrainingSet, str], Trainable]:
    """Builds and trains the predictor as the daemon does."""
    from netpredict import plugins

    plugin = plugins.load("predictors", PREDICTOR)
    decoded = plugins.options_of(plugin, recipe, f"options of {PREDICTOR}")

    def fit(dataset: TrainingSet, name: str) -> Trainable:
        predictor: Trainable = plugin.build(decoded, dataset.features, dataset.output)
        with progress() as shown:
            task = shown.add_task(name, total=None)

            def step(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
                told = f"{name}, loss {loss:.4f}, {left_s:.0f} s left"
                shown.update(task, completed=done, total=total, description=told)

            report = predictor.fit(dataset, step)
        say(f"{name}: {report.train_epochs} train_epochs in {report.training_s:.0f} s")
        return predictor

    return fit


def _print(result: Result, took_s: float) -> None:
    title = f"mcs hook on {DATASET}: {result.traces} traces, {result.folds} of {FOLDS} folds, {took_s:.0f} s"
    print_table(title, COLUMNS, [_cells(row) for row in result.rows])
    losses = [[f"{each.delay_s} s", each.log_loss, each.markov_log_loss] for each in result.fitness]
    print_table("Cross-entropy of the CQI, nats", ("delay", "forecast", "table by last report"), losses)


def _cells(row: Row) -> list[object]:
    ours, plain = row.ours, row.plain
    figures = [
        *(f"{ours.goodput:.4f}", f"{ours.bler:.2%}", f"{ours.traces_above_ratio:.0%}", plain.name),
        *(f"{plain.goodput:.4f}", f"{plain.bler:.2%}", f"{plain.traces_above_ratio:.0%}"),
        *(f"{row.gain:+.2%}", f"{row.gain_low:+.2%} … {row.gain_high:+.2%}"),
    ]
    limit = "none" if row.bler_limit is None else f"{row.bler_limit:.0%}"
    return [f"{row.delay_s} s", row.cqi_table, limit, f"+{row.decision_delay_ms} ms", *figures]

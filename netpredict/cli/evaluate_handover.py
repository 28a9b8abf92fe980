"""``netpredict evaluate handover``: failures, handovers and ping-pongs beside plain A3; table, JSON and HTML."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import typer

from netpredict.cli.options import AsJson
from netpredict.cli.terminal import print_json, print_table, say
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.evaluate.handover_wish import DatasetEvaluation


class Dataset(NamedTuple):
    """Its folder below $NETPREDICT_DATA, none where nothing is read, and the module that evaluates it."""

    folder: str | None
    module: str


DATASETS = {
    "ns3-uma": Dataset("ns3-uma", "netpredict.evaluate.handover_exact"),
    "simulate": Dataset(None, "netpredict.evaluate.handover_simulated"),
    "wmnlab": Dataset("wmnlab", "netpredict.evaluate.handover_real"),
}
DECISION_DELAY_MS = 200


def handover(
    dataset: Annotated[str, typer.Option("--dataset", help="Below $NETPREDICT_DATA, or simulate: simulated scenes.")],
    scenes: Annotated[
        list[str] | None, typer.Option("--scene", help="Only this part of the data set; repeatable.")
    ] = None,
    limit_traces: Annotated[
        int | None, typer.Option("--limit-traces", min=2, help="Only the first UEs or traces, for a look.")
    ] = None,
    train_epochs: Annotated[
        int | None, typer.Option("--train-epochs", min=1, help="Another number, for a quick look.")
    ] = None,
    decision_delay_ms: Annotated[
        int, typer.Option("--decision-delay-ms", min=0, max=5000, help="A second figure: we decide so much later.")
    ] = DECISION_DELAY_MS,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML report here.")] = None,
    as_json: AsJson = False,
) -> None:
    """What the handover hook's policy on forecasts would have done, beside plain A3 tuned over its whole grid.

    Both are tuned on other traces than those scored.
    """
    from netpredict.evaluate.handover_wish import Wish
    from netpredict.traces.datasets import data_folder

    if dataset not in DATASETS:
        raise typer.BadParameter(f"there is {', '.join(DATASETS)}", param_hint="--dataset")
    if report is not None and not report.parent.is_dir():
        raise DataError(f"there is no folder {report.parent} for the report")
    started_s = time.monotonic()
    folder, module = DATASETS[dataset]
    evaluation = cast("DatasetEvaluation", import_module(module))
    wish = Wish(decision_delay_ms, limit_traces, train_epochs, tuple(scenes or ()))
    result = evaluation.run(Path() if folder is None else data_folder() / folder, wish, say)
    took_s = round(time.monotonic() - started_s, 1)
    if report is not None:
        _write(evaluation.write_report(result), report)
        say(f"report: {report}")
    if as_json:
        print_json({"dataset": dataset, "took_s": took_s, "result": result})
        return
    for title, columns, rows in evaluation.tables(result):
        print_table(title, columns, rows)


def _write(page: str, report: Path) -> None:
    try:
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {report}: {error.strerror}") from error

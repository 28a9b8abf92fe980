"""``netpredict evaluate handover``: failures, handovers and ping-pongs beside plain A3; table, JSON and HTML."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import typer

from netpredict.cli.options import AsJson, ConfigPath, read_config_of_streams
from netpredict.cli.terminal import print_json, print_table, say
from netpredict.errors import ConfigError, DataError

if TYPE_CHECKING:
    from netpredict.evaluate.handover_wish import DatasetEvaluation, Served


class Dataset(NamedTuple):
    """Its folder below $NETPREDICT_DATA, none where nothing is read, and the module that evaluates it."""

    folder: str | None
    module: str


DATASETS = {
    "ns3-uma": Dataset("ns3-uma", "netpredict.evaluate.handover_exact"),
    "simulate": Dataset(None, "netpredict.evaluate.handover_simulated"),
    "wmnlab": Dataset("wmnlab", "netpredict.evaluate.handover_real"),
}
EXACT = ("ns3-uma", "simulate")
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
    stream: Annotated[
        str | None,
        typer.Option("--stream", help="Score the version that serves this stream of the config; nothing is trained."),
    ] = None,
    config: ConfigPath = None,
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
    if stream is not None and dataset not in EXACT:
        raise typer.BadParameter(f"a version is scored on {' and '.join(EXACT)}", param_hint="--stream")
    served = None if stream is None else _served(stream, config)
    wish = Wish(decision_delay_ms, limit_traces, train_epochs, tuple(scenes or ()), served)
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


def _served(name: str, config: Path | None) -> Served:
    """The active version of the stream's first route."""
    from netpredict.build import build_stream
    from netpredict.evaluate.handover_served import ServedModel
    from netpredict.learn.registry import load_artefact
    from netpredict.learn.shelf import predictor_for
    from netpredict.store.history import History

    read = read_config_of_streams(config)
    if name not in read.streams:
        raise ConfigError(f"no stream named {name!r}; configured: {', '.join(read.streams)}")
    predictor = read.streams[name].routes[0].active
    rows = History(read.store_url).models(name, predictor)
    active = [row for row in rows if row["stage"] == "active" and row["folder"]]
    if not active:
        raise DataError(f"no trained version serves stream {name}: netpredict train {name} {predictor} --promote")
    artefact = load_artefact(Path(active[0]["folder"]), active[0]["version"])
    options, label = artefact.manifest.identity.options, f"{predictor}@{artefact.version}"
    stream = build_stream(name, read)
    return ServedModel(stream, predictor_for(stream, predictor, artefact), label, options)


def _write(page: str, report: Path) -> None:
    try:
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {report}: {error.strerror}") from error

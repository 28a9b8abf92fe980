"""``netpredict train``: a predictor from history, in this process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netpredict.cli.models import PROMOTED, move
from netpredict.cli.options import (
    AsJson,
    ConfigPath,
    MappingFile,
    MappingPairs,
    Table,
    at_most_one,
    read_config_of_streams,
)
from netpredict.cli.simulate import LONGEST_S, MOST
from netpredict.cli.telemetry import of_table, recorded, tell_repairs
from netpredict.cli.terminal import print_fields, print_json, progress, say
from netpredict.cli.writing import opened_store
from netpredict.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from netpredict.config import Config
    from netpredict.learn.registry import Artefact
    from netpredict.stream import Stream
    from netpredict.traces.message import TraceMessage
    from netpredict.traces.simulator import SimulatorConfig
    from netpredict.types import TrainingReport, TrainingSet


def train(
    stream: Annotated[str, typer.Argument(help="Stream of the config.")],
    predictor: Annotated[str, typer.Argument(help="Predictor of the config.")],
    simulate: Annotated[
        int | None,
        typer.Option(
            "--simulate", min=1, max=LONGEST_S, help="Train on so many simulated seconds instead of the store."
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Train on recorded telemetry instead.")] = None,
    table: Table = None,
    mapping: MappingFile = None,
    pairs: MappingPairs = None,
    radio_cells: Annotated[int, typer.Option("--radio-cells", min=1, max=MOST, help="Radio cells to simulate.")] = 100,
    ues: Annotated[int, typer.Option("--ues", min=1, max=MOST, help="UEs to simulate.")] = 50,
    promote: Annotated[bool, typer.Option("--promote", help="Let the new version serve.")] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Train a predictor from history.

    The new version is registered in the store as a candidate; the daemon may run. History is the stored observations:
    the newest learn.history_steps of up to learn.series_max series.
    """
    from netpredict.build import build_stream
    from netpredict.evaluate.recorded import training_set
    from netpredict.store import migrate

    at_most_one(simulate=simulate, file=file, table=table)
    read = read_config_of_streams(config)
    _check(read, stream, predictor)
    if migrate.current(read.store_url) != migrate.head():  # else a daemon may hold it
        migrate.upgrade(read.store_url)
    built = build_stream(stream, read)
    if simulate is not None:
        dataset = training_set(built, simulated(built, simulate, radio_cells, ues, read.daemon.seed), read)
    elif file is not None:
        dataset = training_set(built, recorded(file).messages, read)
    elif table is not None:
        telemetry = of_table(table, mapping, pairs, stream=built.config.schema)
        dataset = training_set(built, telemetry.messages, read)
        tell_repairs(telemetry)
    else:
        dataset = _stored(built, read)
    artefact, report = _fit(read, stream, predictor, dataset)
    stage = _register(read, stream, predictor, artefact, report, promote)
    _tell(stream, predictor, stage, artefact, report, as_json)


def _check(config: Config, stream: str, predictor: str) -> None:
    from netpredict.plugins import load

    if stream not in config.streams:
        raise ConfigError(f"no stream named {stream!r}; configured: {', '.join(config.streams)}")
    if predictor not in config.predictors:
        raise ConfigError(f"no predictor named {predictor!r}; configured: {', '.join(config.predictors)}")
    if not load("predictors", config.predictors[predictor].plugin).trainable:
        raise PluginError(f"predictor {predictor!r} has nothing to train")


def _stored(stream: Stream, config: Config) -> TrainingSet:
    from netpredict.learn.retrain import history

    return history(config, stream)


def simulated(stream: Stream, seconds: int, radio_cells: int, ues: int, seed: int) -> Iterator[TraceMessage]:
    """Messages for one stream at its own period; ConfigError for a period that is not simulated."""
    from netpredict.traces.simulator import Simulator

    return Simulator(_settings(stream, radio_cells, ues, seed)).messages(seconds)


def _settings(stream: Stream, radio_cells: int, ues: int, seed: int) -> SimulatorConfig:
    """Without UEs where they do not matter, which is faster by far; reports with all that the simulator can tell."""
    from netpredict.traces.fleet import NEIGHBOURS_MAX
    from netpredict.traces.simulator import SimulatorConfig

    schema, period_us = stream.config.schema, stream.period_us
    unit, unit_us = ("milliseconds", 1000) if schema == "rsrp" else ("seconds", 1_000_000)
    if period_us % unit_us:
        raise ConfigError(
            f"stream {stream.name}: a period of {period_us / 1e6} s is not simulated, {schema} comes in whole {unit}; "
            "train on --file or on what is stored"
        )
    if schema == "traffic":
        return SimulatorConfig(seed=seed, radio_cells=radio_cells, ues=0, traffic_period_s=period_us // unit_us)
    return SimulatorConfig(
        seed=seed,
        radio_cells=radio_cells,
        ues=ues,
        rsrp_period_ms=period_us // 1000,
        channel_state_period_s=lcm(period_us, 1_000_000) // 1_000_000,
        neighbours=NEIGHBOURS_MAX,
        neighbour_sinr=any(column.endswith("sinr_db") for column in stream.columns),
    )


def _fit(config: Config, stream: str, predictor: str, dataset: TrainingSet) -> tuple[Artefact, TrainingReport]:
    """Train beside the artefacts of the predictor, then give the new one its name."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from netpredict.learn import train as training
    from netpredict.learn.registry import load_artefact
    from netpredict.learn.retrain import models_folder

    bound, now_us = config.predictors[predictor], time.time_ns() // 1000
    home = models_folder(config, stream, predictor)
    draft = home / f".training-{now_us}"
    losses = TextColumn("{task.fields[losses]}", markup=False)
    shown = progress(TextColumn("{task.description}", markup=False), BarColumn(), losses, TimeRemainingColumn())
    try:
        with shown:
            task = shown.add_task(f"{predictor} on {len(dataset.values)} series", total=None, losses="")

            def step(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
                losses = f"loss {loss:.4f}, validation {validation_loss:.4f}, {left_s:.0f} s left"
                shown.update(task, completed=done, total=total, losses=losses)

            artefact, report = training.train(dataset, bound.plugin, bound.options, draft, now_us=now_us, progress=step)
        folder = home / artefact.version
        if not folder.exists():
            draft.rename(folder)
        return load_artefact(folder, artefact.version), report
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _register(
    config: Config, stream: str, predictor: str, artefact: Artefact, report: TrainingReport, promote: bool
) -> str:
    """Into the store; gives the stage of the version."""
    from netpredict.learn.retrain import refusal
    from netpredict.store.history import History

    plugin, scores = config.predictors[predictor].plugin, report.scores
    with opened_store(config.store_url) as store:
        model_id = store.register_model(
            stream, predictor, artefact.version, plugin, str(artefact.folder), scores, "candidate"
        )
        if not promote:
            rows = History(config.store_url).models(stream, predictor)
            return next(str(row["stage"]) for row in rows if row["model_id"] == model_id)
        if why := refusal(scores):
            say(f"promoted as you wish, although its {why}")
        move(store, model_id, PROMOTED, "trained and promoted by hand")
    if predictor not in config.streams[stream].predictor_names():
        say(f"promoted, but no route of stream {stream} uses {predictor}: it will not serve")
    return "active"


def _tell(stream: str, predictor: str, stage: str, artefact: Artefact, report: TrainingReport, as_json: bool) -> None:
    from netpredict.learn.train import LOSS_CURVE

    told = {
        "stream": stream,
        "predictor": predictor,
        "version": artefact.version,
        "stage": stage,
        "folder": str(artefact.folder),
        "loss_curve": str(artefact.folder / LOSS_CURVE),
        "train_epochs": report.train_epochs,
        "training_s": report.training_s,
        "loss": list(report.loss),
        "validation_loss": list(report.validation_loss),
        "scores": dict(report.scores),
    }
    if as_json:
        print_json(told)
        return
    last = {name: told[name][-1] if told[name] else None for name in ("loss", "validation_loss")}  # type: ignore[index]
    names = ("stream", "predictor", "version", "stage", "folder", "loss_curve", "train_epochs", "training_s")
    print_fields([*((name, told[name]) for name in names), *last.items(), *sorted(report.scores.items())])

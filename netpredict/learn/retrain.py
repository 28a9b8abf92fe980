"""Retraining: newest stored observations -> child process -> better than naive and incumbent? -> active, old kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from netpredict.clock import Clock
from netpredict.config import Config, StreamConfig
from netpredict.errors import DataError, NetpredictError
from netpredict.learn.child import run_child, write_job
from netpredict.learn.dataset import build
from netpredict.plugins import load
from netpredict.store.commit import ModelRegistry, ModelRow, RetrainRow
from netpredict.store.history import History
from netpredict.stream import Stream
from netpredict.types import TrainingSet

LOG = structlog.get_logger(__name__)
SKILL_KEY = "skill"


@dataclass(frozen=True)
class Retrained:
    """What came of one run: ``result`` is promoted, refused or failed, ``why`` the reason."""

    stream: str
    predictor: str
    result: str
    why: str
    version: str = ""


def retrain_all(config: Config, streams: Mapping[str, Stream], store: ModelRegistry, clock: Clock) -> list[Retrained]:
    """Retrain every trainable predictor of every route, one after the other; a failure costs its own run only."""
    runs = []
    for name, stream_config in config.streams.items():
        for predictor in trainable(config, stream_config):
            runs.append(retrain(config, streams[name], predictor, store, clock))
    return runs


def trainable(config: Config, stream: StreamConfig) -> list[str]:
    """Names of the trainable predictors that the stream's routes use, sorted."""
    names = {name for route in stream.routes for name in (route.active, *route.shadows)}
    return sorted(name for name in names if load("predictors", config.predictors[name].plugin).trainable)


def retrain(config: Config, stream: Stream, predictor: str, store: ModelRegistry, clock: Clock) -> Retrained:
    """One run, recorded in the store whatever comes of it."""
    started_us = clock.now_us()
    model_id: int | None = None
    detail: dict[str, Any] = {}
    try:
        dataset = history(config, stream)
        version, folder, scores = _train(config, stream, predictor, dataset, started_us)
        plugin = config.predictors[predictor].plugin
        model_id = store.register_model(stream.name, predictor, version, plugin, str(folder), scores, "candidate")
        why = refusal(scores, incumbent(store, stream.name, predictor))
        run = Retrained(stream.name, predictor, "refused" if why else "promoted", why or "better", version)
        if not why:
            store.move_model(model_id, "active", "netpredict", "model_promoted", {"why": run.why})
        detail = {"version": version, "scores": scores, "why": run.why}
    except NetpredictError as error:
        run = Retrained(stream.name, predictor, "failed", str(error))
        detail = {"why": str(error)}
    store.record_retrain(RetrainRow(stream.name, predictor, started_us, run.result, model_id, detail))
    LOG.info("retrained", stream=run.stream, predictor=predictor, result=run.result, why=run.why, version=run.version)
    return run


def history(config: Config, stream: Stream) -> TrainingSet:
    """The newest stored observations of a stream as a TrainingSet; DataError when there are too few."""
    if not config.store.observations:
        raise DataError("store.observations is off: there is no history to train on")
    learn = config.learn
    observed = History(config.store.url).observations(
        stream.name,
        stream.columns,
        stream.period_us,
        stream.phase_us,
        steps=learn.history_steps,
        series_max=learn.series_max,
    )
    if not observed.keys:
        raise DataError(f"stream {stream.name} has no stored observations yet")
    return build(
        stream.features,
        stream.output,
        series_names=observed.keys,
        first_slot=observed.first_slot,
        values=observed.values,
        columns=stream.columns,
        validation_ratio=learn.validation_ratio,
    )


def models_folder(config: Config, stream: str, predictor: str) -> Path:
    """Where the artefacts of a predictor stand."""
    return Path(config.daemon.data_dir).absolute() / "models" / stream / predictor


def _train(
    config: Config, stream: Stream, predictor: str, dataset: TrainingSet, now_us: int
) -> tuple[str, Path, Mapping[str, float]]:
    home = models_folder(config, stream.name, predictor)
    job = home / f".job-{now_us}"
    bound = config.predictors[predictor]
    try:
        write_job(job, dataset, bound.plugin, bound.options, now_us)
        result = run_child(job, timeout_s=config.learn.timeout_s, nice=config.learn.nice)
        folder = home / result.version
        if not folder.exists():
            (job / "artefact").rename(folder)
        return result.version, folder, result.scores
    finally:
        shutil.rmtree(job, ignore_errors=True)


def incumbent(store: ModelRegistry, stream: str, predictor: str) -> ModelRow | None:
    """The version that is active now."""
    rows = [row for row in store.models(stream) if row.predictor == predictor and row.stage == "active"]
    return rows[-1] if rows else None


def refusal(scores: Mapping[str, float], old: ModelRow | None) -> str:
    """Why a candidate may not serve, empty when it may: it must beat naive, and not be worse than the incumbent was."""
    skill = scores.get(SKILL_KEY, float("nan"))
    if not skill > 0:
        return f"skill {skill:.3f} against naive is not above 0"
    if old is not None and skill < old.scores.get(SKILL_KEY, 0.0) - 0.02:
        return f"skill {skill:.3f} is below the {old.scores[SKILL_KEY]:.3f} of {old.version}"
    return ""

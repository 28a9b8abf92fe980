"""One retraining: newest stored observations -> child process -> held-out slice -> served, on trial, or refused."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from netpredict.clock import Clock
from netpredict.config import Config, LearnConfig, StreamConfig
from netpredict.errors import DataError, NetpredictError
from netpredict.learn.child import ARTEFACT, Result, TrainingFailed, run_child, write_job
from netpredict.learn.dataset import build
from netpredict.learn.evaluate import loss_ratio
from netpredict.learn.jobs import job_folder
from netpredict.learn.registry import load_artefact
from netpredict.plugins import load
from netpredict.store.commit import ModelRegistry, ModelRow, RetrainRow
from netpredict.store.history import History
from netpredict.stream import Stream
from netpredict.types import TrainingSet

LOG = structlog.get_logger(__name__)
WHO = "netpredict"
SKILL_KEY = "skill"
PROMOTED, CHALLENGES, REFUSED, DELETED = "model_promoted", "model_challenges", "model_refused", "model_deleted"


class TrainingCancelled(NetpredictError):
    """The daemon stops: the training was ended."""


@dataclass(frozen=True)
class Retrained:
    """What came of one run: ``result`` is promoted, challenging, refused, failed or cancelled, ``why`` the reason."""

    stream: str
    predictor: str
    result: str
    why: str
    version: str = ""


def retrain_all(config: Config, streams: Mapping[str, Stream], store: ModelRegistry, clock: Clock) -> list[Retrained]:
    """Retrain every trainable predictor of every route, one after the other; a failure costs its own run only."""
    return [
        retrain(config, streams[name], predictor, store, clock)
        for name, stream_config in config.streams.items()
        for predictor in trainable(config, stream_config)
    ]


def trainable(config: Config, stream: StreamConfig) -> list[str]:
    """Names of the trainable predictors that the stream's routes use, sorted."""
    return [name for name in stream.predictor_names() if load("predictors", config.predictors[name].plugin).trainable]


def retrain(
    config: Config,
    stream: Stream,
    predictor: str,
    store: ModelRegistry,
    clock: Clock,
    *,
    cause: Mapping[str, Any] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Retrained:
    """One run, recorded in the store whatever comes of it, with its ``cause``. It ends soon once ``cancelled``."""
    started_us = clock.now_us()
    detail: dict[str, Any] = {"cause": dict(cause or {"kind": "schedule"})}
    model_id: int | None = None
    stage, what = "", ""
    run = Retrained(stream.name, predictor, "failed", "")
    try:
        incumbent = active_version(store, stream.name, predictor)
        known = {row.version: row.stage for row in store.models(stream.name) if row.predictor == predictor}
        result, folder = _train(config, stream, predictor, incumbent, started_us, cancelled)
        plugin = config.predictors[predictor].plugin
        model_id = store.register_model(
            stream.name, predictor, result.version, plugin, str(folder), result.scores, "candidate"
        )
        again = known.get(result.version, "candidate")
        outcome, why = judged(result, incumbent, again, config.learn, trial=has_trials(config.learn, stream))
        run = Retrained(stream.name, predictor, outcome, why, result.version)
        stage, what = _MOVES.get(outcome, ("", "")) if again == "candidate" else ("", "")
        detail |= _compared(result, incumbent)
        if outcome == "challenging" and incumbent is not None:
            newest = History(config.store_url).newest_bucket(stream.name)
            detail |= {"incumbent_id": incumbent.model_id, "since_bucket": 0 if newest is None else newest + 1}
    except TrainingCancelled as error:
        run = Retrained(stream.name, predictor, "cancelled", str(error))
    except NetpredictError as error:
        run = Retrained(stream.name, predictor, "failed", str(error))
    row = RetrainRow(
        stream.name, predictor, started_us, run.result, model_id, {"version": run.version, "why": run.why, **detail}
    )
    if stage and model_id is not None:
        store.move_model(model_id, stage, WHO, what, {"why": run.why}, row)
    else:
        store.record_retrain(row)
    delete_old(config, store, stream.name, predictor)
    LOG.info("retrained", stream=run.stream, predictor=predictor, result=run.result, why=run.why, version=run.version)
    return run


_MOVES = {
    "promoted": ("active", PROMOTED),
    "challenging": ("challenger", CHALLENGES),
    "refused": ("refused", REFUSED),
}
"""By what came of a run: the stage of the version, and the word of the audit."""


def has_trials(learn: LearnConfig, stream: Stream) -> bool:
    """Whether a candidate has to win live: not where live scores know nothing of what is known in hindsight only."""
    return learn.challenge_buckets_min > 0 and stream.hindsight is None


def judged(result: Result, incumbent: ModelRow | None, again: str, learn: LearnConfig, trial: bool) -> tuple[str, str]:
    """(outcome, why) of a candidate after its training, on the held-out slice.

    Without a ``trial`` that slice decides alone.

    It must beat naive, and may lose ``held_out_margin`` at most to the version that serves, whose forecasts of the same
    slice were made by the same code. Then it is put on trial; it serves at once where nothing that loads served before.
    """
    if again != "candidate":
        return "refused", f"the training gave {result.version} once more, which is {again}"
    if why := refusal(result.held_out):
        return "refused", why
    if incumbent is None:
        return "promoted", "the first version that beats naive"
    if result.incumbent_error:
        return "promoted", f"{incumbent.version} cannot be compared with: {result.incumbent_error}"
    ratio = loss_ratio(result.held_out, result.incumbent_held_out)
    told = f"loss {ratio - 1:+.1%} against {incumbent.version} on the newest held-out slice"
    if not ratio <= 1 + learn.held_out_margin:
        return "refused", told
    if trial:
        return "challenging", told
    return ("promoted", told) if ratio < 1 else ("refused", told)


def refusal(scores: Mapping[str, float]) -> str:
    """Why a candidate may not serve whatever else there is, empty when it may: it must beat naive."""
    skill = scores.get(SKILL_KEY, math.nan)
    return "" if skill > 0 else f"skill {skill:.3f} against naive is not above 0"


def _compared(result: Result, incumbent: ModelRow | None) -> dict[str, Any]:
    detail: dict[str, Any] = {"scores": result.scores, "held_out": result.held_out, "training_s": result.training_s}
    if incumbent is not None:
        detail |= {"incumbent": incumbent.version, "incumbent_held_out": result.incumbent_held_out}
    return detail


def history(config: Config, stream: Stream) -> TrainingSet:
    """The newest stored observations of a stream as a TrainingSet; DataError when there are too few."""
    if not config.store.observations:
        raise DataError("store.observations is off: there is no history to train on")
    learn = config.learn
    observed = History(config.store_url).observations(
        stream.name,
        stream.columns,
        stream.period_us,
        stream.phase_us,
        steps=learn.history_steps,
        series_max=learn.series_max,
        by_ue=stream.hindsight is not None,
    )
    if not observed.keys:
        raise DataError(f"stream {stream.name} has no stored observations yet")
    began = int(np.isfinite(observed.values).any(axis=(0, 2)).argmax())  # else what is held out may be all there is
    return build(
        stream.features,
        stream.output,
        series_names=observed.keys,
        first_slot=observed.first_slot + began,
        values=observed.values[:, began:],
        columns=stream.columns,
        validation_ratio=learn.validation_ratio,
        hindsight=stream.hindsight,
    )


def models_folder(config: Config, *names: str) -> Path:
    """Where artefacts stand: all of them, those of a stream, or those of a stream and predictor."""
    return Path(config.daemon.data_dir).absolute().joinpath("models", *names)


def delete_old(config: Config, store: ModelRegistry, stream: str, predictor: str) -> None:
    """Delete artefacts beyond the newest ``keep_versions``; never one that serves, is on trial or may be gone back to.

    The rows stay, with the stage deleted, for what was decided about them.
    """
    home = models_folder(config, stream, predictor)
    rows = [row for row in store.models(stream) if row.predictor == predictor and Path(row.folder).parent == home]
    kept = [row for row in rows if row.stage != "deleted"][-config.learn.keep_versions :]
    kept += [row for row in rows if row.stage == "retired"][-1:]
    for row in rows:
        if row.stage in ("candidate", "refused", "retired") and row not in kept:
            store.move_model(row.model_id, "deleted", WHO, DELETED, {"why": "beyond learn.keep_versions"})
            shutil.rmtree(row.folder, ignore_errors=True)


def _train(
    config: Config,
    stream: Stream,
    predictor: str,
    incumbent: ModelRow | None,
    now_us: int,
    cancelled: Callable[[], bool],
) -> tuple[Result, Path]:
    def stop_when_cancelled() -> None:
        if cancelled():
            raise TrainingCancelled("the daemon stops")

    home, learn = models_folder(config, stream.name, predictor), config.learn
    bound = config.predictors[predictor]
    compared = (incumbent.folder, incumbent.version) if incumbent else ("", "")
    dataset = history(config, stream)
    stop_when_cancelled()
    try:
        with job_folder(home, now_us) as job:
            write_job(job, dataset, bound.plugin, bound.options, now_us, compared)
            result = run_child(
                job,
                timeout_s=learn.timeout_s,
                nice=learn.nice,
                threads=learn.threads,
                memory_max_bytes=learn.memory_max_bytes,
                on_wait=stop_when_cancelled,
            )
            folder = home / result.version
            if not folder.exists():
                load_artefact(job / ARTEFACT, result.version)  # whole, before it stands under its name
                (job / ARTEFACT).rename(folder)
            return result, folder
    except OSError as error:
        raise TrainingFailed(f"the training of {predictor} could not be kept below {home}: {error}") from error


def active_version(store: ModelRegistry, stream: str, predictor: str) -> ModelRow | None:
    """The version that is active now."""
    return _at_stage(store, stream, predictor, "active")


def challenger_of(store: ModelRegistry, stream: str, predictor: str) -> ModelRow | None:
    """The version that is on trial now."""
    return _at_stage(store, stream, predictor, "challenger")


def _at_stage(store: ModelRegistry, stream: str, predictor: str, stage: str) -> ModelRow | None:
    rows = [row for row in store.models(stream) if (row.predictor, row.stage) == (predictor, stage)]
    return rows[-1] if rows else None

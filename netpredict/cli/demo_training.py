"""Training of the demo: the simulated network's past becomes three data sets, children learn from them side by side."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netpredict.config import Config
from netpredict.errors import NetpredictError
from netpredict.learn.child import Step, run_child, write_job
from netpredict.learn.dataset import build
from netpredict.learn.registry import load_artefact
from netpredict.learn.retrain import SKILL_KEY, models_folder
from netpredict.store.sql import SqlStore
from netpredict.stream import Stream
from netpredict.traces.simulator import History, Simulator
from netpredict.types import AnyArray, TrainingSet

HISTORY_S = 2 * 86_400
"""The traffic of the two days before is learned from..."""
RADIO_HISTORY_S = 5_400
"""... and of RSRP and channel state the last one and a half hours."""
SERIES_MAX, STEPS_MAX = 512, 553_000
"""At most so many series, and so many steps of all of them together."""
HEARD_RATIO = 0.03
"""A pair of UE and radio cell that was heard for a smaller share of the time teaches little; with a much larger one
only UEs that hardly move would teach.
"""
SIDE_BY_SIDE = 2
TIMEOUT_S = 300.0


class Cancelled(Exception):
    """Somebody pressed Ctrl-C."""


@dataclass(frozen=True)
class Training:
    """One finished training. ``seconds`` is its own time in the child, without the start of the libraries."""

    stream: str
    predictor: str
    version: str
    seconds: float
    skill: float
    loss: Sequence[float | None]
    validation_loss: Sequence[float | None]


def jobs(config: Config) -> list[tuple[str, str]]:
    """(stream, predictor) of everything in the routes: the demo has nothing there that cannot be trained.

    To ask the plugins would load TensorFlow here before the children may begin.
    """
    return [(name, predictor) for name, stream in config.streams.items() for predictor in stream.predictor_names()]


def past(simulator: Simulator) -> dict[str, History]:
    """Let the network run for ``RADIO_HISTORY_S``, and its traffic alone for the days before; gives what it told."""
    config = simulator.config
    early_steps = (HISTORY_S - RADIO_HISTORY_S) // config.traffic_period_s
    times_s = config.start_us / 1e6 + config.traffic_period_s * np.arange(-early_steps, 0)
    early = np.stack([simulator.load.advance(time_s) for time_s in times_s.tolist()], axis=1).astype(np.float32)
    late = simulator.history(RADIO_HISTORY_S)
    whole = late["traffic"]
    slots = np.concatenate([whole.slots[0] + np.arange(-early_steps, 0), whole.slots])
    values = np.concatenate([early, whole.values], axis=1)
    return {**late, "traffic": History(whole.series_keys, slots, values, whole.kpis)}


def training_set(stream: Stream, history: History) -> TrainingSet:
    """What the predictors of a stream learn from: some of its series, evenly chosen."""
    values, columns = history.values, list(history.kpis)
    if "serving" in stream.columns:
        serving = np.isfinite(values[..., columns.index("sinr_db")]).astype(np.float32)
        heard = np.isfinite(values[..., columns.index("rsrp_dbm")])
        values = np.concatenate([values, np.where(heard, serving, np.nan)[..., None]], axis=2)
        columns.append("serving")
    rows = _chosen(values[..., columns.index(stream.output.kpis[0])])
    return build(
        stream.features,
        stream.output,
        series_names=["|".join(history.series_keys[row]) for row in rows],
        first_slot=np.full(len(rows), history.slots[0]),
        values=values[rows],
        columns=columns,
    )


def _chosen(kpi: AnyArray) -> list[int]:
    heard = np.isfinite(kpi).mean(axis=1)
    rows = np.flatnonzero(heard >= min(HEARD_RATIO, heard.max()))
    count = min(SERIES_MAX, STEPS_MAX // kpi.shape[1], len(rows))
    return [int(rows[number * len(rows) // count]) for number in range(count)]


def train_all(
    config: Config,
    streams: Mapping[str, Stream],
    histories: Mapping[str, History],
    now_us: int,
    on_step: Callable[[str, str, Step], None],
    on_done: Callable[[Training], None],
) -> list[Training]:
    """Train in child processes, ``SIDE_BY_SIDE`` at a time; Ctrl-C ends them. Callbacks come from other threads."""
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise Cancelled

    def one(stream: str, predictor: str) -> Training:
        def step(done: Step) -> None:
            on_step(stream, predictor, done)

        check()
        training = _train(config, streams[stream], predictor, sets[stream], now_us, step, check)
        on_done(training)
        return training

    sets = {name: training_set(streams[name], history) for name, history in histories.items()}
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="training") as pool:
        futures: list[Future[Training]] = [pool.submit(one, *job) for job in jobs(config)]
        try:
            while wait(futures, timeout=0.2).not_done:
                pass
        except KeyboardInterrupt:
            cancelled.set()
            raise
    return [future.result() for future in futures]


def _train(
    config: Config,
    stream: Stream,
    predictor: str,
    dataset: TrainingSet,
    now_us: int,
    on_step: Callable[[Step], None],
    on_wait: Callable[[], None],
) -> Training:
    home = models_folder(config, stream.name, predictor)
    bound = config.predictors[predictor]
    job = write_job(home / ".job", dataset, bound.plugin, bound.options, now_us)
    try:
        result = run_child(job, timeout_s=TIMEOUT_S, nice=0, on_progress=on_step, on_wait=on_wait)
        folder = home / result.version
        (job / "artefact").rename(folder)
    finally:
        shutil.rmtree(job, ignore_errors=True)
    manifest = load_artefact(folder, result.version).manifest
    skill = result.scores.get(SKILL_KEY, float("nan"))
    curves = (manifest.loss, manifest.validation_loss)
    return Training(stream.name, predictor, result.version, result.training_s, skill, *curves)


def put_on_the_shelf(config: Config, url: str, trainings: Sequence[Training]) -> None:
    """Register what was trained as active, before the daemon starts."""
    with SqlStore(url) as store:
        for training in trainings:
            folder = models_folder(config, training.stream, training.predictor) / training.version
            if not Path(folder).is_dir():
                raise NetpredictError(f"the artefact of {training.predictor} is gone: {folder}")
            store.register_model(
                training.stream,
                training.predictor,
                training.version,
                config.predictors[training.predictor].plugin,
                str(folder),
                {SKILL_KEY: training.skill},
                "active",
            )

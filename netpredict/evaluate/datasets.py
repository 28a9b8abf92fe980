"""Public data sets as tasks: which part trains a predictor, which part it is scored on, and with which settings.

Split in time throughout: nothing of a period is trained, tuned or calibrated on before it is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from netpredict.errors import DataError
from netpredict.learn.dataset import align
from netpredict.traces import milan, nist_prosas, tractor
from netpredict.traces.trace import Trace
from netpredict.types import AnyArray, FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet, place_columns

LEVELS = (0.1, 0.5, 0.9)
DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Period:
    """One part that is scored: trained on ``training``, then walked along ``values`` (S, T, k) from cold.

    ``history`` (S, T, k) is the training part uncut: baselines are tuned on it, errors scaled by it.
    Forecasts issued at the steps ``first`` … ``stop`` - 2 count, with targets before ``stop``; from ``calibrate_from``
    on the quantiles are calibrated by what has come true.
    """

    name: str
    training: TrainingSet
    history: FloatArray
    values: FloatArray
    first_slot: IntArray
    first: int
    stop: int
    calibrate_from: int


@dataclass(frozen=True, slots=True)
class Task:
    """Periods and how they are judged: ``seasons`` are baselines by name in steps, ``mase_steps`` the MASE's season.

    ``settings`` are the predictors' options by name, those under "" for every trainable one. ``places`` are row and
    column of each series where they lie on a grid, for predictors that take the grid as one series.
    """

    name: str
    periods: tuple[Period, ...]
    features: FeatureSpec
    output: OutputSpec
    series: tuple[str, ...]
    seasons: Mapping[str, int]
    mase_steps: int
    bucket_steps: int
    shown_leads: tuple[int, ...]
    settings: Mapping[str, Mapping[str, Any]]
    places: tuple[tuple[int, int], ...] = ()


MILAN_HOLIDAYS = ("2013-11-01", "2013-12-08", "2013-12-25", "2013-12-26", "2014-01-01", "2014-01-06")
MILAN_WEEKS = {"ordinary week": "2013-12-12", "holiday week": "2013-12-26"}
MILAN_SETTINGS: dict[str, dict[str, Any]] = {
    "": {
        "inputs": "season",
        "scaler_steps": 500,
        "optimiser": "adamw",
        "weight_decay": 0.004,
        "schedule": "cosine",
        "final_rate_ratio": 0.05,
        "train_epochs": 8,
        "minibatch_size": 49,
        "bptt_steps": 48,
    },
    "conv_lstm": {"train_epochs": 30, "bptt_steps": 24},  # the grid is one series, each chunk one update
}


def milan_task(folder: Path, limit: int | None) -> Task:
    """The distinct full squares, 1 to 24 hours ahead; each week is forecast by weights of the days before it."""
    squares = [trace for trace in milan.read(folder) if not {"missing_hours", "exact_copy"} & trace.noted.keys()]
    squares = squares[:limit]
    values = np.stack([trace.frame[["activity_count"]].to_numpy(np.float32) for trace in squares])
    start_us = squares[0].start_us
    features = FeatureSpec(("activity_count",), 3_600_000_000, 168, 7 * DAY_US, 0, MILAN_HOLIDAYS, milan.TIME_ZONE)
    output = OutputSpec(features.observed, 24, LEVELS)
    first_slot = np.full(len(values), start_us // features.period_us, np.int64)
    names = tuple(trace.name for trace in squares)
    periods = []
    for name, day in MILAN_WEEKS.items():
        begin = int(pd.Timestamp(day, tz=milan.TIME_ZONE).timestamp() * 1e6 - start_us) // features.period_us
        training = TrainingSet(features, output, values[:, :begin], first_slot, begin, names)
        periods.append(Period(name, training, training.values, values, first_slot, begin - 1, begin + 168, begin - 336))
    seasons = {"seasonal_daily": 24, "seasonal_weekly": 168}
    shown = (1, 2, 3, 6, 12, 24)
    found = milan.places([int(name.removeprefix(milan.PREFIX)) for name in names])
    places = tuple(found.values())
    return Task("milan-hourly", tuple(periods), features, output, names, seasons, 24, 24, shown, MILAN_SETTINGS, places)


NIST_TRAINING_RATIO = 0.7
NIST_WARM_STEPS = 5_000  # walked before the scored part: five times the longest mean that is kept
NIST_SETTINGS: dict[str, dict[str, Any]] = {
    "": {
        "inputs": "medians",
        "scaler_steps": 2_000,
        "schedule": "cosine",
        "final_rate_ratio": 0.05,
        "train_epochs": 6,
        "bptt_steps": 60,
    }
}


def nist_task(folder: Path, limit: int | None) -> Task:
    """One radio cell, 1 to 60 minutes ahead; the last 30 % of the minutes are scored."""
    trace = next(nist_prosas.read(folder))
    slot = trace.frame["event_time_us"].to_numpy() // 60_000_000
    first_slot, values = align(np.zeros(len(slot), np.int64), slot, trace.frame[["allocated_prbs"]].to_numpy(), 1)
    values = values[:, : None if limit is None else 2_000 * limit]
    features = FeatureSpec(("allocated_prbs",), 60_000_000, 24, DAY_US)
    output = OutputSpec(features.observed, 60, LEVELS)
    cut = int(values.shape[1] * NIST_TRAINING_RATIO)
    training = TrainingSet(features, output, values[:, :cut], first_slot, cut, (trace.name,))
    begin = max(0, cut - NIST_WARM_STEPS)
    steps = values.shape[1] - begin
    period = Period(
        name="last 30 %",
        training=in_segments(training, 1_020),
        history=training.values,
        values=values[:, begin:],
        first_slot=first_slot + begin,
        first=cut - 1 - begin,
        stop=steps,
        calibrate_from=0,
    )
    shown = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60)
    seasons = {"seasonal_daily": 1440}
    return Task("nist-prosas", (period,), features, output, (trace.name,), seasons, 1440, 60, shown, NIST_SETTINGS)


TRACTOR_TRAINING_RATIO = 0.7
TRACTOR_GAP_S = 1.0
TRACTOR_LEAST_STEPS = 60
TRACTOR_FIRST_STEP = 7  # of a session, 0 the first: before it a scale is hardly known
TRACTOR_SETTINGS: dict[str, dict[str, Any]] = {
    "": {"inputs": "medians", "schedule": "cosine", "final_rate_ratio": 0.05, "train_epochs": 4, "bptt_steps": 40}
}


def tractor_task(folder: Path, limit: int | None) -> Task:
    """MCS, CQI and granted PRBs of a UE, 0.25 to 2.5 s ahead; the sessions that begin last are scored."""
    kpis = ("mcs", "cqi", "granted_prbs")
    features = FeatureSpec(kpis, 250_000)
    output = OutputSpec(kpis, 10, LEVELS)
    found = [session for trace in islice(tractor.read(folder), limit) for session in _sessions(trace, kpis)]
    found.sort(key=lambda session: (session[1], session[0]))
    rows = np.cumsum([len(values) for _, _, values in found])
    cut = int(np.searchsorted(rows, TRACTOR_TRAINING_RATIO * rows[-1]))
    if not 0 < cut < len(found):
        raise DataError(f"{len(found)} sessions cannot be parted in time: read more traces")
    trained, scored = (_of_sessions(features, output, part) for part in (found[:cut], found[cut:]))
    period = Period(
        name="last sessions",
        training=in_segments(trained, 400),
        history=trained.values,
        values=scored.values,
        first_slot=scored.first_slot,
        first=TRACTOR_FIRST_STEP,
        stop=scored.values.shape[1],
        calibrate_from=TRACTOR_FIRST_STEP,
    )
    names = tuple(scored.series_names)
    return Task("tractor", (period,), features, output, names, {}, 1, 40, tuple(range(1, 11)), TRACTOR_SETTINGS)


def _sessions(trace: Trace, kpis: tuple[str, ...]) -> Iterator[tuple[str, int, FloatArray]]:
    """Stretches without a jump in time: name, first slot, values (steps, k) on the grid."""
    time_us = trace.frame["event_time_us"].to_numpy()
    values = trace.frame[list(kpis)].to_numpy(np.float32)
    bounds = [0, *(np.flatnonzero(np.abs(np.diff(time_us)) > TRACTOR_GAP_S * 1e6) + 1), len(time_us)]
    for number, (begin, end) in enumerate(pairwise(bounds)):
        slot = np.round(time_us[begin:end] / 250_000).astype(np.int64)
        if len(slot) >= TRACTOR_LEAST_STEPS:
            first_slot, grid = align(np.zeros(len(slot), np.int64), slot, values[begin:end], 1)
            yield f"{trace.name}#{number}", int(first_slot[0]), grid[0]


def _of_sessions(features: FeatureSpec, output: OutputSpec, found: list[tuple[str, int, FloatArray]]) -> TrainingSet:
    """Sessions side by side from their first steps; the short ones end in missing values."""
    steps = max(len(values) for _, _, values in found)
    grid = np.full((len(found), steps, len(features.observed)), np.nan, np.float32)
    for row, (_, _, values) in enumerate(found):
        grid[row, : len(values)] = values
    slots = np.array([slot for _, slot, _ in found], np.int64)
    return TrainingSet(features, output, grid, slots, steps, tuple(name for name, _, _ in found))


def in_segments(dataset: TrainingSet, steps: int) -> TrainingSet:
    """Long series as many short ones to train side by side: cut every ``steps``, the rest and the empty left out."""
    series, length, columns = dataset.values.shape
    count = max(1, length // steps)
    steps = min(steps, length)
    values = dataset.values[:, : count * steps].reshape(series * count, steps, columns)
    starts: AnyArray = np.asarray(dataset.first_slot)[:, None] + steps * np.arange(count)
    kept = np.isfinite(values).any(axis=(1, 2))
    names = np.repeat(np.array(dataset.series_names), count)[kept]
    return replace(
        dataset,
        values=values[kept],
        first_slot=starts.ravel()[kept],
        validation_from=steps,
        series_names=tuple(names.tolist()),
    )


def on_grid(task: Task, period: Period) -> tuple[Task, Period]:
    """The series as one, with a column for every place of their grid; DataError where they have no places."""
    if not task.places:
        raise DataError(f"{task.name} has no grid; take a predictor of single series")
    rows, columns = (1 + max(place[axis] for place in task.places) for axis in (0, 1))
    output = replace(task.output, kpis=place_columns(task.output.kpis, rows, columns))
    features = replace(task.features, observed=output.kpis)
    at = [row * columns + column for row, column in task.places]

    def spread(values: FloatArray) -> FloatArray:
        grid = np.full((1, values.shape[1], rows * columns), np.nan, np.float32)
        grid[0, :, at] = values[:, :, 0]
        return grid

    training = TrainingSet(
        features, output, spread(period.training.values), period.first_slot[:1], period.training.validation_from
    )
    walked = replace(period, training=training, values=spread(period.values), first_slot=period.first_slot[:1])
    return replace(task, features=features, output=output), walked


TASKS: dict[str, tuple[str, Callable[[Path, int | None], Task]]] = {
    "milan-hourly": ("milan-hourly", milan_task),
    "nist-prosas": ("nist-prosas", nist_task),
    "tractor": ("tractor", tractor_task),
}
"""Name -> folder below the data folder, and what makes the task of it (with only the first series when limited)."""

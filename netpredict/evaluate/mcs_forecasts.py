"""The forecasts that an evaluation of the mcs hook acts on: by folds over traces, and of one half for tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.errors import DataError
from netpredict.evaluate import published
from netpredict.evaluate.datasets import Period, Task
from netpredict.evaluate.forecasting import calibrated
from netpredict.evaluate.forecasting import walk as walk_forecasts
from netpredict.evaluate.published import Recording
from netpredict.forecast.predictor import Predictor
from netpredict.radio.classes import FINE_LEVELS, classes_of, probability_at_least
from netpredict.types import AnyArray, FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet

DELAYS_S = (1, 2, 3, 5)
FEATURES = FeatureSpec(("cqi", "sinr_db", "rsrp_dbm"), 1_000_000)
OUTPUT = OutputSpec(("cqi",), max(DELAYS_S), FINE_LEVELS)
SEGMENT_STEPS = 480
BUCKET_STEPS = 900
"""Calibration takes effect after so many seconds each time."""

Fit = Callable[[TrainingSet, str], Predictor]
"""Trains on a set, with a name to show."""


@dataclass(frozen=True, slots=True)
class World:
    """Traces and their folds; ``forecasts`` by fold: quantiles (T, leads, levels) by weights that have not seen the
    trace, None for the half of the training part that the price is not tuned on.
    """

    recordings: Sequence[Recording]
    fold: IntArray
    folds: int
    forecasts: Sequence[Sequence[FloatArray | None]]

    def series(self) -> list[FloatArray]:
        """CQI of every trace."""
        return [each.values[:, 0] for each in self.recordings]

    def parts(self) -> Iterator[tuple[int, IntArray, IntArray]]:
        """Number, training traces and scored traces of every fold."""
        for number in range(self.folds):
            yield number, np.flatnonzero(self.fold != number), np.flatnonzero(self.fold == number)


def forecast_by_folds(recordings: Sequence[Recording], fit: Fit, folds: int) -> World:
    """Train and forecast; DataError when a fold has nothing to train on or to score."""
    usable = [each for each in recordings if np.isfinite(each.values[:, 0]).sum() > max(DELAYS_S)]
    fold = published.folds_of(usable)
    names = [f"fold {number + 1} of {folds}" for number in range(folds)]
    forecasts = [forecast_fold(usable, fold == number, fit, name) for number, name in enumerate(names)]
    return World(usable, fold, folds, forecasts)


def forecast_fold(recordings: Sequence[Recording], held_out: AnyArray, fit: Fit, told: str) -> list[FloatArray | None]:
    """Scored traces by weights of all others; of these, one half by weights of the other half, for tuning."""
    test, train = np.flatnonzero(held_out), np.flatnonzero(~held_out)
    if not len(test) or len(train) < 2:
        raise DataError(f"{told} has no trace to score or less than two to train on: take more")
    found: list[FloatArray | None] = [None] * len(recordings)
    half = published.folds_of([recordings[index] for index in train.tolist()], 2)
    steps = ((train, test, told), (train[half == 0], train[half == 1], f"{told}, to tune by"))
    for learnt, forecast, name in steps:
        predictor = fit(training_set([recordings[index] for index in learnt.tolist()]), name)
        answers = quantiles(predictor, [recordings[index] for index in forecast.tolist()])
        for index, answer in zip(forecast.tolist(), answers, strict=True):
            found[index] = answer
    return found


def training_set(recordings: Sequence[Recording]) -> TrainingSet:
    """Their pieces as series; what was not measured is no target."""
    pieces, names = [], []
    for each in recordings:
        for start in range(0, len(each.values), SEGMENT_STEPS):
            part = each.values[start : start + SEGMENT_STEPS]
            if np.isfinite(part[:, 0]).any():
                piece = np.full((SEGMENT_STEPS, part.shape[1]), np.nan, np.float32)
                piece[: len(part)] = part
                pieces.append(piece)
                names.append(f"{each.name}@{start}")
    first_slot = np.zeros(len(pieces), np.int64)
    return TrainingSet(FEATURES, OUTPUT, np.stack(pieces), first_slot, SEGMENT_STEPS, tuple(names))


def quantiles(predictor: Predictor, recordings: Sequence[Recording]) -> list[FloatArray]:
    """Calibrated and rounded as in the pipeline, the traces as UEs of one topic partition: (T, leads, levels) each."""
    steps = max(len(each.values) for each in recordings) + 1
    values = np.full((len(recordings), steps, len(FEATURES.observed)), np.nan, np.float32)
    for row, each in enumerate(recordings):
        values[row, : len(each.values)] = each.values
    first_slot = np.zeros(len(recordings), np.int64)
    training = TrainingSet(FEATURES, OUTPUT, values[:0], first_slot[:0], 0)
    period = Period("traces", training, values[:0], values, first_slot, 0, steps, 0)
    names = tuple(each.name for each in recordings)
    task = Task("ucc5g", (period,), FEATURES, OUTPUT, names, {}, 1, BUCKET_STEPS, DELAYS_S, {})
    answers = calibrated(walk_forecasts(predictor, FEATURES, period, 0), values, task, 0)
    return [answers[: len(each.values), row, 0] for row, each in enumerate(recordings)]


def in_time(answers: FloatArray, values: FloatArray, delay: int) -> FloatArray:
    """P(CQI >= c) that is acted on in each second, (T, 16).

    It is of the newest forecast issued ``delay`` s before or earlier; a second without any message issues none.
    """
    at_least = probability_at_least(answers[:, delay - 1], OUTPUT.levels, classes_of("cqi"))
    issued = np.isfinite(values).any(axis=1) & np.isfinite(at_least[:, -1])
    newest = np.maximum.accumulate(np.where(issued, np.arange(len(at_least)), -1))
    newest = np.concatenate([np.full(delay, -1), newest])[: len(at_least)]
    acted_on: FloatArray = np.where(newest[:, None] >= 0, at_least[np.maximum(newest, 0)], np.nan).astype(np.float32)
    return acted_on

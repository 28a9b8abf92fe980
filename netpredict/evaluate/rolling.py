"""A predictor along a history, step by step as live; and left alone with its own forecasts from some steps on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.forecast.predictor import Predictor
from netpredict.forecast.running import RunningPredictor
from netpredict.forecast.series import SeriesTable
from netpredict.learn.evaluate import LEAD_IN_STEPS, features_at
from netpredict.types import AnyArray, FloatArray, TrainingSet

SOUGHT_STEPS = 40


@dataclass(frozen=True, slots=True)
class Rolled:
    """What one predictor said of the single KPI of a TrainingSet.

    ``answers`` float32 (S, T', horizon, levels): of the forecasts issued from ``validation_from`` on, but the last one.
    ``rollouts`` float32 (examples, length): its own medians one step ahead, each fed back as if it had been observed.
    ``forecast_us``: time of one series and step, µs.
    """

    answers: FloatArray
    rollouts: FloatArray
    forecast_us: float


def roll(predictor: Predictor, dataset: TrainingSet, issues: Sequence[tuple[int, int]], length: int) -> Rolled:
    """Hidden states run on from step to step, in the wrapper that serves live. ``issues`` are (row, step)."""
    walk = _Walk(predictor, dataset)
    steps = dataset.values.shape[1]
    answers: list[FloatArray] = []
    rollouts = np.full((len(issues), length), np.nan, np.float32)
    walked_s = 0.0
    walked = range(max(0, dataset.validation_from - LEAD_IN_STEPS), steps - 1)
    for step in walked:
        started_s = time.perf_counter()
        answer = walk.advance(step, dataset.values[:, step])
        walked_s += time.perf_counter() - started_s
        if step >= dataset.validation_from:
            answers.append(answer)
        for place, (row, issued) in enumerate(issues):
            if issued == step:
                rollouts[place] = walk.alone(step, answer, length)[row]
    return Rolled(np.stack(answers, axis=1), rollouts, walked_s * 1e6 / len(walked) / len(dataset.values))


def issue_steps(values: FloatArray, first: int, length: int, count: int) -> list[tuple[int, int]]:
    """``count`` pairs (row, step) spread over rows and over the steps from ``first``, where most truth is known."""
    known = np.isfinite(values)
    seen = np.cumsum(np.concatenate([np.zeros((len(values), 1), int), known], axis=1), axis=1)
    last = max(first + 1, values.shape[1] - length - 1)
    rows = np.argsort(-known[:, first:].sum(axis=1), kind="stable")[: max(1, min(len(values), 4 * count))]
    chosen = []
    for number in range(count):
        steps = np.unique(np.linspace(first + (last - first) * number / count, last - 1, SOUGHT_STEPS).astype(int))
        row = int(rows[number * len(rows) // count])
        ahead = seen[row, np.minimum(steps + 1 + length, values.shape[1])] - seen[row, steps + 1]
        chosen.append((row, int(steps[np.argmax(ahead * known[row, steps])])))
    return chosen


class _Walk:
    """One predictor on all series of a TrainingSet; hidden states go from call to call."""

    def __init__(self, predictor: Predictor, dataset: TrainingSet) -> None:
        self.dataset = dataset
        self.middle = dataset.output.levels.index(0.5)
        self.running = RunningPredictor("compared", "-", 0, predictor)
        self.table = SeriesTable()
        self.table.add_columns(self.running.columns())
        rows = [self.table.allocate(0, str(number), number) for number in range(len(dataset.values))]
        self.rows: AnyArray = np.array(rows, np.int64)

    def advance(self, step: int, observed: FloatArray) -> FloatArray:
        """The forecasts issued at a step at which this was observed (S, k): (S, horizon, levels), levels in order."""
        features = features_at(self.dataset, step)
        features[:, : observed.shape[1]] = observed
        answer: FloatArray = np.sort(self.running.advance(self.table, self.rows, features).values[:, 0], axis=-1)
        return answer

    def alone(self, step: int, answer: FloatArray, length: int) -> FloatArray:
        """Medians (S, length) of the steps behind ``step``, each fed back; the hidden states are left as they were."""
        names = list(self.running.columns())
        kept = {name: self.table.column(name).copy() for name in names}
        medians = []
        for ahead in range(1, length + 1):
            medians.append(answer[:, 0, self.middle])
            if ahead < length:
                answer = self.advance(step + ahead, medians[-1][:, None])
        for name in names:
            self.table.column(name)[:] = kept[name]
        return np.stack(medians, axis=1)

"""A predictor over one period: trained, walked from step to step by its ``advance``, calibrated as in the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netpredict import plugins
from netpredict.calendar import calendar
from netpredict.evaluate.datasets import Period, Task, on_grid
from netpredict.forecast.calibrate import Cells, Rounding, middle_of, moved, widen
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.running import PAD_ROWS
from netpredict.radio.quantities import kpi_of
from netpredict.types import AnyArray, FeatureSpec, FloatArray, Hidden, Outputs, OutputSpec, Progress, TrainingReport

GRID_PREDICTORS = ("conv_lstm",)
"""They take all series at once, each at its place."""


def trained(
    name: str, task: Task, period: Period, options: Mapping[str, Any], progress: Progress | None
) -> tuple[Predictor, TrainingReport | None]:
    """The plugin of this name with its settings for the task; fitted where there is something to fit."""
    plugin = plugins.load("predictors", name)
    shared = task.settings.get("", {}) if plugin.trainable else {}
    given = {**shared, **task.settings.get(name, {}), **(options if plugin.trainable else {})}
    decoded = plugins.options_of(plugin, given, f"options of {name} for {task.name}")
    if name in GRID_PREDICTORS:
        task, period = on_grid(task, period)
    predictor = plugin.build(decoded, task.features, task.output)
    return predictor, predictor.fit(period.training, progress) if plugin.trainable else None


def forecasts(predictor: Predictor, task: Task, period: Period) -> FloatArray:
    """Calibrated quantiles of the counted issues: (issues, S, kpis, horizon, levels)."""
    begin = min(period.first, period.calibrate_from)
    if predictor.output_spec() == task.output:
        raw = walk(predictor, task.features, period, begin)
    else:
        whole, frames = on_grid(task, period)
        raw = _of_places(walk(predictor, whole.features, frames, begin), task)
    return calibrated(raw, period.values, task, begin)[period.first - begin :]


def walk(predictor: Predictor, features: FeatureSpec, period: Period, begin: int) -> FloatArray:
    """Step by step from cold; the answers from step ``begin`` to the last but one before ``stop``."""
    series = len(period.values)
    rows = -(-series // PAD_ROWS) * PAD_ROWS if predictor.padded else series
    place = np.minimum(np.arange(rows), series - 1)
    hidden: Hidden = {
        name: np.full((rows, *array.shape), array.fill, array.dtype) for name, array in predictor.state_spec().items()
    }
    output, answers = predictor.output_spec(), []
    for step in range(period.stop - 1):
        times = (period.first_slot[place] + step) * features.period_us + features.phase_us
        columns = np.concatenate([period.values[place, step], calendar(times, features)], axis=1)
        outputs, hidden = predictor.advance(columns.astype(np.float32), hidden)
        if step >= begin:
            answers.append(_stacked(outputs, output, series))
    return np.stack(answers)


def _of_places(frames: FloatArray, task: Task) -> FloatArray:
    """(issues, 1, places, …) -> (issues, S, 1, …)."""
    columns = 1 + max(column for _, column in task.places)
    return frames[:, 0, [row * columns + column for row, column in task.places]][:, :, None]


def _stacked(outputs: Outputs, output: OutputSpec, series: int) -> FloatArray:
    return np.stack([np.asarray(outputs[kpi])[:series] for kpi in output.kpis], axis=1)


def calibrated(raw: FloatArray, values: FloatArray, task: Task, begin: int) -> FloatArray:
    """As in the pipeline: conformal factors by KPI, lead and level, moved at the end of each bucket; rounded once."""
    levels, at = task.output.levels, middle_of(task.output.levels)
    known = [kpi_of(kpi) for kpi in task.output.kpis]
    rounding = Rounding([k.decimals for k in known], [k.low for k in known], [k.high for k in known])
    columns = [task.features.observed.index(kpi) for kpi in task.output.kpis]
    truth, cells, steps = values[:, :, columns], Cells(known), np.arange(values.shape[1])
    placed = np.stack([rounding.natural(cells.truth(rounding.observed(one), steps)) for one in truth])
    factor = np.ones((len(columns), *raw.shape[3:]), np.float32)
    corrected = np.empty_like(raw)
    for start in range(0, len(raw), task.bucket_steps):
        stop = min(start + task.bucket_steps, len(raw))
        wide = widen(raw[start:stop], factor, at)
        whole = rounding.forecast(wide.reshape(-1, *wide.shape[2:]))
        corrected[start:stop] = rounding.values(whole).reshape(wide.shape)
        below, n = _came_true(corrected, truth, placed, begin, start, stop, at)
        factor = moved(factor, levels, at, below, n)
    return corrected


def _came_true(
    corrected: FloatArray, truth: FloatArray, placed: FloatArray, begin: int, start: int, stop: int, middle: int
) -> tuple[AnyArray, AnyArray]:
    """Of the targets in this bucket: how many lay under each quantile, and how many there were (see ``ScoreRow``).

    ``truth`` and ``placed`` (S, T, kpis): as observed, and at its place in its class.
    """
    kpis, horizon, levels = corrected.shape[2:]
    below, n = np.zeros((kpis, horizon, levels), np.int64), np.zeros((kpis, horizon), np.int64)
    for lead in range(1, horizon + 1):
        issue = np.arange(max(0, start - lead), stop - lead)
        if len(issue):
            came = np.moveaxis(truth[:, begin + issue + lead], 0, 1)
            answer = corrected[issue, :, :, lead - 1]
            known = np.isfinite(came) & np.isfinite(answer).all(axis=3)
            known &= ~((answer == came[..., None]).all(axis=3))
            at = np.moveaxis(placed[:, begin + issue + lead], 0, 1)[..., None]
            under = np.where(np.arange(levels) < middle, at < answer, at <= answer)
            below[:, lead - 1] = (under & known[..., None]).sum(axis=(0, 1))
            n[:, lead - 1] = known.sum(axis=(0, 1))
    return below, n

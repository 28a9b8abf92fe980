"""Two predictors on the same held-out slice by the same code: what each would have foreseen, step by step as live."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from netpredict.calendar import calendar
from netpredict.forecast.calibrate import middle_of
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.running import RunningPredictor
from netpredict.forecast.series import SeriesTable
from netpredict.radio.quantities import is_hindsight
from netpredict.types import AnyArray, FloatArray, TrainingSet

LEAD_IN_STEPS = 512
"""So many steps before the held-out slice begins a predictor starts cold."""


def held_out(predictor: Predictor, dataset: TrainingSet) -> dict[str, float]:
    """Scores of the forecasts issued at or after ``validation_from``, by KPI in its own unit; {} when there are none.

    ``pinball.KPI`` (mean over levels), ``mae.KPI``, ``naive_mae.KPI``, ``skill.KPI`` = 1 - mae / naive_mae, ``n.KPI``;
    of a KPI of hindsight, whose forecast is a mean, ``mse.KPI``, ``naive_mse.KPI`` and the skill by them. ``skill`` is
    the mean over the KPIs. Hidden states go from step to step in the wrapper that serves live.
    """
    output, steps = dataset.output, dataset.values.shape[1]
    running = RunningPredictor("held-out", "-", 0, predictor)
    table = SeriesTable()
    table.add_columns(running.columns())
    rows = np.array([table.allocate(0, str(number), number) for number in range(len(dataset.values))], np.int64)
    columns = [dataset.features.observed.index(kpi) for kpi in output.kpis]
    truth = dataset.targets
    sums = np.zeros((len(output.kpis), 4))
    for step in range(max(0, dataset.validation_from - LEAD_IN_STEPS), steps - 1):
        answer = np.sort(running.advance(table, rows, features_at(dataset, step)).values, axis=-1)
        if step >= dataset.validation_from:
            sums += _errors(dataset, truth, step, columns, answer)
    return _scores(output.kpis, sums)


def features_at(dataset: TrainingSet, step: int) -> FloatArray:
    """What the pipeline would hand to a predictor at this step: float32 (S, features.width)."""
    spec = dataset.features
    features = np.empty((len(dataset.values), spec.width), np.float32)
    features[:, : len(spec.observed)] = dataset.values[:, step]
    times = (dataset.first_slot + step) * spec.period_us + spec.phase_us
    features[:, len(spec.observed) :] = calendar(times, spec)
    return features


def _errors(dataset: TrainingSet, targets: FloatArray, step: int, columns: list[int], answer: FloatArray) -> AnyArray:
    """n, pinball, error and naive's error of the forecasts issued at a step, summed: (kpis, 4).

    Of hindsight the errors are squared.
    """
    levels = np.asarray(dataset.output.levels)
    ahead = targets[:, step + 1 : step + 1 + dataset.output.horizon_steps]
    truth = np.moveaxis(ahead, 2, 1).astype(np.float64)
    answer = answer[:, :, : truth.shape[2]]
    naive = dataset.values[:, step, columns][:, :, None]
    known = np.isfinite(truth) & np.isfinite(naive) & np.isfinite(answer).all(axis=-1)
    off = truth[..., None] - answer
    pinball = np.maximum(levels * off, (levels - 1) * off).mean(axis=-1)
    means = np.array([is_hindsight(kpi) for kpi in dataset.output.kpis])[:, None]
    errors = (off[..., middle_of(dataset.output.levels)], truth - naive)
    parts = (np.ones_like(truth), pinball, *(np.where(means, np.square(each), np.abs(each)) for each in errors))
    return np.stack([np.where(known, part, 0.0).sum(axis=(0, 2)) for part in parts], axis=1)


def _scores(kpis: tuple[str, ...], sums: AnyArray) -> dict[str, float]:
    scores: dict[str, float] = {}
    for kpi, (n, pinball, error, naive_error) in zip(kpis, sums.tolist(), strict=True):
        if n:
            skill = 1 - error / naive_error if naive_error else 0.0
            error_name = "mse" if is_hindsight(kpi) else "mae"
            found = {"n": n, error_name: error / n, f"naive_{error_name}": naive_error / n, "skill": skill}
            if not is_hindsight(kpi):
                found["pinball"] = pinball / n
            scores |= {f"{name}.{kpi}": value for name, value in found.items()}
    skills = [scores[f"skill.{kpi}"] for kpi in kpis if f"skill.{kpi}" in scores]
    return scores | ({"skill": sum(skills) / len(skills)} if skills else {})


def loss_ratio(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Geometric mean over KPIs of our loss over theirs, below 1 where ours is better; NaN without common KPIs.

    The loss is pinball, of hindsight the squared error. A mean of ratios would favour whoever wins where losses are
    small: the logarithm treats both sides alike.
    """
    names = [name for name in ours if name.startswith(("pinball.", "mse.")) and name in theirs]
    logs = [math.log((ours[name] or 1e-12) / (theirs[name] or 1e-12)) for name in names]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan

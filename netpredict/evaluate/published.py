"""The published protocol for the UCC 5G traces, held apart from the pipeline: issue times, filled truth, folds, rows.

A trace lies on a 1 s grid; windows of 50 s in and 10 s out begin every 60 s. The truth is filled linearly, as
published; a predictor sees what is known at the time of issue only, and so does the naive forecast that skill is
measured against. Errors are pooled by trace and averaged over the traces of a group (README of the data sets).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netpredict.calendar import calendar
from netpredict.errors import DataError
from netpredict.forecast.predictor import Predictor
from netpredict.types import AnyArray, FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet

GROUPS = ("static_strm", "driving_strm", "static_down", "driving_down")
KPIS = ("rsrp_dbm", "cqi", "sinr_db")
WINDOW, HORIZON, STRIDE = 50, 10, 60
LEVELS = (0.1, 0.5, 0.9)
FEATURES = FeatureSpec(KPIS, period_us=1_000_000)
OUTPUT = OutputSpec(KPIS, HORIZON, LEVELS)
FOLDS = 5
SEGMENT_STEPS = 480  # traces last 5 minutes to 2 hours: pieces of a length waste no step of a minibatch
PADDED_ROWS = 16
PUBLISHED_TABLE = "published_univariate_K50_H10_stride60.csv"
PUBLISHED_NAMES = {"RSRP": "rsrp_dbm", "CQI": "cqi", "SNR": "sinr_db"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One trace on its grid: ``values`` float32 (T, k) by ``KPIS`` in natural units, NaN = nothing measured."""

    name: str
    group: str
    values: FloatArray


@dataclass(frozen=True, slots=True)
class Row:
    """One KPI in one group: errors in natural units, skill = 1 - mae / naive_mae."""

    kpi: str
    group: str
    mae: float
    rmse: float
    naive_mae: float
    skill: float


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, their mean skill, and the mean skill over the rows by lead time, 1 first."""

    rows: list[Row]
    mean_skill: float
    skill_by_lead: list[float]


@dataclass(frozen=True, slots=True)
class Result:
    """What the folds gave: state from the start of a trace, and set back 50 samples before each issue."""

    table: Table
    reset: Table
    traces: int
    folds: int


def recording(name: str, group: str, second: AnyArray, rows: AnyArray) -> Recording:
    """Loose rows (n, k) at whole seconds on the grid that begins with the first; the first row of a second stays."""
    step = np.asarray(second, np.int64) - int(np.min(second))
    values = np.full((int(step.max()) + 1, rows.shape[1]), np.nan, np.float32)
    values[step[::-1]] = rows[::-1]
    return Recording(name, group, values)


def issue_steps(steps: int) -> IntArray:
    """The last step of each window's history in a trace of so many steps."""
    return np.arange(WINDOW - 1, steps - HORIZON, STRIDE)


def filled(values: FloatArray) -> FloatArray:
    """(T, k) with gaps filled linearly and the ends held; a column that was never measured stays NaN."""
    known = ~np.isnan(values)
    steps = np.arange(len(values))
    columns = [
        np.interp(steps, steps[seen], column[seen]) if seen.any() else np.full(len(values), np.nan)
        for column, seen in zip(values.T, known.T, strict=True)
    ]
    return np.stack(columns, axis=1)


def last_values(values: FloatArray) -> FloatArray:
    """(T, k): the newest value measured so far, NaN before the first; what the causal naive forecast answers."""
    step = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    newest = np.maximum.accumulate(step, axis=0)
    return np.where(newest >= 0, np.take_along_axis(values, np.maximum(newest, 0), axis=0), np.nan)


def truths(values: FloatArray, at: IntArray) -> FloatArray:
    """Filled values after each issue step, (n, k, horizon)."""
    whole = filled(values)
    return np.stack([whole[at + lead] for lead in range(1, HORIZON + 1)], axis=2)


def folds_of(recordings: Sequence[Recording], count: int = FOLDS, seed: int = 7) -> IntArray:
    """Fold of each trace: those of a group are shuffled by the seed and dealt out in turn, groups one after another."""
    order, dealt = np.random.default_rng(seed), 0
    fold = np.zeros(len(recordings), np.int64)
    for group in groups_of(recordings):
        mine = order.permutation([i for i, each in enumerate(recordings) if each.group == group])
        fold[mine] = (np.arange(len(mine)) + dealt) % count
        dealt += len(mine)
    return fold


def groups_of(recordings: Iterable[Recording]) -> list[str]:
    """Their groups, in the order of the published table."""
    present = {each.group for each in recordings}
    return [group for group in GROUPS if group in present]


def training_set(recordings: Sequence[Recording]) -> TrainingSet:
    """Their pieces as series, nothing held out in time; weighted so that the loss counts as the table does."""
    pieces, truth, first, names, weights = [], [], [], [], []
    by_trace = _weights(recordings)
    for each, weight in zip(recordings, by_trace, strict=True):
        whole = filled(each.values)
        for start in range(0, len(each.values), SEGMENT_STEPS):
            pieces.append(_piece(each.values, start))
            truth.append(_piece(whole, start))
            first.append(start)
            names.append(f"{each.name}@{start}")
            weights.append(weight)
    return TrainingSet(
        FEATURES,
        OUTPUT,
        np.stack(pieces),
        np.array(first),
        SEGMENT_STEPS,
        tuple(names),
        np.stack(truth),
        np.array(weights, np.float32),
    )


def _piece(values: FloatArray, start: int) -> FloatArray:
    piece = np.full((SEGMENT_STEPS, values.shape[1]), np.nan, np.float32)
    part = values[start : start + SEGMENT_STEPS]
    piece[: len(part)] = part
    return piece


def _weights(recordings: Sequence[Recording]) -> AnyArray:
    """(traces, k): the square root of what makes every row of the table count alike; their mean over all steps is 1.

    In full those weights let five static traces outweigh forty: half way towards them generalises better.
    """
    lengths = np.array([len(each.values) for each in recordings], np.float64)
    naive = np.stack([_naive_error(each.values) for each in recordings])
    known = ~np.isnan(naive)
    weights: AnyArray = np.zeros(naive.shape)
    for group in groups_of(recordings):
        mine = np.array([each.group == group for each in recordings])
        for kpi in range(naive.shape[1]):
            chosen = mine & known[:, kpi]
            if chosen.any() and naive[chosen, kpi].sum() > 0:
                weights[chosen, kpi] = 1.0 / (lengths[chosen] * naive[chosen, kpi].sum())
    weights = np.sqrt(weights * _unit(np.concatenate([each.values for each in recordings])))
    mean = float(np.average(weights.mean(axis=1), weights=lengths))
    return np.asarray(weights / max(mean, 1e-30))


def _naive_error(values: FloatArray) -> FloatArray:
    """Mean absolute error of the last value over all steps and leads, (k,)."""
    at = np.arange(WINDOW - 1, len(values) - HORIZON)
    if not len(at):
        return np.full(values.shape[1], np.nan)
    error: FloatArray = np.abs(truths(values, at) - last_values(values)[at][:, :, None]).mean(axis=(0, 2))
    return error


def _unit(values: AnyArray) -> AnyArray:
    """Mean distance from the median of each column: the unit that a loss is taken in."""
    distance: AnyArray = np.abs(values - np.nanmedian(values, axis=0))
    return np.asarray(np.nanmean(distance, axis=0))


def issued(predictor: Predictor, values: Sequence[FloatArray], at: Sequence[IntArray]) -> list[FloatArray]:
    """Medians (n, k, horizon) that the predictor answers at these steps of each history (T, k), step by step."""
    rows = -(-len(values) // PADDED_ROWS) * PADDED_ROWS
    steps = max(len(each) for each in values)
    whole = np.full((steps, rows, len(KPIS)), np.nan, np.float32)
    for row, each in enumerate(values):
        whole[: len(each), row] = each
    answers = [np.full((len(steps_), len(KPIS), HORIZON), np.nan) for steps_ in at]
    wanted = _by_step(at)
    middle = LEVELS.index(0.5)
    hidden = {name: np.full((rows, *a.shape), a.fill, a.dtype) for name, a in predictor.state_spec().items()}
    for step in range(max(wanted) + 1 if wanted else 0):
        clock = np.repeat(calendar(np.array([step * FEATURES.period_us]), FEATURES), rows, axis=0)
        outputs, new = predictor.advance(np.concatenate([whole[step], clock], axis=1), hidden)
        hidden = {name: np.asarray(array) for name, array in new.items()}
        for row, index in wanted.get(step, ()):
            answers[row][index] = np.stack([outputs[kpi][row, :, middle] for kpi in KPIS])
    return answers


def _by_step(at: Sequence[IntArray]) -> dict[int, list[tuple[int, int]]]:
    """Step -> rows and the place of the step among theirs."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for row, steps in enumerate(at):
        for index, step in enumerate(steps.tolist()):
            wanted.setdefault(step, []).append((row, index))
    return wanted


def issued_cold(predictor: Predictor, values: Sequence[FloatArray], at: Sequence[IntArray]) -> list[FloatArray]:
    """As ``issued``, the state of a series set back to a cold start 50 samples before every issue."""
    windows = [each[step - WINDOW + 1 : step + 1] for each, steps in zip(values, at, strict=True) for step in steps]
    answers = issued(predictor, windows, [np.array([WINDOW - 1])] * len(windows))
    return _split(np.concatenate(answers), [len(steps) for steps in at])


def _split(joined: FloatArray, lengths: Sequence[int]) -> list[FloatArray]:
    return np.split(joined, np.cumsum(lengths)[:-1])


def run(
    recordings: Sequence[Recording],
    fit: Callable[[TrainingSet, int], Predictor],
    folds: int = FOLDS,
) -> Result:
    """Train on all folds but one, forecast that one; ``fit`` gets the training set and the fold's number.

    ``folds`` below 5 leaves out the last of them, for a quick look: what is scored is then a part of the traces.
    """
    usable = [each for each in recordings if len(issue_steps(len(each.values)))]
    fold = folds_of(usable)
    warm, cold, scored = list[FloatArray](), list[FloatArray](), list[Recording]()
    for number in range(folds):
        train = [each for each, mine in zip(usable, fold, strict=True) if mine != number]
        test = [each for each, mine in zip(usable, fold, strict=True) if mine == number]
        if not train or not test:
            raise DataError(f"fold {number + 1} of {FOLDS} has no trace to train on or none to forecast: take more")
        predictor = fit(training_set(train), number)
        values = [each.values for each in test]
        at = [issue_steps(len(each)) for each in values]
        warm += issued(predictor, values, at)
        cold += issued_cold(predictor, values, at)
        scored += test
    return Result(table(scored, warm), table(scored, cold), len(scored), folds)


def table(recordings: Sequence[Recording], forecasts: Sequence[FloatArray]) -> Table:
    """The rows of all KPIs and groups; a trace that never measured a KPI is left out of its rows."""
    errors = [_errors(each, forecast) for each, forecast in zip(recordings, forecasts, strict=True)]
    rows, by_lead = [], []
    for index, kpi in enumerate(KPIS):
        for group in groups_of(recordings):
            mine = [e for e, each in zip(errors, recordings, strict=True) if each.group == group]
            mae, naive, square = (np.stack([part[index] for part in parts]) for parts in zip(*mine, strict=True))
            known = ~np.isnan(naive).any(axis=1)
            if known.any():
                rows.append(_row(kpi, group, mae[known], naive[known], square[known]))
                by_lead.append(1.0 - _ratio(mae[known].mean(axis=0), naive[known].mean(axis=0)))
    leads = np.mean(by_lead, axis=0).tolist() if by_lead else []
    return Table(rows, float(np.mean([row.skill for row in rows])) if rows else float("nan"), leads)


def _errors(each: Recording, forecast: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of one trace, each (k, horizon): mean absolute error, the naive's, mean square error.

    Where the predictor has not seen a value since its state was set back, the naive forecast stands in, as live.
    """
    at = issue_steps(len(each.values))
    truth = truths(each.values, at)
    naive = last_values(each.values)[at][:, :, None]
    error = np.abs(truth - np.where(np.isnan(forecast), naive, forecast))  # the ladder's next rung
    return error.mean(axis=0), np.abs(truth - naive).mean(axis=0), np.square(error).mean(axis=0)


def _row(kpi: str, group: str, mae: FloatArray, naive: FloatArray, square: FloatArray) -> Row:
    mean, naive_mean = float(mae.mean()), float(naive.mean())
    rmse = float(np.sqrt(square.mean(axis=1)).mean())
    return Row(kpi, group, mean, rmse, naive_mean, 1.0 - float(_ratio(np.array(mean), np.array(naive_mean))))


def _ratio(mae: FloatArray, naive: FloatArray) -> FloatArray:
    """1 where the truth never moved: no skill is to be had there."""
    return np.divide(mae, naive, out=np.ones_like(mae), where=naive > 0)


def published_rows(folder: Path) -> Iterator[dict[str, str | float]]:
    """The published rows of the KPIs here: model, kpi, group, mae, rmse; DataError when the table is not there."""
    path = folder / PUBLISHED_TABLE
    if not path.is_file():
        raise DataError(f"no published table at {path}: it belongs to the data set")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if kpi := PUBLISHED_NAMES.get(row["target"]):
                numbers = {"mae": float(row["MAE_Mean"]), "rmse": float(row["RMSE_Mean"])}
                yield {"model": row["Model"], "kpi": kpi, "group": row["Activity"], **numbers}

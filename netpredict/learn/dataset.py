"""Aligned history as a TrainingSet: checked, split in time, and written to one file that a child process can read."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netpredict.errors import DataError
from netpredict.radio.quantities import is_hindsight
from netpredict.types import AnyArray, FeatureSpec, Hindsight, OutputSpec, TrainingSet, base_name


def build(
    features: FeatureSpec,
    output: OutputSpec,
    *,
    series_names: Sequence[str],
    first_slot: AnyArray,
    values: AnyArray,
    columns: Sequence[str],
    validation_ratio: float = 0.2,
    hindsight: Hindsight | None = None,
) -> TrainingSet:
    """A TrainingSet of (S, T, k) values whose last ``validation_ratio`` of steps is held out; DataError names the flaw.

    ``columns`` names the last axis in any order; what ``features`` does not observe is left out.
    """
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 3 or values.shape[2] != len(columns):
        raise DataError(f"values of shape {values.shape} do not fit {len(columns)} columns; expected (S, T, k)")
    if missing := [name for name in features.observed if name not in columns]:
        raise DataError(f"the history lacks the columns {missing}; it has {list(columns)}")
    if unknown := [kpi for kpi in output.kpis if kpi not in features.observed]:
        raise DataError(f"the forecast KPIs {unknown} are not observed columns")
    if not 0.0 <= validation_ratio < 1.0:
        raise DataError(f"validation_ratio is {validation_ratio}; it must be at least 0 and below 1")
    series, steps, _ = values.shape
    if len(series_names) != series or np.shape(first_slot) != (series,):
        raise DataError(f"{series} series, but {len(series_names)} names and first slots {np.shape(first_slot)}")
    validation_from = steps - round(steps * validation_ratio)
    if validation_from <= output.horizon_steps:
        raise DataError(
            f"{validation_from} steps to train on do not reach beyond the horizon of {output.horizon_steps}"
        )
    picked = values[:, :, [list(columns).index(name) for name in features.observed]]
    slots = np.asarray(first_slot, dtype=np.int64)
    return TrainingSet(features, output, picked, slots, validation_from, tuple(series_names), hindsight=hindsight)


def mase_scales(dataset: TrainingSet) -> dict[str, float]:
    """``mase_scale.<kpi>``: mean error of seasonal naive on the training part, in the KPI's unit (radio.md ch. 11).

    Without a season the value before stands in (Hyndman and Koehler 2006). A KPI that never moved has no scale, nor has
    one of hindsight; on a grid all its places share one.
    """
    features, values = dataset.features, dataset.values[:, : dataset.validation_from]
    season = max(1, round(features.season_us / features.period_us))
    scales = {}
    for kpi in dict.fromkeys(base_name(kpi) for kpi in dataset.output.kpis if not is_hindsight(kpi)):
        places = [features.observed.index(column) for column in dataset.output.kpis if base_name(column) == kpi]
        columns = values[:, :, places].astype(np.float64)
        moved = np.abs(columns[:, season:] - columns[:, :-season])
        if np.isfinite(moved).any() and (scale := float(np.nanmean(moved))):
            scales[f"mase_scale.{kpi}"] = scale
    return scales


def align(series: AnyArray, slot: AnyArray, values: AnyArray, series_count: int) -> tuple[AnyArray, AnyArray]:
    """Loose rows (series index, slot, (n, k) values) on one grid: first_slot (S,) and values (S, T, k), NaN in gaps.

    Of two rows of one series and slot the first wins, as in the live pipeline.
    """
    if not len(slot):
        raise DataError("there are no rows to align")
    first, last = int(np.min(slot)), int(np.max(slot))
    grid = np.full((series_count, last - first + 1, values.shape[1]), np.nan, dtype=np.float32)
    grid[series[::-1], slot[::-1] - first] = values[::-1]
    return np.full(series_count, first, dtype=np.int64), grid


def newest(
    series: AnyArray,
    slot: AnyArray,
    values: AnyArray,
    series_count: int,
    steps: int,
    group: Sequence[int] | None = None,
) -> tuple[AnyArray, AnyArray]:
    """Like ``align``, but each series on a grid of its own newest ``steps`` slots, so that none is mostly gaps.

    ``group`` (S,): series of one number share their grid, the newest ``steps`` slots of any of them.
    """
    of_series = np.arange(series_count) if group is None else np.asarray(group)
    last, first = np.full(of_series.max() + 1, -(2**62)), np.full(of_series.max() + 1, 2**62)
    np.maximum.at(last, of_series[series], slot)
    np.minimum.at(first, of_series[series], slot)
    last, first = last[of_series], first[of_series]
    width = min(steps, int((last - first).max()) + 1)
    step = slot - (last[series] - width + 1)
    kept = np.flatnonzero(step >= 0)[::-1]
    grid = np.full((series_count, width, values.shape[1]), np.nan, np.float32)
    grid[series[kept], step[kept]] = values[kept]
    return last - width + 1, grid


def write_arrays(path: Path, dataset: TrainingSet) -> None:
    """The arrays of a TrainingSet, without its specs, as .npz."""
    names = np.array(dataset.series_names, dtype=np.str_)
    arrays: dict[str, Any] = {"values": dataset.values, "first_slot": dataset.first_slot, "series_names": names}
    given = {"truth": dataset.truth, "weights": dataset.weights}
    arrays |= {name: array for name, array in given.items() if array is not None}
    np.savez(path, **arrays)


def read_arrays(path: Path, features: FeatureSpec, output: OutputSpec, validation_from: int) -> TrainingSet:
    """What ``write_arrays`` wrote, under these specs; never unpickles. DataError when the file is not that."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values, first_slot, names = arrays["values"], arrays["first_slot"], arrays["series_names"]
            truth, weights = arrays.get("truth"), arrays.get("weights")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a data set: {error}") from error
    if values.ndim != 3 or values.shape[2] != len(features.observed) or first_slot.shape != values.shape[:1]:
        raise DataError(f"{path} holds values {values.shape} for {len(features.observed)} columns")
    if not 0 < validation_from <= values.shape[1]:
        raise DataError(f"{path} has {values.shape[1]} steps; validation_from {validation_from} lies outside")
    told = tuple(str(name) for name in names)
    return TrainingSet(features, output, values, first_slot, validation_from, told, truth, weights)

"""What predictors are compared on: the noisy sine, the public data sets by name, and an operator's own table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from netpredict.errors import DataError
from netpredict.ingest.align import slots_of
from netpredict.learn.dataset import newest
from netpredict.radio.quantities import KPIS
from netpredict.traces.datasets import DATASETS
from netpredict.traces.sine import SineConfig, noisy_sine
from netpredict.traces.table import TableMapping, read_table
from netpredict.traces.trace import Trace
from netpredict.types import AnyArray, FeatureSpec, OutputSpec, TrainingSet

LEVELS = (0.1, 0.5, 0.9)
TRAINING_RATIO, VALIDATION_RATIO = 0.6, 0.2
SINE = "sine"
SINE_START_US = 1_767_571_200_000_000  # 2026-01-05, a Monday


@dataclass(frozen=True, slots=True)
class Limits:
    """So much of a data set is taken: the newest ``steps`` of the first ``series`` series."""

    series: int
    steps: int


@dataclass(frozen=True, slots=True)
class Known:
    """A data set's defaults: KPI, horizon, season in s (0 = none), size, and what a reader of the report must know."""

    dataset: str
    kpi: str
    horizon_steps: int
    about: str
    full: Limits
    quick: Limits
    season_s: float = 0.0


KNOWN = {
    "ucc5g": Known(
        "ucc5g",
        "rsrp_dbm",
        10,
        "UCC 5G production traces: the serving level that one phone measured about once a second. A series is a trace.",
        Limits(40, 1500),
        Limits(12, 600),
    ),
    "milan-hourly": Known(
        "milan",
        "activity_count",
        24,
        "Milan grid squares: hourly activity counts of 62 days from 1 November 2013; full squares, no copies.",
        Limits(60, 1488),
        Limits(12, 1000),
        season_s=86_400.0,
    ),
    "nist-prosas": Known(
        "nist-prosas",
        "allocated_prbs",
        60,
        "NIST ProSAS: downlink resource blocks allocated in one live LTE radio cell, minute by minute.",
        Limits(1, 10_000),
        Limits(1, 2500),
        season_s=86_400.0,
    ),
    "tractor": Known(
        "tractor",
        "cqi",
        8,
        "TRACTOR: srsRAN on the Colosseum emulator, 250 ms a row. A series is a UE; its CQI is a mean over the row.",
        Limits(40, 1500),
        Limits(12, 600),
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One KPI of some series, split in time: training, then validation, then what is scored.

    ``training`` ends where the scored part begins; ``values`` float32 (S, T, 1) is the whole. ``least_mae`` is the
    error that nobody can be below, where it is known.
    """

    name: str
    about: str
    kpi: str
    unit: str
    training: TrainingSet
    values: AnyArray
    scored_from: int
    least_mae: float | None = None

    @property
    def whole(self) -> TrainingSet:
        """All steps; those at or after ``validation_from`` are scored."""
        part = self.training
        return TrainingSet(
            part.features, part.output, self.values, part.first_slot, self.scored_from, part.series_names
        )


def sine_case(config: SineConfig, horizon_steps: int = 20, period_s: float = 1.0) -> Case:
    """The noisy sine on a grid of seconds."""
    period_us = round(period_s * 1e6)
    about = (
        f"{config.series} noisy sines: a period of {config.period_steps:g} steps, normal noise of {config.noise:g} "
        f"(seed {config.seed}). Nobody can be below a mean absolute error of {config.least_mae:.4f}."
    )
    first_slot = np.full(config.series, SINE_START_US // period_us, np.int64)
    names = [f"sine {number + 1}" for number in range(config.series)]
    grid = noisy_sine(config)[:, :, None]
    features = FeatureSpec(("value",), period_us)
    return _case(SINE, about, "value", "", features, horizon_steps, names, first_slot, grid, config.least_mae)


def known_case(name: str, *, quick: bool = False, kpi: str | None = None, horizon_steps: int | None = None) -> Case:
    """A public data set by name; DataError for one that is not known or not there."""
    if name not in KNOWN:
        raise DataError(f"there is no case {name!r}; known: {SINE}, {', '.join(KNOWN)}; or give a file by --table")
    known = KNOWN[name]
    dataset, limits = DATASETS[known.dataset], known.quick if quick else known.full
    traces = islice((trace for trace in dataset.read() if _is_whole(trace)), limits.series)
    season = round(known.season_s * 1e6)
    return _of_traces(
        name,
        known.about,
        traces,
        kpi or known.kpi,
        round(dataset.period_s * 1e6),
        horizon_steps or known.horizon_steps,
        limits,
        season,
    )


def table_case(
    path: Path,
    mapping: TableMapping,
    *,
    quick: bool = False,
    kpi: str | None = None,
    horizon_steps: int | None = None,
    period_s: float | None = None,
) -> Case:
    """An operator's own table: the first mapped KPI unless told, on the grid of its most usual spacing unless told."""
    traces = list(read_table(path, mapping))
    kpi = kpi or next(iter(mapping.kpis))
    if kpi not in mapping.kpis:
        raise DataError(f"{path}: the mapping has no KPI {kpi!r}; it has {', '.join(mapping.kpis)}")
    period_us = round(period_s * 1e6) if period_s else _usual_period_us(path, traces)
    limits = Limits(20, 1000) if quick else Limits(100, 3000)
    about = f"{path.name}: {kpi} from the column {mapping.kpis[kpi].column}."
    return _of_traces(path.stem, about, traces[: limits.series], kpi, period_us, horizon_steps or 12, limits, 0)


def _is_whole(trace: Trace) -> bool:
    return not trace.noted.get("exact_copy") and not trace.noted.get("missing_hours")


def _usual_period_us(path: Path, traces: Iterable[Trace]) -> int:
    steps = [np.diff(np.sort(trace.frame["event_time_us"].to_numpy())) for trace in traces]
    forward = np.concatenate([np.empty(0, np.int64), *(step[step > 0] for step in steps)])
    if not len(forward):
        raise DataError(f"{path}: no series has two stamps, so its period cannot be told; give --period-s")
    return int(np.median(forward))


def _of_traces(
    name: str,
    about: str,
    traces: Iterable[Trace],
    kpi: str,
    period_us: int,
    horizon_steps: int,
    limits: Limits,
    season_us: int,
) -> Case:
    names: list[str] = []
    parts: list[tuple[AnyArray, AnyArray, AnyArray]] = []
    for trace in traces:
        slot, value = _rows(trace, kpi, period_us)
        if len(slot):
            parts.append((np.full(len(slot), len(names)), slot, value))
            names.append(trace.name)
    if not parts:
        raise DataError(f"{name}: no trace has a value of {kpi}")
    series, slot, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    first_slot, grid = newest(series, slot, value[:, None], len(names), limits.steps)
    buckets = min(168, round(season_us / period_us)) if season_us else 0
    features = FeatureSpec((kpi,), period_us, buckets, season_us)
    unit = KPIS[kpi].unit if kpi in KPIS else ""
    return _case(name, about, kpi, unit, features, horizon_steps, names, first_slot, grid)


def _rows(trace: Trace, kpi: str, period_us: int) -> tuple[AnyArray, AnyArray]:
    """Slots and values of the rows that have one."""
    if kpi not in trace.frame.columns:
        numbers = [name for name in trace.frame.columns if pd.api.types.is_float_dtype(trace.frame[name])]
        raise DataError(f"{trace.name} has no KPI {kpi!r}; it has {', '.join(numbers)}")
    value = trace.frame[kpi].to_numpy(np.float64)
    measured = np.isfinite(value)
    slot = slots_of(trace.frame["event_time_us"].to_numpy(np.int64)[measured], period_us, 0)
    return slot, value[measured].astype(np.float32)


def _case(
    name: str,
    about: str,
    kpi: str,
    unit: str,
    features: FeatureSpec,
    horizon_steps: int,
    names: list[str],
    first_slot: AnyArray,
    grid: AnyArray,
    least_mae: float | None = None,
) -> Case:
    """Split in time; DataError when a part is too short for one horizon."""
    steps = grid.shape[1]
    validation_from = round(steps * TRAINING_RATIO)
    scored_from = round(steps * (TRAINING_RATIO + VALIDATION_RATIO))
    if min(scored_from - validation_from, steps - scored_from) <= horizon_steps + 1:
        raise DataError(f"{name}: {steps} steps are too few to train, validate and score {horizon_steps} steps ahead")
    output = OutputSpec((kpi,), horizon_steps, LEVELS)
    training = TrainingSet(features, output, grid[:, :scored_from], first_slot, validation_from, tuple(names))
    return Case(name, about, kpi, unit, training, grid, scored_from, least_mae)

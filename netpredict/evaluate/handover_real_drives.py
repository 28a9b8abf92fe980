"""The WMN-LAB drives on a grid of seconds, and the runs that they belong to.

Phones of one run measure the same streets at the same time, so a run is never on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.errors import DataError
from netpredict.traces.trace import Trace
from netpredict.types import AnyArray, BoolArray, FloatArray, IntArray

LEVELS = ("rsrp_dbm", "rsrq_db", *(f"nbr{n}_{kpi}" for n in range(1, 6) for kpi in ("rsrp_dbm", "rsrq_db")))
"""Serving, first and second LTE neighbour, NR serving, first and second NR neighbour: RSRP and RSRQ of each."""
LTE_RSRP = (0, 2, 4)
"""Serving and its two strongest neighbours among ``LEVELS``."""
EVENTS = ("lte_handovers", "mn_handovers", "nr_handovers", "rlf", "scg_rlf")
FOLDS = 5
FOLD_SEED = 3


@dataclass(frozen=True, slots=True)
class Drive:
    """One phone on one run, T seconds from ``start_s`` (since the epoch).

    ``levels`` float32 (T, 12) in dBm and dB, NaN = not measured; ``events`` (T, 5) their number in that second;
    ``recorded`` (T,): false where the recording has no row.
    """

    name: str
    start_s: int
    levels: FloatArray
    events: IntArray
    recorded: BoolArray

    def happened(self, *names: str) -> BoolArray:
        """Seconds with any of these events, (T,)."""
        return np.asarray(self.events[:, [EVENTS.index(name) for name in names]].any(axis=1))


def drives_of(traces: Iterable[Trace]) -> list[Drive]:
    """Each trace on its grid; the first row of a second stays."""
    return [_drive(trace) for trace in traces]


def _drive(trace: Trace) -> Drive:
    second = trace.frame["event_time_us"].to_numpy() // 1_000_000
    step = second - second.min()
    recorded = np.zeros(int(step.max()) + 1, np.bool_)
    recorded[step] = True
    levels = np.full((len(recorded), len(LEVELS)), np.nan, np.float32)
    levels[step[::-1]] = trace.frame[list(LEVELS)].to_numpy()[::-1]
    events = np.zeros((len(recorded), len(EVENTS)), np.int64)
    events[step[::-1]] = trace.frame[list(EVENTS)].fillna(0).to_numpy()[::-1]
    return Drive(trace.name, int(second.min()), levels, events, recorded)


def runs_of(drives: Sequence[Drive]) -> IntArray:
    """Run of each drive: those whose times overlap, directly or by others between, are of one run."""
    order = np.argsort([each.start_s for each in drives], kind="stable")
    run, until_s, number = np.zeros(len(drives), np.int64), -1, -1
    for index in order.tolist():
        drive = drives[index]
        number += drive.start_s > until_s
        until_s = max(until_s, drive.start_s + len(drive.recorded) - 1)
        run[index] = number
    return run


def folds_of(run: IntArray, count: int = FOLDS) -> IntArray:
    """Fold of each drive: whole runs are shuffled by a seed and dealt out in turn. DataError with too few runs."""
    runs = int(run.max()) + 1
    if runs < 2 * count:
        raise DataError(f"{runs} runs are too few for {count} folds: take more traces")
    dealt: AnyArray = np.empty(runs, np.int64)
    dealt[np.random.default_rng(FOLD_SEED).permutation(runs)] = np.arange(runs) % count
    fold: IntArray = dealt[run]
    return fold

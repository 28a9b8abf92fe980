"""When is a serving version bad enough to be trained anew? Bad in absolute terms AND worse than its own baseline.

Either alone misleads: a stream that became hard for everybody is not helped by a retraining, and a version that was
never good will not become so by the hour. Read from the finished score buckets of its own forecasts, by KPI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from netpredict.config import LearnConfig

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Why a version is to be trained anew: what was measured, the bound it broke, and what it used to be."""

    kpi: str
    measure: str  # skill, or coverage_off: distance of the coverage from the nominal one
    now: float
    bound: float
    baseline: float
    n: int
    newest_bucket: int

    @property
    def why(self) -> str:
        """For people."""
        return (
            f"{self.measure} of {self.kpi} is {self.now:.3f} over {self.n} forecasts: beyond {self.bound:.3f},"
            f" and it used to be {self.baseline:.3f}"
        )

    def detail(self) -> dict[str, Any]:
        """Plain values for the store."""
        return asdict(self)


def alarms(
    rows: Sequence[Row], learn: LearnConfig, nominal: float, trained: Mapping[str, float], since_bucket: int
) -> list[Alarm]:
    """Alarms of one version, the worst KPI first, from its ``History.bucket_sums``.

    ``nominal`` is the share that the outer levels should cover, ``trained`` its scores at training time. Only buckets
    after ``since_bucket`` are evidence: what led to a retraining once leads to no other. The newest
    ``trigger_buckets`` must break both conditions, and so must they at each of the ``trigger_hold`` - 1 buckets before.
    """
    if not learn.trigger_buckets:
        return []
    found = []
    for kpi in sorted({row["kpi"] for row in rows}):
        mine = sorted((row for row in rows if row["kpi"] == kpi), key=lambda row: int(row["bucket"]))
        found += _alarms_of(mine, learn, nominal, trained, since_bucket)
    return sorted(found, key=lambda alarm: -abs(alarm.now - alarm.baseline))


def _alarms_of(
    rows: Sequence[Row], learn: LearnConfig, nominal: float, trained: Mapping[str, float], since_bucket: int
) -> list[Alarm]:
    width, held = learn.trigger_buckets, learn.trigger_buckets + learn.trigger_hold - 1
    evidence = [row for row in rows if row["bucket"] > since_bucket][-held:]
    if len(evidence) < held:
        return []
    before = [row for row in rows if row["bucket"] < evidence[0]["bucket"]]
    windows = [evidence[start : start + width] for start in range(learn.trigger_hold)]
    if min(_total(window, "n") for window in windows) < learn.trigger_rows_min:
        return []
    kpi = str(evidence[0]["kpi"])
    bounds = (
        ("skill", learn.trigger_skill_below, _skill, trained.get(f"skill.{kpi}"), -1.0),
        ("coverage_off", learn.trigger_coverage_off, lambda window: _coverage_off(window, nominal), None, 1.0),
    )
    found = []
    for measure, bound, measured, at_training, bad in bounds:
        past = [value for row in before if (value := measured([row])) is not None]
        baseline = median(past) if len(past) >= width else at_training
        now = [measured(window) for window in windows]
        if baseline is None or any(value is None for value in now):
            continue
        values = [value for value in now if value is not None]
        if all(bad * (v - bound) > 0 and bad * (v - baseline) > learn.trigger_drop for v in values):
            n, newest = _total(windows[-1], "n"), int(evidence[-1]["bucket"])
            found.append(Alarm(kpi, measure, values[-1], bound, baseline, n, newest))
    return found


def _total(window: Sequence[Row], name: str) -> int:
    return sum(int(row[name]) for row in window)


def _skill(window: Sequence[Row]) -> float | None:
    """1 - error / naive's error; None on flat truth, where naive cannot err."""
    naive = _total(window, "naive_abs_ticks")
    return 1 - _total(window, "abs_ticks") / naive if naive else None


def _coverage_off(window: Sequence[Row], nominal: float) -> float | None:
    spread = _total(window, "spread")
    return abs(_total(window, "covered") / spread - nominal) if spread else None

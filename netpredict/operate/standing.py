"""Gauges that are read when somebody looks: what the store, the jobs, the loops and the logs say at that moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from netpredict.clock import Clock
from netpredict.operate.logs import RateLimit
from netpredict.operate.metrics import Metrics
from netpredict.operate.scheduler import LastRun

SKILL_S = 60.0
"""Skill and coverage are summed over score buckets anew at most this often."""
SKILL_BUCKETS = 8
"""... over so many of the newest ones."""


class StoreViews(Protocol):
    """What is asked of the store's history."""

    def outbox_depth(self) -> Mapping[str, int]:
        """Actions without an outcome, by hook."""
        ...

    def newest_bucket(self, stream: str) -> int | None:
        """See ``History``."""
        ...

    def skill(self, stream: str | None = None, from_bucket: int | None = None) -> list[dict[str, Any]]:
        """See ``History``."""
        ...


class Standing:
    """Feeds gauges before each rendering; what cannot be read costs its own gauge only."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._job_runs: dict[tuple[str, str], int] = {}
        self._skill_s = float("-inf")

    def of_store(self, views: StoreViews, hooks: Callable[[], Sequence[str]], streams: Sequence[str]) -> None:
        """Actions that wait, skill and coverage."""

        def waiting() -> None:
            depth = views.outbox_depth()
            for hook in {*hooks(), *depth}:
                self._metrics.outbox_depth.labels(hook).set(depth.get(hook, 0))

        self._metrics.before_render(waiting)
        self._metrics.before_render(lambda: self._tell_skill(views, streams))

    def of_jobs(self, last_runs: Callable[[], Mapping[str, LastRun]]) -> None:
        """When each job ran last, how long, and what came of its runs."""
        self._metrics.before_render(lambda: self._tell_jobs(last_runs()))

    def of_loops(self, late: Callable[[], Sequence[str]]) -> None:
        """How many loops stand still."""
        self._metrics.before_render(lambda: self._metrics.late_loops.set(len(late())))

    def of_logs(self, limits: Sequence[RateLimit]) -> None:
        """How many lines the rate limits kept back."""
        held_back = self._metrics.log_lines_held_back
        self._metrics.before_render(lambda: held_back.set(sum(limit.held_back for limit in limits)))

    def _tell_jobs(self, runs: Mapping[str, LastRun]) -> None:
        metrics = self._metrics
        for job, run in runs.items():
            metrics.job_last_run_timestamp_seconds.labels(job).set(run.started_us / 1e6)
            metrics.job_last_duration_seconds.labels(job).set(run.duration_s)
            done = {"done": run.runs - run.failures, "failed": run.failures, "skipped": run.skipped}
            for outcome, n in done.items():
                metrics.job_runs.labels(job, outcome).inc(n - self._job_runs.get((job, outcome), 0))
                self._job_runs[job, outcome] = n

    def _tell_skill(self, views: StoreViews, streams: Sequence[str]) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._skill_s < SKILL_S:
            return
        self._skill_s = now_s
        self._metrics.score_skill_ratio.clear()
        self._metrics.coverage_ratio.clear()
        for stream in streams:
            newest = views.newest_bucket(stream)
            if newest is not None:
                rows = [row for row in views.skill(stream, newest - SKILL_BUCKETS) if row["source"] == "model"]
                self._tell_leads(rows)

    def _tell_leads(self, rows: list[dict[str, Any]]) -> None:
        last = max((row["lead_steps"] for row in rows), default=0)
        for row in rows:
            lead = row["lead_steps"]
            if lead & (lead - 1) and lead != last:
                continue
            labels = (row["stream"], row["predictor"], row["kpi"], str(lead))
            if row["skill"] is not None:
                self._metrics.score_skill_ratio.labels(*labels).set(row["skill"])
            outer = max(row["coverage"].items(), key=lambda item: _width(item[0]), default=("", None))[1]
            if outer is not None:
                self._metrics.coverage_ratio.labels(*labels).set(outer)


def _width(interval: str) -> float:
    low, _, high = interval.partition("..")
    return float(high) - float(low)

"""Jobs at set times in threads of their own: retraining, pruning, reports. Nothing is kept on disk."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from netpredict.errors import ConfigError

LOG = structlog.get_logger(__name__)

BEAT_S = 1.0
MISFIRE_GRACE_S = 3600


class ScheduledJob(NamedTuple):
    """What to call when. ``cron`` has five fields, UTC."""

    name: str
    cron: str
    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class LastRun:
    """What came of a job last time; ``error`` is empty when it went well."""

    started_us: int = 0
    duration_s: float = 0.0
    error: str = ""
    runs: int = 0
    failures: int = 0
    skipped: int = 0


class RetrainScheduler:
    """APScheduler with memory only, one run of a job at a time, missed runs rolled into one.

    ``scheduler.running`` of APScheduler stays true when its thread has died. So each turn of that very thread beats:
    it stands still when the thread does, and not when the wall clock jumps.
    """

    def __init__(self, jobs: Iterable[ScheduledJob], misfire_grace_s: int = MISFIRE_GRACE_S) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._runs = {name: LastRun() for name in self._jobs}
        self._lock = threading.Lock()
        self._beat_s = time.monotonic()
        self._scheduler = _BeatingScheduler(
            self._beaten,
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(max(1, len(self._jobs)))},
            job_defaults={"misfire_grace_time": misfire_grace_s, "coalesce": True, "max_instances": 1},
            timezone=UTC,
        )
        for job in self._jobs.values():
            self._scheduler.add_job(self._run, _cron(job), args=(job.name,), id=job.name, name=job.name)
        self._scheduler.add_listener(self._heard, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin to run jobs."""
        self._beaten()
        self._scheduler.start()

    def stop(self, wait: bool = False) -> None:
        """Begin no more runs; a run under way is waited for only when asked."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=wait)

    def beat(self) -> float:
        """Monotonic time at which the scheduler's thread moved last, for the watchdog."""
        return self._beat_s

    def last_runs(self) -> dict[str, LastRun]:
        """What came of each job last."""
        with self._lock:
            return dict(self._runs)

    def next_run_us(self, name: str) -> int | None:
        """When a job is due next; None when it is not."""
        job = self._scheduler.get_job(name)
        due = getattr(job, "next_run_time", None)
        return None if due is None else int(due.timestamp() * 1_000_000)

    def run_now(self, name: str) -> None:
        """Make a job due at once; it runs in the scheduler's pool. KeyError for a name that is not known."""
        self._scheduler.modify_job(self._jobs[name].name, next_run_time=datetime.now(UTC))

    def _run(self, name: str) -> None:
        """Run one job; its failure is recorded, then told to APScheduler's listeners."""
        started_us, started_s = time.time_ns() // 1000, time.monotonic()
        error = ""
        try:
            self._jobs[name].call()
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:500]
            raise
        finally:
            with self._lock:
                before = self._runs[name]
                self._runs[name] = replace(
                    before,
                    started_us=started_us,
                    duration_s=time.monotonic() - started_s,
                    error=error,
                    runs=before.runs + 1,
                    failures=before.failures + bool(error),
                )

    def _heard(self, event: JobExecutionEvent) -> None:
        if event.code == EVENT_JOB_ERROR:
            LOG.error("job_failed", job=event.job_id, error=repr(event.exception)[:500])
            return
        LOG.warning(
            "job_skipped", job=event.job_id, why="missed" if event.code == EVENT_JOB_MISSED else "still running"
        )
        with self._lock:
            if event.job_id in self._runs:
                before = self._runs[event.job_id]
                self._runs[event.job_id] = replace(before, skipped=before.skipped + 1)

    def _beaten(self) -> None:
        self._beat_s = time.monotonic()


class _BeatingScheduler(BackgroundScheduler):  # type: ignore[misc]
    """Turns at least once per ``BEAT_S``: so it also notices that the wall clock was set forward."""

    def __init__(self, beat: Callable[[], None], **settings: object) -> None:
        self._beat = beat
        super().__init__(**settings)

    def _process_jobs(self) -> float:
        self._beat()
        wait_s = super()._process_jobs()
        return BEAT_S if wait_s is None else min(wait_s, BEAT_S)


WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _cron(job: ScheduledJob) -> CronTrigger:
    """Five fields as cron has them; APScheduler would count weekdays from Monday."""
    fields = job.cron.split()
    if len(fields) == 5:
        fields[4] = re.sub(r"(?<![/\d])[0-7](?!\d)", lambda found: WEEKDAYS[int(found[0])], fields[4])
    try:
        return CronTrigger.from_crontab(" ".join(fields), timezone=UTC)
    except ValueError as error:
        raise ConfigError(f"{job.name}: {job.cron!r} is not five cron fields: {error}") from error

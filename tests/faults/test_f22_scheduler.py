"""F22: the scheduler's thread dies, jobs overlap, clocks jump. Time is the injected clock of APScheduler."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import apscheduler.executors.base
import apscheduler.schedulers.base
import httpx
import pytest

from netpredict.clock import SystemClock
from netpredict.config import parse_config
from netpredict.ingest.source import MemoryLog
from netpredict.operate.notify import Watchdog
from netpredict.operate.scheduler import RetrainScheduler, ScheduledJob
from tests.faults import rig
from tests.faults.conftest import Recorder
from tests.faults.rig import InThread, raw_config

STALL_S = 1.5


def until(true: Callable[[], object], timeout_s: float = 10.0) -> float:
    since_s = time.monotonic()
    while not true():
        assert time.monotonic() - since_s < timeout_s, f"not so after {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - since_s


def test_f22_a_dead_scheduler_thread_is_seen_within_a_watchdog_period_and_ingest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    record.about("F22")
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    log = MemoryLog({rig.TOPIC: 3})
    with InThread(parse_config(raw_config(tmp_path, daemon={"stall_after_s": STALL_S})), log) as running:
        running.until(lambda: running.daemon.phase == "running")
        host, port = running.daemon.http_address  # type: ignore[misc]
        assert httpx.get(f"http://{host}:{port}/livez").status_code == 200
        scheduler = running.daemon.scheduler._scheduler
        monkeypatch.setattr(scheduler, "get_due_jobs", lambda: 1 / 0, raising=False)
        monkeypatch.setattr(scheduler, "_process_jobs", lambda: 1 / 0)
        scheduler.wakeup()
        seen_s = until(lambda: running.daemon.watchdog.late() == ["scheduler"])
        assert seen_s < 2 * STALL_S
        assert httpx.get(f"http://{host}:{port}/livez").json() == {"status": "late", "late": ["scheduler"]}
        assert not running.daemon.watchdog.ping(), "systemd hears nothing more and starts the daemon anew"
        rig.fill(log, rig.rows(range(5)))
        running.until(running.drained)
    record("F22", [], "1 dead thread", 300, f"seen after {seen_s:.1f} s of {STALL_S}")


class Shifted(datetime):
    """The wall clock that APScheduler sees."""

    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.by


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets that clock; it then runs on."""
    for module in (apscheduler.schedulers.base, apscheduler.executors.base):
        monkeypatch.setattr(module, "datetime", Shifted)

    def put(to: datetime) -> None:
        monkeypatch.setattr(Shifted, "by", to - datetime.now(UTC))

    return put


@pytest.mark.parametrize(
    ("at", "jump"),
    [
        pytest.param(datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), timedelta(hours=1), id="the hour summer time takes"),
        pytest.param(datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC), timedelta(hours=-1), id="the hour it gives twice"),
    ],
)
def test_f22_a_job_runs_once_whatever_the_clocks_do(
    wall: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch, record: Recorder, at: datetime, jump: timedelta
) -> None:
    """Local time jumps where the summer time does; then the machine's clock jumps by an hour, too."""
    record.about("F22")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    wall(at)
    runs: list[float] = []
    scheduler = RetrainScheduler([ScheduledJob("retrain", "0 1 * * *", lambda: runs.append(time.monotonic()))])
    watchdog = Watchdog(clock=SystemClock())
    watchdog.register("scheduler", scheduler.beat, STALL_S)
    try:
        scheduler.start()
        until(lambda: len(runs) == 1)
        Shifted.by += jump
        since_s = time.monotonic()
        while time.monotonic() < since_s + 2 * STALL_S:
            assert watchdog.late() == [], "a clock that jumps is no dead thread"
            time.sleep(0.05)
    finally:
        scheduler.stop()
        monkeypatch.undo()
        time.tzset()
    assert len(runs) == 1
    record("F22", [], f"clock {jump.total_seconds():+.0f} s at {at:%d %b}", 0, "one run, no false alarm")


def test_f22_a_missed_job_runs_once_and_never_beside_itself(wall: Callable[[datetime], None], record: Recorder) -> None:
    """The clock jumps over two times of a job; the third one comes while it still runs."""
    record.about("F22")
    wall(datetime(2026, 6, 1, 0, 30, tzinfo=UTC))
    begun: list[float] = []
    end = threading.Event()

    def slow() -> None:
        begun.append(time.monotonic())
        end.wait(20)

    scheduler = RetrainScheduler([ScheduledJob("retrain", "*/20 * * * *", slow)])
    try:
        scheduler.start()
        until(lambda: scheduler.next_run_us("retrain"))
        Shifted.by += timedelta(minutes=41)
        until(lambda: begun)
        Shifted.by += timedelta(minutes=20)
        until(lambda: scheduler.last_runs()["retrain"].skipped == 1)
        assert len(begun) == 1
    finally:
        end.set()
        scheduler.stop(wait=True)
    record("F22", [], "2 misfires, 1 overlap", 0, "one run")

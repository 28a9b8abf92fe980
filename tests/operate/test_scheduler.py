import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from netpredict.errors import ConfigError
from netpredict.operate.scheduler import RetrainScheduler, ScheduledJob

NEVER = "0 0 29 2 *"


def wait(condition: Any, timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.02)


def scheduler_of(**calls: Any) -> RetrainScheduler:
    return RetrainScheduler([ScheduledJob(name, NEVER, call) for name, call in calls.items()])


def test_a_run_is_remembered_with_its_duration() -> None:
    scheduler = scheduler_of(retrain=lambda: time.sleep(0.05))
    scheduler.start()
    before_us = time.time_ns() // 1000
    scheduler.run_now("retrain")
    wait(lambda: scheduler.last_runs()["retrain"].runs == 1)
    scheduler.stop(wait=True)
    last = scheduler.last_runs()["retrain"]
    assert before_us <= last.started_us <= time.time_ns() // 1000
    assert 0.05 <= last.duration_s < 5
    assert (last.error, last.failures) == ("", 0)


def test_a_failing_job_is_remembered_and_the_next_run_mends_it() -> None:
    answers = [ValueError("no history"), None]

    def job() -> None:
        answer = answers.pop(0)
        if answer:
            raise answer

    scheduler = scheduler_of(retrain=job)
    scheduler.start()
    scheduler.run_now("retrain")
    wait(lambda: scheduler.last_runs()["retrain"].runs == 1)
    assert scheduler.last_runs()["retrain"].error == "ValueError: no history"
    scheduler.run_now("retrain")
    wait(lambda: scheduler.last_runs()["retrain"].runs == 2)
    scheduler.stop(wait=True)
    last = scheduler.last_runs()["retrain"]
    assert (last.error, last.failures) == ("", 1)


def test_a_job_does_not_overlap_itself() -> None:
    release = threading.Event()
    scheduler = scheduler_of(slow=lambda: release.wait(10))
    scheduler.start()
    scheduler.run_now("slow")
    time.sleep(0.2)
    scheduler.run_now("slow")
    wait(lambda: scheduler.last_runs()["slow"].skipped == 1)
    release.set()
    wait(lambda: scheduler.last_runs()["slow"].runs == 1)
    scheduler.stop(wait=True)


def test_the_beat_stands_still_when_the_thread_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netpredict.operate.scheduler.BEAT_S", 0.1)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    scheduler = scheduler_of(retrain=lambda: None)
    scheduler.start()
    first_s = scheduler.beat()
    wait(lambda: scheduler.beat() > first_s)
    jobs = scheduler._scheduler._jobstores["default"]
    update = jobs.update_job
    own = scheduler._scheduler._thread
    monkeypatch.setattr(jobs, "update_job", lambda job: 1 / 0 if threading.current_thread() is own else update(job))
    scheduler.run_now("retrain")
    wait(lambda: not scheduler._scheduler._thread.is_alive())
    assert scheduler._scheduler.running, "which is why nobody may ask for it"
    stopped_s = scheduler.beat()
    time.sleep(0.4)
    assert scheduler.beat() == stopped_s
    scheduler.stop()


def test_a_slow_job_does_not_stop_the_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netpredict.operate.scheduler.BEAT_S", 0.1)
    release = threading.Event()
    scheduler = scheduler_of(slow=lambda: release.wait(10))
    scheduler.start()
    scheduler.run_now("slow")
    first_s = scheduler.beat()
    wait(lambda: scheduler.beat() > first_s + 0.3)
    release.set()
    scheduler.stop(wait=True)


@pytest.mark.parametrize(
    ("cron", "weekday", "hour"),
    [("17 2 * * 0", 6, 2), ("17 2 * * 7", 6, 2), ("0 5 * * 1", 0, 5), ("0 5 * * fri", 4, 5)],
)
def test_weekdays_are_those_of_cron_and_hours_are_utc(cron: str, weekday: int, hour: int) -> None:
    scheduler = RetrainScheduler([ScheduledJob("job", cron, lambda: None)])
    scheduler.start()
    due_us = scheduler.next_run_us("job")
    scheduler.stop()
    assert due_us is not None
    due = datetime.fromtimestamp(due_us / 1e6, UTC)
    assert (due.weekday(), due.hour) == (weekday, hour)


@pytest.mark.parametrize("cron", ["", "* * *", "61 * * * *", "daily at noon please now"])
def test_a_wrong_cron_is_refused_with_the_name_of_the_job(cron: str) -> None:
    with pytest.raises(ConfigError, match="retrain"):
        RetrainScheduler([ScheduledJob("retrain", cron, lambda: None)])


def test_an_unknown_job_cannot_be_run() -> None:
    with pytest.raises(KeyError):
        scheduler_of().run_now("nothing")
    scheduler_of().stop()

"""F19: the kernel kills the trainer, or the daemon while one trains. Serving goes on; nothing half is served."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netpredict.learn.child import TrainingFailed, run_child, write_job
from netpredict.learn.retrain import models_folder
from netpredict.store.history import History
from tests.faults.conftest import MakeWorld, Recorder
from tests.faults.supervisor import FaultyDaemon, Supervisor
from tests.faults.test_f03_zombie import drain
from tests.learn.noisy import OPTIONS, noisy_sines

FEED_TICKS = 60


def children_of(pid: int) -> list[int]:
    """Ids of the processes that this one has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def trainers(pid: int) -> list[int]:
    """Ids of its training children."""
    return [child for child in children_of(pid) if b"netpredict.learn.child" in command(child)]


def command(pid: int) -> bytes:
    """The command line of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_f19_a_killed_trainer_is_a_failed_run_and_leaves_no_result(tmp_path: Path, record: Recorder) -> None:
    record.about("F19")
    job = write_job(tmp_path / "job", noisy_sines(), "gru", OPTIONS, now_us=1)
    killed: list[int] = []

    def kill() -> None:
        for child in trainers(os.getpid()):
            os.kill(child, signal.SIGKILL)
            killed.append(child)

    with pytest.raises(TrainingFailed, match="code -9"):
        run_child(job, timeout_s=60, on_wait=kill)
    assert killed
    assert sorted(path.name for path in job.iterdir()) == ["dataset.npz", "job.json", "stderr.log"]
    record("F19", [], "1 kill of the trainer", 0, "failed run, no result")


def retraining(settings: dict[str, Any]) -> None:
    """A trainable predictor that is due every minute, and takes long."""
    settings["learn"] = {"enabled": True, "cron": "* * * * *", "nice": 0}
    settings["predictors"]["gru"] = {"plugin": "gru", "options": {"units": 64, "train_epochs": 5000, "patience": 5000}}
    settings["_routes"][0] = ("traffic", "gru")


@pytest.mark.faults
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.timeout(600)
def test_f19_oom_kill_of_the_trainer_and_of_the_daemon(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    world = make_world(1901, change=retraining)
    record.about("F19", 1901)
    world.feed(FEED_TICKS)
    config = world.config()
    first = daemons.start(config)
    first.drain(world)

    (trainer,) = one_trainer(first)
    os.kill(trainer, signal.SIGKILL)
    until(lambda: any(run["result"] == "failed" for run in History(world.url).retrain_runs()), 30)
    world.feed(8)
    first.drain(world)  # serving goes on

    (trainer,) = one_trainer(first)
    assert "900" in Path(f"/proc/{trainer}/oom_score_adj").read_text()
    first.kill()
    until(lambda: not command(trainer), 120)  # the orphan ends when nobody reads its progress
    second = daemons.start(config)
    world.feed(8)
    second.drain(world)
    assert {row["stage"] for row in History(world.url).models("traffic", "gru")} <= {"retired"}
    home = models_folder(world.parsed(), "traffic", "gru")
    drain(world, second)
    assert [path.name for path in home.iterdir()] == [], "a killed training left its folder behind"
    record("F19", [1901], "1 kill of the trainer, 1 of the daemon", world.records, "serving went on, O holds")


def one_trainer(daemon: FaultyDaemon) -> list[int]:
    """The training child, once it has begun."""
    daemon.wait_until(lambda: bool(trainers(daemon.pid)), 90)
    time.sleep(3.0)
    return trainers(daemon.pid)


def until(true: Callable[[], bool], timeout_s: float) -> None:
    """Wait until something holds."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, f"not so after {timeout_s} s"
        time.sleep(0.2)

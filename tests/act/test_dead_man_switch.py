"""What a dead daemon has set is taken back by the timer's unit, whose own lines are run here."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.act.killed_daemons import Life, Receiver
from tests.faults.world import write_config

UNIT = Path(__file__).parents[2] / "deploy" / "netpredict-revert.service"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def line(key: str) -> list[str]:
    """The words of one setting of the unit."""
    (text,) = [text.partition("=")[2] for text in UNIT.read_text().splitlines() if text.startswith(f"{key}=")]
    return shlex.split(text)


def run_unit(config: Path) -> subprocess.CompletedProcess[str]:
    """ExecStart with our program and config in place of the installed ones."""
    program, *words = line("ExecStart")
    assert program == "/opt/netpredict/bin/netpredict"
    assert words[-2:] == ["--config", "/etc/netpredict/netpredict.toml"]
    argv = [sys.executable, "-m", "netpredict", *words[:-1], str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.timeout(200)
def test_the_unit_takes_back_once_what_a_dead_daemon_left(receiver: Receiver, tmp_path: Path) -> None:
    life = Life(tmp_path, receiver)
    life.done(10)
    life.let_effects_end()
    last = {name for name, (kind, _) in life.outcomes().items() if kind == "applied"}
    assert last
    assert {delivery.path for delivery in receiver.log} == {"/apply"}
    route = life.settings["streams"]["traffic"].pop("routes")[0]["active"]
    config = write_config(tmp_path / "netpredict.toml", life.settings | {"_routes": [("traffic", route)]})

    done = run_unit(config)
    assert done.returncode == 0, done.stderr
    reverts = [delivery for delivery in receiver.log if delivery.path == "/revert"]
    assert {delivery.key for delivery in reverts} == {f"{name}/revert" for name in last}
    assert len(reverts) == len(last)

    again = run_unit(config)
    assert again.returncode == 0, again.stderr
    assert [delivery for delivery in receiver.log if delivery.path == "/revert"] == reverts, "taken back once only"


@pytest.mark.parametrize(("answer", "runs"), [(0, False), (3, True)], ids=["a daemon runs", "none runs"])
def test_the_unit_is_idle_while_a_daemon_lives(tmp_path: Path, answer: int, runs: bool) -> None:
    """``systemctl is-active`` answers 0 for a unit that runs and 3 for one that does not."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$*" = "--quiet is-active netpredict.service" ] || exit 99\nexit {answer}\n')
    systemctl.chmod(0o755)
    done = subprocess.run(line("ExecCondition"), env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert (done.returncode == 0) is runs

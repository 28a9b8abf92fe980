"""F26: a second daemon on the SQLite file of another one leaves with its documented code and harms nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from netpredict.errors import AlreadyRunning
from tests.faults.conftest import MakeWorld, Recorder
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import Supervisor


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_f26_a_second_daemon_on_one_sqlite_file_leaves(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    world = make_world(2601)
    record.about("F26", 2601)
    world.feed(20)
    first = daemons.start(world.config("first"))
    first.wait_until(lambda: world.covered() > 0)
    second = subprocess.run(
        [sys.executable, "-m", "netpredict", "run", "--config", str(world.config("second"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == AlreadyRunning.exit_code == 69, second.stderr
    assert f"is held by process {first.pid}" in second.stderr
    world.feed(20)
    ends = first.drain(world)
    assert first.terminate() == 0, first.tail()
    assert_holds(world, ends)
    record("F26", [2601], "1 second daemon", world.records, "exit 69, O holds")

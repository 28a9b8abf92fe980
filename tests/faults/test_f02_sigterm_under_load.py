"""F2: SIGTERM under load. The daemon ends by itself with 0, in time, and the next one polls no record again."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakeWorld, Recorder, scales
from tests.faults.oracle import assert_holds, records_of
from tests.faults.supervisor import FaultyDaemon, Supervisor

UNIT = Path("deploy/netpredict.service").read_text()
STOP_S = float(re.search(r"^TimeoutStopSec=(\d+)", UNIT, re.MULTILINE)[1])  # type: ignore[index]


@scales("stops", short=4, long=30)
@pytest.mark.timeout(900)
def test_f02_sigterm_under_load_ends_in_time_and_nothing_is_polled_twice(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, stops: int
) -> None:
    world, rng = make_world(201), random.Random(201)
    record.about("F2", 201)
    config, polled, slowest_s = world.config(), 0, 0.0
    for number in range(stops):
        world.feed(30)
        before = world.covered()
        # some stops meet a commit in flight, some an empty writer
        daemon = daemons.start(config, "sleep:before_commit:*:0.3") if number % 2 else daemons.start(config)
        least = before + rng.randint(1, 400)
        daemon.wait_until(lambda least=least: world.covered() > least)  # type: ignore[misc]
        began_s = time.monotonic()
        assert daemon.terminate(STOP_S) == 0, daemon.tail()
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        polled += polled_by(daemon)
    daemon = daemons.start(config)
    ends = daemon.drain(world)
    assert daemon.terminate(STOP_S) == 0, daemon.tail()
    polled += polled_by(daemon)
    assert polled == sum(map(len, records_of(world, ends).values()))
    assert_holds(world, ends)
    record("F2", [201], f"{stops} SIGTERM, slowest {slowest_s:.1f} s", world.records, "O holds, zero replay")


def polled_by(daemon: FaultyDaemon) -> int:
    """Records that this daemon took from Kafka."""
    return int(re.search(r"^polled (\d+) records$", daemon.output(), re.MULTILINE)[1])  # type: ignore[index]

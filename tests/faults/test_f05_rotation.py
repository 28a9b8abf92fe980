"""F5: three daemons on one PostgreSQL store join, leave and are killed in rotation, under load."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from tests.faults.conftest import MakeWorld, Recorder, scales
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import FaultyDaemon, Supervisor
from tests.faults.test_f03_zombie import on_postgresql
from tests.faults.world import World

SEATS = 3
Seats = list[FaultyDaemon | None]


@on_postgresql
@pytest.mark.parametrize("assignment", ["eager", "cooperative"])
@scales("events", short=6, long=200)
@pytest.mark.timeout(3000)
def test_f05_three_daemons_join_leave_and_are_killed_in_rotation(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, assignment: str, events: int
) -> None:
    seed = 501 if assignment == "eager" else 502
    rng, world = random.Random(seed), make_world(seed, partitions=3)
    record.about("F5", seed)
    seats: Seats = [None] * SEATS
    done = {"join": 0, "leave": 0, "kill": 0}
    with Load(world):
        for event in range(events):
            number = event % SEATS
            done[turn(world, daemons, seats, number, assignment, rng)] += 1
            time.sleep(rng.uniform(0.1, 2.5))
    for number in range(SEATS):
        if seats[number] is None:
            turn(world, daemons, seats, number, assignment, rng)
    running = [seat for seat in seats if seat is not None]
    ends = running[0].drain(world, 180)
    for seat in running:
        assert seat.terminate() == 0, seat.tail()
    assert_holds(world, ends)
    told = ", ".join(f"{count} {name}s" for name, count in done.items())
    record("F5", [seed], f"{told}, {assignment}", world.records, "each offset once, O holds")


def turn(
    world: World,
    daemons: Supervisor,
    seats: Seats,
    number: int,
    assignment: str,
    rng: random.Random,
) -> str:
    """An empty seat is taken; who sits on it leaves, or is killed, wherever that is."""
    sitting = seats[number]
    if sitting is None:
        seats[number] = daemons.start(world.config(f"seat{number}", static=False, assignment=assignment))
        return "join"
    seats[number] = None
    assert sitting.running, f"ended by itself with {sitting.ended()}:\n{sitting.tail()}"
    if rng.random() < 0.5:
        sitting.kill()
        return "kill"
    sitting.send(signal.SIGTERM)
    assert sitting.ended() == 0, sitting.tail()
    return "leave"


class Load:
    """Feeds the log from a thread of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            self._world.feed(1)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

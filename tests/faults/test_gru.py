"""Rows F1 and F5 once more with a real recurrent network, trained once and swapped in under the daemon."""

from __future__ import annotations

import random
from typing import Any

import pytest

from netpredict.store.history import History
from tests.faults.conftest import MakeWorld, Recorder
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import Supervisor
from tests.faults.test_f03_zombie import on_postgresql
from tests.faults.test_f05_rotation import SEATS, Load, Seats, turn
from tests.faults.world import World
from tests.integration.daemon_process import cli

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
STARTS_S = 120.0
"""A daemon that loads TensorFlow takes its time on a busy machine."""
KILLS = (
    "mid_model_swap:1",
    "mid_model_swap:2",
    "after_predict:2",
    "mid_snapshot:1",
    "before_commit:2",
    "mid_commit:2",
    "end_of_commit:1",
    "after_commit:2",
    "mid_assign:5",
    "after_decode:3",
)


def recurrent(settings: dict[str, Any]) -> None:
    """Traffic is forecast by a small GRU."""
    settings["predictors"]["gru"] = {"plugin": "gru", "options": {"units": 8, "train_epochs": 1, "bptt_steps": 16}}
    settings["_routes"][0] = ("traffic", "gru")
    settings["learn"] = {"history_steps": 120}


def trained(world: World, daemons: Supervisor) -> None:
    """A store with some history, and a version that was trained on it and is to serve next."""
    world.feed(130)
    daemon = daemons.start(world.config())
    daemon.drain(world)
    assert daemon.terminate() == 0, daemon.tail()
    cli("train", "traffic", "gru", "--promote", "--config", str(world.config("train", static=False)))


def assert_network_served(world: World) -> None:
    """Otherwise the ladder would have been tested."""
    served = {(row["predictor"], row["source"]) for row in History(world.url).skill("traffic")}
    assert ("gru", "model") in served, served


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_f01_kill_9_while_a_recurrent_network_serves(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    world = make_world(111, change=recurrent)
    record.about("F1", 111)
    trained(world, daemons)
    config = world.config()
    for kill in KILLS:
        world.feed(8)
        daemons.until_struck(config, f"crash:{kill}", timeout_s=STARTS_S, feed=lambda: world.feed(2))
    last = daemons.start(config)
    ends = last.drain(world)
    assert last.terminate() == 0, last.tail()
    assert_network_served(world)
    assert_holds(world, ends, journal=True)
    record("F1", [111], f"{len(KILLS)} kills, GRU swapped in", world.records, "O holds")


@on_postgresql
def test_f05_rebalances_while_a_recurrent_network_serves(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    world, rng = make_world(511, partitions=3, change=recurrent), random.Random(511)
    record.about("F5", 511)
    trained(world, daemons)
    seats: Seats = [None] * SEATS
    with Load(world):
        for event in range(20):
            before = world.covered()
            turn(world, daemons, seats, event % SEATS, "cooperative", rng)
            running = [seat for seat in seats if seat is not None]
            if running:
                running[0].wait_until(lambda before=before: world.covered() > before, STARTS_S)  # type: ignore[misc]
    for number in range(SEATS):
        if seats[number] is None:
            turn(world, daemons, seats, number, "cooperative", rng)
    running = [seat for seat in seats if seat is not None]
    ends = running[0].drain(world, 180)
    for seat in running:
        assert seat.terminate(120) == 0, seat.tail()
    assert_network_served(world)
    assert_holds(world, ends, journal=True)
    record("F5", [511], "20 joins, leaves and kills, GRU", world.records, "O holds")

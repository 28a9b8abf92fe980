"""F4: a model or a store so slow that Kafka takes the topic partitions away: they are lost, not revoked."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeWorld, Recorder
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import Supervisor
from tests.faults.test_f03_zombie import drain, on_postgresql

POLL_INTERVAL_S = 10.0
ASLEEP_S = 16


@on_postgresql
@pytest.mark.parametrize("point", ["after_predict", pytest.param("mid_assign", marks=pytest.mark.faults)])
def test_f04_beyond_max_poll_interval_partitions_are_lost_and_nothing_else(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, point: str
) -> None:
    """``after_predict`` is a slow model, ``mid_assign`` a store that takes long to read a lane."""
    world = make_world(401)
    record.about("F4", 401)
    limits = {"max_poll_interval_s": POLL_INTERVAL_S}
    world.feed(20)
    slow = daemons.start(world.config("slow", static=False, **limits), f"sleep:{point}:4:{ASLEEP_S}")
    slow.wait_until(lambda: slow.said("fault struck"), feed=lambda: world.feed(2))
    other = daemons.start(world.config("other", static=False, **limits))
    world.feed(20)
    other.drain(world)
    slow.wait_until(lambda: slow.lost() > 0, 120)
    assert slow.revoked() == 0
    world.feed(20)
    drain(world, slow, other)
    record("F4", [401], f"1 sleep of {ASLEEP_S} s at {point}", world.records, "lost path, O holds")


@pytest.mark.faults
def test_f04_a_slow_commit_costs_no_partition(make_world: MakeWorld, daemons: Supervisor, record: Recorder) -> None:
    """The loop goes on polling for the group's sake while the store is slow, and holds no more than two commits."""
    world = make_world(402)
    record.about("F4", 402)
    config = world.config("slow", static=False, max_poll_interval_s=POLL_INTERVAL_S)
    world.feed(60)
    slow = daemons.start(config, f"sleep:before_commit:3:{ASLEEP_S}")
    slow.wait_until(lambda: slow.said("fault struck"), feed=lambda: world.feed(2))
    ends = slow.drain(world)
    assert (slow.lost(), slow.revoked()) == (0, 0)
    assert slow.terminate() == 0, slow.tail()
    assert_holds(world, ends)
    record("F4", [402], f"1 commit of {ASLEEP_S} s", world.records, "kept, O holds")

from __future__ import annotations

import pytest

from netpredict.clock import SystemClock
from netpredict.ingest.source import AssignmentChange, MemorySource
from netpredict.operate.metrics import Metrics
from netpredict.operate.ownership import Ownership
from netpredict.testing import MemoryStore
from tests import pipeline_world


class OwnClock(SystemClock):
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return OwnClock()


@pytest.fixture
def owned(clock):
    world = pipeline_world.World(pipeline_world.filled({"ran.traffic": pipeline_world.traffic_rows(minutes=5)}))
    ownership = Ownership(world.build(MemoryStore()), MemorySource(world.log), Metrics(), clock, lambda: None)
    ownership.follow(AssignmentChange(assigned=tuple(world.log.topic_partitions())))
    return ownership


def test_what_was_fenced_is_taken_over_again_after_kafka_had_its_say(owned, clock):
    place, lane = next(iter(owned.pipeline.lanes.items()))
    owned.give_way(place, lane.epoch, wait_s=3.0)
    owned.try_again()
    assert place not in owned.pipeline.lanes
    clock.now_s += 3.0
    owned.try_again()
    assert owned.pipeline.lanes[place].epoch == lane.epoch + 1


def test_what_was_fenced_and_lost_is_left_to_its_new_owner(owned, clock):
    place, lane = next(iter(owned.pipeline.lanes.items()))
    owned.give_way(place, lane.epoch, wait_s=3.0)
    owned.follow(AssignmentChange(lost=(place,)))
    clock.now_s += 3.0
    owned.try_again()
    assert place not in owned.pipeline.lanes


def test_a_commit_of_an_older_epoch_does_not_cost_the_lane_that_was_taken_anew(owned):
    place, lane = next(iter(owned.pipeline.lanes.items()))
    owned.take_over(place)
    owned.give_way(place, lane.epoch, wait_s=3.0)
    assert owned.pipeline.lanes[place].epoch == lane.epoch + 1

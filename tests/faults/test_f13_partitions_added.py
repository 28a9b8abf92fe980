"""F13: a topic gets more partitions. They are read from the beginning; radio cells that moved are told."""

from __future__ import annotations

import pytest

from netpredict.store.history import History
from netpredict.types import TopicPartition
from tests.faults.conftest import MakeWorld, Recorder, scales
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import Supervisor
from tests.integration.daemon_process import cli

SOONER = "set:netpredict.ingest.kafka:METADATA_MAX_AGE_S:2"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@scales("faults", short=(SOONER,), long=())  # the long one waits for the real interval, a minute
@pytest.mark.timeout(400)
def test_f13_added_partitions_are_read_from_the_beginning_and_moved_cells_are_told(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, faults: tuple[str, ...]
) -> None:
    world = make_world(1301)
    record.about("F13", 1301)
    world.feed(12)
    config = world.config(rebuild_after_s=5.0 if faults else 60.0)
    daemon = daemons.start(config, *faults)
    daemon.drain(world)
    world.add_partitions("traffic", 3)
    world.feed(12)  # before the daemon knows the new one
    ends = daemon.drain(world)
    assert daemon.terminate() == 0, daemon.tail()
    added = TopicPartition(world.topics["traffic"], 2)
    assert world.progress()[added]["next_offset"] == ends[added] > 0
    assert_holds(world, ends)

    moved = History(world.url).moved("traffic")
    assert 2 in {row["partition"] for row in moved}
    first = moved[0]
    places = (f"{first['topic']}/{first['from_partition']}", f"{first['topic']}/{first['partition']}")
    cli("streams", "move", "traffic", first["series"], "--from", places[0], "--to", places[1], "--config", str(config))
    daemon = daemons.start(config)
    world.feed(12)
    ends = daemon.drain(world)
    assert daemon.terminate() == 0, daemon.tail()
    assert [row["payload"]["series"] for row in History(world.url).journal("traffic", "move")] == [first["series"]]
    assert first["series"] not in {row["series"] for row in History(world.url).moved("traffic")}
    assert_holds(world, ends, journal=True)
    record("F13", [1301], f"1 partition added, {len(moved)} cells moved", world.records, "told, 1 moved, O holds")

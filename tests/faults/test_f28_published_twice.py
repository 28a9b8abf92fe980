"""F28: Kafka has acknowledged what a commit brought, and the daemon dies before it notes that."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeWorld, Recorder, scales
from tests.faults.oracle import assert_holds, published
from tests.faults.supervisor import Supervisor


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@scales("kills", short=2, long=10)
def test_f28_what_is_published_twice_bears_the_same_id(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, kills: int
) -> None:
    world = make_world(2801)
    record.about("F28", 2801)
    config = world.config()
    for number in range(kills):
        world.feed(8)
        daemons.until_struck(config, f"crash:after_publish:{1 + number % 3}", feed=lambda: world.feed(4))
    last = daemons.start(config)
    ends = last.drain(world)
    last.wait_until(lambda: not world.unpublished())
    assert last.terminate() == 0, last.tail()
    forecasts = published(world.broker, world.published["forecasts"])  # messages of one id are equal
    actions = published(world.broker, world.published["actions"])
    assert max(forecasts.values()) > 1, "no forecast was sent twice: the fault did not strike"
    assert max(actions.values()) > 1
    assert_holds(world, ends)
    twice = sum(times > 1 for times in forecasts.values())
    record("F28", [2801], f"{kills} kills before mark-sent", world.records, f"{twice} ids twice, equal; O holds")

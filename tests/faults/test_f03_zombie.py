"""F3: a daemon is stopped for longer than its session, another takes over, and it is continued: a zombie."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from netpredict.store import compare, migrate
from netpredict.store.sql import SqlStore
from tests import pipeline_world
from tests.faults.conftest import MakeWorld, Recorder
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import FaultyDaemon, Supervisor
from tests.faults.world import World

on_postgresql = pytest.mark.parametrize(
    "dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)
FENCED = ("before_commit", "mid_commit", "end_of_commit")
"""Here the zombie holds copies that it is about to write."""
LOCKS_S = 240.0
"""In mid_commit and end_of_commit it holds locks too: PostgreSQL ends its transaction, the others wait in turn."""


@on_postgresql
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "point",
    [
        "before_commit",
        *(
            pytest.param(point, marks=pytest.mark.faults)
            for point in ("after_poll", "after_predict", "mid_commit", "end_of_commit", "after_commit", "mid_assign")
        ),
    ],
)
def test_f03_what_a_zombie_writes_is_rejected(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, point: str
) -> None:
    world = make_world(301)
    record.about("F3", 301)
    world.feed(20)
    zombie = daemons.start(world.config("zombie", static=False), f"stop:{point}:4")
    zombie.wait_until(lambda: stopped(zombie), feed=lambda: world.feed(2))
    successor = daemons.start(world.config("successor", static=False))
    world.feed(20)
    successor.drain(world, LOCKS_S)
    zombie.send(signal.SIGCONT)
    if point in FENCED:
        zombie.wait_until(lambda: zombie.said("fenced"), 120)
    zombie.wait_until(lambda: zombie.lost() > 0, 120)
    world.feed(20)
    drain(world, zombie, successor)
    record("F3", [301], f"1 SIGSTOP at {point}", world.records, "rejected, O holds")


def stopped(daemon: FaultyDaemon) -> bool:
    """Whether the process is in the state T."""
    return Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def drain(world: World, *daemons: FaultyDaemon) -> None:
    """To the end of the log by all of them, and O."""
    ends = daemons[0].drain(world)
    for daemon in daemons:
        assert daemon.terminate() == 0, daemon.tail()
    assert_holds(world, ends)


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
def test_f03_an_older_epoch_writes_nothing(store_url: str, tmp_path: Path, record: Recorder) -> None:
    """Two owners of the same topic partitions in one process, which is all that SQLite lets in."""
    record.about("F3")
    rows = {"ran.traffic": pipeline_world.traffic_rows()}
    world = pipeline_world.World(pipeline_world.filled(rows))
    with SqlStore(f"sqlite:///{make(tmp_path / 'unfaulted.db')}") as store:
        world.run(store, poll=500)
    with SqlStore(store_url) as store:
        zombie = world.run(store, poll=50, commit_every=1, stop_after=2)
        zombie.step(polled := world._polled(zombie, 50))
        held = zombie.take_commit()
        world.run(store, poll=500)
        before = compare.dump(store_url)
        assert held is not None
        assert store.commit(held) == {part.topic_partition for part in polled}
    assert compare.difference(before, compare.dump(store_url)) == []
    assert compare.difference(compare.dump(f"sqlite:///{tmp_path}/unfaulted.db"), before) == []
    records = sum(world.log.end(place) for place in world.log.topic_partitions())
    record("F3", [1], "1 older epoch", records, "rejected, O holds")


def make(path: Path) -> Path:
    """A store with the newest schema."""
    migrate.upgrade(f"sqlite:///{path}")
    return path

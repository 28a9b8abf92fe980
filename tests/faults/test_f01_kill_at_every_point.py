"""F1: kill -9 at every named point. Nothing is lost or twice, in the store, in Kafka and at the receiver."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from netpredict import crash
from netpredict.learn.registry import load_artefact
from netpredict.store import compare
from netpredict.store.history import History
from netpredict.store.outbox import CLAIM_US
from tests.faults.conftest import MakeWorld, Recorder, scales
from tests.faults.oracle import assert_holds, published
from tests.faults.supervisor import Supervisor
from tests.faults.world import World
from tests.integration.daemon_process import Receiver

ONCE_A_LIFE = ("mid_assign", "mid_model_swap")
"""Passed while topic partitions are taken over."""
LATEST_PASSING = {"mid_assign": 6, "mid_model_swap": 6, "before_publish": 3, "after_publish": 3}
ELSEWHERE = ("mid_artefact",)
"""Not passed by a daemon that does not train; see test_a_kill_while_an_artefact_is_written."""
CLAIMS_END_S = CLAIM_US / 1e6 + 60
"""On a shared store what a dead instance had in hand is left to it until its claim ends."""


def plan(kills: int, rng: random.Random) -> list[str]:
    """Faults: every point in turn, in a random order, at a random passing. Models swap before there is a store."""
    points = [point for point in crash.POINTS if point not in ELSEWHERE]
    due = [points[number % len(points)] for number in range(kills)]
    rng.shuffle(due)
    due.sort(key=lambda point: point != "mid_model_swap")
    return [f"crash:{point}:{rng.randint(1, LATEST_PASSING.get(point, 5))}" for point in due]


@scales("kills", short=15, long=105)
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.timeout(1800)
def test_f01_kill_9_at_every_named_point(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, kills: int
) -> None:
    run(make_world(101), daemons, record, kills)


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_f01_kill_9_at_every_named_point_on_postgresql(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    run(make_world(102), daemons, record, kills=45)


def run(world: World, daemons: Supervisor, record: Recorder, kills: int) -> None:
    record.about("F1", world.seed)
    faults = plan(kills, random.Random(world.seed))
    with Receiver() as receiver:
        world.webhook = receiver.url
        config = world.config()
        for fault in faults:
            world.feed(8)
            if "on_revoke" in fault:  # a member gives its topic partitions back when it leaves, too
                kill_while_leaving(world, daemons, config)
            else:
                daemons.until_struck(config, fault, feed=lambda: world.feed(4))
        last = daemons.start(config)
        ends = last.drain(world)
        last.wait_until(lambda: not any(History(world.url).outbox_depth().values()), CLAIMS_END_S)
        last.wait_until(lambda: not world.unpublished(), 60)
        assert last.terminate() == 0, last.tail()
        assert_holds(world, ends)
        assert_sent_once(world, set(receiver.actions))
        assert_published(world)
    struck = Counter(fault.split(":")[1] for fault in faults)
    assert set(struck) == set(crash.POINTS) - set(ELSEWHERE)
    record("F1", [world.seed], f"{kills} kills at {len(struck)} points", world.records, "O holds")


def kill_while_leaving(world: World, daemons: Supervisor, config: Path) -> None:
    """SIGTERM under load, and SIGKILL while it gives its topic partitions back."""
    before = world.covered()
    leaving = daemons.start(config, "crash:on_revoke:1")
    leaving.wait_until(lambda: world.covered() > before)
    assert leaving.terminate() == -9, leaving.tail()


def assert_sent_once(world: World, received: set[str]) -> None:
    """Whatever was applied has come to the receiver, which dedups by the id; and it got nothing that is not stored."""
    firings = {row["firing_id"]: row for row in History(world.url).firings(limit=10**6)}
    applied = {
        firing_id
        for firing_id, row in firings.items()
        for outcome in row["outcomes"]
        if (outcome["actuator"], outcome["kind"]) == ("webhook", "applied")
    }
    assert applied
    assert applied <= received <= firings.keys()


def assert_published(world: World) -> None:
    """Every stored forecast and firing is in Kafka; messages of one id are equal in every byte."""
    forecasts = published(world.broker, world.published["forecasts"])
    stored = compare.dump(world.url, ["forecast", "firing"])
    assert len(forecasts) == len(stored["forecast"])
    assert published(world.broker, world.published["actions"]).keys() == {row[4] for row in stored["firing"]}


ARTEFACT = """
import sys
from pathlib import Path
from netpredict import crash
from netpredict.learn.registry import save_artefact
from tests.faults.daemon import Faults
from tests.learn.test_registry import trained
crash.arm(Faults(sys.argv[2:]))
save_artefact(Path(sys.argv[1]), trained())
"""


@pytest.mark.parametrize("kills", [3])
def test_f01_a_kill_while_an_artefact_is_written(tmp_path: Path, record: Recorder, kills: int) -> None:
    """Killed between weights and manifest it leaves nothing that could be taken for a version."""
    record.about("F1")
    folder = tmp_path / "models" / "v"
    for _ in range(kills):
        done = subprocess.run([sys.executable, "-c", ARTEFACT, str(folder), "crash:mid_artefact:1"], check=False)
        assert done.returncode == -9
        assert not folder.exists()
    subprocess.run([sys.executable, "-c", ARTEFACT, str(folder)], check=True)
    assert load_artefact(folder).weights
    record("F1", [], f"{kills} kills at mid_artefact", 0, "no half artefact")


def test_every_point_is_in_the_code_once_and_killed_at() -> None:
    """A point that nobody passes would let F1 hold for nothing."""
    passed = Counter(re.findall(r'crash\.reached\("(\w+)"\)', product()))
    assert passed == Counter(crash.POINTS)
    for kills in (15, 45, 105):
        planned = Counter(fault.split(":")[1] for fault in plan(kills, random.Random(1)))
        assert planned.keys() == set(crash.POINTS) - set(ELSEWHERE)
        assert kills == 15 or min(planned.values()) >= 3


def test_nothing_in_the_product_arms_a_point() -> None:
    """Neither a setting nor a variable of the environment can: nobody calls ``arm``."""
    assert "crash.arm" not in product()
    assert "os.environ" not in Path("netpredict/crash.py").read_text()


def product() -> str:
    """The whole source of the daemon."""
    return "".join(path.read_text() for path in sorted(Path("netpredict").rglob("*.py")))

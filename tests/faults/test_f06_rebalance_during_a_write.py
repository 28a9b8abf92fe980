"""F6: topic partitions change hands while a commit is being written, with a listener that is slow or raises."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeWorld, Recorder, scales
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import Supervisor
from tests.faults.test_f03_zombie import on_postgresql

SLOW_WRITES = "sleep:mid_commit:*:0.4"
LISTENERS = {
    "prompt": (),
    "slow": ("sleep:on_revoke:*:2.5",),
    "raising": ("fail:on_revoke:*:RuntimeError",),
}


@on_postgresql
@pytest.mark.parametrize("assignment", ["eager", pytest.param("cooperative", marks=pytest.mark.faults)])
@pytest.mark.parametrize(
    "listener", ["raising", *(pytest.param(n, marks=pytest.mark.faults) for n in ("prompt", "slow"))]
)
@scales("joins", short=2, long=6)
@pytest.mark.timeout(600)
def test_f06_a_rebalance_during_a_write_leaves_no_half_batch(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder, assignment: str, listener: str, joins: int
) -> None:
    world = make_world(601)
    record.about("F6", 601)
    world.feed(8)
    faults = (SLOW_WRITES, *LISTENERS[listener])
    stays = daemons.start(world.config("stays", static=False, assignment=assignment), *faults)
    for number in range(joins):
        stays.wait_until(lambda: stays.said("phase"))
        world.feed(8)
        before = world.covered()
        stays.wait_until(lambda before=before: world.covered() > before, 60)  # type: ignore[misc]
        guest = daemons.start(world.config(f"guest{number}", static=False, assignment=assignment), *faults)
        guest.wait_until(lambda guest=guest: guest.said("assignment"), 60)  # type: ignore[misc]
        world.feed(8)
        assert guest.terminate() == 0, guest.tail()
    ends = stays.drain(world)
    assert stays.terminate() == 0, stays.tail()
    assert_holds(world, ends)
    record("F6", [601], f"{2 * joins} rebalances, {assignment}, {listener}", world.records, "O holds")

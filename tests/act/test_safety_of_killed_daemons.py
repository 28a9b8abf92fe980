"""What holds for real processes that are killed around an action: a daemon, its store, and an HTTP receiver."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from netpredict.types import ArmState
from tests.act.killed_daemons import COOLDOWN_S, Life, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_kills_around_an_action_neither_double_it_nor_forget_its_cooldown(receiver: Receiver, tmp_path: Path) -> None:
    life = Life(tmp_path, receiver)
    life.dies(8, "crash:after_apply:1")
    assert len(receiver.log) == 1, "the receiver has it, the store does not know"
    (unrecorded,) = receiver.applied()
    assert life.outcomes()[unrecorded][0] is None
    life.done(12)
    assert Counter(delivery.key for delivery in receiver.log)[unrecorded] == 2, "sent again, under its id"
    assert ("skipped", "cooldown") in life.outcomes().values()

    time.sleep(COOLDOWN_S)
    before = list(receiver.log)
    life.turn(ArmState.NOT_MEET)
    life.done(18)
    assert receiver.log == before, "something was sent while disarmed"
    assert ("skipped", "disarmed") in life.outcomes().values()

    life.turn(ArmState.MEET)
    life.dies(24, "crash:before_apply:1")
    assert receiver.log == before, "it died before it sent"
    life.dies(30, "crash:after_apply:2")
    life.done(36)

    applied, outcomes = receiver.applied(), life.outcomes()
    assert len(applied) > len({delivery.key for delivery in before})
    assert applied.keys() == {name for name, (kind, _) in outcomes.items() if kind == "applied"}
    for object_id in {delivery.object_id for delivery in applied.values()}:
        times_s = sorted(delivery.at_s for delivery in applied.values() if delivery.object_id == object_id)
        assert len(times_s) > 1
        assert all(later - earlier > COOLDOWN_S - 0.5 for earlier, later in pairwise(times_s)), times_s

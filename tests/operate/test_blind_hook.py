"""A hook that acts everywhere hides every truth about its forecasts: a daemon, its store and its breaker."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from netpredict.config import parse_config
from netpredict.ingest.source import MemoryLog
from netpredict.operate.daemon import Daemon
from netpredict.store.history import History
from netpredict.store.sqlite import path_of
from netpredict.types import ArmState
from tests.faults.rig import START_US, TOPIC, InThread, fill, raw_config, rows
from tests.operate.test_policy import ClockOf

BUCKET_MIN, BUCKETS, CELLS = 5, 12, 4


def all_left_out(daemon: Daemon) -> bool:
    """Whether the lanes know all that actions have asked them to leave out."""
    with closing(sqlite3.connect(path_of(daemon.config.store_url))) as connection:
        asked = {request_id for (request_id,) in connection.execute("SELECT request_id FROM control_request")}
    return asked <= {taken for lane in daemon.pipeline.lanes.values() for taken in lane.requests_taken}


@pytest.mark.timeout(120)
def test_a_hook_whose_actions_hide_every_truth_stops_until_truths_have_come(tmp_path: Path) -> None:
    raw = raw_config(tmp_path, http={"enabled": False})
    raw["streams"]["traffic"]["bucket_s"] = 60.0 * BUCKET_MIN
    breaker = {"buckets": 2, "rows_min": 10, "blind_buckets": 2, "skill_min": -9.0, "skill_rearm": -8.0}
    breaker |= {"coverage_off": 0.98, "coverage_rearm": 0.97}  # that the forecasts are any good is not the question
    raw["hooks"]["bandwidth"] |= {"mode": "auto", "effect_s": 600.0, "breaker": breaker}
    log, clock, url = MemoryLog({TOPIC: 1}), ClockOf(START_US), raw["store"]["url"]
    looks: list[tuple[ArmState, int]] = []
    with InThread(parse_config(raw), log, clock=clock) as running:
        for bucket in range(BUCKETS):
            fill(log, rows(range(bucket * BUCKET_MIN, (bucket + 1) * BUCKET_MIN), CELLS))
            clock.set(START_US + (bucket + 1) * BUCKET_MIN * 60_000_000)
            running.until(running.drained)
            running.until(lambda: not History(url).outbox_depth())
            running.until(lambda: all_left_out(running.daemon))
            running.daemon.breakers.states = {}
            running.daemon.breakers.follow(running.daemon._watched())  # look now
            running.daemon.runner.wake()
            running.until(lambda: running.daemon.breakers.states)
            applied = sum(
                outcome["kind"] == "applied" for row in History(url).firings(limit=1000) for outcome in row["outcomes"]
            )
            looks.append((running.daemon.breakers.states["bandwidth", ""], applied))
    states = [state for state, _ in looks]
    turns = [after for before, after in pairwise(states) if after is not before]
    assert states[0] is ArmState.MEET, "it may act before any truth can be there"
    assert turns[:2] == [ArmState.NOT_MEET, ArmState.MEET], looks
    for (state, before), (_, after) in pairwise(looks):
        assert state is ArmState.MEET or after == before, "it acted while it could not know whether it should"
    assert looks[-1][1] > looks[states.index(ArmState.NOT_MEET)][1], "it never went on"

"""F15, F16 and F18: what happens to an SQLite store and its disk, seen by a daemon."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpredict.config import parse_config
from netpredict.ingest.source import AssignmentChange, MemoryLog
from netpredict.store import sqlite
from netpredict.store.sqlite import path_of
from tests.faults import rig
from tests.faults.rig import InThread, raw_config


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog({rig.TOPIC: 3})


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process that holds the write lock."""
    connection = sqlite3.connect(path_of(url), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_f15_a_locked_database_is_waited_for_within_bounds(
    log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a rebalance falls into that time: what was assigned is taken over when the store is back."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 100)
    rig.fill(log, rig.rows(range(5)))
    rows_max = 200
    raw = raw_config(tmp_path, daemon={"commit_rows_max": rows_max}, kafka={"poll_records_max": 100})
    with InThread(parse_config(raw), log) as running:
        running.until(running.drained)
        most = 0
        with locked(running.url):
            rig.fill(log, rig.rows(range(5, 30)))
            running.until(lambda: running.daemon.writer.retries >= 2)
            for _ in range(20):
                time.sleep(0.02)
                most = max(most, running.daemon.pipeline.rows_pending)
            moved = (log.topic_partitions()[1],)
            running.daemon.source._changes = AssignmentChange(revoked=moved, assigned=moved)  # type: ignore[attr-defined]
            before = running.daemon.writer.retries
            running.until(lambda: running.daemon.writer.retries >= before + 2)
        running.until(running.drained)
    assert 0 < most <= 2 * rows_max + raw["kafka"]["poll_records_max"], "what waits is bounded, and then polling pauses"
    rig.assert_accounted_for(running.url)
    rig.assert_equal(running.url, rig.unfaulted(tmp_path, log))

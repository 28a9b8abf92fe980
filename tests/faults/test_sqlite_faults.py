"""F15, F16 and F18: what happens to an SQLite store and its disk, seen by a daemon."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netpredict.config import parse_config
from netpredict.errors import StoreDamaged, StoreUnavailable
from netpredict.ingest.source import AssignmentChange, MemoryLog
from netpredict.store import compare, sqlite
from netpredict.store.database import database_of
from netpredict.store.sqlite import path_of
from tests.faults import rig
from tests.faults.conftest import Recorder
from tests.faults.disk import small_disk
from tests.faults.memory_daemon import log_of
from tests.faults.process import Process, needs_shims, preloadable
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
    log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    """Also when a rebalance falls into that time: what was assigned is taken over when the store is back."""
    record.about("F15")
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
    record("F15", [], "1 lock, 1 rebalance", sum(rig.ends_of(log).values()), "O holds, waits within bounds")


def test_f15_the_wal_that_a_long_reader_kept_is_used_again_when_it_ends(
    log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    record.about("F15")
    pages = 64
    pragmas = sqlite._pragmas

    def with_a_short_wal(writing: bool) -> tuple[str, ...]:
        short = {"wal_autocheckpoint": pages, "journal_size_limit": pages * 4096}
        names = (pragma.partition(" = ")[0] for pragma in pragmas(writing))
        return tuple(
            f"{name} = {short[name]}" if name in short else pragma
            for name, pragma in zip(names, pragmas(writing), strict=True)
        )

    monkeypatch.setattr(sqlite, "_pragmas", with_a_short_wal)
    rig.fill(log, rig.rows(range(3)))
    with InThread(parse_config(raw_config(tmp_path)), log) as running:
        running.until(running.drained)
        wal = path_of(running.url).with_name("store.db-wal")
        with contextlib.closing(sqlite3.connect(path_of(running.url), isolation_level=None)) as reader:
            reader.execute("BEGIN")
            (seen,) = reader.execute("SELECT count(*) FROM forecast").fetchone()
            minutes = iter(range(3, 90))
            while wal.stat().st_size <= 2 * pages * 4096:  # how much a minute writes depends on the number of commits
                minute = next(minutes, None)
                assert minute is not None, "the reader does not hold it"
                rig.fill(log, rig.rows(range(minute, minute + 1)))
                running.until(running.drained)
            held_bytes = wal.stat().st_size
            assert reader.execute("SELECT count(*) FROM forecast").fetchone() == (seen,), "one snapshot"
        while wal.stat().st_size >= held_bytes:  # it begins anew with a commit that finds it written back and unread
            minute = next(minutes, None)
            assert minute is not None, "it grows on"
            rig.fill(log, rig.rows(range(minute, minute + 1)))
            running.until(running.drained)
    rig.assert_equal(running.url, rig.unfaulted(tmp_path, log))
    record("F15", [], "1 long reader", sum(rig.ends_of(log).values()), "the WAL is used again")


def test_f16_a_full_disk_is_waited_for_and_nothing_is_acknowledged_beyond_it(
    log: MemoryLog, tmp_path: Path, record: Recorder
) -> None:
    record.about("F16")
    rig.fill(log, rig.rows(range(3)))
    with small_disk(tmp_path / "disk", 4) as disk:
        raw = raw_config(disk.folder)
        with InThread(parse_config(raw), log) as running:
            running.until(running.drained)
            disk.fill()
            rig.fill(log, rig.rows(range(3, 30)))
            running.until(lambda: running.daemon.writer.retries >= 3)
            durable, told = rig.stored(running.url), running.daemon.source.reported  # type: ignore[attr-defined]
            assert not rig.drained(running.url, rig.ends_of(log))
            assert all(told[place] <= (durable[place] or 0) for place in told)
            disk.free()
            running.until(running.drained)
        rig.assert_accounted_for(running.url)
        rig.assert_equal(running.url, rig.unfaulted(tmp_path, log))
    record("F16", [], "store disk full", sum(rig.ends_of(log).values()), "O holds, no ack beyond")


def test_f16_a_daemon_that_cannot_start_on_a_full_disk_may_be_tried_again(
    log: MemoryLog, tmp_path: Path, record: Recorder
) -> None:
    record.about("F16")
    rig.fill(log, rig.rows(range(3)))
    with small_disk(tmp_path / "disk", 4) as disk:
        config = parse_config(raw_config(disk.folder))
        disk.fill()
        with pytest.raises(StoreUnavailable, match="No space left"), InThread(config, log):
            pass
        disk.free()
        with InThread(config, log) as running:
            running.until(running.drained)
    record("F16", [], "start on a full disk", sum(rig.ends_of(log).values()), "75, then starts")


def test_f16_a_full_log_disk_stops_no_record(tmp_path: Path, record: Recorder) -> None:
    record.about("F16")
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk.folder / "daemon.log").touch()
        disk.fill()
        config = write(tmp_path / "config.json", raw_config(tmp_path))
        with Process(config, 10, log=disk.folder / "daemon.log") as process:
            process.until(lambda: rig.drained(process.url, rig.ends_of(log_of(10))))
            assert process.terminate() == 0
            assert process.said() == ""
    record("F16", [], "log disk full", 600, "drains")


@needs_shims
@pytest.mark.parametrize("first", [300, pytest.param(400, marks=pytest.mark.faults)])
def test_f16_errors_of_the_disk_are_tried_again(tmp_path: Path, record: Recorder, first: int) -> None:
    """Writes and syncs of the database and its WAL fail for a while: what failed was not acknowledged."""
    record.about("F16")
    shim = preloadable(Path(__file__).with_name("disk_errors.c"), tmp_path)
    place = tmp_path / "disk"
    place.mkdir()
    config = write(place / "config.json", raw_config(place, kafka={"poll_records_max": 60}, http={"enabled": False}))
    failing = {"DISK_ERRORS_FOLDER": str(place.resolve()), "DISK_ERRORS_FROM": str(first), "DISK_ERRORS_COUNT": "4"}
    log = log_of(30)
    with Process(config, 30, log=tmp_path / "log", LD_PRELOAD=str(shim), **failing) as process:
        process.until(lambda: rig.drained(process.url, rig.ends_of(log)))
        assert process.terminate() == 0
        assert "disk I/O error" in process.said()
    rig.assert_accounted_for(process.url)
    rig.assert_equal(process.url, rig.unfaulted(tmp_path, log))
    record("F16", [], "4 writes or syncs fail with EIO", sum(rig.ends_of(log).values()), "O holds")


def write(path: Path, raw: dict[str, Any]) -> Path:
    path.write_text(json.dumps(raw))
    return path


def damage(path: Path, inside: bytes) -> int:
    """Flip one bit in the middle of each copy of some bytes; gives how many there were."""
    content = path.read_bytes()
    harmed = bytearray(inside)
    harmed[len(harmed) // 2] ^= 0x10
    path.write_bytes(content.replace(inside, bytes(harmed)))
    return content.count(inside)


def test_f18_a_flipped_bit_in_a_state_restarts_that_series_cold_and_is_told(
    log: MemoryLog, tmp_path: Path, record: Recorder
) -> None:
    record.about("F18")
    rig.fill(log, rig.rows(range(8)))
    config = parse_config(raw_config(tmp_path))
    with InThread(config, log) as running:
        running.until(running.drained)
    path = path_of(running.url)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (blob,) = connection.execute(
            "SELECT t.state FROM series_state AS t JOIN series USING (series_id) WHERE key = 'cell-5'"
        ).fetchone()
    assert damage(path, blob)
    rig.fill(log, rig.rows(range(8, 9)))
    with InThread(config, log) as running:
        running.until(running.drained)
        running.until(lambda: b"netpredict_damaged_states 1.0" in running.daemon.metrics.render())
    healthy = rig.unfaulted(tmp_path, log)
    assert {"cell-5"} == {row[SERIES[table]] for table in SERIES for row in unlike(running.url, healthy, table)}
    record("F18", [], "1 bit of a state", sum(rig.ends_of(log).values()), "one series cold, counted")


SERIES = {"forecast": 5, "series_state": 4}
"""Where the key of the series stands in a row of ``compare.dump``."""


def unlike(a: str, b: str, table: str) -> set[tuple[Any, ...]]:
    return set(compare.dump(a, [table])[table]) ^ set(compare.dump(b, [table])[table])


def test_f18_a_damaged_page_ends_the_daemon_with_what_to_do(log: MemoryLog, tmp_path: Path, record: Recorder) -> None:
    record.about("F18")
    config = write(tmp_path / "config.json", raw_config(tmp_path))
    with Process(config, 8, log=tmp_path / "first") as process:
        process.until(lambda: rig.drained(process.url, rig.ends_of(log_of(8))))
        assert process.terminate() == 0
    path = path_of(process.url)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'series_state'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(byte ^ 0xFF for byte in range(64)))
    with Process(config, 9, log=tmp_path / "second") as process:
        assert process.wait() == StoreDamaged.exit_code
        assert "netpredict db check" in process.said()
    with pytest.raises(StoreDamaged):
        database_of(process.url).check_pages()
    record("F18", [], "1 database page", 480, "refused with 74")

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netpredict
from netpredict.errors import StoreError, StoreUnavailable
from netpredict.store import compare, load, migrate
from netpredict.store.commit import Commit, GapRow, JournalRow, RetrainRow
from netpredict.store.database import Connection
from netpredict.store.history import History
from netpredict.store.letters import VALUE_BYTES_MAX
from netpredict.store.sql import RECREATED, SqlStore
from netpredict.store.sqlite import ROWS_PER_STATEMENT, SqliteDatabase
from netpredict.types import MISSING_TICKS, NO_SLOT, Mode, TopicPartition
from tests.store.store_builders import (
    LAYOUT,
    STATE_LAYOUT,
    TOPIC_PARTITION,
    WIDTH,
    assign,
    firing,
    forecasts,
    full_commit,
    ids,
    lane_commit,
    letter,
    register,
    run,
    score,
    slot_time,
    states,
)

STEPS = (
    "_insert_forecasts",
    "_insert_observations",
    "_upsert_scores",
    "_write_series",
    "_upsert_states",
    "_append_journal",
    "_insert_firings",
    "_insert_dead_letters",
)


def query(store: SqlStore, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with store.database.reader() as connection:
        return connection.execute(sql, parameters).fetchall()


def test_what_was_committed_is_read_back_at_the_next_assignment(store: SqlStore) -> None:
    lane, model_id = run(store, slots=2)
    again = assign(store)
    assert (again.lane_id, again.epoch, again.next_offset) == (lane.lane_id, lane.epoch + 1, 20)
    assert again.topic_id == "id-1"
    assert again.counts == {"accepted": 20, "duplicate": 0, "late": 0, "dead": 0, "control": 0}
    assert again.state == '{"watermark":20}'
    expected = states(lane, 2, range(3)).blob
    assert [row[:5] for row in again.series] == [
        (int(number), f"cell-{place}", 2, True, STATE_LAYOUT) for place, number in enumerate(ids(lane, range(3)))
    ]
    assert [row[5] for row in again.series] == [blob.tobytes() for blob in expected]
    assert [row.effective_offset for row in again.journal] == [0, 10]
    assert again.journal[1] == JournalRow(10, "activate", {"predictor": "gru", "version": "v2"})
    assert again.bucket_scores == [score(model_id, bucket=2)]


def test_a_new_lane_is_empty(store: SqlStore) -> None:
    lane = assign(store)
    assert (lane.epoch, lane.next_offset, lane.state, lane.series) == (1, None, "", [])


def test_a_lane_never_committed_may_begin_at_any_offset(store: SqlStore) -> None:
    lane = assign(store)
    assert store.commit(Commit([lane_commit(lane, 4711, 4712)])) == set()
    assert assign(store).next_offset == 4712


def test_an_older_epoch_is_fenced_and_writes_nothing(store: SqlStore) -> None:
    zombie, model_id = run(store, slots=1)
    assign(store)
    before = compare.dump(store.url)
    assert store.commit(Commit([full_commit(zombie, model_id, 2)])) == {TOPIC_PARTITION}
    assert compare.dump(store.url) == before


def test_another_old_offset_is_fenced(store: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    assert store.commit(Commit([lane_commit(lane, 9, 20)])) == {TOPIC_PARTITION}


def test_a_fenced_lane_does_not_hold_up_another(store: SqlStore) -> None:
    zombie, model_id = run(store, slots=1)
    other_partition = TopicPartition("cells", 1)
    other = assign(store, other_partition)
    assign(store)
    fine = full_commit(other, model_id, 1, topic_partition=other_partition, firings=[], dead_letters=[])
    assert store.commit(Commit([full_commit(zombie, model_id, 2), fine])) == {TOPIC_PARTITION}
    assert query(store, "SELECT count(*) FROM forecast WHERE slot_time_us = :at", at=slot_time(2)) == [(0,)]
    assert query(store, "SELECT next_offset FROM topic_progress ORDER BY partition") == [(10,), (10,)]


def test_the_same_commit_again_is_a_success_and_writes_nothing(store: SqlStore) -> None:
    lane, model_id = run(store, slots=1)
    commit = Commit([full_commit(lane, model_id, 2)])
    assert store.commit(commit) == set()
    after = compare.dump(store.url)
    assert store.commit(commit) == set()
    assert compare.dump(store.url) == after


@pytest.mark.parametrize("step", STEPS)
def test_a_commit_that_fails_half_way_leaves_nothing_and_may_be_repeated(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    lane, model_id = run(store, slots=1)
    before = compare.dump(store.url)
    commit = Commit([full_commit(lane, model_id, 2)])

    def broken(connection: Connection, *_: object) -> None:
        connection.execute("SELECT nonsense")

    with monkeypatch.context() as patch:
        patch.setattr(store, step, broken)
        with pytest.raises(StoreError):
            store.commit(commit)
    assert compare.dump(store.url) == before
    assert store.commit(commit) == set()
    assert assign(store).next_offset == 20


@pytest.mark.parametrize("step", STEPS[::3])
def test_a_process_killed_half_way_leaves_the_store_as_it_was(url: str, step: str) -> None:
    with SqlStore(url) as store:
        run(store, slots=1)
        before = compare.dump(url)
    code = (
        "import os, sys; sys.path[:0] = sys.argv[3:]\n"
        "from store_builders import *\n"
        "store = SqlStore(sys.argv[1]); store.start()\n"
        "lane, model_id = assign(store), register(store)\n"
        "setattr(store, sys.argv[2], lambda *_: os._exit(9))\n"
        "store.commit(Commit([full_commit(lane, model_id, 2)]))\n"
    )
    folders = [str(Path(__file__).parent), str(Path(netpredict.__file__).parent.parent)]
    killed = subprocess.run([sys.executable, "-c", code, url, step, *folders], check=False)
    assert killed.returncode == 9
    assert compare.dump(url) == before
    with SqlStore(url) as store:
        lane = assign(store)
        assert (lane.epoch, lane.next_offset) == (3, 10)
        assert store.commit(Commit([full_commit(lane, 1, 2)])) == set()


def test_a_layout_of_a_commit_that_failed_is_registered_by_the_next(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, model_id = assign(store), register(store)

    def broken(*_: object) -> None:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_insert_dead_letters", broken)
        with pytest.raises(RuntimeError):
            store.commit(Commit([full_commit(lane, model_id)]))
    store.commit(Commit([full_commit(lane, model_id)]))
    assert query(store, "SELECT count(*) FROM forecast_layout") == [(1,)]
    assert query(store, "SELECT count(*) FROM column_layout") == [(1,)]
    assert query(store, "SELECT count(*) FROM state_layout") == [(1,)]


def test_a_busy_database_is_a_retriable_error(tmp_path: Path) -> None:
    migrate.upgrade(f"sqlite:///{tmp_path}/busy.db")
    with SqlStore(f"sqlite:///{tmp_path}/busy.db") as store:
        busy(store)


def busy(store: SqlStore) -> None:
    lane, model_id = run(store, slots=1)
    assert isinstance(store.database, SqliteDatabase)
    with store.database.transaction() as connection:
        connection.raw.execute("SELECT 1")
    connection.raw.execute("PRAGMA busy_timeout = 10")
    intruder = sqlite3.connect(store.database.path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    commit = Commit([full_commit(lane, model_id, 2)])
    with pytest.raises(StoreUnavailable) as caught:
        store.commit(commit)
    assert caught.value.retriable
    intruder.execute("ROLLBACK")
    intruder.close()
    assert store.commit(commit) == set()


def test_more_rows_than_one_statement_holds_are_stored_in_order(store: SqlStore) -> None:
    lane, model_id = assign(store), register(store)
    count = sum(ROWS_PER_STATEMENT) + 7
    numbers = np.random.default_rng(1).permutation(count)
    rows = forecasts(lane, model_id, 1, numbers.tolist())
    store.commit(Commit([lane_commit(lane, 0, 10, forecasts=[rows, forecasts(lane, model_id, 0, [3, 1])])]))
    stored = query(store, "SELECT slot_time_us, series_id, ticks FROM forecast ORDER BY slot_time_us, series_id")
    assert len(stored) == count + 2
    assert [row[1] for row in stored[:2]] == ids(lane, [1, 3]).tolist()
    first = int(np.flatnonzero(numbers == 0)[0])
    assert stored[2][2] == str(rows.ticks[first].tolist()).replace(" ", "")


def test_missing_ticks_are_null(store: SqlStore) -> None:
    lane, model_id = assign(store), register(store)
    rows = forecasts(lane, model_id, 1, [0])
    rows.ticks[0, :2] = MISSING_TICKS
    rows.ticks[0, 2:] = 7
    store.commit(Commit([lane_commit(lane, 0, 1, forecasts=[rows])]))
    assert query(store, "SELECT ticks FROM forecast") == [("[null,null" + ",7" * (WIDTH - 2) + "]",)]


def test_the_later_state_of_a_series_wins(store: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    early, late = states(lane, 2, [2, 0, 2]), states(lane, 3, [0])
    store.commit(Commit([lane_commit(lane, 10, 20, series_states=[early, late])]))
    series = assign(store).series
    assert [row[2] for row in series] == [3, 1, 2]
    assert series[0][5] == late.blob[0].tobytes()
    assert series[2][5] == early.blob[2].tobytes()


def test_a_retired_series_is_gone_and_its_key_may_come_back_in_the_same_commit(store: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    old, new, brief = (int(number) for number in ids(lane, [0, 7, 8]))
    parts = {
        "retired_series": [old, brief],
        "new_series": [(brief, "cell-8", 2, True), (new, "cell-0", 2, False)],
        "series_states": [states(lane, 2, [0, 7, 8])],
    }
    store.commit(Commit([lane_commit(lane, 10, 20, **parts)]))
    found = {row[1]: row for row in assign(store).series}
    assert set(found) == {"cell-0", "cell-1", "cell-2"}
    assert found["cell-0"][0] == new
    assert not found["cell-0"][3]
    assert query(store, "SELECT count(*) FROM series_state") == [(3,)]


def test_a_series_without_state_says_so(store: SqlStore) -> None:
    lane = assign(store)
    store.commit(Commit([lane_commit(lane, 0, 1, new_series=[(int(ids(lane, [0])[0]), "cell-0", 5, True)])]))
    assert [row[2:] for row in assign(store).series] == [(NO_SLOT, True, None, None)]


def test_a_damaged_state_is_found_and_harms_no_other_series(store: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    broken = states(lane, 2, [1]).blob[0].tobytes()
    with store.database.transaction() as connection:
        connection.execute(
            "UPDATE series_state SET state = :state WHERE series_id = :id",
            {"state": broken, "id": int(ids(lane, [1])[0])},
        )
    series = assign(store).series
    assert [row[5] is None for row in series] == [False, True, False]
    assert store.damaged == [(TOPIC_PARTITION, "cell-1")]


def test_scores_replace_the_row_of_their_bucket(store: SqlStore) -> None:
    lane, model_id = run(store, slots=1)
    store.commit(Commit([lane_commit(lane, 10, 20, scores=[score(model_id, bucket=1, n=5)])]))
    assert assign(store).bucket_scores == [score(model_id, bucket=1, n=5)]


def test_a_shadow_firing_has_no_outbox(store: SqlStore) -> None:
    lane = assign(store)
    store.commit(Commit([lane_commit(lane, 0, 1, firings=[(firing(1, Mode.SHADOW), ("log",))])]))
    assert query(store, "SELECT count(*) FROM firing") == [(1,)]
    assert query(store, "SELECT count(*) FROM outbox") == [(0,)]


def test_a_dead_letter_counts_once_by_reason_and_is_capped(store: SqlStore) -> None:
    lane = assign(store)
    letters = [
        letter(1),
        letter(1),
        letter(1, "late"),
        letter(2, value=b"x" * (VALUE_BYTES_MAX + 9)),
        letter(3, value=None),
    ]
    store.commit(Commit([lane_commit(lane, 0, 4, dead_letters=letters)]))
    found = query(store, 'SELECT "offset", reason, length(value), value_bytes FROM dead_letter ORDER BY 1, 2')
    assert found == [
        (1, "late", 1, 1),
        (1, "undecodable", 1, 1),
        (2, "undecodable", VALUE_BYTES_MAX, VALUE_BYTES_MAX + 9),
        (3, "undecodable", None, 0),
    ]


def test_ranges_of_dead_letters_of_one_stretch_and_reason_are_one_row(store: SqlStore) -> None:
    lane, _ = run(store, slots=3)
    with store.database.reader() as connection:
        rows = connection.execute("SELECT * FROM dead_letter_range").fetchall()
    assert [row[:8] for row in rows] == [(lane.lane_id, 0, "late", 5, 26, 6, 67, 83)]


def test_a_recreated_topic_leaves_a_gap_and_begins_anew(store: SqlStore) -> None:
    run(store, slots=1)
    again = assign(store, topic_id="id-2")
    assert (again.topic_id, again.next_offset) == ("id-1", None)
    assert (assign(store).topic_id, assign(store, topic_id="").topic_id) == ("id-2", "id-1")
    assert (10, 0, RECREATED) in query(store, "SELECT from_offset, to_offset, reason FROM gap")


@pytest.mark.parametrize("in_step", [1, 2, 256])
def test_pending_forecasts_are_those_whose_truth_is_to_come(
    store: SqlStore, in_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "IN_STEP", in_step)
    lane, model_id = run(store, slots=6)
    behind = forecasts(lane, model_id, 7, [0])
    store.commit(Commit([lane_commit(lane, 60, 70, forecasts=[behind], series_states=[states(lane, 7, [0])])]))
    pending = store.pending_forecasts(lane.lane_id, model_id, LAYOUT)
    numbers = (pending.series_id - ids(lane, [0])[0]).tolist()
    expected = [(3, 1), (3, 2), (4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2), (6, 0), (6, 1), (6, 2), (7, 0)]
    assert list(zip(pending.slot.tolist(), numbers, strict=True)) == expected
    assert (pending.ticks[-1] == behind.ticks[0]).all()
    assert (pending.observed[-1] == behind.observed[0]).all()
    assert (pending.sources == [0, 2]).all()


def test_pending_forecasts_of_another_layout_or_model_are_none(store: SqlStore) -> None:
    lane, model_id = run(store, slots=2)
    other = dataclasses.replace(LAYOUT, horizon_steps=3)
    assert len(store.pending_forecasts(lane.lane_id, model_id, other).slot) == 0
    empty = store.pending_forecasts(lane.lane_id, model_id + 1, LAYOUT)
    assert empty.ticks.shape == (0, WIDTH)
    assert empty.sources.shape == (0, 2)


def test_a_model_version_has_one_id(store: SqlStore) -> None:
    first, second = register(store, "v1"), register(store, "v2")
    assert register(store, "v1") == first != second
    assert store.move_model(second, "active", "me", "model_promoted", {"why": "better"}) == "v1"
    assert [(row.version, row.stage, row.scores) for row in store.models("traffic")] == [
        ("v1", "retired", {"mae": 1.5}),
        ("v2", "active", {"mae": 1.5}),
    ]
    assert store.models("other") == []
    assert History(store.url).audit()[0]["detail"]["why"] == "better"
    with pytest.raises(StoreError, match="999"):
        store.move_model(999, "active", "me", "model_promoted", {})


def test_a_version_changes_its_stage_with_audit_and_run_or_not_at_all(store: SqlStore) -> None:
    """No reader ever sees two active versions, or none: also when the process dies in between."""
    first, second = register(store, "v1"), store.register_model("traffic", "gru", "v2", "gru", "x", {}, "challenger")
    third = store.register_model("traffic", "gru", "v3", "gru", "x", {}, "candidate")
    unencodable = RetrainRow("traffic", "gru", 1, "promoted", second, {"why": object()})
    with pytest.raises(TypeError):
        store.move_model(second, "active", "me", "model_promoted", {}, unencodable)
    assert [row.stage for row in store.models()] == ["active", "challenger", "candidate"]
    assert History(store.url).audit() == []
    store.move_model(third, "challenger", "me", "model_challenges", {})
    assert [row.stage for row in store.models()] == ["active", "refused", "challenger"]
    run = RetrainRow("traffic", "gru", 1, "promoted", third, {"why": "won"})
    assert store.move_model(third, "active", "me", "model_promoted", {}, run) == "v1"
    assert store.move_model(third, "active", "me", "model_promoted", {}) is None
    assert [row.stage for row in store.models()] == ["retired", "refused", "active"]
    assert [row["detail"]["why"] for row in History(store.url).retrain_runs(model_id=third)] == ["won"]
    assert first < second < third


def test_pruning_is_bounded_and_takes_the_oldest(store: SqlStore) -> None:
    run(store, slots=4)
    assert store.prune(slot_time(4), 7) == 7
    assert query(store, "SELECT count(*) FROM forecast") == [(8,)]
    assert query(store, "SELECT count(*) FROM observation") == [(9,)]
    assert store.prune(slot_time(4), 100) == 11
    assert query(store, "SELECT min(slot_time_us), count(*) FROM forecast") == [(slot_time(4), 3)]
    assert store.prune(slot_time(4), 100) == 0
    assert store.prune(slot_time(9), 0) == 0


def test_pruning_goes_on_with_one_table_when_the_other_is_done(store: SqlStore) -> None:
    lane, model_id = assign(store), register(store)
    store.commit(Commit([lane_commit(lane, 0, 1, forecasts=[forecasts(lane, model_id, 1, range(10))])]))
    assert store.prune(slot_time(2), 8) == 8


def test_readers_see_whole_commits_while_one_is_written(store: SqlStore) -> None:
    lane, model_id = run(store, slots=1)
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            ((rows, offset),) = query(store, "SELECT (SELECT count(*) FROM forecast), next_offset FROM topic_progress")
            seen.add((rows, offset))

    thread = threading.Thread(target=read)
    thread.start()
    for slot in range(2, 30):
        store.commit(Commit([full_commit(lane, model_id, slot)]))
    done.set()
    thread.join()
    assert all(rows == 3 * offset // 10 for rows, offset in seen)


def test_a_closed_store_refuses_to_write(url: str) -> None:
    store = SqlStore(url)
    with pytest.raises(StoreError, match="not open"):
        store.prune(0, 10)


def test_the_writer_is_durable(store: SqlStore, dialect: str) -> None:
    with store.database.transaction() as connection:
        if dialect == "postgresql":
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
            return
        settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_gaps_and_journal_of_one_offset_keep_their_order(store: SqlStore) -> None:
    lane = assign(store)
    journal = [JournalRow(0, "mode", {"hook": "b", "mode": mode}) for mode in ("auto", "shadow", "auto")]
    store.commit(Commit([lane_commit(lane, 0, 5, journal=journal, gaps=[GapRow(1, 3, "expired")])]))
    assert assign(store).journal == journal


def test_the_path_may_hold_odd_characters(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a b#c.db"
    migrate.upgrade(url)
    with SqlStore(url) as store:
        run(store, slots=1)
    assert (tmp_path / "a b#c.db").exists()

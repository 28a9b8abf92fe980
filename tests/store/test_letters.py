"""Dead letters and what ages, on each database."""

from __future__ import annotations

from typing import Any

import pytest

from netpredict.errors import DataError
from netpredict.store.commit import EXCLUDE, Commit, JournalRow, LaneSnapshot, ReplayedLetter
from netpredict.store.history import History
from netpredict.store.letters import VALUE_BYTES_MAX
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import Outcome, OutcomeKind, TopicPartition
from tests.store.store_builders import (
    TOPIC_PARTITION,
    assign,
    firing,
    full_commit,
    lane_commit,
    letter,
    record,
    register,
    run,
    score,
    slot_time,
)

NEVER = 2**62


def query(store: SqlStore, sql: str) -> list[tuple[Any, ...]]:
    with store.database.reader() as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def lane(store: SqlStore) -> LaneSnapshot:
    """Three letters of one reason, the last of which was cut, and one of another."""
    lane = assign(store)
    cut = letter(3, value=b"x" * (VALUE_BYTES_MAX + 1))
    letters = [letter(1, value=b"\x00\xff"), letter(2, value=None), cut, letter(4, "late")]
    store.commit(Commit([lane_commit(lane, 0, 5, dead_letters=letters)]))
    return lane


def test_a_letter_is_asked_for_once_and_carries_its_bytes(store: SqlStore, lane: LaneSnapshot) -> None:
    assert store.request_replay("me", "cells", 0, "undecodable") == {"asked": 2, "waiting": 0, "cut": 1, "left": 0}
    assert store.request_replay("me", "cells") == {"asked": 1, "waiting": 2, "cut": 1, "left": 0}
    payloads = [request.payload for request in store.requests()]
    assert [(p["offset"], p["key"], p["value"], p["timestamp_ms"]) for p in payloads] == [
        (1, "aw==", "AP8=", 0),
        (2, "aw==", None, 0),
        (4, "aw==", "ew==", 0),
    ]
    assert {request.lane_id for request in store.requests()} == {lane.lane_id}
    with pytest.raises(DataError, match="only the first 65536 bytes"):
        store.request_replay("me", from_offset=3, to_offset=3)
    assert [row["waiting"] for row in History(store.url).dead_letters()] == [True, True, False, True]


def test_a_letter_that_entered_leaves_and_one_that_was_refused_may_be_asked_for_again(
    store: SqlStore, lane: LaneSnapshot
) -> None:
    store.request_replay("me")
    ids = [request.request_id for request in store.requests()]
    replayed = [ReplayedLetter(1, "undecodable", True), ReplayedLetter(2, "undecodable", False)]
    store.commit(Commit([lane_commit(lane, 5, 6, requests=ids[:2], replayed=replayed)]))
    rows = History(store.url).dead_letters()
    assert [(row["offset"], row["waiting"]) for row in rows] == [(2, False), (3, False), (4, True)]
    assert store.request_replay("me", to_offset=2) == {"asked": 1, "waiting": 0, "cut": 0, "left": 0}


def test_where_two_groups_read_a_topic_the_group_must_be_said(store: SqlStore, lane: LaneSnapshot) -> None:
    other = store.assign("elsewhere", TOPIC_PARTITION, "traffic", "id-1", "tester")
    with pytest.raises(DataError, match="is read by elsewhere, group: say which"):
        store.request_replay("me")
    assert store.requests() == []
    assert store.request_replay("me", to_offset=1, group="elsewhere")["asked"] == 1
    assert [request.lane_id for request in store.requests()] == [other.lane_id]


def test_letters_and_ranges_are_counted_together_and_dropped(store: SqlStore) -> None:
    run(store, slots=3)
    other = assign(store, TopicPartition("cells", 1))
    store.commit(Commit([lane_commit(other, 0, 5, topic_partition=TopicPartition("cells", 1))]))
    counted = {row["reason"]: row for row in History(store.url).dead_letter_reasons()}
    assert [counted["undecodable"][name] for name in ("kept", "counted", "dead_letters", "last_offset")] == [
        3,
        0,
        3,
        29,
    ]
    assert [counted["late"][name] for name in ("kept", "counted", "dead_letters", "last_offset")] == [0, 6, 6, 26]
    (found,) = History(store.url).dead_letter_ranges(from_offset=20, to_offset=22)
    assert (found["first_offset"], found["last_offset"], found["letters"]) == (5, 26, 6)
    assert store.drop_dead_letters("me", "cells", to_offset=25) == {"letters": 2, "ranges": 0}
    assert store.drop_dead_letters("me", "cells", 1) == {"letters": 0, "ranges": 0}
    assert store.drop_dead_letters("me", "cells", 0) == {"letters": 1, "ranges": 1}
    assert [note["what"] for note in History(store.url).audit()] == ["dead_letters_drop"] * 3


# -- what ages ---------------------------------------------------------------------------------------------------------


def test_letters_ranges_and_gaps_go_by_when_they_were_stored(store: SqlStore) -> None:
    """Not by Kafka's time, which is a producer's: a letter stamped 1970 must not be gone before anybody saw it."""
    run(store, slots=3)
    assert store.prune_notes(0, 10**15, {}, 100) == 0
    assert store.prune_notes(0, NEVER, {}, 2) == 5, "two letters, a range, two gaps"
    assert store.prune_notes(0, NEVER, {}, 2) == 2
    for table in ("dead_letter", "dead_letter_range", "gap"):
        assert query(store, f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_letter_that_waits_for_its_replay_stays(store: SqlStore, lane: LaneSnapshot) -> None:
    store.request_replay("me", reason="late")
    assert store.prune_notes(0, NEVER, {}, 100) == 3
    assert query(store, "SELECT reason FROM dead_letter") == [("late",)]


def test_scores_go_bucket_by_bucket(store: SqlStore) -> None:
    lane, model_id = assign(store), register(store)
    scores = [score(model_id, bucket, lead_steps=lead) for bucket in range(5) for lead in (1, 2)]
    store.commit(Commit([lane_commit(lane, 0, 5, scores=scores)]))
    assert store.prune_notes(0, 0, {lane.lane_id: 3}, 4) == 4
    assert store.prune_notes(0, 0, {lane.lane_id: 3}, 4) == 2
    assert store.prune_notes(0, 0, {lane.lane_id: 3, 77: 3}, 4) == 0
    assert query(store, "SELECT min(bucket), count(*) FROM score") == [(3, 4)]


def test_exclusions_go_when_their_intervals_are_over_and_nothing_else_of_the_journal(store: SqlStore) -> None:
    lane = assign(store)
    version = {"predictor": "gru", "version": "v1"}
    journal = [JournalRow(2 * end, EXCLUDE, {"action": f"f{end}", "until_us": slot_time(end)}) for end in range(5)]
    store.commit(Commit([lane_commit(lane, 0, 20, journal=[JournalRow(0, "activate", version), *journal])]))
    assert store.prune_notes(slot_time(3), 0, {lane.lane_id: 1}, 2) == 2
    assert store.prune_notes(slot_time(3), 0, {lane.lane_id: 1}, 2) == 1
    left = "SELECT effective_offset, kind FROM control_journal ORDER BY effective_offset"
    assert query(store, left) == [(0, "activate"), (6, EXCLUDE), (8, EXCLUDE)]


def test_firings_go_with_their_outcomes_but_none_that_waits(store: SqlStore) -> None:
    lane = assign(store)
    fired = [(firing(number), ("log", "webhook")) for number in (1, 2, 3)]
    store.commit(Commit([lane_commit(lane, 0, 5, firings=fired)]))
    outbox = SqlOutbox(store)
    for number, actuator in ((1, "log"), (1, "webhook"), (2, "log"), (3, "log"), (3, "webhook")):
        record(outbox, firing(number), actuator, Outcome(OutcomeKind.APPLIED, "first"), 5)
    assert store.prune_notes(slot_time(3), 0, {}, 100) == 1
    assert query(store, "SELECT firing_id FROM firing ORDER BY firing_id") == [("firing-2",), ("firing-3",)]
    assert query(store, "SELECT count(*) FROM outbox") == [(4,)]


def test_firings_that_were_not_published_stay(url: str) -> None:
    with SqlStore(url, publishing=True) as store:
        lane, model_id = assign(store), register(store)
        for slot in (1, 2):
            store.commit(Commit([full_commit(lane, model_id, slot)]))
            record(SqlOutbox(store), firing(slot), "log", Outcome(OutcomeKind.APPLIED, "first"), 5)
            record(SqlOutbox(store), firing(slot), "webhook", Outcome(OutcomeKind.APPLIED, "first"), 5)
        assert store.prune_notes(NEVER, 0, {}, 100) == 0
    with SqlStore(url) as store:
        assert store.prune_notes(NEVER, 0, {}, 100) == 2


def test_what_is_deleted_does_not_count_as_used(store: SqlStore) -> None:
    empty = store.used_bytes()
    lane, model_id = assign(store), register(store)
    for slot in range(1, 4):
        store.commit(Commit([full_commit(lane, model_id, slot, series=2000 if slot > 1 else 3)]))
    _analyzed(store)
    full = store.used_bytes()
    assert full > empty + 300_000
    store.prune(slot_time(9), 10**6)
    _analyzed(store)
    assert store.used_bytes() < empty + (full - empty) / 2


def test_anchors_stay_with_the_forecasts_that_they_explain(store: SqlStore) -> None:
    run(store, slots=4)
    store.prune(slot_time(4), 4)
    assert query(store, "SELECT min(slot_time_us) FROM forecast") == [(slot_time(1),)]
    assert query(store, "SELECT count(*) FROM state_anchor") == [(12,)]
    store.prune(slot_time(4), 100)
    assert query(store, "SELECT min(slot_time_us) FROM state_anchor") == [(slot_time(4),)]


def _analyzed(store: SqlStore) -> None:
    """As the server does by itself within a minute."""
    if store.database.shared:
        with store.database.transaction() as connection:
            connection.execute("ANALYZE")
        with store.database.transaction() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")

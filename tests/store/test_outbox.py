from __future__ import annotations

import threading

from netpredict.store.commit import Commit
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import Firing, LastApplied, Outcome, OutcomeKind
from tests.store.store_builders import assign, firing, full_commit, lane_commit, register

APPLIED = Outcome(OutcomeKind.APPLIED, "first", "200 OK", 1)
SKIPPED = Outcome(OutcomeKind.SKIPPED, "cooldown")


def fire(store: SqlStore, *firings: tuple[Firing, tuple[str, ...]]) -> None:
    lane = assign(store)
    offset = lane.next_offset or 0
    store.commit(Commit([lane_commit(lane, offset, offset + 1, firings=list(firings))]))


def waiting(outbox: SqlOutbox, limit: int = 10) -> list[tuple[str, str]]:
    return [(entry.firing.firing_id, entry.actuator_name) for entry in outbox.pending(limit)]


def test_a_firing_waits_for_each_of_its_actuators_oldest_first(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    assert outbox.pending(10) == []
    fire(store, (firing(2), ("webhook", "log")), (firing(1), ("log",)))
    assert waiting(outbox) == [("firing-2", "webhook"), ("firing-2", "log"), ("firing-1", "log")]
    assert outbox.pending(10)[0].firing == firing(2)


def test_the_limit_holds_for_each_actuator(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("down",)) for number in range(5)), (firing(9), ("log",)))
    assert waiting(outbox, limit=2) == [("firing-0", "down"), ("firing-1", "down"), ("firing-9", "log")]


def test_an_outcome_ends_the_wait_and_the_first_one_stands(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log", "webhook")))
    outbox.record(firing(1), "log", APPLIED, 100)
    outbox.record(firing(1), "log", SKIPPED, 200)
    assert waiting(outbox) == [("firing-1", "webhook")]
    assert outbox.last_applied("cell-1", "prb_quota") == LastApplied("firing-1", firing(1).slot_time_us, 100)


def test_only_what_was_applied_counts(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, *((firing(number), ("log", "webhook")) for number in range(4)))
    for number, outcome in enumerate((APPLIED, APPLIED, SKIPPED)):
        outbox.record(firing(number), "log", outcome, 100 + number)
        outbox.record(firing(number), "webhook", outcome, 100 + number)
    assert outbox.applied_since("bandwidth", 100) == 2
    assert outbox.applied_since("bandwidth", 101) == 1
    assert outbox.applied_since("handover", 0) == 0
    last = outbox.last_applied("cell-1", "prb_quota")
    assert last is not None
    assert last.firing_id == "firing-1"
    assert outbox.last_applied("cell-1", "tilt") is None


def test_the_same_firing_from_two_commits_is_applied_once(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    fire(store, (firing(1), ("log",)))
    outbox.record(firing(1), "log", APPLIED, 100)
    fire(store, (firing(1), ("log",)))
    assert waiting(outbox) == []


def test_outcomes_are_recorded_between_commits_of_another_thread(store: SqlStore) -> None:
    outbox = SqlOutbox(store)
    lane, model_id = assign(store), register(store)
    slots = range(1, 31)

    def commit() -> None:
        for slot in slots:
            store.commit(Commit([full_commit(lane, model_id, slot)]))

    thread = threading.Thread(target=commit)
    thread.start()
    recorded = 0
    while recorded < 2 * len(slots):
        for entry in outbox.pending(10):
            outbox.record(entry.firing, entry.actuator_name, APPLIED, recorded)
            recorded += 1
    thread.join()
    assert outbox.pending(10) == []
    assert outbox.applied_since("bandwidth", 0) == len(slots)
    assert assign(store).next_offset == 300

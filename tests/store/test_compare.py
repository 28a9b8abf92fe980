from __future__ import annotations

from netpredict.store import compare, migrate
from netpredict.store.commit import Commit
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import Outcome, OutcomeKind, TopicPartition
from tests.store.conftest import NewUrl
from tests.store.store_builders import (
    TOPIC_PARTITION,
    assign,
    full_commit,
    lane_commit,
    observations,
    record,
    register,
    run,
)


def test_stores_with_other_ids_epochs_owners_and_outcomes_are_equal(store: SqlStore, new_url: NewUrl) -> None:
    run(store, slots=3)
    migrate.upgrade(other_url := new_url())
    with SqlStore(other_url) as other:
        assign(other, TopicPartition("elsewhere", 7))
        lane = assign(other)  # another lane id, hence other series ids
        register(other, "v0")
        model_id = register(other)
        other.commit(Commit([full_commit(lane, model_id, 1)]))
        lane = assign(other)
        for slot in (2, 3):
            other.commit(Commit([full_commit(lane, model_id, slot)]))
        outbox = SqlOutbox(other)
        record(outbox, outbox.pending(1)[0].firing, "log", Outcome(OutcomeKind.APPLIED, "first"), 5)
        other.record_audit("root", "test", {})
        a, b = compare.dump(store.url), compare.dump(other.url)
    b["topic_progress"] = [row for row in b["topic_progress"] if row[1] != "elsewhere"]
    b["model_version"] = [row for row in b["model_version"] if row[2] != "v0"]
    assert compare.difference(a, b) == []
    assert all(a[table] for table in compare.TABLES)


def test_a_difference_names_the_table_and_the_rows(store: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    before = compare.dump(store.url)
    store.commit(Commit([lane_commit(lane, 10, 20, observations=[observations(lane, 2, [0])])]))
    lines = compare.difference(before, compare.dump(store.url))
    assert lines[0] == "observation: 3 rows against 4; 0 only in a, 1 only in b"
    assert "'cell-0'" in lines[1]
    assert lines[2].startswith("topic_progress: 1 rows against 1")
    assert str(TOPIC_PARTITION.topic) in lines[3]


def test_equal_rows_in_another_number_are_a_difference() -> None:
    assert compare.difference({"x": [(1,)]}, {"x": [(1,), (1,)]}) == [
        "x: 1 rows against 2; 0 only in a, 1 only in b",
        "  only in b: 1",
    ]


def test_some_tables_may_be_compared_alone(store: SqlStore) -> None:
    run(store, slots=1)
    assert set(compare.dump(store.url, ["gap", "forecast"])) == {"gap", "forecast"}

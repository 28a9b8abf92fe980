"""The oracle O: the store of a faulted run equals, bit for bit, that of a run over the same log that never failed.

The unfaulted run is the pipeline in this process, over the records as the broker holds them, with polls and commits of
another size. Where versions were activated or series moved from outside, it follows the control journal of the faulted
store; everywhere else it has to write the same journal by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition

from netpredict.build import build_streams
from netpredict.lane import Lane
from netpredict.learn.shelf import StoreShelf
from netpredict.pipeline import Pipeline
from netpredict.store import compare, migrate
from netpredict.store.commit import JournalRow
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.types import PolledPartition, TopicPartition
from tests.faults.world import World
from tests.rerun import BlindShelf, Rerun
from tests.services.kafka_broker import KafkaBroker

POLL = 1999
COMMIT_EVERY = 3


def difference(
    world: World, ends: Mapping[TopicPartition, int], *, journal: bool = False, but: Sequence[str] = ()
) -> list[str]:
    """How the store of the world differs from the unfaulted one; empty is O. ``but`` are tables left out."""
    url = f"sqlite:///{world.folder}/unfaulted.db"
    Path(world.folder / "unfaulted.db").unlink(missing_ok=True)
    migrate.upgrade(url)
    history = History(world.url)
    with SqlStore(url, publishing=True) as store:
        for row in history.models():
            names = ("stream", "predictor", "version", "plugin", "folder", "scores", "stage")
            store.register_model(*(row[name] for name in names))
        _run(world, ends, store, _journal(history) if journal else None)
    tables = [table for table in compare.TABLES if table not in but]
    return compare.difference(compare.dump(url, tables), compare.dump(world.url, tables))


def assert_holds(
    world: World, ends: Mapping[TopicPartition, int], *, journal: bool = False, but: Sequence[str] = ()
) -> None:
    """O, every offset accounted for exactly once, and forecasts that are the predictors' own."""
    world.assert_accounted_for(ends)
    failed = [log.name for log in world.folder.glob("*.log") if "predictor_failed" in log.read_text(errors="replace")]
    assert not failed, f"a ladder that serves in place of its predictors proves little: {failed}"
    unlike = difference(world, ends, journal=journal, but=but)
    assert not unlike, f"seed {world.seed}; a = unfaulted, b = faulted:\n" + "\n".join(unlike)


def records_of(world: World, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, list[Any]]:
    """Everything that the broker gives a reader of committed records, up to these offsets."""
    consumer = KafkaConsumer(
        bootstrap_servers=world.broker.bootstrap,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=10_000,
    )
    found: dict[TopicPartition, list[Any]] = {place: [] for place in ends}
    try:
        places = {KafkaTopicPartition(*place): place for place in ends}
        consumer.assign(list(places))
        for theirs in places:
            consumer.seek(theirs, 0)
        while any(consumer.position(theirs) < ends[place] for theirs, place in places.items()):
            for theirs, records in consumer.poll(timeout_ms=200).items():
                found[places[theirs]] += records
    finally:
        consumer.close()
    return found


def published(broker: KafkaBroker, topic: str) -> dict[str, int]:
    """How often each id (``ce_id``) stands in a topic of partition 0; what bears one id must be equal in every byte."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False, max_poll_records=10_000)
    seen: dict[str, tuple[int, Any]] = {}
    try:
        place = KafkaTopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        end = consumer.end_offsets([place])[place]
        while consumer.position(place) < end:
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    message_id = dict(record.headers)["ce_id"].decode()
                    message = (record.key, record.value, record.headers)
                    times, first = seen.get(message_id, (0, message))
                    assert message == first, f"two messages of the id {message_id} differ"
                    seen[message_id] = (times + 1, first)
    finally:
        consumer.close()
    return {message_id: times for message_id, (times, _) in seen.items()}


def _journal(history: History) -> dict[TopicPartition, list[JournalRow]]:
    rows: dict[TopicPartition, list[JournalRow]] = defaultdict(list)
    for row in sorted(history.journal(limit=10**6), key=lambda row: (row["effective_offset"], row["number"])):
        place = TopicPartition(row["topic"], row["partition"])
        rows[place].append(JournalRow(row["effective_offset"], row["kind"], row["payload"]))
    return rows


def _run(
    world: World,
    ends: Mapping[TopicPartition, int],
    store: SqlStore,
    journal: Mapping[TopicPartition, list[JournalRow]] | None,
) -> None:
    config = world.parsed()
    streams = build_streams(config)
    shelf: Any = StoreShelf(config, store, streams)
    if journal is not None:
        shelf = BlindShelf(shelf)
    pipeline = Pipeline(config.kafka.group, streams, store, shelf)
    step = pipeline.step if journal is None else Rerun(pipeline, shelf, journal).step
    topic_ids = {place.topic: row["topic_id"] for place, row in world.progress().items()}
    for place, end in sorted(ends.items()):  # a key is moved where it comes second: later partitions come later
        if end or place in world.progress():
            lane, _ = pipeline.assign(place, topic_ids.get(place.topic, ""))
            pipeline.started(lane, 0)
    records = records_of(world, ends)
    turns = 0
    while _behind(pipeline, ends):
        step([_next(place, records[place], lane.next_offset, end) for place, lane, end in _behind(pipeline, ends)])
        turns += 1
        if turns % COMMIT_EVERY == 0:
            _commit(pipeline, store)
    _commit(pipeline, store)


def _behind(pipeline: Pipeline, ends: Mapping[TopicPartition, int]) -> list[tuple[TopicPartition, Lane, int]]:
    lanes = pipeline.lanes.items()
    return [(place, lane, ends[place]) for place, lane in lanes if lane.next_offset < ends[place]]


def _next(place: TopicPartition, records: list[Any], position: int, end: int) -> PolledPartition:
    ahead = [record for record in records if record.offset >= position]
    return PolledPartition(place, ahead[:POLL], ahead[POLL].offset if len(ahead) > POLL else end)


def _commit(pipeline: Pipeline, store: SqlStore) -> None:
    commit = pipeline.take_commit()
    if commit is not None:
        assert store.commit(commit) == set()

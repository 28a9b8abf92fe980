"""The Kafka source against a real broker, with what brokers and disks do to it."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer, OffsetAndMetadata
from kafka import TopicPartition as KafkaTopicPartition
from kafka.errors import LogTruncationError

from netpredict.config import KafkaConfig
from netpredict.errors import ConfigError, SourceUnavailable
from netpredict.ingest.kafka import KafkaSource, first_damage
from netpredict.ingest.source import Gap
from netpredict.types import PolledPartition, TopicPartition
from tests.services.kafka_broker import KafkaBroker
from tests.services.process import free_ports

WAIT_S = 90.0


@pytest.fixture
def make_source(broker: KafkaBroker) -> Iterator[Callable[..., KafkaSource]]:
    made: list[KafkaSource] = []

    def make(topic: str, on_revoke: Any = None, **settings: Any) -> KafkaSource:
        defaults = {"bootstrap_servers": [broker.bootstrap], "group": uuid.uuid4().hex, "session_timeout_s": 6.0}
        config = msgspec.convert(defaults | settings, KafkaConfig)
        made.append(KafkaSource(config, topic.split(), on_revoke))
        made[-1].start()
        return made[-1]

    yield make
    for source in made:
        source.close()


def produce(broker: KafkaBroker, topic: str, values: Sequence[bytes], partition: int = 0, **settings: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", enable_idempotence=True, **settings)
    try:
        futures = [producer.send(topic, value=value, partition=partition) for value in values]
        producer.flush(timeout=30)
        assert all(future.get(timeout=30) for future in futures)
    finally:
        producer.close(timeout=10)


def until(condition: Callable[[], Any], *sources: KafkaSource, timeout_s: float = WAIT_S) -> None:
    """Poll the sources in turn until the condition holds; what they bring is thrown away."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        for source in sources:
            source.poll(0.1)


def assigned(source: KafkaSource, count: int = 1) -> list[TopicPartition]:
    found: list[TopicPartition] = []

    def enough() -> bool:
        found.extend(source.changes().assigned)
        return len(found) >= count

    until(enough, source)
    return found


def read(source: KafkaSource, enough: Callable[[list[PolledPartition]], Any], timeout_s: float = WAIT_S) -> list[Any]:
    batches: list[PolledPartition] = []
    deadline_s = time.monotonic() + timeout_s
    while not enough(batches):
        assert time.monotonic() < deadline_s, f"only {batches}"
        batches += source.poll(0.2)
    return batches


def values_of(batches: Sequence[PolledPartition]) -> list[bytes]:
    return [record.value for batch in batches for record in batch.records]


def reached(offset: int) -> Callable[[list[PolledPartition]], bool]:
    return lambda batches: bool(batches) and batches[-1].next_offset >= offset


def numbered(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def test_nothing_comes_before_the_seek_and_then_from_the_stored_offset(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("seek")
    produce(broker, topic, numbered(0, 10))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    assert [batch for _ in range(5) for batch in source.poll(0.1)] == []
    assert source.seek(topic_partition, 7) == 7
    batches = read(source, reached(10))
    assert values_of(batches) == [b"7", b"8", b"9"]
    assert batches[-1].next_offset == 10
    assert source.end_offsets() == {topic_partition: 10}
    assert source.topic_id(topic)
    assert not source.changes()
    assert source.stats["records"] == 3


@pytest.mark.parametrize(("start", "first"), [("earliest", 0), ("latest", 4)])
def test_without_a_stored_offset_the_config_says_where_to_begin(
    broker: KafkaBroker, make_source: Any, start: str, first: int
) -> None:
    topic = broker.new_topic("start")
    produce(broker, topic, numbered(0, 4))
    source = make_source(topic, start=start)
    (topic_partition,) = assigned(source)
    assert source.seek(topic_partition, None) == first
    produce(broker, topic, numbered(4, 1))
    assert values_of(read(source, reached(5))) == numbered(first, 5 - first)


def test_a_pause_holds_back_records_and_keeps_the_membership(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("pause")
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    source.pause()
    produce(broker, topic, numbered(0, 3))
    assert [batch for _ in range(5) for batch in source.poll(0.2)] == []
    source.resume()
    assert values_of(read(source, reached(3))) == numbered(0, 3)
    assert not source.changes()


@pytest.mark.parametrize("assignment", ["eager", "cooperative"])
def test_a_rebalance_tells_each_member_what_it_has(broker: KafkaBroker, make_source: Any, assignment: str) -> None:
    topic = broker.new_topic("rebalance", partitions=4)
    for partition in range(4):
        produce(broker, topic, [b"%d" % partition], partition)
    asked: list[tuple[TopicPartition, ...]] = []
    group = uuid.uuid4().hex
    first = make_source(topic, asked.append, group=group, assignment=assignment)
    for topic_partition in assigned(first, 4):
        first.seek(topic_partition, 0)
    read(first, lambda batches: len(values_of(batches)) == 4)

    second = make_source(topic, group=group, assignment=assignment)
    held = {id(first): set(assigned_before(topic)), id(second): set()}
    revoked: set[TopicPartition] = set()

    def follow(source: KafkaSource) -> None:
        change = source.changes()
        assert not change.lost
        if source is first:
            revoked.update(change.revoked)
        held[id(source)] -= set(change.revoked)
        held[id(source)] |= set(change.assigned)

    def shared() -> bool:
        follow(first)
        follow(second)
        return len(held[id(first)]) == 2 and len(held[id(second)]) == 2

    until(shared, first, second)
    assert not held[id(first)] & held[id(second)]
    assert {topic_partition for call in asked for topic_partition in call} == revoked
    assert len(revoked) == (4 if assignment == "eager" else 2), "cooperative takes only what has to move"
    for topic_partition in held[id(second)]:
        second.seek(topic_partition, 0)
    assert len(values_of(read(second, lambda batches: len(values_of(batches)) == 2))) == 2

    second.close()
    until(lambda: follow(first) or len(held[id(first)]) == 4, first)


def assigned_before(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(4)]


def test_a_listener_that_raises_harms_nobody(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("raises", partitions=2)
    group = uuid.uuid4().hex

    def fail(_: object) -> None:
        raise RuntimeError("commit failed")

    first = make_source(topic, fail, group=group)
    assigned(first, 2)
    second = make_source(topic, group=group)
    until(lambda: first.changes().revoked, first, second)
    until(lambda: second.changes().assigned, first, second)
    assert first.stats["listener_errors"] == 1
    assert first.stats["poll_errors"] == 0


def test_next_offset_passes_an_aborted_transaction(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("transactions")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for value, commit in ((b"a", True), (b"gone", False), (b"b", True), (b"gone too", False)):
        producer.begin_transaction()
        producer.send(topic, value=value, partition=0).get(timeout=30)
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close(timeout=10)
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    batches = read(source, reached(8))
    assert values_of(batches) == [b"a", b"b"]
    assert [record.offset for batch in batches for record in batch.records] == [0, 4]
    assert batches[-1].next_offset == 8, "the last transaction brought no record but moved the position"
    assert source.gaps() == []


def flip(folder: Path, topic: str, inside: bytes) -> None:
    (file,) = (folder / "data" / f"{topic}-0").glob("*.log")
    content = bytearray(file.read_bytes())
    assert content.count(inside) == 1
    content[content.index(inside) + 1] ^= 0xFF
    with file.open("r+b") as log:
        log.write(content)


def test_a_corrupt_batch_becomes_a_gap_and_the_rest_is_delivered(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("corrupt")
    produce(broker, topic, numbered(0, 3))
    produce(broker, topic, [b"sound", b"damaged", b"sound too"], linger_ms=500)
    produce(broker, topic, numbered(6, 3))
    flip(broker.folder, topic, b"damaged")
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    started_s = time.monotonic()
    batches = read(source, reached(9))
    assert values_of(batches) == [*numbered(0, 3), *numbered(6, 3)]
    assert source.gaps() == [Gap(topic_partition, 3, 6, "corrupt")]
    assert source.gaps() == [], "told once"
    assert source.stats["rebuilds"] == 0
    assert time.monotonic() - started_s < 20
    produce(broker, topic, numbered(9, 1))
    assert values_of(read(source, reached(10))) == [b"9"]


def test_a_corrupt_last_batch_is_passed_too(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("corrupt-end")
    produce(broker, topic, numbered(0, 2))
    produce(broker, topic, [b"damaged"])
    flip(broker.folder, topic, b"damaged")
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    batches = read(source, reached(3))
    assert batches[-1].records == ()
    assert source.gaps() == [Gap(topic_partition, 2, 3, "corrupt")]


def test_an_offset_older_than_the_log_starts_at_the_oldest_record(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("expired")
    produce(broker, topic, numbered(0, 10))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    delete_before(broker, topic, 6)
    assert source.seek(topic_partition, 2) == 6
    assert values_of(read(source, reached(10))) == numbered(6, 4)
    assert source.gaps() == [], "the answer of seek told it"


def delete_before(broker: KafkaBroker, topic: str, offset: int) -> None:
    admin = broker.admin()
    try:
        admin.delete_records({KafkaTopicPartition(topic, 0): offset})
    finally:
        admin.close()


def test_records_that_expire_before_they_are_read_become_a_gap(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("expires")
    produce(broker, topic, numbered(0, 10))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    delete_before(broker, topic, 6)
    batches = read(source, reached(10))
    assert values_of(batches) == numbered(6, 4)
    assert source.gaps() == [Gap(topic_partition, 0, 6, "expired")]


def test_an_offset_beyond_the_log_goes_back_and_says_so(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("truncated")
    produce(broker, topic, numbered(0, 3))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 1000)
    assert values_of(read(source, reached(3), 60)) == numbered(0, 3)
    assert source.gaps() == [Gap(topic_partition, 1000, 0, "truncated")]


def test_progress_is_told_to_the_group(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("progress")
    group = uuid.uuid4().hex
    source = make_source(topic, group=group)
    (topic_partition,) = assigned(source)
    produce(broker, topic, numbered(0, 3))
    source.seek(topic_partition, 0)
    read(source, reached(3))
    source.report_progress({topic_partition: 3, TopicPartition("not mine", 0): 5})
    admin = broker.admin()
    try:

        def told() -> bool:
            ((_, offsets),) = admin.list_group_offsets([group]).items()
            return [found.offset for found in offsets.values()] == [3]

        until(told, source)
    finally:
        admin.close()
    assert source.stats["progress_errors"] == 0


@pytest.mark.parametrize("polling", [True, False])
def test_a_topic_that_is_made_anew_is_given_back_and_assigned_again(
    broker: KafkaBroker, make_source: Any, monkeypatch: pytest.MonkeyPatch, polling: bool
) -> None:
    """Not polling, no fetch sees the topic missing, and the old offset lies inside the new log."""
    monkeypatch.setattr("netpredict.ingest.kafka.METADATA_MAX_AGE_S", 1.0)
    topic = broker.new_topic("anew")
    produce(broker, topic, numbered(0, 3))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    read(source, reached(3))
    before = source.topic_id(topic)
    admin = broker.admin()
    admin.delete_topics([topic])
    admin.close()
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        source.poll(0.1) if polling else time.sleep(0.1)
    broker.create_topic(topic)
    produce(broker, topic, numbered(100, 4))
    gone: set[TopicPartition] = set()
    taken: set[TopicPartition] = set()

    def again() -> bool:
        change = source.changes()
        gone.update(change.lost, change.revoked)
        taken.update(change.assigned)
        return bool(taken) and source.topic_id(topic) != before

    until(again, source)
    assert gone == taken == {topic_partition}
    assert source.topic_id(topic)
    source.seek(topic_partition, 0)
    assert values_of(read(source, reached(4))) == numbered(100, 4)


def test_a_topic_that_is_made_anew_costs_no_record_of_another(broker: KafkaBroker, make_source: Any) -> None:
    anew, other = broker.new_topic("anew"), broker.new_topic("beside")
    produce(broker, other, numbered(0, 50))
    source = make_source(f"{anew} {other}", poll_records_max=10)
    for topic_partition in assigned(source, 2):
        source.seek(topic_partition, 0)
    seen: list[bytes] = []
    while len(seen) < 50:
        if len(seen) >= 20:
            source._topic_ids[anew] = f"before {len(seen)}"
        seen += values_of(source.poll(0.2))
    assert seen == numbered(0, 50)
    assert source.changes().lost == (TopicPartition(anew, 0),)


def test_a_seek_that_a_rebalance_overtook_has_no_effect(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("overtaken")
    produce(broker, topic, numbered(0, 3))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    theirs = [KafkaTopicPartition(topic, 0)]
    source._listener.on_partitions_revoked(theirs)
    source._listener.on_partitions_assigned(theirs)
    source.seek(topic_partition, 1)
    assert [batch for _ in range(5) for batch in source.poll(0.1)] == []
    change = source.changes()
    assert change.revoked == change.assigned == (topic_partition,)
    source.seek(topic_partition, 1)
    assert values_of(read(source, reached(3))) == numbered(1, 2)


def test_no_broker_is_an_error_that_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netpredict.ingest.kafka.BOOTSTRAP_S", 1.0)
    (port,) = free_ports(1)
    config = msgspec.convert({"bootstrap_servers": [f"127.0.0.1:{port}"]}, KafkaConfig)
    threads = threading.active_count()
    source = KafkaSource(config, ["topic"])
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match=str(port)) as caught:
            source.start()
        assert caught.value.retriable
    until(lambda: threading.active_count() <= threads)
    source.close()


def test_a_client_that_stands_still_is_made_anew_and_goes_on(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("stalled", partitions=2)
    source = make_source(topic, rebuild_after_s=1.0)
    for topic_partition in assigned(source, 2):
        source.seek(topic_partition, 0)
    produce(broker, topic, numbered(0, 5))
    read(source, reached(5))
    time.sleep(1.5)
    assert not source.stalled(), "a quiet topic is no stall"
    # a client that lost its broker believes for ever that a fetch is under way
    source._consumer._fetcher._create_fetch_requests = lambda: {}
    produce(broker, topic, numbered(5, 5))
    batches = read(source, reached(10))
    assert values_of(batches)[-5:] == numbered(5, 5)
    assert source.stats["rebuilds"] == 1
    assert not source.changes(), "the same topic partitions came back, at their positions"


def test_a_client_that_the_group_does_not_take_in_is_made_anew(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("unjoined")
    produce(broker, topic, numbered(0, 5))
    source = make_source(topic, rebuild_after_s=0.5)
    source._consumer._coordinator.poll = lambda timeout_ms: time.sleep(timeout_ms / 1000)  # no join is answered
    until(lambda: source.stats["rebuilds"] == 1, source, timeout_s=15)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    assert values_of(read(source, reached(5))) == numbered(0, 5)
    assert source.stats["rebuilds"] == 1


@pytest.mark.slow
def test_a_broker_that_was_away_is_read_on_where_it_stopped(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path) as broker:
        topic = broker.create_topic("away")
        produce(broker, topic, numbered(0, 5))
        config = msgspec.convert(
            {"bootstrap_servers": [broker.bootstrap], "rebuild_after_s": 3.0, "session_timeout_s": 6.0}, KafkaConfig
        )
        source = KafkaSource(config, [topic])
        source.start()
        (topic_partition,) = assigned(source)
        source.seek(topic_partition, 0)
        read(source, reached(5))
        broker.kill()
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            assert not source.poll(0.2)
        assert source.stats["rebuilds"] >= 1
        broker.start()
        produce(broker, topic, numbered(5, 5))
        batches: list[PolledPartition] = []
        deadline_s = time.monotonic() + 60
        while not reached(10)(batches):
            assert time.monotonic() < deadline_s
            batches += source.poll(0.2)
            for again in source.changes().assigned:
                source.seek(again, 5)
        assert values_of(batches) == numbered(5, 5)
        source.close()


def test_one_corrupt_topic_partition_does_not_hold_up_another(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("corrupt-beside", partitions=2)
    produce(broker, topic, [b"damaged"], 0)
    produce(broker, topic, numbered(0, 3), 0)
    produce(broker, topic, numbered(10, 5), 1)
    flip(broker.folder, topic, b"damaged")
    source = make_source(topic)
    for topic_partition in assigned(source, 2):
        source.seek(topic_partition, None)
    batches = read(source, lambda batches: len(values_of(batches)) == 8)
    assert sorted(values_of(batches)) == sorted([*numbered(0, 3), *numbered(10, 5)])
    assert source.gaps() == [Gap(TopicPartition(topic, 0), 0, 1, "corrupt")]


def test_a_missing_codec_stops_the_daemon_instead_of_skipping_sound_data(
    broker: KafkaBroker, make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.new_topic("codec")
    produce(broker, topic, [b"x" * 100] * 20, compression_type="lz4", linger_ms=500)
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    monkeypatch.setattr("kafka.codec.has_lz4", lambda: False)
    with pytest.raises(ConfigError, match="codecs"):
        until(lambda: False, source)
    assert source.gaps() == []


def test_a_truncated_log_is_read_again_from_where_it_diverged(broker: KafkaBroker, make_source: Any) -> None:
    topic = broker.new_topic("diverged")
    produce(broker, topic, numbered(0, 5))
    source = make_source(topic)
    (topic_partition,) = assigned(source)
    source.seek(topic_partition, 0)
    read(source, reached(5))
    # as the client finds after an unclean leader election
    source._recover(LogTruncationError({KafkaTopicPartition(topic, 0): OffsetAndMetadata(3, "", 1)}))
    assert values_of(read(source, reached(5))) == numbered(3, 2)
    assert source.gaps() == [Gap(topic_partition, 5, 3, "truncated")]


@pytest.mark.parametrize("assignment", ["eager", "cooperative"])
def test_a_client_made_anew_says_what_others_have_taken(broker: KafkaBroker, make_source: Any, assignment: str) -> None:
    """One topic partition, two members: while the first is away the second takes over, and keeps it."""
    topic = broker.new_topic("taken")
    produce(broker, topic, numbered(0, 3))
    group = uuid.uuid4().hex
    first = make_source(topic, group=group, assignment=assignment)
    (topic_partition,) = assigned(first)
    first.seek(topic_partition, 0)
    read(first, reached(3))
    second = make_source(topic, group=group, assignment=assignment)
    until(lambda: second._consumer.group_metadata().generation_id > 0, first, second)
    owner, other = (first, second) if topic_partition in first._assigned else (second, first)
    for source in (first, second):
        source.changes()
    owner._rebuild("test")
    until(lambda: topic_partition in other._assigned, other)
    until(lambda: owner._in_group, owner, other)
    until(lambda: len(owner._assigned) + len(other._assigned) == 1, owner, other)
    change = owner.changes()
    if topic_partition in owner._assigned:
        assert not change.lost or change.assigned == (topic_partition,)
    else:  # given back to it and revoked again, where the group was shared out once more
        assert (*change.lost, *change.revoked) == (topic_partition,)


def test_damage_is_measured_by_the_batches_around_it() -> None:
    batch = bytearray(70)
    batch[0:8] = (100).to_bytes(8, "big")
    batch[8:12] = (58).to_bytes(4, "big")
    batch[16] = 2
    batch[23:27] = (9).to_bytes(4, "big")
    batch[57:61] = (10).to_bytes(4, "big")
    assert first_damage(bytes(batch), 100) == (110, "corrupt")
    assert first_damage(bytes(batch), 105) == (110, "corrupt")
    batch[23:27] = (-5).to_bytes(4, "big", signed=True)
    assert first_damage(bytes(batch), 100) == (110, "corrupt"), "the number of records helps out"
    following = (120).to_bytes(8, "big")
    assert first_damage(bytes(batch) + following, 100) == (120, "corrupt"), "the next batch knows best"
    assert first_damage(bytes(batch)[:40], 100) is None
    assert first_damage(b"", 0) is None

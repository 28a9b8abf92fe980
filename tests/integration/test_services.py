"""The servers that other tests rely on do what those tests rely on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.services.kafka_broker import KafkaBroker
from tests.services.postgres import Postgres
from tests.services.process import ServiceMissing


def read_all(bootstrap: str, topic: str, count: int, timeout_s: float = 30.0) -> list[tuple[int, int, bytes, bytes]]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)])
        rows: list[tuple[int, int, bytes, bytes]] = []
        deadline_s = time.monotonic() + timeout_s
        while len(rows) < count and time.monotonic() < deadline_s:
            for records in consumer.poll(timeout_ms=500).values():
                rows += [(record.partition, record.offset, record.key, record.value) for record in records]
        return rows
    finally:
        consumer.close()


def send(bootstrap: str, topic: str, rows: list[tuple[int, bytes, bytes]]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    try:
        futures = [producer.send(topic, key=key, value=value, partition=partition) for partition, key, value in rows]
        producer.flush(timeout=30)
        for future in futures:
            future.get(timeout=30)
    finally:
        producer.close(timeout=10)


def test_raw_bytes_go_through_the_broker_and_back(broker: KafkaBroker) -> None:
    topic = broker.new_topic("round-trip", partitions=3)
    sent = [(number % 3, b"cell-%d" % number, bytes([number, 0, 255])) for number in range(100)]
    send(broker.bootstrap, topic, sent)
    came = read_all(broker.bootstrap, topic, len(sent))
    assert sorted((partition, key, value) for partition, _, key, value in came) == sorted(sent)
    assert sorted(offset for partition, offset, _, _ in came if partition == 0) == list(range(34))


def test_a_broker_keeps_its_records_over_a_kill_and_leaves_no_process(broker: KafkaBroker, tmp_path: Path) -> None:
    with KafkaBroker(tmp_path) as second:
        assert second.port != broker.port, "two brokers run side by side"
        topic = second.create_topic("kept")
        send(second.bootstrap, topic, [(0, b"key", b"value")])
        second.kill()
        second.start()
        assert read_all(second.bootstrap, topic, 1) == [(0, 0, b"key", b"value")]
        pid = second.process.pid
    assert not Path(f"/proc/{pid}").exists()


def test_postgres_gives_each_test_a_database_of_its_own(postgres: Postgres) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    assert first != second
    with psycopg.connect(first.replace("+psycopg", "")) as db:
        db.execute("CREATE TABLE t (x integer)")
        with db.cursor() as cursor, cursor.copy("COPY t (x) FROM STDIN") as copy:
            for x in range(10):
                copy.write_row((x,))
        assert db.execute("SELECT sum(x) FROM t").fetchone() == (45,)


def test_postgres_keeps_committed_rows_over_a_restart(postgres: Postgres) -> None:
    dsn = postgres.new_database().replace("+psycopg", "")
    with psycopg.connect(dsn) as db:
        db.execute("CREATE TABLE t AS SELECT 7 AS x")
    postgres.kill()
    postgres.start()
    with psycopg.connect(dsn) as db:
        assert db.execute("SELECT x FROM t").fetchone() == (7,)


@pytest.mark.parametrize(("required", "closing"), [("", "1 skipped"), ("1", "1 error")])
def test_a_missing_service_is_a_skip_here_and_a_failure_in_ci(required: str, closing: str, tmp_path: Path) -> None:
    """Without java on the PATH the broker's tests are skipped, and fail where services are required."""
    wanted = f"{__file__}::test_raw_bytes_go_through_the_broker_and_back"
    environment = os.environ | {"PATH": str(tmp_path), "NETPREDICT_REQUIRE_SERVICES": required}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", wanted]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert closing in done.stdout
    assert "a Kafka broker needs java" in done.stdout


def test_a_missing_maven_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("NETPREDICT_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    with pytest.raises(ServiceMissing, match="Maven"):
        KafkaBroker(tmp_path)

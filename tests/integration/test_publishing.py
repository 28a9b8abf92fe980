"""From a commit to a consumer of the forecasts topic, through real brokers and both clients."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition as KafkaTopicPartition

from netpredict.clock import SystemClock
from netpredict.config import Config, parse_config
from netpredict.errors import SourceUnavailable
from netpredict.ingest.messages import Action, Forecast, Traffic
from netpredict.operate.daemon import Daemon, kafka_source
from netpredict.operate.outlet import ForecastPublisher
from netpredict.operate.publisher import FastSink, KafkaSink, publishing_sink
from netpredict.operate.sink import Message, Sink
from netpredict.store import migrate
from netpredict.store.commit import Commit
from netpredict.store.database import database_of
from netpredict.store.publication import SqlPublications
from netpredict.store.sql import SqlStore
from tests.operate.test_outlet import STREAMS
from tests.services.kafka_broker import KafkaBroker
from tests.services.process import free_ports
from tests.store import store_builders as build

MakeSink = Callable[..., Sink]
START_US = 1_750_000_020_000_000


@pytest.fixture(params=["kafka-python", "confluent-kafka"])
def make_sink(request: pytest.FixtureRequest) -> MakeSink:
    if request.param == "kafka-python":
        return KafkaSink
    pytest.importorskip("confluent_kafka")
    return FastSink


def consumed(bootstrap: str, topic: str) -> list[tuple[bytes | None, bytes, dict[str, bytes]]]:
    """Everything in a topic: key, value, headers."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        places = [KafkaTopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(places)
        found = []
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=500).values():
                found += [(record.key, record.value, dict(record.headers)) for record in records]
        return found
    finally:
        consumer.close()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_s, "did not come true"
        time.sleep(0.05)


def test_messages_arrive_with_key_and_headers(broker: KafkaBroker, make_sink: MakeSink) -> None:
    topic = broker.new_topic("sink", partitions=2)
    sink = make_sink(broker.bootstrap, in_flight_bytes_max=4096)
    sink.start()
    sink.send_all(
        topic, [Message(b"ue-%d" % (n % 3), b"%d" % n * 50, [("ce_id", b"id-%d" % n), ("x", b"")]) for n in range(200)]
    )
    sink.send_all(topic, [Message(b"big", b"x" * 3_000_000, [])])
    sink.flush(30)
    sink.close()
    assert sink.stats["too_large"] == 1
    found = consumed(broker.bootstrap, topic)
    assert sorted(headers["ce_id"] for _, _, headers in found) == sorted(b"id-%d" % n for n in range(200))
    assert {key for key, _, _ in found} == {b"ue-0", b"ue-1", b"ue-2"}
    assert all(value == headers["ce_id"][3:] * 50 and headers["x"] == b"" for _, value, headers in found)


def test_a_topic_that_is_not_there_and_a_broker_that_is_away_may_be_tried_again(
    broker: KafkaBroker, make_sink: MakeSink
) -> None:
    sink = make_sink(broker.bootstrap, delivery_timeout_s=3.0)
    sink.start()

    def send() -> None:
        sink.send_all("not-there", [Message(b"k", b"v", [])])
        sink.flush(20)

    with pytest.raises(SourceUnavailable):
        send()
    sink.close(1.0)
    (port,) = free_ports(1)
    with pytest.raises(SourceUnavailable, match=str(port)):
        make_sink(f"127.0.0.1:{port}").start()


def test_nothing_is_missing_after_a_kill_between_commit_and_publish(
    broker: KafkaBroker, tmp_path: Path, make_sink: MakeSink
) -> None:
    forecasts, actions = broker.new_topic("forecasts", partitions=3), broker.new_topic("actions")
    config = parse_config(
        {"publish": {"enabled": True, "forecasts_topic": forecasts, "actions_topic": actions}}
    ).publish
    url = f"sqlite:///{tmp_path}/store.db"
    migrate.upgrade(url)

    def publisher(store: SqlStore) -> ForecastPublisher:
        publications = SqlPublications(store, "group")
        return ForecastPublisher(
            config, "group", STREAMS, publications, lambda: make_sink(broker.bootstrap), SystemClock()
        )

    with SqlStore(url, publishing=True) as store:
        build.run(store, slots=20)
        before = publisher(store)
        before.start()
        until(lambda: SqlPublications(store, "group").count() == 0)
        assert before.stop(20)
        once = Counter(headers["ce_id"] for _, _, headers in consumed(broker.bootstrap, forecasts))
        assert len(once) == 60
        lane, model_id = build.assign(store), 1
        for slot in range(21, 31):  # nobody publishes these
            store.commit(Commit([build.full_commit(lane, model_id, slot)]))
        with store.database.transaction() as connection:  # and the acknowledgement of this one was lost
            connection.execute(
                "INSERT INTO publication VALUES (:lane_id, 200, :at, :at)",
                {"lane_id": lane.lane_id, "at": build.slot_time(20)},
            )
    with SqlStore(url, publishing=True) as store:
        after = publisher(store)
        after.start()
        until(lambda: SqlPublications(store, "group").count() == 0)
        assert after.stop(20)
    found = consumed(broker.bootstrap, forecasts)
    ids = Counter(headers["ce_id"] for _, _, headers in found)
    assert len(ids) == 90
    assert sorted(ids.values()) == [1] * 87 + [2] * 3
    assert len({(headers["ce_id"], value) for _, value, headers in found}) == 90  # a repeated one is the same
    said = {(f.series, f.issued_at_us) for f in (msgspec.json.decode(v, type=Forecast) for _, v, _ in found)}
    assert said == {(f"cell-{n}", build.slot_time(slot)) for n in range(3) for slot in range(1, 31)}
    fired = {msgspec.json.decode(value, type=Action).id for _, value, _ in consumed(broker.bootstrap, actions)}
    assert fired == {f"firing-{slot}" for slot in range(1, 31)}


def daemon_config(broker: KafkaBroker, topic: str, forecasts: str, folder: Path) -> Config:
    return parse_config(
        {
            "daemon": {"data_dir": str(folder), "commit_interval_s": 0.2},
            "kafka": {"bootstrap_servers": [broker.bootstrap], "group": f"g-{topic}"},
            "store": {"url": f"sqlite:///{folder}/store.db"},
            "http": {"enabled": False},
            "publish": {"enabled": True, "forecasts_topic": forecasts},
            "streams": {
                "traffic": {
                    "topic": topic,
                    "schema": "traffic",
                    "series_by": ["radio_cell_id"],
                    "period_s": 60.0,
                    "kpis": ["prb_use_dl_percent"],
                    "routes": [{"active": "naive", "shadows": ["second"]}],
                }
            },
            "predictors": {"naive": {"plugin": "naive"}, "second": {"plugin": "naive"}},
        }
    )


def produce(broker: KafkaBroker, topic: str, steps: range) -> None:
    with KafkaSink(broker.bootstrap) as sink:
        for step in steps:
            for cell in range(20):
                message = Traffic(
                    "netpredict.traffic/1",
                    f"cell-{cell}",
                    START_US + step * 60_000_000,
                    prb_use_dl_percent=float(step + cell),
                )
                sink.send(topic, f"cell-{cell}".encode(), msgspec.json.encode(message))
        sink.flush(30)


def run_until(daemon: Daemon, done: Callable[[], bool]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            daemon.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: bool(failures) or done())
    finally:
        daemon.flags.stop = True
        thread.join(60)
    assert failures == []
    assert not thread.is_alive()


def test_the_daemon_publishes_what_it_stored_also_when_the_broker_refused_it_first(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    topic, forecasts = broker.new_topic("telemetry", partitions=2), broker.new_topic("forecasts", partitions=2)
    config = daemon_config(broker, topic, forecasts, tmp_path)
    migrate.upgrade(config.store.url)

    class Refusing(KafkaSink):
        def send_all(self, topic: str, messages: object) -> None:
            raise SourceUnavailable("refused by the test")

    def stored(slots: int) -> bool:
        with database_of(f"sqlite:///{tmp_path}/store.db").reader() as connection:
            (count,) = connection.execute("SELECT count(*) FROM topic_progress WHERE next_offset > 0").fetchone()
            (accepted,) = connection.execute("SELECT coalesce(sum(accepted), 0) FROM topic_progress").fetchone()
        return bool(count == 2 and accepted == 20 * slots)

    produce(broker, topic, range(10))
    refused = Daemon(config, kafka_source, make_sink=lambda _: Refusing(broker.bootstrap))
    run_until(refused, lambda: stored(10))
    assert consumed(broker.bootstrap, forecasts) == []
    produce(broker, topic, range(10, 20))
    daemon = Daemon(
        config,
        kafka_source,
        make_sink=lambda _: publishing_sink(config.kafka, config.publish.outstanding_bytes_max),
    )
    run_until(daemon, lambda: stored(20))
    found = consumed(broker.bootstrap, forecasts)
    messages = [msgspec.json.decode(value, type=Forecast) for _, value, _ in found]
    with database_of(f"sqlite:///{tmp_path}/store.db").reader() as connection:
        rows = connection.execute(
            "SELECT s.key, f.slot_time_us FROM forecast AS f JOIN series AS s USING (series_id)"
            " JOIN model_version AS m USING (model_id) WHERE m.predictor = 'naive'"
        ).fetchall()
        (left,) = connection.execute("SELECT count(*) FROM publication").fetchone()
    assert left == 0
    assert {(f.series, f.issued_at_us) for f in messages} == set(rows)
    assert len(rows) == 400
    assert {f.predictor for f in messages} == {"naive"}
    assert all(key == f.series.encode() for (key, _, _), f in zip(found, messages, strict=True))
    assert b'netpredict_published_total{topic="' + forecasts.encode() in daemon.metrics.render()

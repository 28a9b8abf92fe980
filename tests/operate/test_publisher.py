import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from netpredict.errors import SourceUnavailable
from netpredict.operate.publisher import KafkaSink
from tests.integration.test_services import read_all
from tests.services.kafka_broker import KafkaBroker
from tests.services.process import free_ports


class Promise:
    """What a producer answers with: done when the test says so."""

    def __init__(self) -> None:
        self.good: Any = None
        self.bad: Any = None

    def add_callback(self, call: Any, *arguments: Any) -> None:
        self.good = lambda: call(*arguments, "metadata")

    def add_errback(self, call: Any, *arguments: Any) -> None:
        self.bad = lambda error: call(*arguments, error)


class SlowProducer:
    def __init__(self) -> None:
        self.promises: list[Promise] = []
        self._sender = self
        self.forced = False

    def send(self, *_: Any, **__: Any) -> Promise:
        self.promises.append(Promise())
        return self.promises[-1]

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        raise KafkaTimeoutError("flush timed out")

    def force_close(self) -> None:
        self.forced = True


def slow_sink(**settings: Any) -> tuple[KafkaSink, SlowProducer]:
    sink = KafkaSink("nowhere:1", **settings)
    producer = SlowProducer()
    sink._producer = producer
    return sink, producer


def test_what_was_flushed_is_in_kafka_with_key_and_time(broker: KafkaBroker) -> None:
    topic = broker.new_topic("sink", partitions=2)
    with KafkaSink(broker.bootstrap, in_flight_bytes_max=1000) as sink:
        for number in range(200):
            sink.send(topic, b"cell-%d" % (number % 4), b"%d" % number, timestamp_ms=1_700_000_000_000 + number)
        sink.flush(30)
        assert sink.stats == {"sent": 200, "failed": 0, "too_large": 0}
    rows = read_all(broker.bootstrap, topic, 200)
    assert sorted(int(value) for _, _, _, value in rows) == list(range(200))
    by_key = {key: {partition for partition, _, found, _ in rows if found == key} for _, _, key, _ in rows}
    assert all(len(partitions) == 1 for partitions in by_key.values())


def test_send_waits_for_room() -> None:
    sink, producer = slow_sink(in_flight_bytes_max=300)
    sink.send("topic", None, b"x" * 50)
    sink.send("topic", None, b"x" * 50)
    third = threading.Thread(target=sink.send, args=("topic", None, b"x"), daemon=True)
    third.start()
    third.join(0.3)
    assert third.is_alive()
    producer.promises[0].good()
    third.join(5)
    assert not third.is_alive()
    assert len(producer.promises) == 3


def test_a_record_larger_than_the_bound_goes_alone() -> None:
    sink, producer = slow_sink(in_flight_bytes_max=10)
    sink.send("topic", b"key", b"x" * 1000)
    assert len(producer.promises) == 1


def test_a_refused_record_is_told_by_the_next_call_and_once() -> None:
    sink, producer = slow_sink()
    sink.send("topic", None, b"x")
    producer.promises[0].bad(ValueError("too large"))
    with pytest.raises(SourceUnavailable, match="too large"):
        sink.flush(1)
    sink.flush(1)
    assert sink.stats == {"sent": 0, "failed": 1, "too_large": 0}


def test_flush_says_what_is_not_answered() -> None:
    sink, _ = slow_sink()
    sink.send("topic", None, b"x")
    with pytest.raises(SourceUnavailable, match="1 records not answered"):
        sink.flush(0.1)


def test_close_forces_the_thread_to_end_when_it_cannot_flush() -> None:
    sink, producer = slow_sink()
    sink.close()
    assert producer.forced
    sink.close()


def test_no_broker_may_be_tried_again() -> None:
    (port,) = free_ports(1)
    sink = KafkaSink(f"127.0.0.1:{port}")
    sink._settings["bootstrap_timeout_ms"] = 500
    threads = threading.active_count()
    with pytest.raises(SourceUnavailable, match=str(port)):
        sink.send("topic", None, b"x")
    assert threading.active_count() <= threads
    sink.close()
    with pytest.raises(RuntimeError, match="closed"):
        sink.send("topic", None, b"x")


@pytest.mark.slow
def test_a_frozen_broker_holds_the_sender_back_and_close_returns(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path) as broker:
        topic = broker.create_topic("frozen")
        sink = KafkaSink(broker.bootstrap, in_flight_bytes_max=20_000, delivery_timeout_s=60)
        sink.send(topic, None, b"x")
        sink.flush(30)
        broker.process.send(signal.SIGSTOP)
        try:
            done = threading.Event()

            def flood() -> None:
                with suppress(SourceUnavailable, RuntimeError):
                    for _ in range(1000):
                        sink.send(topic, None, b"x" * 1000)
                    done.set()

            threading.Thread(target=flood, daemon=True).start()
            assert not done.wait(1.0)
            assert sink._in_flight_bytes <= 20_000
            started_s = time.monotonic()
            sink.close(1.0)
            assert time.monotonic() - started_s < 10
        finally:
            broker.process.send(signal.SIGCONT)

"""Records into Kafka, for the publisher, ``replay`` and ``simulate``: bounded in flight, every answer looked at."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from netpredict.config import KafkaConfig
from netpredict.errors import SourceUnavailable
from netpredict.ingest.kafka import new_client, unavailable
from netpredict.ingest.kafka_access import client_access, librdkafka_access
from netpredict.operate.sink import Message, Sink

LOG = structlog.get_logger(__name__)

RECORD_BYTES = 100
"""What a record takes in flight beside its key and value."""


def publishing_sink(config: KafkaConfig, outstanding_bytes_max: int) -> Sink:
    """The fastest sink that is installed (extra ``fast``), with short time limits: the publisher tries again itself."""
    fast = importlib.util.find_spec("confluent_kafka") is not None
    return (FastSink if fast else KafkaSink)(
        config.bootstrap_servers,
        access=config,
        client_id=f"{config.client_id}-publisher",
        in_flight_bytes_max=outstanding_bytes_max,
        delivery_timeout_s=30.0,
    )


class KafkaSink:
    """Sends raw bytes. What was accepted by ``send`` is in Kafka once ``flush`` has returned without raising.

    kafka-python's own accumulator has no bound: ``send`` waits while more than ``in_flight_bytes_max`` are on the way.
    Of ``access`` only what makes us trusted counts; without it nothing is encrypted and nobody asked.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        access: KafkaConfig | None = None,
        client_id: str = "netpredict-sink",
        in_flight_bytes_max: int = 16 * 1024 * 1024,
        delivery_timeout_s: float = 120.0,
        compression: str | None = None,
    ) -> None:
        self._access = access or KafkaConfig()
        self._servers = bootstrap_servers.split(",") if isinstance(bootstrap_servers, str) else list(bootstrap_servers)
        self._settings: dict[str, Any] = {
            "bootstrap_servers": self._servers,
            "client_id": client_id,
            "enable_idempotence": True,
            "acks": "all",
            "compression_type": compression,
            "allow_auto_create_topics": False,
            "linger_ms": 20,
            "batch_size": 131_072,
            "request_timeout_ms": int(min(30.0, delivery_timeout_s / 2) * 1000),
            "delivery_timeout_ms": int(delivery_timeout_s * 1000),
            "max_block_ms": 10_000,
            "bootstrap_timeout_ms": 5_000,
            "metrics_enabled": False,
        }
        self._in_flight_bytes_max = in_flight_bytes_max
        self._delivery_timeout_s = delivery_timeout_s
        self._room = threading.Condition()
        self._in_flight_bytes = 0
        self._in_flight = 0
        self._answers: deque[tuple[int, list[Any]]] = deque()
        self._unanswered_bytes = 0
        self._error: BaseException | None = None
        self._producer: Any = None
        self._closed = False
        self.stats: dict[str, int] = {"sent": 0, "failed": 0, "too_large": 0}

    def start(self) -> None:
        """Connect. Raises SourceUnavailable (retriable), and ConfigError when a file of ``access`` is wrong."""
        if self._closed:
            raise RuntimeError("the sink is closed")
        try:
            self._producer = new_client(KafkaProducer, client_access(self._access) | self._settings)
        except (KafkaError, OSError) as error:
            raise unavailable(self._access, self._servers, error) from error

    def send_all(self, topic: str, messages: Sequence[Message]) -> None:
        """See ``Sink``. Less work a record than ``send``: answers are looked at by the sequence. One thread only."""
        if self._producer is None:
            self.start()
        size = sum(RECORD_BYTES + len(message.value) for message in messages)
        while self._answers and self._unanswered_bytes + size > self._in_flight_bytes_max:
            self._await_oldest()
        send = self._producer.send
        answers: list[Any] = []
        self._answers.append((size, answers))
        self._unanswered_bytes += size
        for message in messages:
            try:
                answers.append(send(topic, message.value, message.key, message.headers))
            except MessageSizeTooLargeError:
                _leave_out(self.stats, topic, message)
            except KafkaError as error:
                raise SourceUnavailable(f"{topic}: {error}") from error

    def send(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int | None = None) -> None:
        """Hand over one record; waits for room. Raises SourceUnavailable when an earlier record was refused."""
        if self._producer is None:
            self.start()
        size = RECORD_BYTES + len(key or b"") + len(value or b"")
        self._take(size)
        try:
            future = self._producer.send(topic, value=value, key=key, timestamp_ms=timestamp_ms)
        except BaseException as error:
            self._give_back(size, error)
            if isinstance(error, KafkaError):
                raise SourceUnavailable(f"{topic}: {error}") from error
            raise
        future.add_callback(self._sent, size)
        future.add_errback(self._refused, size)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until every record is answered; SourceUnavailable when one was refused or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        if self._producer is not None:
            try:
                self._producer.flush(timeout=timeout_s)
            except KafkaError as error:
                raise SourceUnavailable(f"{self._in_flight} records not answered in {timeout_s} s: {error}") from error
        while self._answers:
            self._await_oldest(max(0.1, deadline_s - time.monotonic()))
        with self._room:
            # the producer may be done before our callbacks are
            self._room.wait_for(lambda: self._in_flight == 0, max(0.1, deadline_s - time.monotonic()))
            if self._in_flight:
                raise SourceUnavailable(f"{self._in_flight} records not answered in {timeout_s} s")
            self._raise_refusal()

    def close(self, timeout_s: float = 10.0) -> None:
        """Release the connection; never raises. What was not flushed may be lost, which is logged."""
        producer, self._producer, self._closed = self._producer, None, True
        if producer is None:
            return
        try:
            producer.close(timeout=timeout_s)
        except KafkaError as error:
            # its flush timed out, so it never came to end its sender thread
            LOG.warning("kafka_sink_close_failed", error=str(error), in_flight=self._in_flight)
            producer._sender.force_close()

    def __enter__(self) -> KafkaSink:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_oldest(self, timeout_s: float | None = None) -> None:
        size, answers = self._answers[0]
        wait_s = self._delivery_timeout_s + 30.0 if timeout_s is None else timeout_s
        for answer in answers:
            try:
                if not answer.succeeded():
                    answer.get(wait_s)
            except KafkaError as error:
                self.stats["failed"] += 1
                raise SourceUnavailable(f"Kafka refused a record: {type(error).__name__}: {error}") from error
        self.stats["sent"] += len(answers)
        self._answers.popleft()
        self._unanswered_bytes -= size

    def _take(self, size: int) -> None:
        with self._room:
            self._raise_refusal()
            # one record larger than the whole bound goes alone
            fits = self._room.wait_for(
                lambda: not self._in_flight or self._in_flight_bytes + size <= self._in_flight_bytes_max,
                self._delivery_timeout_s + 30.0,
            )
            self._raise_refusal()
            if not fits:
                raise SourceUnavailable(f"{self._in_flight} records not answered in {self._delivery_timeout_s} s")
            self._in_flight_bytes += size
            self._in_flight += 1

    def _give_back(self, size: int, error: BaseException | None) -> None:
        with self._room:
            self._in_flight_bytes -= size
            self._in_flight -= 1
            self.stats["sent" if error is None else "failed"] += 1
            self._error = self._error or error
            self._room.notify_all()

    def _sent(self, size: int, _metadata: object) -> None:
        self._give_back(size, None)

    def _refused(self, size: int, error: BaseException) -> None:
        self._give_back(size, error)

    def _raise_refusal(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise SourceUnavailable(f"Kafka refused a record: {type(error).__name__}: {error}") from error


class FastSink:
    """The same over confluent-kafka: five times as many messages a second. librdkafka bounds what is in flight."""

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        access: KafkaConfig | None = None,
        client_id: str = "netpredict-sink",
        in_flight_bytes_max: int = 16 * 1024 * 1024,
        delivery_timeout_s: float = 120.0,
    ) -> None:
        self._access = access or KafkaConfig()
        self._servers = bootstrap_servers.split(",") if isinstance(bootstrap_servers, str) else list(bootstrap_servers)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(self._servers),
            "client.id": client_id,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 10_000_000,
            "queue.buffering.max.kbytes": max(1, in_flight_bytes_max // 1024),
            "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            "socket.timeout.ms": int(min(30.0, delivery_timeout_s / 2) * 1000),
            "delivery.report.only.error": True,
            "allow.auto.create.topics": False,
            "error_cb": self._told,
        }
        self._delivery_timeout_s = delivery_timeout_s
        self._kafka: Any = None
        self._producer: Any = None
        self._error: Any = None
        self.stats: dict[str, int] = {"sent": 0, "failed": 0, "too_large": 0}

    def start(self) -> None:
        """See ``Sink``."""
        self._kafka = kafka = importlib.import_module("confluent_kafka")
        # below the logger of the other client, whose lines are rate-limited
        settings = librdkafka_access(self._access) | self._settings
        producer = kafka.Producer(settings, logger=logging.getLogger("kafka.confluent"))
        try:
            producer.list_topics(timeout=5.0)
        except kafka.KafkaException as error:
            raise unavailable(self._access, self._servers, error) from error
        self._producer = producer

    def send_all(self, topic: str, messages: Sequence[Message]) -> None:
        """See ``Sink``."""
        if self._producer is None:
            self.start()
        produce, refused = self._producer.produce, self._refused
        for message in messages:
            try:
                produce(topic, message.value, message.key, headers=message.headers, on_delivery=refused)
            except BufferError:
                self._produce_when_room(topic, message)
            except self._kafka.KafkaException as error:
                self._not_taken(topic, message, error)
        self._producer.poll(0)
        self.stats["sent"] += len(messages)
        self._raise_refusal()

    def flush(self, timeout_s: float = 60.0) -> None:
        """See ``Sink``."""
        if self._producer is None:
            return
        deadline_s = time.monotonic() + timeout_s
        left = 1
        while left:
            left = self._producer.flush(min(1.0, timeout_s))
            self._raise_refusal()
            if left and time.monotonic() >= deadline_s:
                raise SourceUnavailable(f"{left} records not answered in {timeout_s} s")

    def close(self, timeout_s: float = 10.0) -> None:
        """See ``Sink``."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            if producer.flush(timeout_s):
                LOG.warning("kafka_sink_close_failed", in_flight=len(producer))
            producer.purge()
            producer.flush(1.0)
        except self._kafka.KafkaException as error:  # it has ended by itself
            LOG.warning("kafka_sink_close_failed", error=str(error))
        self._error = None

    def _produce_when_room(self, topic: str, message: Message) -> None:
        deadline_s = time.monotonic() + self._delivery_timeout_s + 30.0
        while True:
            self._producer.poll(0.05)
            self._raise_refusal()
            try:
                self._producer.produce(
                    topic, message.value, message.key, headers=message.headers, on_delivery=self._refused
                )
                return
            except BufferError as error:
                if time.monotonic() > deadline_s:
                    raise SourceUnavailable(f"{len(self._producer)} records not answered") from error
            except self._kafka.KafkaException as error:
                self._not_taken(topic, message, error)
                return

    def _not_taken(self, topic: str, message: Message, error: Any) -> None:
        if error.args[0].code() != self._kafka.KafkaError.MSG_SIZE_TOO_LARGE:
            raise SourceUnavailable(f"{topic}: {error}") from error
        _leave_out(self.stats, topic, message)

    def _refused(self, error: Any, _message: object) -> None:
        if error is not None:
            self.stats["failed"] += 1
            self._error = self._error or error

    def _told(self, error: Any) -> None:
        """librdkafka tries again whatever happens; but a secret is read from its file by a new client only."""
        if error.code() in (self._kafka.KafkaError._AUTHENTICATION, self._kafka.KafkaError._SSL):
            self._error = self._error or error

    def _raise_refusal(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise SourceUnavailable(f"Kafka refused us or a record: {error}")


def _leave_out(stats: dict[str, int], topic: str, message: Message) -> None:
    stats["too_large"] += 1
    LOG.error("message_too_large", topic=topic, key=str(message.key), value_bytes=len(message.value))

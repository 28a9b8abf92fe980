"""Records into Kafka, for ``replay`` and ``simulate``: bounded in flight, every answer looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from netpredict.errors import SourceUnavailable
from netpredict.ingest.kafka import new_client

LOG = structlog.get_logger(__name__)

RECORD_BYTES = 100
"""What a record takes in flight beside its key and value."""


class KafkaSink:
    """Sends raw bytes. What was accepted by ``send`` is in Kafka once ``flush`` has returned without raising.

    kafka-python's own accumulator has no bound: ``send`` waits while more than ``in_flight_bytes_max`` are on the way.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        client_id: str = "netpredict-sink",
        in_flight_bytes_max: int = 16 * 1024 * 1024,
        delivery_timeout_s: float = 120.0,
        compression: str | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "client_id": client_id,
            "enable_idempotence": True,
            "acks": "all",
            "compression_type": compression,
            "allow_auto_create_topics": False,
            "linger_ms": 20,
            "batch_size": 131_072,
            "request_timeout_ms": 30_000,
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
        self._error: BaseException | None = None
        self._producer: Any = None
        self._closed = False
        self.stats: dict[str, int] = {"sent": 0, "failed": 0}

    def start(self) -> None:
        """Connect. Raises SourceUnavailable (retriable)."""
        if self._closed:
            raise RuntimeError("the sink is closed")
        try:
            self._producer = new_client(KafkaProducer, self._settings)
        except (KafkaError, OSError) as error:
            raise SourceUnavailable(f"no broker answers at {self._settings['bootstrap_servers']}: {error}") from error

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

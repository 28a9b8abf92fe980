"""Actuator ``kafka``: each action is an order on a Kafka topic, a CloudEvent whose id is the action's own."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import InvalidTopicError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from netpredict.config import KafkaConfig
from netpredict.errors import ActuatorError, ConfigError, SourceUnavailable
from netpredict.ingest.cloudevents import APPLY_TYPE, REVERT_TYPE, action_json, identity, origin, record_key
from netpredict.ingest.kafka import new_client, unavailable
from netpredict.ingest.kafka_access import client_access
from netpredict.plugins import Plugin
from netpredict.types import Firing, Outcome, OutcomeKind

_NEVER_TAKEN = (InvalidTopicError, MessageSizeTooLargeError, RecordListTooLargeError)
_TOPIC_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class KafkaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the kafka actuator; brokers and credentials are those of ``[kafka]``."""

    topic: str = "netpredict.actions"
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < len(self.topic) < 250 or self.topic in (".", "..") or not _TOPIC_CHARS.issuperset(self.topic):
            raise ConfigError(f"topic = {self.topic!r} is not allowed: use 1..249 of letters, digits, '.', '_', '-'")
        if not 1 <= self.timeout_s <= 60:
            raise ConfigError(f"timeout_s = {self.timeout_s!r} is not allowed: use 1..60 s")


class KafkaActuator:
    """One order at a time, done when all in-sync replicas have it.

    A producer that failed is dropped with all that it still holds, so that no order leaves after it was given up.
    """

    api_version = 1

    def __init__(self, options: KafkaOptions, kafka: KafkaConfig) -> None:
        self._options = options
        self._kafka = kafka
        self._producer: Any = None

    def apply(self, firing: Firing) -> Outcome:
        """Send the order. ActuatorError, retriable unless Kafka can never take it."""
        return Outcome(OutcomeKind.APPLIED, "acknowledged", self._order(APPLY_TYPE, firing, firing.firing_id))

    def verify(self, firing: Firing) -> Outcome:
        """Kafka knows nothing of what consumers set: the action stays unverified."""
        return Outcome(OutcomeKind.APPLIED, "not_verified")

    def revert(self, firing: Firing) -> Outcome:
        """Send the order to take the action back."""
        return Outcome(OutcomeKind.APPLIED, "reverted", self._order(REVERT_TYPE, firing, f"{firing.firing_id}/revert"))

    def close(self) -> None:
        """Close the producer; nothing is in flight between calls."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close(timeout=0)
            except KafkaError:
                producer._sender.force_close()  # it could not flush, so it never came to end its sender thread

    def _order(self, order_type: str, firing: Firing, event_id: str) -> str:
        """Where it came to lie, topic:partition:offset."""
        options = self._options
        until_s = time.monotonic() + options.timeout_s
        headers = [
            *origin(order_type, self._kafka.group, firing.stream, "orders"),
            *identity(event_id, firing.slot_time_us),
        ]
        try:
            producer = self._connected()
            sent = producer.send(options.topic, action_json(firing), record_key(firing.object_id), headers)
            place = sent.get(max(0.0, until_s - time.monotonic()))
        except KafkaError as error:
            self.close()
            text = f"{options.topic}: {type(error).__name__}: {error}"
            raise ActuatorError(text, retriable=not isinstance(error, _NEVER_TAKEN)) from error
        return f"{place.topic}:{place.partition}:{place.offset}"

    def _connected(self) -> Any:
        if self._producer is None:
            servers = self._kafka.bootstrap_servers
            try:
                self._producer = new_client(KafkaProducer, client_access(self._kafka) | self._settings(servers))
            except (KafkaError, OSError) as error:
                raise _retriable(unavailable(self._kafka, servers, error)) from error
            except ConfigError as error:  # a file of a secret is being changed, perhaps
                raise _retriable(error) from error
        return self._producer

    def _settings(self, servers: list[str]) -> dict[str, Any]:
        # thirds: to connect, to learn of the topic, to be answered
        third_ms = int(self._options.timeout_s * 1000 / 3)
        return {
            "bootstrap_servers": servers,
            "client_id": f"{self._kafka.client_id}-actions",
            "enable_idempotence": True,
            "acks": "all",
            "allow_auto_create_topics": False,
            "linger_ms": 0,
            "bootstrap_timeout_ms": third_ms,
            "max_block_ms": third_ms,
            "request_timeout_ms": third_ms,
            "delivery_timeout_ms": third_ms,
            "metrics_enabled": False,
        }


def _retriable(error: SourceUnavailable | ConfigError) -> ActuatorError:
    return ActuatorError(f"{type(error).__name__}: {error}", retriable=True)


PLUGIN = Plugin("kafka", options=KafkaOptions, build=KafkaActuator, needs_kafka=True)

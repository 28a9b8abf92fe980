"""librdkafka's mock of a Kafka cluster, from the confluent_kafka wheel, for answers that a healthy broker never gives.

It speaks old versions of the protocol only (``API_VERSION``), has no fault interface in Python, and its functions are
experimental. What a real broker can be made to do is done with a real broker.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import confluent_kafka

from netpredict.ingest.kafka import KafkaSource

API_VERSION = (2, 3)
API_KEYS = {
    "Fetch": 1,
    "ListOffsets": 2,
    "OffsetCommit": 8,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "SyncGroup": 14,
}
ERRORS = {
    "LEADER_NOT_AVAILABLE": 5,
    "NOT_LEADER_OR_FOLLOWER": 6,
    "COORDINATOR_LOAD_IN_PROGRESS": 14,
    "COORDINATOR_NOT_AVAILABLE": 15,
    "NOT_COORDINATOR": 16,
    "ILLEGAL_GENERATION": 22,
    "UNKNOWN_MEMBER_ID": 25,
    "REBALANCE_IN_PROGRESS": 27,
    "KAFKA_STORAGE_ERROR": 56,
    "FENCED_LEADER_EPOCH": 74,
    "UNKNOWN_LEADER_EPOCH": 75,
}
_PRODUCER, _GROUP_KEY = 0, b"group"


class MockSource(KafkaSource):
    """A source that asks in versions which the mock knows."""

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"api_version": API_VERSION}


class MockCluster:
    """``brokers`` brokers (ids from 1) in a thread of this process."""

    def __init__(self, brokers: int) -> None:
        self._library = _library()
        reason = ctypes.create_string_buffer(512)
        self._client = self._library.rd_kafka_new(_PRODUCER, self._library.rd_kafka_conf_new(), reason, 512)
        assert self._client, reason.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, brokers)
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> str:
        """Each partition on one broker."""
        self._done(self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))
        return name

    def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """Move a partition."""
        self._done(self._library.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def set_coordinator(self, group: str, broker: int) -> None:
        """Move a group."""
        self._done(self._library.rd_kafka_mock_coordinator_set(self._cluster, _GROUP_KEY, group.encode(), broker))

    def set_down(self, broker: int) -> None:
        """It refuses connections, is no longer in the list of brokers, and still leads its partitions."""
        self._done(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def set_up(self, broker: int) -> None:
        """It is back."""
        self._done(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def fail_next(self, request: str, errors: Sequence[str]) -> None:
        """The next requests of this kind are answered by these errors, one each."""
        codes = (ctypes.c_int * len(errors))(*(ERRORS[error] for error in errors))
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, API_KEYS[request], len(errors), codes)

    def left(self, broker: int, request: str) -> int:
        """How many of the errors of ``fail_next`` nobody has met."""
        count = ctypes.c_size_t()
        self._library.rd_kafka_mock_broker_error_stack_cnt(
            self._cluster, broker, API_KEYS[request], ctypes.byref(count)
        )
        return count.value

    def __enter__(self) -> MockCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    @staticmethod
    def _done(error: int) -> None:
        assert error == 0, f"the mock cluster says {error}"


def _library() -> Any:
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    library = ctypes.CDLL(str(next(folder.glob("librdkafka-*"))))
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "conf_new": (pointer, []),
        "new": (pointer, [number, pointer, text, size]),
        "destroy": (None, [pointer]),
        "mock_cluster_new": (pointer, [pointer, number]),
        "mock_cluster_destroy": (None, [pointer]),
        "mock_cluster_bootstraps": (text, [pointer]),
        "mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "mock_topic_create": (number, [pointer, text, number, number]),
        "mock_partition_set_leader": (number, [pointer, text, ctypes.c_int32, ctypes.c_int32]),
        "mock_coordinator_set": (number, [pointer, text, text, ctypes.c_int32]),
        "mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "mock_push_request_errors_array": (None, [pointer, ctypes.c_int16, size, ctypes.POINTER(number)]),
        "mock_broker_error_stack_cnt": (number, [pointer, ctypes.c_int32, ctypes.c_int16, ctypes.POINTER(size)]),
    }
    for name, (answer, arguments) in signatures.items():
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = answer, arguments
    return library

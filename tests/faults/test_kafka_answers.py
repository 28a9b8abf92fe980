"""F7 and F10: answers of a cluster that is changing, from librdkafka's mock, seen by a daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from netpredict.config import parse_config
from netpredict.types import TopicPartition
from tests.faults import rig
from tests.faults.conftest import Recorder, scales
from tests.faults.mock_cluster import API_VERSION, MockCluster, MockSource
from tests.faults.rig import InThread

STORM = {
    "Fetch": [
        *("NOT_LEADER_OR_FOLLOWER", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH", "KAFKA_STORAGE_ERROR"),
        "LEADER_NOT_AVAILABLE",
    ],
    "ListOffsets": ["NOT_LEADER_OR_FOLLOWER", "FENCED_LEADER_EPOCH", "LEADER_NOT_AVAILABLE"],
    "FindCoordinator": ["COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"],
    "JoinGroup": ["COORDINATOR_LOAD_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "NOT_COORDINATOR"],
    "SyncGroup": ["REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "COORDINATOR_LOAD_IN_PROGRESS"],
    "Heartbeat": ["REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION"],
    "OffsetCommit": ["NOT_COORDINATOR", "ILLEGAL_GENERATION", "COORDINATOR_LOAD_IN_PROGRESS"],
}


def config_of(cluster: MockCluster, topic: str, folder: Path, **kafka: Any) -> dict[str, Any]:
    raw = rig.raw_config(folder, topic)
    raw["kafka"] |= {"bootstrap_servers": cluster.bootstrap.split(","), "group": "mocked", **kafka}
    return raw


def started(raw: dict[str, Any]) -> InThread:
    topics = sorted(stream["topic"] for stream in raw["streams"].values())
    return InThread(parse_config(raw), make_source=lambda config, hook: MockSource(config.kafka, topics, hook))


def produce(cluster: MockCluster, topic: str, made: list[rig.Row], ends: dict[TopicPartition, int]) -> None:
    """The mock has no admin interface, so that what was sent is counted here."""
    rig.produce(cluster.bootstrap, topic, made, len(ends), api_version=API_VERSION)
    for key, _, _ in made:
        ends[TopicPartition(topic, rig.partition_of(key, len(ends)))] += 1


def reference(raw: dict[str, Any], ends: dict[TopicPartition, int], folder: Path) -> str:
    (folder / "unfaulted").mkdir()
    with started(raw | {"store": raw["store"] | {"url": f"sqlite:///{folder}/unfaulted/store.db"}}) as running:
        running.until(lambda: running.drained(ends))
    return running.url


@scales("errors_each", short=1, long=5)
def test_f07_no_answer_of_a_changing_cluster_costs_a_record(tmp_path: Path, record: Recorder, errors_each: int) -> None:
    """Leaders, coordinators and members that are not what the client took them for, all while records come."""
    storm = {request: errors[:errors_each] for request, errors in STORM.items()}
    record.about("F7")
    with MockCluster(2) as cluster:
        topic = cluster.create_topic("f07", 3)
        ends = {TopicPartition(topic, partition): 0 for partition in range(3)}
        produce(cluster, topic, rig.rows(range(3)), ends)
        raw = config_of(cluster, topic, tmp_path)
        with started(raw) as running:
            running.until(lambda: running.drained(ends))
            for request, errors in storm.items():
                cluster.fail_next(request, errors)
            for minute in range(3, 13):
                produce(cluster, topic, rig.rows(range(minute, minute + 1)), ends)
                cluster.set_leader(topic, minute % 3, 1 + minute % 2)
                time.sleep(0.5)
            took_s = running.until(lambda: running.drained(ends))
            running.until(lambda: not any(cluster.left(1, request) for request in ("Fetch", "Heartbeat")), 30)
        assert took_s < rig.HEALED_S
        rig.assert_accounted_for(running.url)
        rig.assert_equal(running.url, reference(raw, ends, tmp_path))
        errors_sent = sum(map(len, storm.values()))
        record("F7", [], f"{errors_sent} errors, 10 moves (mock)", sum(ends.values()), "O holds")


@pytest.mark.parametrize("gone", [pytest.param("leader", marks=pytest.mark.faults), "coordinator"])
def test_f10_a_broker_missing_from_the_metadata_is_overcome_by_a_new_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, record: Recorder
) -> None:
    """K2: the client forgets its leader, or its group's coordinator, and would never ask again."""
    record.about("F10")
    with MockCluster(2) as cluster:
        topic = cluster.create_topic("f10", 2)
        ends = {TopicPartition(topic, partition): 0 for partition in range(2)}
        for partition in range(2):
            cluster.set_leader(topic, partition, 1 if gone == "coordinator" else 2)
        cluster.set_coordinator("mocked", 2 if gone == "coordinator" else 1)
        produce(cluster, topic, rig.rows(range(3)), ends)
        raw = config_of(cluster, topic, tmp_path)
        with started(raw) as running:
            running.until(lambda: running.drained(ends))
            cluster.set_down(2)
            time.sleep(8.0)
            cluster.set_up(2)
            produce(cluster, topic, rig.rows(range(3, 6)), ends)
            took_s = running.until(lambda: running.drained(ends))
        assert took_s < rig.HEALED_S
        rig.assert_equal(running.url, reference(raw, ends, tmp_path))
        record("F10", [], "1 lost broker (mock)", sum(ends.values()), "O holds after a new client")

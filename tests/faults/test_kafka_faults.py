"""F7 to F9 and F12: what happens to brokers, networks and topics, seen by a daemon on a real broker."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition as KafkaTopicPartition

from netpredict.config import parse_config
from netpredict.store.history import History
from tests.faults import rig
from tests.faults.conftest import Recorder, scales
from tests.faults.proxy import Proxy
from tests.faults.rig import InThread
from tests.integration.daemon_process import DaemonProcess, toml
from tests.services.kafka_broker import KafkaBroker


def config_of(broker_address: str, topic: str, folder: Path, **kafka: Any) -> dict[str, Any]:
    raw = rig.raw_config(folder, topic)
    raw["kafka"] |= {"bootstrap_servers": [broker_address], "group": f"group-{topic}", **kafka}
    return raw


def started(raw: dict[str, Any]) -> InThread:
    return InThread(parse_config(raw))


def reference(raw: dict[str, Any], broker: KafkaBroker, topic: str, folder: Path) -> str:
    """What a daemon without a fault stores of the same topic; the other one must have left the group."""
    place = folder / "unfaulted"
    place.mkdir()
    healthy = raw | {"store": raw["store"] | {"url": f"sqlite:///{place}/store.db"}}
    healthy["kafka"] = raw["kafka"] | {"bootstrap_servers": [broker.bootstrap]}
    with started(healthy) as running:
        running.until(lambda: running.drained(rig.end_offsets_of(broker, topic)))
    return running.url


@pytest.fixture
def proxied(broker: KafkaBroker) -> Iterator[Proxy]:
    with Proxy(broker.behind_proxy, broker.proxy_port) as proxy:
        yield proxy


def durable(running: InThread) -> int:
    return sum(offset or 0 for offset in rig.stored(running.url).values())


def test_f07_a_broker_that_dies_under_load_costs_no_record(
    broker: KafkaBroker, tmp_path: Path, record: Recorder
) -> None:
    record.about("F7")
    topic = rig.new_topic(broker, "f07")
    rig.produce(broker.bootstrap, topic, rig.rows(range(40)))
    raw = config_of(broker.bootstrap, topic, tmp_path, poll_records_max=50, max_partition_fetch_bytes=4096)
    with started(raw) as running:
        running.until(lambda: durable(running) > 300)
        broker.kill()
        killed_at = durable(running)
        time.sleep(4.0)
        assert durable(running) < 2400, "the fault came too late to be one"
        broker.start()
        took_s = running.until(lambda: durable(running) > killed_at)
        rig.produce(broker.bootstrap, topic, rig.rows(range(40, 45)))
        ends = rig.end_offsets_of(broker, topic)
        running.until(lambda: running.drained(ends))
    assert took_s < rig.HEALED_S
    rig.assert_accounted_for(running.url)
    rig.assert_equal(running.url, reference(raw, broker, topic, tmp_path))
    record("F7", [], "1 kill of the broker", sum(ends.values()), f"O holds, goes on after {took_s:.1f} s")


FAULTS_OF_THE_NETWORK = {
    "partition": lambda proxy: proxy.partition(),
    "reset": lambda proxy: setattr(proxy.down, "cut_after_bytes", 20_000),
    "latency": lambda proxy: (setattr(proxy.up, "latency_s", 0.75), setattr(proxy.down, "latency_s", 0.75)),
    "loss": lambda proxy: setattr(proxy.down, "drop_reply", True),
    "refused": lambda proxy: (setattr(proxy, "refusing", True), proxy.reset_all()),
}


@scales("harmed_s", short=1.5, long=20.0)
@pytest.mark.timeout(900)
def test_f09_no_fault_of_the_network_costs_a_record(
    broker: KafkaBroker, proxied: Proxy, tmp_path: Path, record: Recorder, harmed_s: float
) -> None:
    """One after the other in one run: partition, reset inside a frame, 1.5 s round trip, lost replies, refusal."""
    record.about("F9")
    topic = rig.new_topic(broker, "f09")
    raw = config_of(f"127.0.0.1:{proxied.port}", topic, tmp_path)
    took_s: dict[str, float] = {}
    minutes = 0
    with started(raw) as running:
        for name, harm in FAULTS_OF_THE_NETWORK.items():
            rig.produce(broker.bootstrap, topic, rig.rows(range(minutes, minutes + 4)))
            minutes += 4
            running.until(lambda: running.drained(rig.end_offsets_of(broker, topic)))
            harm(proxied)
            rig.produce(broker.bootstrap, topic, rig.rows(range(minutes, minutes + 8)))
            minutes += 8
            time.sleep(harmed_s)
            proxied.heal()
            ends = rig.end_offsets_of(broker, topic)
            took_s[name] = running.until(lambda ends=ends: running.drained(ends))  # type: ignore[misc]
    assert proxied.down.cuts == 1
    assert max(took_s.values()) < rig.HEALED_S, took_s
    rig.assert_accounted_for(running.url)
    rig.assert_equal(running.url, reference(raw, broker, topic, tmp_path))
    slowest = max(took_s, key=took_s.__getitem__)
    told = f"O holds, slowest {slowest} {took_s[slowest]:.1f} s"
    record("F9", [], f"{len(took_s)} faults of {harmed_s:.1f} s", sum(ends.values()), told)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@scales("frozen_s", short=8.0, long=600.0)
@pytest.mark.timeout(900)
def test_f08_a_frozen_cluster_costs_neither_memory_nor_log_lines(
    broker: KafkaBroker, tmp_path: Path, record: Recorder, frozen_s: float
) -> None:
    record.about("F8")
    topic = rig.new_topic(broker, "f08")
    rig.produce(broker.bootstrap, topic, rig.rows(range(10)))
    raw = config_of(broker.bootstrap, topic, tmp_path)
    config = write(tmp_path / "f08.toml", raw)
    with DaemonProcess(config) as daemon:
        daemon.wait_until(lambda: rig.drained(raw["store"]["url"], rig.end_offsets_of(broker, topic)))
        pid, bytes_before, lines_before = daemon.process.pid, resident_bytes(daemon.process.pid), log_lines(daemon)
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            time.sleep(frozen_s)
            grown_bytes, lines = resident_bytes(pid) - bytes_before, log_lines(daemon) - lines_before
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        rig.produce(broker.bootstrap, topic, rig.rows(range(10, 15)))
        ends = rig.end_offsets_of(broker, topic)
        daemon.wait_until(lambda: rig.drained(raw["store"]["url"], ends), rig.HEALED_S)
        assert daemon.terminate() == 0, daemon.tail()
    assert grown_bytes < 32 << 20
    assert lines < 20 + 4 * frozen_s, daemon.tail()
    rig.assert_equal(raw["store"]["url"], reference(raw, broker, topic, tmp_path))
    told = f"+{grown_bytes / 2**20:.1f} MiB, {lines} log lines, O holds"
    record("F8", [], f"frozen for {frozen_s:.0f} s", sum(ends.values()), told)


def log_lines(daemon: DaemonProcess) -> int:
    return daemon.log.read_bytes().count(b"\n")


def write(path: Path, raw: dict[str, Any]) -> Path:
    """The config as a file; routes are an array of tables."""
    plain = raw | {"streams": {name: dict(stream) for name, stream in raw["streams"].items()}}
    routes = {name: stream.pop("routes") for name, stream in plain["streams"].items()}
    text = toml(plain)
    for name, ways in routes.items():
        for way in ways:
            text += f'[[streams.{name}.routes]]\nactive = "{way["active"]}"\n'
    path.write_text(text)
    return path


def test_f12_offsets_that_are_gone_leave_a_gap_and_nothing_is_skipped_in_silence(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    """Records deleted while the daemon was down; then the topic is made anew while it runs."""
    record.about("F12")
    monkeypatch.setattr("netpredict.ingest.kafka.METADATA_MAX_AGE_S", 1.0)
    topic = rig.new_topic(broker, "f12")
    raw = config_of(broker.bootstrap, topic, tmp_path)
    rig.produce(broker.bootstrap, topic, rig.rows(range(5)))
    with started(raw) as running:
        running.until(lambda: running.drained(rig.end_offsets_of(broker, topic)))
    before = rig.end_offsets_of(broker, topic)
    rig.produce(broker.bootstrap, topic, rig.rows(range(5, 10)))
    admin = broker.admin()
    admin.delete_records({KafkaTopicPartition(topic, place.partition): end + 7 for place, end in before.items()})
    with started(raw) as running:
        running.until(lambda: running.drained(rig.end_offsets_of(broker, topic)))
        expired = gaps_of(running.url)
        assert expired == {(place.partition, end, end + 7, "offset_out_of_range") for place, end in before.items()}
        full = rig.end_offsets_of(broker, topic)
        admin.delete_topics([topic])
        time.sleep(2.0)
        broker.create_topic(topic, len(before), {"retention.ms": "-1"})
        rig.produce(broker.bootstrap, topic, rig.rows(range(10, 13)))
        ends = rig.end_offsets_of(broker, topic)
        took_s = running.until(lambda: running.drained(ends))
        recreated = {(place.partition, end, 0, "topic_recreated") for place, end in full.items()}
        assert gaps_of(running.url) == expired | recreated
    admin.close()
    rows = History(running.url).progress()
    assert sum(row["accepted"] + row["dead"] for row in rows) == (5 + 5 + 3) * 60 - 7 * len(before)
    record("F12", [], "deleted, made anew", (5 + 5 + 3) * 60, f"{len(recreated) * 2} gap rows, {took_s:.1f} s")


@pytest.mark.faults
def test_f12_a_log_that_lost_its_end_is_read_again_and_the_gap_is_told(tmp_path: Path, record: Recorder) -> None:
    """An unclean end of the broker: what it had acknowledged last is gone from its disk, and the daemon was further."""
    record.about("F12")
    with KafkaBroker(tmp_path / "kafka") as broker:
        topic = rig.new_topic(broker, "f12", 1)
        raw = config_of(broker.bootstrap, topic, tmp_path)
        for minute in range(10):
            rig.produce(broker.bootstrap, topic, rig.rows(range(minute, minute + 1)), 1)
        with started(raw) as running:
            (place, before), *_ = rig.end_offsets_of(broker, topic).items()
            running.until(lambda: running.drained({place: before}))
            broker.kill()
            (segment,) = (tmp_path / "kafka/data" / f"{topic}-0").glob("*.log")
            os.truncate(segment, segment.stat().st_size // 2)
            broker.start()
            kept = rig.end_offsets_of(broker, topic)[place]
            assert 0 < kept < before, "half of the batches are gone"
            running.until(lambda: gaps_of(running.url))
            rig.produce(broker.bootstrap, topic, rig.rows(range(10, 14)), 1)
            ends = rig.end_offsets_of(broker, topic)
            took_s = running.until(lambda: running.drained(ends))
            assert {(gap[1], gap[3]) for gap in gaps_of(running.url)} == {(before, "truncated")}
    (row,) = History(running.url).progress()
    read = sum(row[count] for count in ("accepted", "duplicate", "late", "dead"))
    assert read == before + ends[place] - max(gap[2] for gap in gaps_of(running.url))
    record("F12", [], f"{before - kept} records lost by the broker", before + ends[place], f"a gap row, {took_s:.1f} s")


def gaps_of(url: str) -> set[tuple[int, int, int, str]]:
    return {(row["partition"], row["from_offset"], row["to_offset"], row["reason"]) for row in History(url).gaps()}


def test_f24_bad_configs_and_a_storm_of_reloads_change_nothing_that_serves(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    record.about("F24")
    topic = rig.new_topic(broker, "f24")
    raw = config_of(broker.bootstrap, topic, tmp_path)
    config = write(tmp_path / "f24.toml", raw)
    good = config.read_text()
    rig.produce(broker.bootstrap, topic, rig.rows(range(3)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with DaemonProcess(config) as daemon:
            heard = [manager.recv(1000).decode()]
            for number in range(30):
                config.write_text([good, "[kafka]\ngroup = 7\n", "[[[", good + "[hooks.bandwidth]\n"][number % 4])
                daemon.process.send_signal(signal.SIGHUP)
                if number % 5 == 4:
                    heard += [manager.recv(1000).decode(), manager.recv(1000).decode()]
                    rig.produce(broker.bootstrap, topic, rig.rows(range(number, number + 1)))
            config.write_text(good)
            ends = rig.end_offsets_of(broker, topic)
            daemon.wait_until(lambda: rig.drained(raw["store"]["url"], ends))
            assert daemon.terminate() == 0, daemon.tail()
            while not heard[-1].startswith("STOPPING"):
                heard.append(manager.recv(1000).decode())
    words = [line.partition("=")[0] for line in heard]
    reloads = words[1:-1]
    assert (words[0], words[-1]) == ("READY", "STOPPING")
    assert reloads == ["RELOADING", "READY"] * (len(reloads) // 2), "each is answered before the next begins"
    refused = sum("refused" in line for line in heard)
    assert refused
    rig.assert_equal(raw["store"]["url"], reference(raw, broker, topic, tmp_path))
    record("F24", [], f"30 SIGHUP, {len(reloads) // 2} reloads, {refused} refused", 540, "O holds, paired")

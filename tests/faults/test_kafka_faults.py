"""F7 to F9 and F12: what happens to brokers, networks and topics, seen by a daemon on a real broker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netpredict.config import parse_config
from tests.faults import rig
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


def test_f07_a_broker_that_dies_under_load_costs_no_record(broker: KafkaBroker, tmp_path: Path) -> None:
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


FAULTS_OF_THE_NETWORK = {
    "partition": lambda proxy: proxy.partition(),
    "reset": lambda proxy: setattr(proxy.down, "cut_after_bytes", 20_000),
    "latency": lambda proxy: (setattr(proxy.up, "latency_s", 0.75), setattr(proxy.down, "latency_s", 0.75)),
    "loss": lambda proxy: setattr(proxy.down, "drop_reply", True),
    "refused": lambda proxy: (setattr(proxy, "refusing", True), proxy.reset_all()),
}


def test_f09_no_fault_of_the_network_costs_a_record(broker: KafkaBroker, proxied: Proxy, tmp_path: Path) -> None:
    """One after the other in one run: partition, reset inside a frame, 1.5 s round trip, lost replies, refusal."""
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
            time.sleep(3.0)
            proxied.heal()
            ends = rig.end_offsets_of(broker, topic)
            took_s[name] = running.until(lambda ends=ends: running.drained(ends))  # type: ignore[misc]
    assert proxied.down.cuts == 1
    assert max(took_s.values()) < rig.HEALED_S, took_s
    rig.assert_accounted_for(running.url)
    rig.assert_equal(running.url, reference(raw, broker, topic, tmp_path))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_f08_a_frozen_cluster_costs_neither_memory_nor_log_lines(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = rig.new_topic(broker, "f08")
    rig.produce(broker.bootstrap, topic, rig.rows(range(10)))
    raw = config_of(broker.bootstrap, topic, tmp_path)
    config = write(tmp_path / "f08.toml", raw)
    frozen_s = float(os.environ.get("NETPREDICT_FROZEN_S", "12"))
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

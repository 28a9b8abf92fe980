"""The share of ``make fuzz`` that goes through a real broker, in compressed batches, to a real daemon."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from netpredict.config import parse_config
from netpredict.ingest.source import MemoryLog
from netpredict.learn.shelf import StoreShelf
from netpredict.store import migrate
from netpredict.store.compare import Dump, difference, dump
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.fuzz.run import check, good_of
from tests.fuzz.world import SENDERS, config_of, records
from tests.integration.daemon_process import DaemonProcess, toml
from tests.pipeline_world import World
from tests.services.kafka_broker import KafkaBroker

CODECS = ("lz4", "zstd", "gzip", "snappy", None)
STEPS = 60


def fuzz_live(count: int, seed: int) -> dict[str, Any]:
    """About so many mutants through broker and daemon; the figures."""
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="netpredict-fuzz-")))
        broker = held.enter_context(KafkaBroker(folder / "kafka"))
        return through_daemon(broker, folder, count, seed)


def through_daemon(broker: KafkaBroker, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """See ``fuzz_live``. The good series must be those of the pipeline in this process over the good records alone."""
    started_s = time.monotonic()
    forever = {"retention.ms": "-1", "max.message.bytes": "4000000"}  # the records are of years ago
    topics = {name: broker.new_topic(f"fuzz-{name}", configs=forever) for name in SENDERS}
    each = max(3, count // (STEPS * len(SENDERS)))
    produced: Counter[str] = Counter()
    for number, (name, topic) in enumerate(topics.items()):
        _produce(broker, name, topic, seed, each, number, produced)
    config = config_of(topics, "ewma")
    url = f"sqlite:///{folder}/live.db"
    ends = {topic: produced[topic] for topic in topics.values()}
    store = _daemon(folder, config, url, broker, ends)
    outcomes = check(store, ends, f"live, seed {seed}")
    calm = _calm(folder, config, seed)
    assert good_of(calm)["forecast"]
    assert difference(good_of(store), good_of(calm)) == [], f"live, seed {seed}: a good series was harmed"
    return {
        "mutants": produced["mutants"],
        "codecs": {codec or "none": produced[f"codec {codec}"] for codec in CODECS},
        "outcomes": dict(outcomes),
        "seconds": round(time.monotonic() - started_s, 1),
    }


def _produce(
    broker: KafkaBroker, name: str, topic: str, seed: int, each: int, number: int, produced: Counter[str]
) -> None:
    """Steps in turn by producers of all codecs, so that a partition holds batches of each."""
    with ExitStack() as held:
        producers: list[Any] = []
        for codec in CODECS:
            settings = {"compression_type": codec, "linger_ms": 20, "max_request_size": 4_000_000, "acks": "all"}
            producers.append(KafkaProducer(bootstrap_servers=broker.bootstrap, **settings))
            held.callback(producers[-1].close, timeout=10)
        for step in range(STEPS):
            turn = (step + number) % len(CODECS)
            for good, record in records(name, seed, range(step, step + 1), each, stamps=False):
                headers = [(key.encode("utf-8", "replace").decode(), value) for key, value in record.headers]
                key = (
                    b"" if record.key is None and record.value is None else record.key
                )  # the client sends no such record
                producers[turn].send(
                    topic, record.value, key, headers=headers, partition=0, timestamp_ms=record.timestamp
                )
                produced[topic] += 1
                produced["mutants"] += not good
                produced[f"codec {CODECS[turn]}"] += 1
            producers[turn].flush(timeout=60)


def _daemon(folder: Path, config: dict[str, Any], url: str, broker: KafkaBroker, ends: dict[str, int]) -> Dump:
    parts = {
        "daemon": {"data_dir": str(folder / "data"), "commit_interval_s": 0.2},
        "http": {"enabled": False},
        "store": {"url": url},
        "kafka": {"bootstrap_servers": [broker.bootstrap], "group": "test", "session_timeout_s": 6.0},
    }
    path = folder / "netpredict.toml"
    path.write_text(re.sub(r'(?<=[{,] )?"([a-z_]+)": ', r'"\1" = ', toml(parts | config)))
    migrate.upgrade(url)

    def drained() -> bool:
        rows = dump(url, ["topic_progress"])["topic_progress"]
        return {row[1]: row[5] for row in rows} == ends

    with DaemonProcess(path) as daemon:
        daemon.wait_until(drained, 300.0)
        assert daemon.terminate() == 0, daemon.tail()
        assert "Traceback" not in daemon.log.read_text(errors="replace")
    return dump(url)


def _calm(folder: Path, config: dict[str, Any], seed: int) -> Dump:
    topics = {name: stream["topic"] for name, stream in config["streams"].items()}
    log = MemoryLog(dict.fromkeys(topics.values(), 1))
    for name, topic in topics.items():
        for step in range(STEPS):
            for good, record in records(name, seed, range(step, step + 1), 0, stamps=False):
                assert good
                log.append_to(TopicPartition(topic, 0), record.key, record.value, record.timestamp)
    url = f"sqlite:///{folder}/calm.db"
    migrate.upgrade(url)
    checked = json.loads(json.dumps(config))
    world = World(log, checked, lambda streams, store: StoreShelf(parse_config(checked), store, streams))
    with SqlStore(url) as store:
        world.run(store, 1000)
    return dump(url)

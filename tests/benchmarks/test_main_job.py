"""How fast the main job is beside a bare consumer of the same topic in the same run. Writes ``build/bench.json``.

Sizes by environment: BENCH_SECONDS (of log at the rate of the load), BENCH_CELLS, BENCH_OLD_ROWS.
"""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition

from netpredict.build import build_stream
from netpredict.config import Config, KafkaConfig, parse_config
from netpredict.ingest.kafka import KafkaSource
from netpredict.ingest.messages import Traffic
from netpredict.learn.dataset import build
from netpredict.learn.train import train
from netpredict.operate.daemon import Daemon
from netpredict.store import migrate
from netpredict.store.sql import SqlStore
from tests.benchmarks.store_commit import prefill

CELLS = int(os.environ.get("BENCH_CELLS", "20000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "100"))
OLD_ROWS = int(os.environ.get("BENCH_OLD_ROWS", "5000000"))
PARTITIONS = 4
PERIOD_US = 60_000_000
START_US = 1_750_000_020_000_000
OUT = Path("build/bench.json")
RESULT: dict[str, float] = {}


def values(rounds: int, cells: int) -> np.ndarray:
    """PRB use of radio cells, percent (rounds, cells): a daily course, a slow walk and noise, as real cells show."""
    rng = np.random.default_rng(7)
    base, phase = rng.uniform(10, 60, cells), rng.uniform(0, 2 * np.pi, cells)
    day = 15 * np.sin(2 * np.pi * np.arange(rounds)[:, None] / 1440 + phase)
    walk = np.cumsum(rng.normal(0, 0.3, (rounds, cells)), axis=0)
    return np.round(np.clip(base + day + walk + rng.normal(0, 1.0, (rounds, cells)), 0, 100), 1)


def fill(bootstrap: str, topic: str, rounds: int, cells: int) -> tuple[int, float]:
    """Produce one record per radio cell and round, keyed by the radio cell; records and mean bytes."""
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 10**6,
        }
    )
    table = values(rounds, cells)
    encode = msgspec.json.Encoder().encode
    size = 0
    for step in range(rounds):
        time_us = START_US + step * PERIOD_US
        for cell in range(cells):
            name = f"cell-{cell:05d}"
            message = Traffic(
                "netpredict.traffic/1", name, time_us, prb_use_dl_percent=float(table[step, cell]), connected_ues=12.0
            )
            value = encode(message)
            size += len(value)
            while True:
                try:
                    producer.produce(topic, value, name, timestamp=time_us // 1000)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    producer.flush(60)
    return rounds * cells, size / (rounds * cells)


def kafka_config(bootstrap: str) -> dict[str, object]:
    return {
        "bootstrap_servers": [bootstrap],
        "fetch_min_bytes": 1_048_576,
        "max_partition_fetch_bytes": 8_388_608,
        "poll_records_max": 5000,
    }


def raw_rate(bootstrap: str, topic: str, records: int) -> float:
    """Records/s of a bare KafkaConsumer.poll with the daemon's fetch settings."""
    config = msgspec.convert(kafka_config(bootstrap), KafkaConfig)
    consumer = KafkaConsumer(
        bootstrap_servers=config.bootstrap_servers,
        enable_auto_commit=False,
        max_poll_records=config.poll_records_max,
        fetch_min_bytes=config.fetch_min_bytes,
        fetch_max_wait_ms=int(config.fetch_max_wait_s * 1000),
        max_partition_fetch_bytes=config.max_partition_fetch_bytes,
    )
    consumer.assign([KafkaTopicPartition(topic, partition) for partition in range(PARTITIONS)])
    consumer.seek_to_beginning()
    got, started = 0, None
    while got < records:
        got += sum(map(len, consumer.poll(timeout_ms=1000).values()))
        started = started or time.perf_counter()
    seconds = time.perf_counter() - (started or 0.0)
    consumer.close()
    return records / seconds


def config_of(bootstrap: str, topic: str, url: str, folder: Path, group: str, extra: bool) -> Config:
    return parse_config(
        {
            "daemon": {"data_dir": str(folder)},
            "kafka": {**kafka_config(bootstrap), "group": group},
            "store": {"url": url, "observations": extra, "retention_days": 1.0},
            "http": {"enabled": False},
            "publish": {"enabled": extra},
            "streams": {
                "traffic": {
                    "topic": topic,
                    "schema": "traffic",
                    "series_by": ["radio_cell_id"],
                    "period_s": 60.0,
                    "kpis": ["prb_use_dl_percent"],
                    "features": ["connected_ues"],
                    "horizon_steps": 12,
                    "warm_steps": 4,
                    "routes": [{"active": "gru"}],
                }
            },
            "predictors": {"gru": {"plugin": "gru", "options": {"units": 32, "train_epochs": 2}}},
            "hooks": {
                "bandwidth": {  # tau = 9 / (9 + 1): the level 0.9 that the stream has anyway
                    "plugin": "bandwidth",
                    "stream": "traffic",
                    "actuators": ["log"],
                    "options": {"c_under": 9.0, "c_over": 1.0},
                }
            },
            "actuators": {"log": {"plugin": "log"}},
        }
    )


def prepare(config: Config, folder: Path) -> None:
    """A store with old rows and an active GRU that was trained on a little of the load."""
    url = config.store.url
    migrate.upgrade(url)
    prefill(url, OLD_ROWS, before_us=START_US - 2 * 86_400_000_000)
    stream = build_stream("traffic", config)
    history = values(400, 200).T[:, :, None].astype(np.float32)
    history = np.concatenate([history, np.full_like(history, 12.0)], axis=2)
    dataset = build(
        stream.features,
        stream.output,
        series_names=[str(i) for i in range(200)],
        first_slot=np.zeros(200, np.int64),
        values=history,
        columns=stream.columns,
    )
    artefact, report = train(dataset, "gru", config.predictors["gru"].options, folder / "gru", now_us=0)
    with SqlStore(url) as store:
        store.register_model(
            "traffic", "gru", artefact.version, "gru", str(folder / "gru"), dict(report.scores), "active"
        )


class Watched(Daemon):
    """A daemon that notes when it saw the first record, and stops when ``records`` are durable."""

    def until(self, records: int, timeout_s: float = 300.0) -> float:
        """Run until so many records are durable; the seconds from the first poll that brought any."""
        self.wanted, self.first_s, self.last_s = records, 0.0, 0.0
        self.deadline_s = time.perf_counter() + timeout_s
        self.run()
        assert self.tally.records >= records, f"only {self.tally.records} of {records} in {timeout_s} s"
        return self.last_s - self.first_s

    def _settle(self) -> None:
        super()._settle()
        if not self.first_s and self.pipeline.rows_pending:
            self.first_s = time.perf_counter()
        if self.tally.records >= self.wanted or time.perf_counter() > self.deadline_s:
            self.last_s = self.last_s or time.perf_counter()
            self.flags.stop = True


def durable_rate(config: Config, records: int) -> float:
    def source(config: Config, on_revoke):  # type: ignore[no-untyped-def]
        return KafkaSource(config.kafka, [config.streams["traffic"].topic], on_revoke)

    return records / Watched(config, source).until(records)


@pytest.fixture(scope="module")
def filled(broker):
    topic = broker.new_topic("bench", PARTITIONS, {"retention.ms": "-1"})
    records, size = fill(broker.bootstrap, topic, ROUNDS, CELLS)
    print(f"\n{records} records of {size:.0f} bytes on {PARTITIONS} topic partitions, {CELLS} radio cells")
    return broker.bootstrap, topic, records


@pytest.fixture(scope="module", autouse=True)
def written():
    yield
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(RESULT, indent=1) + "\n")
    print(json.dumps(RESULT, indent=1))


@pytest.mark.timeout(1200)
def test_durable_rate_beside_the_raw_poll(broker, filled, tmp_path_factory):
    bootstrap, topic, records = filled
    broker.create_topic("netpredict.forecasts", PARTITIONS)
    broker.create_topic("netpredict.actions", PARTITIONS)
    raw = [raw_rate(bootstrap, topic, records)]
    rates: dict[bool, float] = {}
    for extra in (False, True):
        folder = tmp_path_factory.mktemp("bench")
        config = config_of(bootstrap, topic, f"sqlite:///{folder}/bench.db", folder, f"bench-{extra}", extra)
        prepare(config, folder)
        rates[extra] = durable_rate(config, records)
        raw.append(raw_rate(bootstrap, topic, records))
    RESULT["raw_poll_per_s"] = round(sorted(raw)[len(raw) // 2])
    RESULT["durable_per_s"] = round(rates[False])
    RESULT["ratio"] = round(rates[False] / RESULT["raw_poll_per_s"], 3)
    RESULT["durable_with_observations_and_publishing_per_s"] = round(rates[True])
    RESULT["ratio_with_observations_and_publishing"] = round(rates[True] / RESULT["raw_poll_per_s"], 3)
    print(f"raw {[round(rate) for rate in raw]}, durable {rates}")


@pytest.mark.timeout(600)
def test_latency_from_broker_to_commit(broker, tmp_path_factory):
    """p99 of the time from Kafka's record timestamp to the commit, at 2,000 records/s, commit interval 1 s."""
    from confluent_kafka import Producer

    topic = broker.new_topic("latency", PARTITIONS, {"retention.ms": "-1"})
    folder = tmp_path_factory.mktemp("latency")
    config = config_of(broker.bootstrap, topic, f"sqlite:///{folder}/l.db", folder, "latency", False)
    config = msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, fetch_min_bytes=1))
    prepare_small(config, folder)
    seconds, rate = 40, 2000
    produced_s: dict[tuple[int, int], float] = {}

    def produce() -> None:
        def noted(_error: object, message: object) -> None:
            produced_s[message.partition(), message.offset()] = time.time()  # type: ignore[attr-defined]

        producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
        started = time.monotonic()
        for n in range(seconds * rate):
            while time.monotonic() - started < n / rate:
                producer.poll(0.0005)
            name = f"cell-{n % CELLS:05d}"
            value = msgspec.json.encode(
                Traffic("netpredict.traffic/1", name, START_US + n // CELLS * PERIOD_US, prb_use_dl_percent=20.0)
            )
            producer.produce(topic, value, name, timestamp=int(time.time() * 1000), on_delivery=noted)
        producer.flush(30)

    durable_s: list[tuple[int, int, int, float]] = []

    class Timed(Watched):
        def _settle(self) -> None:
            written = self.writer.written()
            if written is not None:
                now = time.time()
                for lane in written.commit.lanes:
                    durable_s.append((lane.topic_partition.partition, lane.old_offset, lane.new_offset, now))
                self.writer._written = written
            super()._settle()

    def source(config: Config, on_revoke):  # type: ignore[no-untyped-def]
        return KafkaSource(config.kafka, [topic], on_revoke)

    thread = threading.Thread(target=produce)
    daemon = Timed(config, source)
    thread.start()
    daemon.until(seconds * rate, timeout_s=seconds + 60)
    thread.join()
    waits = [
        done - produced_s[partition, offset]
        for partition, old, new, done in durable_s
        for offset in range(old, new)
        if (partition, offset) in produced_s
    ]
    warm = waits[len(waits) // 4 :]  # the first calls compile
    RESULT["p99_ms"] = round(float(np.percentile(warm, 99)) * 1000)
    RESULT["p50_ms"] = round(float(np.percentile(warm, 50)) * 1000)
    assert len(waits) == seconds * rate


def prepare_small(config: Config, folder: Path) -> None:
    global OLD_ROWS
    kept, OLD_ROWS = OLD_ROWS, 1
    try:
        prepare(config, folder)
    finally:
        OLD_ROWS = kept


@pytest.mark.timeout(600)
def test_memory_by_radio_cells(tmp_path_factory):
    """RSS per 100,000 radio cells, GRU 32, 12 steps, three levels and the hook's tau; 50,000 of them scored."""
    from netpredict.ingest.source import MemoryLog, MemorySource

    folder = tmp_path_factory.mktemp("memory")
    config = config_of("unused:1", "memory", f"sqlite:///{folder}/m.db", folder, "memory", False)
    prepare_small(config, folder)
    cells, log = 200_000, MemoryLog({"memory": 1})
    sizes: dict[int, float] = {}

    class Growing(Watched):
        def _settle(self) -> None:
            super()._settle()
            sizes[self.tally.records] = rss_mib()
            end = log.end(log.topic_partitions()[0])
            log.trim(log.topic_partitions()[0], self.pipeline.lanes[log.topic_partitions()[0]].next_offset)
            for cell in range(end, min(end + 5000, 2 * cells)) if end - self.tally.records < 50_000 else ():
                name = f"cell-{cell % cells:06d}"
                time_us = START_US + cell // cells * PERIOD_US
                value = msgspec.json.encode(Traffic("netpredict.traffic/1", name, time_us, prb_use_dl_percent=20.0))
                log.append("memory", name.encode(), value, time_us // 1000)

    log.append(
        "memory",
        b"cell-000000",
        msgspec.json.encode(Traffic("netpredict.traffic/1", "cell-000000", START_US, prb_use_dl_percent=1.0)),
        START_US // 1000,
    )
    daemon = Growing(config, lambda config, _: MemorySource(log, 5000))
    daemon.until(2 * cells - 5000, timeout_s=300)
    first = next(size for records, size in sorted(sizes.items()) if records >= 1)
    RESULT["rss_mib_per_100k_series"] = round((max(sizes.values()) - first) / (cells / 100_000), 1)


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20

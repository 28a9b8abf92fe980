"""A small radio network, daemons over it in a thread, and the oracle: the store of a run without a fault."""

from __future__ import annotations

import math
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition

from netpredict.config import Config, parse_config
from netpredict.ingest.messages import Traffic
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.operate.daemon import Daemon, MakeSource, kafka_source
from netpredict.store import compare, migrate
from netpredict.store.history import History
from netpredict.types import TopicPartition

START_US = 1_750_000_020_000_000
TOPIC = "ran.traffic"
HEALED_S = 60.0
"""Within this time of the end of a fault records must become durable again."""

Row = tuple[bytes, bytes, int]  # key, value, time in ms


def raw_config(
    folder: Path, topic: str = TOPIC, predictor: str = "ewma", **sections: Mapping[str, Any]
) -> dict[str, Any]:
    """One stream, a predictor without TensorFlow, a hook. ``sections`` are merged into those given here."""
    raw: dict[str, Any] = {
        "daemon": {"data_dir": str(folder), "commit_interval_s": 0.05},
        "kafka": {"poll_timeout_s": 0.05, "session_timeout_s": 6.0, "rebuild_after_s": 3.0, "poll_records_max": 200},
        "store": {"url": f"sqlite:///{folder}/store.db", "retry_s": 0.1, "retry_max_s": 0.5, "retention_days": 36500.0},
        "http": {"port": 0},
        "streams": {
            "traffic": {
                "topic": topic,
                "schema": "traffic",
                "series_by": ["radio_cell_id"],
                "period_s": 60.0,
                "kpis": ["prb_use_dl_percent"],
                "features": ["connected_ues"],
                "horizon_steps": 4,
                "warm_steps": 3,
                "routes": [{"active": predictor}],
            }
        },
        "predictors": {predictor: {"plugin": predictor}},
        "hooks": {
            "bandwidth": {
                "plugin": "bandwidth",
                "stream": "traffic",
                "cooldown_s": 0.0,
                "effect_s": 1e9,  # the times of the messages are fixed, and years old
                "options": {"valid_for_s": 1e9},
            }
        },
        "actuators": {"log": {"plugin": "log"}},
    }
    for name, section in sections.items():
        raw[name] = raw.get(name, {}) | section
    return raw


def rows(minutes: range, cells: int = 60) -> list[Row]:
    """A sine per radio cell, and now and then something that cannot be read. Minutes cost time, radio cells little."""
    made: list[Row] = []
    for minute in minutes:
        for cell in range(cells):
            prb, time_us = 50 + 30 * math.sin(minute / 3 + cell), START_US + minute * 60_000_000
            message = Traffic(
                "netpredict.traffic/1", f"cell-{cell}", time_us, prb_use_dl_percent=prb, connected_ues=5.0
            )
            value = b"{rubbish" if (minute * 31 + cell) % 97 == 0 else msgspec.json.encode(message)
            made.append((message.radio_cell_id.encode(), value, time_us // 1000))
    return made


def fill(log: MemoryLog, made: Sequence[Row]) -> None:
    """Append to the log of this process."""
    for key, value, time_ms in made:
        log.append(TOPIC, key, value, time_ms)


def produce(bootstrap: str, topic: str, made: Sequence[Row], partitions: int = 3, **settings: Any) -> None:
    """Append to a topic; done when the broker has acknowledged all."""
    settings = {"acks": "all", "enable_idempotence": True, "linger_ms": 5} | settings
    producer = KafkaProducer(bootstrap_servers=bootstrap, **settings)
    try:
        futures = [
            producer.send(topic, key=key, value=value, timestamp_ms=time_ms, partition=partition_of(key, partitions))
            for key, value, time_ms in made
        ]
        producer.flush(timeout=60)
        assert all(future.get(timeout=30) for future in futures)
    finally:
        producer.close(timeout=10)


def partition_of(key: bytes, partitions: int) -> int:
    """Equal keys share a partition."""
    return zlib.crc32(key) % partitions


def new_topic(broker: Any, stem: str, partitions: int = 3) -> str:
    """A topic whose records stay although their times are years old."""
    return str(broker.new_topic(stem, partitions, {"retention.ms": "-1"}))


def end_offsets_of(broker: Any, topic: str) -> dict[TopicPartition, int]:
    """What a topic holds now."""
    admin = broker.admin()
    try:
        partitions = admin.describe_topics([topic])[0]["partitions"]
        places = [KafkaTopicPartition(topic, part["partition_index"]) for part in partitions]
        found = admin.list_partition_offsets(dict.fromkeys(places, -1))
        return {TopicPartition(place.topic, place.partition): found[place].offset for place in places}
    finally:
        admin.close()


class InThread:
    """A daemon in a thread of this process, over a log in memory or a real broker; stopped at the end of the block."""

    def __init__(
        self, config: Config, log: MemoryLog | None = None, make_source: MakeSource = kafka_source, **parts: Any
    ) -> None:
        self.config, self.url = config, config.store.url
        self.log = log
        migrate.upgrade(self.url)
        if log is not None:
            make_source = lambda config, _: MemorySource(log, config.kafka.poll_records_max)  # noqa: E731
        self.daemon = Daemon(config, make_source, **parts)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="daemon")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.daemon.run()
        except BaseException as error:
            traceback.print_exc()
            self.error = error

    def until(self, true: Callable[[], object], timeout_s: float = HEALED_S) -> float:
        """Wait until something holds, while the daemon lives; gives the seconds that it took."""
        since_s = time.monotonic()
        while not true():
            assert self.error is None, repr(self.error)
            assert time.monotonic() - since_s < timeout_s, f"not so after {timeout_s} s; stored {stored(self.url)}"
            time.sleep(0.02)
        return time.monotonic() - since_s

    def drained(self, ends: Mapping[TopicPartition, int] | None = None) -> bool:
        """Whether all is durable, up to the given offsets or the end of the log in memory."""
        return drained(self.url, ends if ends is not None else ends_of(self.log))

    def stop(self) -> None:
        """As SIGTERM does; the daemon's error, if one ended it, is raised here."""
        self.daemon.flags.stop = True
        self.thread.join(60)
        assert not self.thread.is_alive(), "the daemon does not stop"

    def __enter__(self) -> InThread:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None and self.error is not None:
            raise self.error


def ends_of(log: MemoryLog | None) -> dict[TopicPartition, int]:
    """Ends of a log in memory."""
    assert log is not None
    return {place: log.end(place) for place in log.topic_partitions()}


def stored(url: str) -> dict[TopicPartition, int | None]:
    """The offsets that are durable; empty before there is a store."""
    try:
        found = History(url).progress()
    except Exception:
        return {}
    return {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in found}


def drained(url: str, ends: Mapping[TopicPartition, int]) -> bool:
    """Whether the store has covered these offsets."""
    at = stored(url)
    return all(end == 0 or at.get(place) == end for place, end in ends.items())


def assert_equal(faulted: str, unfaulted: str, leave_out: Sequence[str] = ()) -> None:
    """The oracle O: bit for bit the same rows, states, offsets and outbox ids."""
    tables = [table for table in compare.TABLES if table not in leave_out]
    unlike = compare.difference(compare.dump(faulted, tables), compare.dump(unfaulted, tables))
    assert not unlike, "\n".join(unlike)


def assert_accounted_for(url: str) -> None:
    """Each offset covered was exactly one of accepted, duplicate, late, dead and control."""
    for row in History(url).progress():
        counts = {name: row[name] for name in ("accepted", "duplicate", "late", "dead", "control")}
        assert sum(counts.values()) == (row["next_offset"] or 0), row


def unfaulted(
    folder: Path, log: MemoryLog | None = None, ends: Mapping[TopicPartition, int] | None = None, **how: Any
) -> str:
    """The store of a daemon that met no fault on the same log, topic or config."""
    place = folder / "unfaulted"
    place.mkdir()
    config = parse_config(how.pop("raw", None) or raw_config(place, **how))
    with InThread(config, log) as running:
        running.until(lambda: running.drained(ends))
    return running.url

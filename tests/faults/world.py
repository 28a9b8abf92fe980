"""A radio network whose log grows as a test asks, and the config of the daemons that read it.

Everything follows from the seed: records come in a causal order, with gaps, duplicates, late ones, rubbish, compressed
batches and aborted transactions among them. Times are event times only.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition

from netpredict.config import Config, load_config
from netpredict.ingest.messages import ChannelState, Neighbour, Rsrp, Traffic
from netpredict.store.database import database_of
from netpredict.store.history import History
from netpredict.types import TopicPartition
from tests.integration.daemon_process import toml
from tests.services.kafka_broker import KafkaBroker

START_US = 1_700_000_040_000_000
INGEST_MS = (START_US + 10**13) // 1000
MINUTE_US = 60_000_000
FOREVER_S = 1e9
"""Event times are years old: without it every action would have expired."""
ABORT_EVERY = 5
"""Each fifth ``feed`` begins with a transaction that is aborted: offsets without records."""
COUNTS = ("accepted", "duplicate", "late", "dead", "control")

Row = tuple[str, bytes, bytes]  # stream, key, value


class Network:
    """What the radio network measures, tick after tick (about 45 records each)."""

    def __init__(self, seed: int, cells: int = 12, ues: int = 4) -> None:
        self.tick = 0
        self._rng = random.Random(seed)
        self._cells, self._ues = cells, ues
        self._serving = dict.fromkeys(range(ues), 0)

    def rows(self, ticks: int) -> list[Row]:
        """The records of the next ticks."""
        rows: list[Row] = []
        for _ in range(ticks):
            rows += self._traffic(self.tick)
            for step in range(5 * self.tick, 5 * self.tick + 5):
                rows += self._reports(step)
            for step in range(3 * self.tick, 3 * self.tick + 3):
                rows += self._channel(step)
            self.tick += 1
        return rows

    def _traffic(self, minute: int) -> list[Row]:
        rng, rows = self._rng, []
        for cell in rng.sample(range(self._cells), self._cells):
            luck = rng.random()
            if luck < 0.05 or (cell == 5 and 8 < minute % 50 < 40):
                continue
            prb = min(100.0, max(0.0, 40 + 25 * math.sin(minute / 5 + cell) + rng.gauss(0, 3)))
            rows.append(traffic(f"cell-{cell}", minute, None if 0.93 < luck < 0.96 else round(prb, 2)))
            if luck < 0.10:
                rows.append(rows[-1])
            if luck < 0.08 and minute > 5:
                rows.append(traffic(f"cell-{cell}", minute - 4, round(prb, 2)))
            if luck > 0.98:
                rows.append(("traffic", f"cell-{cell}".encode(), b"{rubbish %d" % minute))
        return rows

    def _reports(self, step: int) -> list[Row]:
        rng, rows = self._rng, []
        for ue in rng.sample(range(self._ues), self._ues):
            place = 3.5 + 3.5 * math.sin(step / 40 + ue)
            level = {cell: round(-70 - 12 * abs(place - cell) + rng.gauss(0, 0.5), 1) for cell in range(8)}
            best = max(level, key=level.__getitem__)
            if level[best] > level[self._serving[ue]] + 9:
                self._serving[ue] = best
            if rng.random() < 0.05:
                continue
            near = [cell for cell in sorted(level, key=level.__getitem__)[-3:] if cell != self._serving[ue]]
            message = Rsrp(
                "netpredict.rsrp/1.2",
                f"cell-{self._serving[ue]}",
                START_US + step * 200_000,
                f"ue-{ue}",
                level[self._serving[ue]],
                neighbours=[Neighbour(f"cell-{cell}", level[cell]) for cell in near],
            )
            rows.append(("rsrp", f"ue-{ue}".encode(), msgspec.json.encode(message)))
        return rows

    def _channel(self, step: int) -> list[Row]:
        rows: list[Row] = []
        for ue in self._rng.sample(range(self._ues), self._ues):
            cqi = min(15, max(0, round(8 + 5 * math.sin(step / 6 + ue) + self._rng.gauss(0, 0.5))))
            message = ChannelState(
                "netpredict.channel-state/1", "cell-0", START_US + step * 1_000_000, f"ue-{ue}", cqi=cqi, rank=2
            )
            rows.append(("channel-state", f"ue-{ue}".encode(), msgspec.json.encode(message)))
        return rows


def traffic(cell: str, minute: float, prb: float | None) -> Row:
    """A record of the stream ``traffic``."""
    event_us = START_US + round(minute * MINUTE_US)
    kbps = None if prb is None else prb * 1234.5
    message = Traffic("netpredict.traffic/1", cell, event_us, prb_use_dl_percent=prb, dl_throughput_kbps=kbps)
    return "traffic", cell.encode(), msgspec.json.encode(message)


class World:
    """Three topics of its own on the broker, what was fed to them, and one store.

    ``config(name)`` writes the config file of one daemon; ``feed(ticks)`` adds to the log; ``drained()`` says whether
    the store has come to its end. ``records`` counts what was fed; ``partitions_of`` is how keys are spread.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        folder: Path,
        url: str,
        seed: int,
        partitions: int = 2,
        change: Callable[[dict[str, Any]], None] = lambda settings: None,
    ) -> None:
        self.broker, self.folder, self.url, self.seed = broker, folder, url, seed
        forever = {"retention.ms": "-1"}
        self.topics = {
            stream: broker.new_topic(f"faults.{stream}", partitions, forever)
            for stream in ("traffic", "rsrp", "channel-state")
        }
        self.partitions_of = dict.fromkeys(self.topics, partitions)
        self.published = {name: broker.new_topic(f"faults.{name}", 1, forever) for name in ("forecasts", "actions")}
        self.webhook = ""
        self.records = 0
        self.network = Network(seed)
        self._change = change
        self._feeds = 0
        self._aborting: KafkaProducer | None = None
        self._connect()

    def _connect(self) -> None:
        shared: dict[str, Any] = {"bootstrap_servers": self.broker.bootstrap, "acks": "all", "linger_ms": 20}
        self._plain = KafkaProducer(**shared)
        self._gzip = KafkaProducer(compression_type="gzip", **shared)

    # -- the log

    def feed(self, ticks: int = 8) -> None:
        """The next ticks of the network, durable on the broker."""
        self._feeds += 1
        if self._feeds % ABORT_EVERY == 2:
            self._abort_some()
        producer = self._gzip if self._feeds % 3 == 0 else self._plain
        self.send(self.network.rows(ticks), producer)

    def send(self, rows: list[Row], producer: Any = None) -> None:
        """These records, each on the partition of its key, in order."""
        producer = producer or self._plain
        sent = [
            producer.send(
                self.topics[stream],
                key=key,
                value=value,
                partition=self.partition_of(stream, key),
                timestamp_ms=INGEST_MS,
            )
            for stream, key, value in rows
        ]
        producer.flush()
        for future in sent:
            future.get(30)
        self.records += len(rows)

    def add_partitions(self, stream: str, count: int) -> None:
        """Let the topic of a stream have so many topic partitions, over which its keys are spread from now on."""
        admin = self.broker.admin()
        admin.create_partitions({self.topics[stream]: count})
        admin.close()
        self.partitions_of[stream] = count
        self.close()
        self._aborting = None
        self._connect()  # a producer learns of new ones after minutes only

    def partition_of(self, stream: str, key: bytes) -> int:
        """Where a key goes."""
        return zlib.crc32(key) % self.partitions_of[stream]

    def _abort_some(self) -> None:
        if self._aborting is None:
            self._aborting = KafkaProducer(
                bootstrap_servers=self.broker.bootstrap, transactional_id=f"faults-{self.topics['traffic']}"
            )
            self._aborting.init_transactions()
        self._aborting.begin_transaction()
        for topic, partition in self.places():
            self._aborting.send(topic, key=b"cell-0", value=b"never", partition=partition, timestamp_ms=INGEST_MS)
        self._aborting.flush()
        self._aborting.abort_transaction()

    def places(self) -> list[TopicPartition]:
        """All topic partitions of the streams."""
        counts = self.partitions_of.items()
        return [TopicPartition(self.topics[stream], number) for stream, count in counts for number in range(count)]

    def ends(self) -> dict[TopicPartition, int]:
        """Where the log ends now."""
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, enable_auto_commit=False)
        try:
            ends = consumer.end_offsets([KafkaTopicPartition(*place) for place in self.places()])
        finally:
            consumer.close()
        return {TopicPartition(place.topic, place.partition): end for place, end in ends.items()}

    def close(self) -> None:
        """Let go of the producers."""
        for producer in (self._plain, self._gzip, self._aborting):
            if producer is not None:
                producer.close(timeout=5)

    # -- the daemons

    def settings(self, name: str, **kafka: Any) -> dict[str, Any]:
        """The config as nested tables; routes are a list of (stream, predictor) under ``_routes``."""
        hook = {"mode": "auto", "cooldown_s": 0.0, "rate_per_min": 1e9, "breaker": {"buckets": 0}, "exclude": "none"}
        hook["effect_s"] = FOREVER_S
        settings: dict[str, Any] = {
            "daemon": {"data_dir": str(self.folder / "data"), "commit_interval_s": 0.05, "drain_s": 20.0},
            "kafka": {
                "bootstrap_servers": [self.broker.bootstrap],
                "group": f"faults-{self.topics['traffic']}",
                "client_id": name,
                "poll_records_max": 150,
                "poll_timeout_s": 0.1,
                "session_timeout_s": 6.0,
                **kafka,
            },
            "store": {"url": self.url, "retention_days": 36500.0, "retry_s": 0.1, "retry_max_s": 1.0},
            "http": {"enabled": False},
            "publish": {
                "enabled": True,
                "forecasts_topic": self.published["forecasts"],
                "actions_topic": self.published["actions"],
            },
            "streams": {
                "traffic": {
                    "topic": self.topics["traffic"],
                    "schema": "traffic",
                    "series_by": ["radio_cell_id"],
                    "period_s": 60.0,
                    "kpis": ["prb_use_dl_percent"],
                    "features": ["dl_throughput_kbps"],
                    "horizon_steps": 4,
                    "warm_steps": 3,
                    "bucket_s": 600.0,
                    "anchor_series_max": 2,
                    "anchor_s": 1200.0,
                    "max_gap_steps": 3,
                    "series_ttl_s": 1200.0,
                },
                "rsrp": {
                    "topic": self.topics["rsrp"],
                    "schema": "rsrp",
                    "series_by": ["ue_id", "radio_cell_id"],
                    "period_s": 0.2,
                    "kpis": ["rsrp_dbm"],
                    "features": ["serving"],
                    "horizon_steps": 3,
                    "warm_steps": 2,
                    "bucket_s": 4.0,
                    "series_ttl_s": 600.0,
                },
                "channel-state": {
                    "topic": self.topics["channel-state"],
                    "schema": "channel-state",
                    "series_by": ["ue_id", "radio_cell_id"],
                    "period_s": 1.0,
                    "kpis": ["cqi"],
                    "features": ["rank"],
                    "horizon_steps": 3,
                    "warm_steps": 2,
                    "bucket_s": 20.0,
                },
            },
            "predictors": {"ewma": {"plugin": "ewma"}, "drift": {"plugin": "drift"}},
            "hooks": {
                "bandwidth": {
                    **hook,
                    "plugin": "bandwidth",
                    "stream": "traffic",
                    "actuators": ["webhook"] if self.webhook else ["log"],
                    "options": {"valid_for_s": FOREVER_S},
                },
                "handover": {
                    **hook,
                    "plugin": "handover",
                    "stream": "rsrp",
                    "options": {"ttt_ms": 160, "cooldown_slots": 0, "valid_for_s": FOREVER_S},
                },
                "mcs": {**hook, "plugin": "mcs", "stream": "channel-state", "options": {"valid_for_s": FOREVER_S}},
            },
            "actuators": {"log": {"plugin": "log"}},
            "_routes": [("traffic", "drift"), ("rsrp", "ewma"), ("channel-state", "drift")],
        }
        if self.webhook:
            settings["actuators"]["webhook"] = {"plugin": "webhook", "options": {"url": self.webhook}}
        self._change(settings)
        return settings

    def config(self, name: str = "one", static: bool = True, **kafka: Any) -> Path:
        """The config file of a daemon. Static members take their place again at once after a kill."""
        if static:
            kafka["group_instance_id"] = name
        return write_config(self.folder / f"{name}.toml", self.settings(name, **kafka))

    def parsed(self) -> Config:
        """The config as the daemon reads it."""
        return load_config(self.config("oracle", static=False))

    # -- the store

    def progress(self) -> dict[TopicPartition, Mapping[str, Any]]:
        """What the store knows of each topic partition; empty while there is no schema."""
        try:
            rows = History(self.url).progress()
        except Exception:  # the first daemon has not made the store yet
            return {}
        return {TopicPartition(row["topic"], row["partition"]): row for row in rows}

    def covered(self) -> int:
        """Offsets that are durable."""
        return sum(row["next_offset"] or 0 for row in self.progress().values())

    def unpublished(self) -> int:
        """Commits that are noted as to be published."""
        with database_of(self.url).reader() as connection:
            return int(connection.execute("SELECT count(*) FROM publication").fetchone()[0])

    def drained(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether the store has come to these offsets."""
        return not self.behind(ends)

    def behind(self, ends: Mapping[TopicPartition, int]) -> dict[str, tuple[Any, int]]:
        """Where the store is not at these offsets yet: (what it has come to, the end)."""
        progress = self.progress()
        reached = {place: (progress.get(place) or {}).get("next_offset") for place in ends}
        return {str(place): (reached[place], end) for place, end in ends.items() if end and reached[place] != end}

    def assert_accounted_for(self, ends: Mapping[TopicPartition, int]) -> None:
        """Every offset is exactly one of accepted, duplicate, late, dead, control; none is a gap."""
        progress = self.progress()
        for place, end in ends.items():
            if end:
                counts = {name: progress[place][name] for name in COUNTS}
                assert sum(counts.values()) == end == progress[place]["next_offset"], (place, end, counts)
        assert not History(self.url).gaps()


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    """Settings as a TOML file."""
    text = toml({key: value for key, value in settings.items() if key != "_routes"})
    for stream, predictor in settings["_routes"]:
        text += f'[[streams.{stream}.routes]]\nactive = "{predictor}"\n'
    path.write_text(text)
    return path

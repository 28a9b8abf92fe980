"""A small radio network in a log, and runs of the pipeline over it: any poll size, any death, any store."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from netpredict.build import build_streams
from netpredict.config import parse_config
from netpredict.ingest.messages import ChannelState, Neighbour, Rsrp, Traffic
from netpredict.ingest.source import MemoryLog
from netpredict.pipeline import Pipeline
from netpredict.stream import Stream
from netpredict.testing import LeakyMean, StaticShelf
from netpredict.types import PolledPartition, TopicPartition

START_US = 1_700_000_040_000_000
INGEST_MS = (START_US + 10**13) // 1000
MINUTE_US = 60_000_000

CONFIG: dict[str, Any] = {
    "streams": {
        "traffic": {
            "topic": "ran.traffic",
            "schema": "traffic",
            "series_by": ["radio_cell_id"],
            "period_s": 60.0,
            "phase_s": 20.0,
            "kpis": ["prb_use_dl_percent", "dl_throughput_kbps"],
            "features": ["connected_ues"],
            "horizon_steps": 4,
            "warm_steps": 3,
            "bucket_s": 600.0,
            "anchor_series_max": 2,
            "anchor_s": 1200.0,
            "max_gap_steps": 3,
            "series_ttl_s": 1200.0,
            "routes": [{"active": "leaky"}],
        },
        "rsrp": {
            "topic": "ran.rsrp",
            "schema": "rsrp",
            "series_by": ["ue_id", "radio_cell_id"],
            "period_s": 0.2,
            "kpis": ["rsrp_dbm"],
            "features": ["serving"],
            "horizon_steps": 3,
            "warm_steps": 2,
            "bucket_s": 4.0,
            "series_ttl_s": 600.0,
            "routes": [{"active": "leaky"}],
        },
        "channel-state": {
            "topic": "ran.channel",
            "schema": "channel-state",
            "series_by": ["ue_id", "radio_cell_id"],
            "period_s": 1.0,
            "kpis": ["cqi"],
            "features": ["rank"],
            "horizon_steps": 3,
            "warm_steps": 2,
            "bucket_s": 20.0,
            "routes": [{"active": "leaky"}],
        },
    },
    "predictors": {name: {"plugin": "naive"} for name in ("leaky", "other")},
    "hooks": {
        "bandwidth": {"plugin": "bandwidth", "stream": "traffic", "mode": "auto"},
        "handover": {"plugin": "handover", "stream": "rsrp", "options": {"ttt_ms": 160, "cooldown_slots": 0}},
        "mcs": {"plugin": "mcs", "stream": "channel-state"},
    },
    "actuators": {"log": {"plugin": "log"}},
}


def new_log(partitions: int = 2) -> MemoryLog:
    return MemoryLog({stream["topic"]: partitions for stream in CONFIG["streams"].values()})


def traffic(cell: str, minute: float, prb: float | None, **rest: Any) -> tuple[bytes, bytes]:
    event_us = START_US + round(minute * MINUTE_US)
    message = Traffic("netpredict.traffic/1", cell, event_us, prb_use_dl_percent=prb, **rest)
    return cell.encode(), msgspec.json.encode(message)


def traffic_rows(seed: int = 1, cells: int = 7, minutes: int = 70) -> list[tuple[bytes, bytes]]:
    """Gaps, silence, duplicates, late rows, rubbish, missing and suspect values, in a random causal order."""
    rng, rows = random.Random(seed), []
    for minute in range(minutes):
        for cell in rng.sample(range(cells), cells):
            luck = rng.random()
            if luck < 0.05 or (cell == 5 and 8 < minute < 40) or (cell == 6 and 20 < minute < 26):
                continue
            prb = min(100.0, max(0.0, 40 + 25 * math.sin(minute / 5 + cell) + rng.gauss(0, 3)))
            kbps = None if cell == 4 or luck > 0.9 else prb * 1234.5
            rest = {"dl_throughput_kbps": kbps, "connected_ues": float(cell), "suspect": luck > 0.985}
            rows.append(traffic(f"cell-{cell}", minute, None if 0.93 < luck < 0.96 else round(prb, 2), **rest))
            if luck < 0.10:
                rows.append(rows[-1])
            if luck < 0.08 and minute > 5:
                rows.append(traffic(f"cell-{cell}", minute - 4, prb))
            if luck > 0.98:
                rows.append((b"cell-1", b"{rubbish"))
            if luck > 0.99:
                rows.append(traffic("bad|name", minute + 0.4, prb))
    return rows


def report_rows(seed: int = 1, ues: int = 3, steps: int = 120) -> list[tuple[bytes, bytes]]:
    """UEs that walk from cell to cell and hand over too late, reports of changing sets, two reports in some slots."""
    rng, rows = random.Random(seed), []
    serving = dict.fromkeys(range(ues), 0)
    for step in range(steps):
        for ue in rng.sample(range(ues), ues):
            place = step / 20 + ue / 3
            level = {cell: round(-70 - 12 * abs(place - cell) + rng.gauss(0, 0.5), 1) for cell in range(8)}
            best = max(level, key=level.__getitem__)
            if level[best] > level[serving[ue]] + 9:
                serving[ue] = best
            near = [cell for cell in sorted(level, key=level.__getitem__)[-3:] if cell != serving[ue]]
            if rng.random() < 0.05:
                continue
            for extra in range(1 + (rng.random() < 0.1)):
                message = Rsrp(
                    "netpredict.rsrp/1.2",
                    f"cell-{serving[ue]}",
                    START_US + step * 200_000 + extra * 40_000,
                    f"ue-{ue}",
                    level[serving[ue]],
                    neighbours=[Neighbour(f"cell-{cell}", level[cell]) for cell in near[extra:]],
                )
                rows.append((f"ue-{ue}".encode(), msgspec.json.encode(message)))
    return rows


def channel_rows(seed: int = 1, ues: int = 4, steps: int = 70) -> list[tuple[bytes, bytes]]:
    rng, rows = random.Random(seed), []
    for step in range(steps):
        for ue in rng.sample(range(ues), ues):
            cqi = min(15, max(0, round(8 + 5 * math.sin(step / 6 + ue) + rng.gauss(0, 0.5))))
            if rng.random() > 0.05:
                message = ChannelState(
                    "netpredict.channel-state/1", "cell-0", START_US + step * 1_000_000, f"ue-{ue}", cqi=cqi, rank=2
                )
                rows.append((f"ue-{ue}".encode(), msgspec.json.encode(message)))
    return rows


def filled(topics: Mapping[str, Sequence[tuple[bytes, bytes]]], partitions: int = 2) -> MemoryLog:
    log = new_log(partitions)
    for topic, rows in topics.items():
        for key, value in rows:
            log.append(topic, key, value, INGEST_MS)
    return log


def static_shelf(streams: Sequence[Stream], names: Sequence[str] = ("leaky", "other")) -> StaticShelf:
    shelf = StaticShelf()
    for stream in streams:
        for number, name in enumerate(names):
            shelf.put(
                stream.name,
                name,
                "v1",
                lambda stream=stream, number=number: LeakyMean(stream.features, stream.output, 0.7 + 0.1 * number),
            )
    return shelf


@dataclass
class World:
    """Runs over one log. ``shelf(streams, store)``; ``activations`` {offset: (stream, predictor, version)}.

    ``challenges`` are like activations, with None where a trial ends; ``asks`` {place in the log: (kind, payload)} are
    asked of the store when a run first comes there.
    """

    log: MemoryLog
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)
    shelf: Callable[[Sequence[Stream], Any], Any] = lambda streams, _: static_shelf(streams)
    activations: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    challenges: Mapping[int, tuple[str, str, str | None]] = field(default_factory=dict)
    asks: dict[tuple[TopicPartition, int], tuple[str, Any]] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)  # durable ones, by the last run

    def build(self, store: Any) -> Pipeline:
        streams = build_streams(parse_config(self.config))
        shelf = self.shelf(streams, store)
        for offset, (stream, name, version) in self.activations.items():
            if offset <= max(self.offsets.values(), default=-1):
                shelf._active[stream, name] = version
        for offset, (stream, name, challenger) in sorted(self.challenges.items()):
            if offset <= max(self.offsets.values(), default=-1):
                shelf._challengers[stream, name] = challenger
        return Pipeline("test", streams, store, shelf)

    def run(self, store: Any, poll: int, commit_every: int = 3, stop_after: int | None = None) -> Pipeline:
        """From the stored offsets to the end, or to a death after so many polls."""
        pipeline = self.build(store)
        topics = pipeline.streams
        for topic_partition in self.log.topic_partitions():
            if topic_partition.topic in topics:
                lane, offset = pipeline.assign(topic_partition)
                pipeline.started(lane, max(offset or 0, self.log.first(topic_partition)))
        polls = 0
        while polled := self._polled(pipeline, poll, store):
            pipeline.step(polled)
            polls += 1
            if polls % commit_every == 0:
                self._commit(pipeline, store)
            if polls == stop_after:
                return pipeline
        self._commit(pipeline, store)
        return pipeline

    def _polled(self, pipeline: Pipeline, poll: int, store: Any = None) -> list[PolledPartition]:
        polled = []
        for topic_partition, lane in pipeline.lanes.items():
            position, ahead = lane.next_offset, poll
            if position in self.activations:
                pipeline.activate(*self.activations[position])
            if position in self.challenges:
                pipeline.challenge(*self.challenges[position])
            if asked := self.asks.pop((topic_partition, position), None):
                store.request(lane.lane_id, *asked)
                pipeline.take_requests()
            asks = (at for place, at in self.asks if place == topic_partition)
            for offset in (*self.activations, *self.challenges, *asks):
                if position < offset:
                    ahead = min(ahead, offset - position)
            records = self.log.read(topic_partition, position, ahead)
            if records:
                polled.append(PolledPartition(topic_partition, records, records[-1].offset + 1))
        return polled

    def _commit(self, pipeline: Pipeline, store: Any) -> None:
        if commit := pipeline.take_commit():
            assert store.commit(commit) == set()
            self.offsets |= {lane.topic_partition: lane.new_offset for lane in commit.lanes}

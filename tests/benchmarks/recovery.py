"""Fill a store with many series, and start a daemon on it: two processes of ``test_recovery``. Not collected by pytest.

python -m tests.benchmarks.recovery fill|start URL FOLDER SERIES PARTITIONS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import msgspec

from netpredict.config import Config
from netpredict.ingest.messages import Traffic
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.store.history import History
from netpredict.types import TopicPartition
from tests.benchmarks.test_main_job import START_US, Watched, config_of, prepare_small

TOPIC = "cells"
ROUNDS = 2
AHEAD = 100_000
"""Records that the log holds before they are durable."""


def record(series: int, slot: int) -> tuple[bytes, bytes, int]:
    """(key, value, Kafka's time in ms) of one report of a radio cell."""
    name = f"cell-{series:07d}"
    time_us = START_US + slot * 60_000_000
    use = 20.0 + series % 50
    value = msgspec.json.encode(
        Traffic("netpredict.traffic/1", name, time_us, prb_use_dl_percent=use, connected_ues=12.0)
    )
    return name.encode(), value, time_us // 1000


class Filling(Watched):
    """Appends to its own log, and forgets what is durable."""

    log: MemoryLog
    series = 0
    fed = 0

    def _settle(self) -> None:
        super()._settle()
        places = self.log.topic_partitions()
        until = min(self.tally.records + AHEAD, ROUNDS * self.series)
        for number in range(self.fed, until):
            slot, series = divmod(number, self.series)
            self.log.append_to(places[series % len(places)], *record(series, slot))
        self.fed = max(self.fed, until)
        for place in places:
            if place in self.pipeline.lanes:
                self.log.trim(place, self.pipeline.lanes[place].next_offset)


def fill(config: Config, folder: Path, series: int, partitions: int) -> dict[str, float]:
    """Every series twice through the daemon itself."""
    prepare_small(config, folder)
    log = MemoryLog({TOPIC: partitions})
    daemon = Filling(config, lambda *_: MemorySource(log, 5000))
    daemon.log, daemon.series = log, series
    log.append_to(TopicPartition(TOPIC, 0), *record(0, 0))
    daemon.fed = 1
    return {"fill_s": daemon.until(ROUNDS * series, timeout_s=900.0)}


def start(config: Config, folder: Path, series: int, partitions: int) -> dict[str, float]:
    """From nothing to the first forecast of one record a topic partition, and to its commit."""
    import tensorflow  # noqa: F401

    imported_s = time.perf_counter()
    log = MemoryLog({TOPIC: partitions})
    for row in History(config.store.url).progress():
        log._first[TopicPartition(row["topic"], row["partition"])] = row["next_offset"]
    for number, place in enumerate(log.topic_partitions()):
        log.append_to(place, *record(number, ROUNDS))
    daemon = Watched(config, lambda *_: MemorySource(log, 5000))
    daemon.until(partitions, timeout_s=300.0)
    alive = sum(len(stream.table) for stream in daemon.streams.values())
    assert alive == series, f"{alive} of {series} series are alive again"
    return {
        "start_to_first_forecast_s": round(daemon.first_s - imported_s, 2),
        "start_to_first_commit_s": round(daemon.last_s - imported_s, 2),
    }


if __name__ == "__main__":
    verb, url, folder, series, partitions = sys.argv[1:]
    config = config_of("unused:1", TOPIC, url, Path(folder), "recovery", extra=False)
    done = {"fill": fill, "start": start}[verb](config, Path(folder), int(series), int(partitions))
    print(json.dumps(done))

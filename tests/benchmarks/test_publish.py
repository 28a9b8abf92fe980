"""How many forecasts a second the publisher brings into Kafka: offered by commits, and read back from the store.

Sizes by environment: BENCH_CELLS, BENCH_SLOTS.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from netpredict.clock import SystemClock
from netpredict.config import PublishConfig, RouteConfig, StreamConfig
from netpredict.operate.outlet import ForecastPublisher
from netpredict.operate.publisher import FastSink, KafkaSink
from netpredict.operate.writer import Written
from netpredict.store import migrate
from netpredict.store.commit import SERIES_PER_LANE, Commit, ForecastLayout, ForecastRows, LaneCommit, LaneSnapshot
from netpredict.store.publication import SqlPublications
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.services.kafka_broker import KafkaBroker

CELLS = int(os.environ.get("BENCH_CELLS", "20000"))
SLOTS = int(os.environ.get("BENCH_SLOTS", "10"))
PLACE = TopicPartition("cells", 0)
PERIOD_US = 60_000_000
LAYOUT = ForecastLayout("traffic", ("prb_use_dl_percent",), (1,), (0.1, 0.5, 0.9), 12, PERIOD_US)


def commit_of(lane: LaneSnapshot, model_id: int, slot: int) -> Commit:
    ids = lane.lane_id * SERIES_PER_LANE + np.arange(CELLS, dtype=np.int64)
    ticks = np.random.default_rng(slot).integers(0, 1000, (CELLS, 36)).astype(np.int32)
    times = np.full(CELLS, slot * PERIOD_US, np.int64)
    quiet = np.zeros((CELLS, 1), np.uint8)
    rows = ForecastRows(model_id, LAYOUT, times, ids, quiet, quiet[:, 0], ticks, ticks[:, :1].copy())
    share = LaneCommit(lane.lane_id, PLACE, lane.epoch, slot * CELLS, (slot + 1) * CELLS, {"accepted": CELLS}, "{}")
    share.forecasts = [rows]
    if slot == 0:
        share.new_series = [(series_id, f"cell-{number:05d}", 0, True) for number, series_id in enumerate(ids.tolist())]
    return Commit([share])


def settled(publications: SqlPublications) -> None:
    while publications.count():
        time.sleep(0.02)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make_sink", [FastSink, KafkaSink])
def test_forecasts_a_second(broker: KafkaBroker, tmp_path: Path, make_sink: type[FastSink] | type[KafkaSink]) -> None:
    config = PublishConfig(enabled=True, forecasts_topic=broker.new_topic("forecasts", partitions=4))
    stream = StreamConfig(
        topic="cells",
        schema="traffic",
        series_by=["radio_cell_id"],
        period_s=60.0,
        kpis=["prb_use_dl_percent"],
        routes=[RouteConfig(active="gru")],
    )
    url = f"sqlite:///{tmp_path}/store.db"
    migrate.upgrade(url)
    with SqlStore(url, publishing=True) as store:
        lane = store.assign("group", PLACE, "traffic", "id", "bench")
        model_id = store.register_model("traffic", "gru", "v1", "gru", "", {}, "active")
        publications = SqlPublications(store, "group")
        commits = [commit_of(lane, model_id, slot) for slot in range(SLOTS)]
        for commit in commits:
            store.commit(commit)
        rates = {}
        for way in ("read back", "offered"):
            publisher = ForecastPublisher(
                config,
                "group",
                {"traffic": stream},
                publications,
                lambda: make_sink(broker.bootstrap, in_flight_bytes_max=config.outstanding_bytes_max),
                SystemClock(),
            )
            publisher._behind = way == "read back"
            if way == "offered":
                with store.database.transaction() as connection:
                    connection.execute(
                        "INSERT INTO publication VALUES (:lane_id, :offset, 0, 0)",
                        {"lane_id": lane.lane_id, "offset": SLOTS * CELLS},
                    )
                for commit in commits:
                    publisher.offer(Written(commit, frozenset(), 0.0))
            started_s, cpu_s = time.perf_counter(), time.process_time()
            publisher.start()
            settled(publications)
            seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
            publisher.stop(10)
            count = publisher.stats["forecasts"]
            assert count == SLOTS * CELLS
            rates[way] = count / seconds
            print(
                f"\n{make_sink.__name__}, {way}: {count / seconds:,.0f} forecasts/s,"
                f" {cpu_s / count * 1e6:.1f} us of CPU each"
            )

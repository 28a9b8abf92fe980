"""How long commits, pruning and assignment take beside a busy thread. Not collected by pytest.

python tests/benchmarks/store_commit.py FOLDER-OR-URL [--old-rows 5000000] [--series 50000] [--quiet]
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from netpredict.store import migrate
from netpredict.store.commit import (
    SERIES_PER_LANE,
    Commit,
    ForecastLayout,
    ForecastRows,
    LaneCommit,
    LaneSnapshot,
    StateRows,
)
from netpredict.store.database import database_of
from netpredict.store.encode import ticks_texts
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition

PERIOD_US = 10_000_000
LAYOUT = ForecastLayout("traffic", ("dl",), (1,), (0.1, 0.5, 0.9), 12, PERIOD_US)
PLACE = TopicPartition("cells", 0)


def prefill(url: str, rows: int, *, series: int = 100_000, width: int = 36, before_us: int = 0) -> None:
    """Put ``rows`` old forecasts before ``before_us`` into the store, ``series`` a slot. The daemon must be stopped."""
    database = database_of(url)
    database.start()
    into = "forecast(slot_time_us, series_id, model_id, layout_id, sources, quality, ticks, observed)"
    ticks = np.random.default_rng(1).integers(-1400, -400, (series, width)).astype(np.int32)
    texts = ticks_texts(ticks)
    slots = -(-rows // series)
    for slot in range(slots):
        count = min(series, rows - slot * series)
        slot_time_us = before_us - (slots - slot) * PERIOD_US
        columns = (
            [slot_time_us] * count,
            range(count),
            [0] * count,
            [0] * count,
            ["m"] * count,
            [0] * count,
            texts[:count],
            ["[-900]"] * count,
        )
        with database.transaction() as connection:
            connection.insert_rows(into, columns)
    database.close()


def commit_of(lane: LaneSnapshot, model_id: int, slot: int, rows: int, states: int) -> Commit:
    random = np.random.default_rng(slot)
    ids = lane.lane_id * SERIES_PER_LANE + np.arange(rows, dtype=np.int64)
    ticks = random.integers(-1400, -400, (rows, 36)).astype(np.int32)
    forecast = ForecastRows(
        model_id,
        LAYOUT,
        np.full(rows, slot * PERIOD_US, dtype=np.int64),
        random.permutation(ids),
        np.zeros((rows, 1), np.uint8),
        np.zeros(rows, np.uint8),
        ticks,
        ticks[:, :1].copy(),
    )
    blob = random.integers(0, 255, (states, 200), dtype=np.uint8)
    state = StateRows("{}", ids[:states], np.full(states, slot, dtype=np.int64), blob)
    share = LaneCommit(lane.lane_id, PLACE, lane.epoch, slot * rows, (slot + 1) * rows, {"accepted": rows}, "{}")
    share.forecasts, share.series_states = [forecast], [state]
    if slot == 0:
        share.new_series = [(int(series_id), f"cell-{series_id}", 0, True) for series_id in ids]
    return Commit([share])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("where")
    parser.add_argument("--old-rows", type=int, default=5_000_000)
    parser.add_argument("--series", type=int, default=50_000)
    parser.add_argument("--states", type=int, default=20_000)
    parser.add_argument("--commits", type=int, default=8)
    parser.add_argument("--switch-s", type=float, default=0.005, help="sys.setswitchinterval")
    parser.add_argument("--quiet", action="store_true", help="no busy thread")
    options = parser.parse_args()
    sys.setswitchinterval(options.switch_s)
    url = options.where if "://" in options.where else f"sqlite:///{options.where}/bench.db"
    fresh = migrate.current(url) is None
    migrate.upgrade(url)
    if fresh and options.old_rows:
        prefill(url, options.old_rows)
    stop = False

    def spin() -> None:
        number = 0
        while not stop:
            number += 1

    with SqlStore(url) as store:
        started_s = time.perf_counter()
        lane = store.assign("group", PLACE, "traffic", "", "bench")
        print(f"assign {len(lane.series)} series: {time.perf_counter() - started_s:.2f} s")
        model_id = store.register_model("traffic", "gru", "v1", "gru", "", {}, "active")
        first = (lane.next_offset or 0) // options.series
        commits = [
            commit_of(lane, model_id, first + number, options.series, options.states)
            for number in range(options.commits)
        ]
        thread = threading.Thread(target=spin, daemon=True)
        if not options.quiet:
            thread.start()
        for commit in commits:
            started_s = time.perf_counter()
            store.commit(commit)
            committed_s = time.perf_counter()
            pruned = store.prune(0, 50_000)
            pruned_s = time.perf_counter()
            each_us = (committed_s - started_s) / options.series * 1e6
            print(
                f"commit {committed_s - started_s:.3f} s = {each_us:.2f} us/row;"
                f" prune {pruned} in {pruned_s - committed_s:.3f} s"
            )
        stop = True
        started_s = time.perf_counter()
        pending = store.pending_forecasts(lane.lane_id, model_id, LAYOUT)
        print(f"pending {len(pending.slot)} forecasts: {time.perf_counter() - started_s:.2f} s")


if __name__ == "__main__":
    main()

"""A grid stream through the pipeline: one message a frame, one series, a column for each KPI and place."""

import random
import sqlite3
from itertools import chain

import msgspec
import numpy as np
import pytest

from netpredict.build import build_predictor, build_streams
from netpredict.config import parse_config
from netpredict.ingest.messages import Grid
from netpredict.ingest.source import MemoryLog
from netpredict.learn.shelf import StoreShelf
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.testing import MemoryStore, StaticShelf, check_predictor
from netpredict.types import Quality, Source, place_columns
from netpredict_plugins.predictors.conv_lstm import PLUGIN
from tests.pipeline_world import INGEST_MS, START_US, World

MINUTE_US = 60_000_000
ROWS, COLUMNS = 2, 3
EMPTY = (1, 2)
CONFIG = {
    "streams": {
        "city": {
            "topic": "ran.grid",
            "schema": "grid",
            "series_by": ["grid_id"],
            "period_s": 60.0,
            "phase_s": 20.0,
            "kpis": ["activity_count", "connected_ues"],
            "features": ["prb_use_dl_percent"],
            "grid": {"rows": ROWS, "columns": COLUMNS},
            "horizon_steps": 3,
            "warm_steps": 2,
            "bucket_s": 600.0,
            "max_gap_steps": 2,
            "series_ttl_s": 3600.0,
            "routes": [{"active": "leaky"}],
        }
    },
    "predictors": {"leaky": {"plugin": "naive"}},
}
PLACES = place_columns(["activity_count", "connected_ues"], ROWS, COLUMNS)


def plane(rng, low, high, rows=ROWS, columns=COLUMNS):
    """Numbers with holes; at one place there is no radio cell."""
    return [
        [None if (r, c) == EMPTY or rng.random() < 0.05 else float(rng.randint(low, high)) for c in range(columns)]
        for r in range(rows)
    ]


def frame(minute, grid_id="milan", **planes):
    message = Grid("netpredict.grid/1", grid_id, START_US + round(minute * MINUTE_US), **planes)
    return grid_id.encode(), msgspec.json.encode(message)


def frames(seed=1, minutes=60):
    """Two grids, gaps, a frame of another shape, duplicates, late and implausible values."""
    rng, rows = random.Random(seed), []
    for minute in range(minutes):
        for grid_id in ("milan", "turin"):
            luck = rng.random()
            if luck < 0.06:
                continue
            planes = {"activity_count": plane(rng, 0, 40), "connected_ues": plane(rng, 5, 9)}
            if luck > 0.2:
                planes["prb_use_dl_percent"] = plane(rng, 0, 120)
            rows.append(frame(minute, grid_id, **planes))
            if luck < 0.12:
                rows.append(rows[-1])
            if luck > 0.95:
                rows.append(frame(minute, grid_id, activity_count=plane(rng, 0, 9, 3, 2)))
            if luck > 0.9 and minute > 5:
                rows.append(frame(minute - 4, grid_id, **planes))
    return rows


def world(rows, partitions=1):
    log = MemoryLog({"ran.grid": partitions})
    for key, value in rows:
        log.append("ran.grid", key, value, INGEST_MS)
    return World(log, CONFIG)


def dumped(rows, poll, **how):
    store = MemoryStore()
    world(rows).run(store, poll, **how)
    return store


def test_the_size_of_polls_and_the_moment_of_commits_change_nothing():
    rows = frames()
    whole = dumped(rows, 1000).dump()
    assert len(whole["forecasts"]) > 90
    assert dumped(rows, 1, commit_every=1).dump() == whole
    assert dumped(rows, 7).dump() == whole


def test_a_death_between_two_commits_changes_nothing():
    rows, store = frames(), MemoryStore()
    cut = world(rows)
    cut.run(store, 5, stop_after=8)
    cut.run(store, 9)
    assert store.dump() == dumped(rows, 1000).dump()


def test_a_frame_of_another_shape_is_a_dead_letter_that_names_both_shapes():
    rng = random.Random(2)
    good = [frame(minute, activity_count=plane(rng, 0, 40)) for minute in range(4)]
    store = dumped([*good[:2], frame(2, activity_count=plane(rng, 0, 40, 3, 4)), *good[2:]], 10)
    (letter,) = store.dead_letters.values()
    assert (letter.reason, letter.offset) == ("shape", 2)
    assert letter.detail == "activity_count is 3 x 4, expected 2 x 3 as in the key grid of the stream"
    assert len(store.forecasts) == 4


def forecast(rows):
    """Quality (n,) and sources (n, places) of the forecasts of some frames, in their order."""
    built = world(rows)
    pipeline = built.build(MemoryStore())
    (topic_partition,) = built.log.topic_partitions()
    lane, _ = pipeline.assign(topic_partition)
    pipeline.started(lane, 0)
    pipeline.step(built._polled(pipeline, 100))
    parts = pipeline.take_commit().lanes[0].forecasts
    return np.concatenate([part.quality for part in parts]), np.concatenate([part.sources for part in parts])


FULL = {"activity_count": [[5.0, 6.0, 7.0], [8.0, 9.0, None]], "connected_ues": [[1.0, 2.0, 3.0], [4.0, 5.0, None]]}


def test_a_place_without_a_radio_cell_casts_no_doubt_on_the_others():
    quality, sources = forecast([frame(minute, **FULL) for minute in range(5)])
    nowhere = np.array([column.endswith("[1,2]") for column in PLACES])
    assert quality.tolist() == [Quality.WARMING, *[Quality.GOOD] * 4]
    assert (sources[:, nowhere] == Source.NONE).all()
    assert (sources[1:, ~nowhere] == Source.MODEL).all()


def test_a_place_that_falls_silent_is_told_by_the_quality():
    silent = FULL | {"activity_count": [[5.0, None, 7.0], [8.0, 9.0, None]]}
    quality, _ = forecast([frame(minute, **(silent if minute == 3 else FULL)) for minute in range(5)])
    assert quality.tolist()[2:] == [Quality.GOOD, Quality.INPUT_MISSING, Quality.GOOD]


def test_the_places_of_a_kpi_are_scored_together():
    values = {"activity_count": [[5.0] * 3] * 2, "connected_ues": [[6.0] * 3] * 2}
    store = dumped([frame(minute, **values) for minute in range(6)], 10)
    rows = [row for row in store.scores.values() if row.lead_steps == 1 and row.source == Source.MODEL]
    assert {row.kpi for row in rows} == {"activity_count", "connected_ues"}
    assert {row.n for row in rows} == {ROWS * COLUMNS * 4}  # the first two frames come before warm_steps


def test_the_store_gives_the_forecasts_of_a_place_back(tmp_path):
    url = f"sqlite:///{tmp_path}/grid.db"
    migrate.upgrade(url)
    rows = frames(minutes=30)
    with SqlStore(url) as store:
        naive = World(world(rows).log, CONFIG, lambda streams, store: StoreShelf(parse_config(CONFIG), store, streams))
        naive.run(store, 20)
    newest, *_ = History(url).forecasts("city", "milan", limit=1)
    assert set(newest["values"]) == set(PLACES)
    assert newest["sources"]["activity_count[1,2]"] == "none"
    with sqlite3.connect(tmp_path / "grid.db") as connection:
        found = connection.execute(
            "SELECT p.lead_steps, p.level, p.value FROM forecast_point AS p WHERE p.kpi = 'connected_ues[0,1]'"
            " AND p.series = 'milan' AND p.slot_time_us = ? ORDER BY 1, 2",
            (newest["slot_time_us"],),
        ).fetchall()
    assert [value for _, _, value in found] == [*chain.from_iterable(newest["values"]["connected_ues[0,1]"])]
    skill = History(url).skill("city")
    assert {row["kpi"] for row in skill} == {"activity_count", "connected_ues"}


@pytest.mark.parametrize("plugin", ["naive", "seasonal_naive"])
def test_other_predictors_take_a_grid_as_a_series_of_many_kpis(plugin):
    config = msgspec.json.decode(msgspec.json.encode(CONFIG))
    config["predictors"]["leaky"]["plugin"] = plugin
    config["streams"]["city"] |= {"season_s": 600.0, "season_buckets": 10}
    stream, *_ = build_streams(parse_config(config))
    check_predictor(build_predictor("leaky", parse_config(config), stream.features, stream.output), stream.features)


def conv_lstm(stream):
    """With weights that are not those of a fresh network, whose head answers the last value whatever comes."""
    made = PLUGIN.build(msgspec.convert({"units": 4}, PLUGIN.options), stream.features, stream.output)
    rng = np.random.default_rng(5)
    weights = {name: np.array(array) for name, array in made.weights().items()}
    weights["head.kernel"] = rng.normal(0, 0.3, weights["head.kernel"].shape).astype(np.float32)
    made.load_weights(weights)
    return made


def test_conv_lstm_serves_frames_from_its_carried_state_however_the_log_is_cut():
    def shelf(streams, _):
        (stream,) = streams
        static = StaticShelf()
        static.put("city", "leaky", "v1", lambda: conv_lstm(stream))
        return static

    rows, dumps = frames(minutes=40), []
    for how in ({"poll": 1000}, {"poll": 3, "commit_every": 1}, {"poll": 7}):
        store = MemoryStore()
        World(world(rows).log, CONFIG, shelf).run(store, **how)
        dumps.append(store.dump())
    assert dumps[1] == dumps[0]
    assert dumps[2] == dumps[0]
    sources = np.array([np.frombuffer(row[2], np.uint8) for row in dumps[0]["forecasts"].values()])
    assert (sources[-1] == Source.MODEL).sum() >= len(PLACES) - 2

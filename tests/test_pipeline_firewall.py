"""The firewall inside the pipeline: what a series shows over time is judged alike, however the log was cut."""

import copy
import random

import msgspec
import numpy as np
import pytest

from netpredict.config import parse_config
from netpredict.ingest.messages import Rsrp
from netpredict.learn.shelf import StoreShelf
from netpredict.learn.verify import verify_all
from netpredict.store import migrate
from netpredict.store.compare import difference, dump
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.testing import MemoryStore
from netpredict.types import Quality, TopicPartition
from tests.pipeline_world import CONFIG, START_US, World, channel_rows, filled, report_rows, traffic, traffic_rows

MINUTES = 60


def report(step, rsrp_dbm, ue="ue-9", cell="cell-9"):
    message = Rsrp("netpredict.rsrp/1", cell, START_US + step * 200_000, ue, rsrp_dbm)
    return ue.encode(), msgspec.json.encode(message)


def bad_traffic():
    """Radio cells that freeze, run on and repeat themselves, and hold still and fall again."""
    rng = random.Random(5)
    rows = []
    for minute in range(MINUTES):
        rows.append(traffic("frozen", minute, 37.5 if 5 < minute < 40 else rng.uniform(10, 90)))
        rows.append(traffic("running", minute, minute * 1.5 + 1, dl_throughput_kbps=rng.uniform(1, 9e4)))
        copied = float(rng.randint(10, 90))
        rows.append(traffic("copied", minute, copied, dl_throughput_kbps=copied if 10 < minute < 30 else 5.0 * minute))
        rows.append(traffic("percent", minute, 354196.0 if minute % 3 else 50.0 + minute / 7, dl_throughput_kbps=None))
    return rows


def mixed_reports():
    """One UE of two producers: dBm from the one, now and then a code from the other."""
    return [report(step, 66.0 if step in (20, 25, 70) else -90.0 - step % 3) for step in range(120)]


def merged(*parts, seed=2):
    rng, queues = random.Random(seed), [list(part) for part in parts]
    order = [number for number, part in enumerate(parts) for _ in part]
    rng.shuffle(order)
    return [queues[number].pop(0) for number in order]


def config(**checks):
    made = copy.deepcopy(CONFIG)
    made["streams"]["traffic"]["checks"] = {"running_s": 2400.0, **checks}
    return made


ALL = {
    "ran.traffic": merged(traffic_rows(), bad_traffic()),
    "ran.rsrp": merged(report_rows(), mixed_reports()),
    "ran.channel": channel_rows(),
}


def sql(path, world, poll, stops=(), **how):
    url = f"sqlite:///{path}"
    migrate.upgrade(url)
    world.offsets = {}
    world.shelf = lambda streams, store: StoreShelf(parse_config(world.config), store, streams)
    for stop in (*stops, None):
        with SqlStore(url) as store:
            pipeline = world.run(store, poll, stop_after=stop, **how)
    return pipeline, dump(url)


def found_by(pipeline, stream):
    made = next(made for made in pipeline.streams.values() if made.name == stream)
    return made.firewall.found + made.watch.found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return sql(tmp_path_factory.mktemp("sql") / "reference.db", World(filled(ALL), config()), 5000)


def test_everything_that_takes_time_to_see_is_found(reference):
    found = found_by(reference[0], "traffic")
    assert found["frozen", "prb_use_dl_percent"] == 34 - 11
    assert found["running_counter", "prb_use_dl_percent"] == MINUTES - 40
    assert found["repeats_another", "dl_throughput_kbps"] == found["repeats_another", "prb_use_dl_percent"] == 19 - 7
    assert found["count_for_percent", "prb_use_dl_percent"] == 40
    found = found_by(reference[0], "rsrp")
    assert found["mixed_signs", "rsrp_dbm"] == (25 - 20) + 13 + 13
    assert found["code_for_dbm", "rsrp_dbm"] == 3


@pytest.mark.parametrize(("poll", "stops"), [(1, ()), (7, (3, 40, 5, 100)), (64, (2, 9)), (300, (1,))])
def test_neither_polls_nor_deaths_change_what_history_makes_of_a_record(reference, tmp_path, poll, stops):
    _, other = sql(tmp_path / "other.db", World(filled(ALL), config()), poll, stops, commit_every=3)
    assert difference(other, reference[1]) == []


def of_series(store):
    """What belongs to each series alone, by its key: observations, states."""
    dumped = store.dump()
    seen = {}
    for (time_us, (_, key)), row in dumped["observations"].items():
        seen.setdefault(key, {})[time_us] = row
    return {key: (rows, [state for of, state in dumped["states"].items() if key in of]) for key, rows in seen.items()}


def test_a_series_in_quarantine_leaves_all_others_as_they_are():
    results = []
    for reports in (mixed_reports(), [report(step, -90.0 - step % 3) for step in range(120)]):
        store = MemoryStore()
        rows = {"ran.rsrp": merged(report_rows(), reports)}
        World(filled(rows, 1), config()).run(store, 50)
        results.append(of_series(store))
    mixed, clean = results
    assert mixed.pop("ue-9|cell-9") != clean.pop("ue-9|cell-9")
    assert mixed == clean
    assert len(mixed) > 10


def test_a_series_comes_back_from_quarantine_and_says_so_in_its_forecasts(tmp_path):
    made = config()
    made["streams"]["rsrp"]["checks"] = {"quarantine_steps": 5}
    rows = [report(step, 66.0 if step == 20 else -90.0) for step in range(40)]
    sql(tmp_path / "quarantine.db", World(filled({"ran.rsrp": rows}, 1), made), 7)
    history = History(f"sqlite:///{tmp_path}/quarantine.db")
    suspect = [False] * 20 + [True] * 6 + [False] * 14
    seen = history.recent_observations("rsrp", "ue-9|cell-9", 40)[::-1]
    assert [bool(row["flags"] & Quality.SUSPECT) for row in seen] == suspect
    assert [row["values"]["rsrp_dbm"] for row in seen] == [None if step == 20 else -90.0 for step in range(40)]
    forecasts = history.forecasts("rsrp", "ue-9|cell-9", limit=40)[::-1]
    assert [bool(row["quality"] & Quality.SUSPECT) for row in forecasts] == suspect


def test_a_long_silence_ends_a_quarantine_as_it_ends_all_else_that_is_remembered(tmp_path):
    made = config()
    made["streams"]["rsrp"] |= {"checks": {"quarantine_steps": 1000}, "max_gap_steps": 3}
    rows = [report(step, 66.0 if step == 5 else -90.0) for step in (*range(8), *range(20, 24))]
    sql(tmp_path / "silence.db", World(filled({"ran.rsrp": rows}, 1), made), 2)
    seen = History(f"sqlite:///{tmp_path}/silence.db").recent_observations("rsrp", "ue-9|cell-9", 40)[::-1]
    assert [bool(row["flags"] & Quality.SUSPECT) for row in seen] == [False] * 5 + [True] * 3 + [False] * 4


def test_a_suspect_or_quarantined_record_makes_no_hook_act():
    """Both make the forecast suspect, which hooks leave alone; without the flag the same load is acted on."""
    fired = {}
    for suspect in (False, True):
        rows = [
            traffic("cell-0", minute, 60.0 + minute, dl_throughput_kbps=1000.0 * minute, suspect=suspect and minute > 8)
            for minute in range(30)
        ]
        store = MemoryStore()
        World(filled({"ran.traffic": rows}, 1), config()).run(store, 7)
        late = START_US + 9 * 60_000_000
        fired[suspect] = [firing for firing in store.dump()["firings"].values() if slot_us(firing) >= late]
    assert fired[False]
    assert not fired[True]


def slot_us(firing):
    made = firing[0] if isinstance(firing, tuple) else firing
    return made.slot_time_us


def test_declared_units_are_converted_on_the_way_in():
    made = config()
    options = {"measurements": [
        {"column": "dl_throughput_kbps", "counter": "DRB.PdcpSduVolumeDL", "unit": "Mbit", "per_s": 900.0},
        {"column": "bler_ratio", "counter": "TB.IntialErrNbrDl", "over": ["TB.TotNbrDlInitial"], "unit": "1"},
        {"column": "rsrp_dbm", "counter": "L1M.DL-SS-RSRP", "unit": "NR code"},
    ]}  # fmt: skip
    names = ["DRB.PdcpSduVolumeDL", "TB.TotNbrDlInitial", "TB.IntialErrNbrDl", "L1M.DL-SS-RSRP"]
    message = {
        "measData": [{"measRecord": [{"integer": 1800}, {"integer": 100}, {"integer": 7}, {"real": 66.5}]}],
        "measInfoList": [{"measType": {"measName": name}} for name in names],
        "granulPeriod": 900_000,
    }
    document = {
        "e2NodeId": "gnb-1",
        "cellObjectID": "1",
        "indicationHeader": {"indicationHeader-Format1": {"colletStartTime": START_US // 1000}},
        "indicationMessage": {"indicationMessage-Format1": message},
    }
    stream = made["streams"]["traffic"] | {
        "schema": "e2sm_kpm",
        "decoder": "e2sm_kpm",
        "decoder_options": {**options, "stamp_unit": "ms"},
        "kpis": ["dl_throughput_kbps", "bler_ratio"],
        "features": ["rsrp_dbm"],
    }
    made |= {"streams": {"traffic": stream}, "hooks": {}}
    store = MemoryStore()
    World(filled({"ran.traffic": [(b"gnb-1", msgspec.json.encode(document))]}, 1), made).run(store, 7)
    ((ticks, *_),) = store.dump()["observations"].values()
    assert np.frombuffer(ticks, np.int32).tolist() == [2000, 700, -9050]


def test_what_was_forecast_can_be_verified_from_what_was_stored(tmp_path):
    made = config()
    made["store"] = {"url": f"sqlite:///{tmp_path}/verified.db"}
    for stream in made["streams"].values():
        stream["anchor_series_max"], stream["anchor_s"] = 1000, stream["bucket_s"]
    sql(tmp_path / "verified.db", World(filled(ALL), made), 50)
    for found in verify_all(parse_config(made), ["traffic", "rsrp"], days=100):
        assert found.difference is None
        assert found.forecasts > 100


def suspect_rows(suspect):
    rows = []
    for minute in range(30):
        bad = minute in (11, 12, 20)
        value = 95.0 if bad and suspect == "flagged" else None if bad else 40.0 + 3 * (minute % 5)
        kbps = None if bad and suspect == "absent" else 1000.0 + minute
        rows.append(traffic("cell-0", minute, value, dl_throughput_kbps=kbps, suspect=bad and suspect == "flagged"))
    return rows


def test_a_suspect_record_is_stored_with_its_flag_and_kept_out_of_training(tmp_path):
    made = config()
    made["streams"] = {"traffic": made["streams"]["traffic"]}
    made["hooks"] = {}
    sql(tmp_path / "suspect.db", World(filled({"ran.traffic": suspect_rows("flagged")}, 1), made), 7)
    history = History(f"sqlite:///{tmp_path}/suspect.db")
    newest = history.recent_observations("traffic", "cell-0", 30)
    flagged = [row for row in newest if row["flags"] & Quality.SUSPECT]
    assert [row["values"]["prb_use_dl_percent"] for row in flagged] == [95.0] * 3
    seen = history.observations("traffic", ["prb_use_dl_percent"], 60_000_000, 20_000_000, steps=30)
    assert np.isnan(seen.values[0, [11, 12, 20], 0]).all()
    assert np.nanmax(seen.values) < 60


def test_nothing_is_forecast_learnt_or_scored_from_a_suspect_record():
    """The forecasts, states and scores are those of a run in which its values were absent."""
    stores = []
    for suspect in ("flagged", "other"):
        store = MemoryStore()
        rows = suspect_rows("flagged")
        if suspect == "other":
            rows = [
                (key, value.replace(b'"prb_use_dl_percent":95.0', b'"prb_use_dl_percent":3.0')) for key, value in rows
            ]
        World(filled({"ran.traffic": rows}, 1), config()).run(store, 7)
        stores.append(store.dump())
    one, two = stores
    assert one["observations"] != two["observations"]
    for table in ("forecasts", "scores", "firings"):
        assert one[table] == two[table], table


def test_a_state_from_before_the_checks_loads_and_they_start_afresh():
    rows = bad_traffic()
    log = filled({"ran.traffic": rows}, 1)
    place = TopicPartition("ran.traffic", 0)
    store = MemoryStore()
    before = config(frozen_steps=0, repeat_steps=0, running_s=0.0)
    world = World(log, before)
    world.run(store, 40, commit_every=1, stop_after=2)
    assert 0 < world.offsets[place] < len(rows)
    world = World(log, config())
    world.offsets = {}
    pipeline = world.run(store, 40)
    found = found_by(pipeline, "traffic")
    assert found["frozen", "prb_use_dl_percent"] == 40 - world_minute(rows, 80) - 11
    assert len(store.dump()["states"]) == 4


def world_minute(rows, place):
    """The minute of the first record of radio cell frozen from this place on."""
    later = [value for key, value in rows[place:] if key == b"frozen"]
    return (msgspec.json.decode(later[0])["event_time_us"] - START_US) // 60_000_000

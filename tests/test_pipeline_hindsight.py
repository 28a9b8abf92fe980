"""What links cost is forecast and acted on like any KPI, but judged by nothing that a report says of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from netpredict.build import build_streams
from netpredict.config import parse_config
from netpredict.errors import ConfigError
from netpredict.evaluate.recorded import training_set
from netpredict.ingest.messages import Neighbour, Rsrp
from netpredict.learn.retrain import history
from netpredict.radio import handover_cost
from netpredict.radio.link_failure import sinr_db
from netpredict.store import migrate
from netpredict.store.history import History, whole_ues
from netpredict.store.sql import SqlStore
from netpredict.stream import Stream
from netpredict.testing import LeakyMean, StaticShelf
from netpredict.traces.message import TraceMessage
from netpredict.types import FloatArray, Hidden, Outputs
from tests.handovers_by_cost import fired_and_wanted
from tests.pipeline_world import INGEST_MS, START_US, World, new_log
from tests.services.postgres import Postgres

KPIS = ["rsrp_dbm", *handover_cost.KPIS]
CELLS, UES, STEPS = 5, 4, 150
PRICE = 0.02


def config(**changes: Any) -> dict[str, Any]:
    stream = {
        "topic": "ran.rsrp",
        "schema": "rsrp",
        "series_by": ["ue_id", "radio_cell_id"],
        "period_s": 0.2,
        "kpis": KPIS,
        "features": ["serving", "sinr_db", "nbr1_rsrp_dbm"],
        "horizon_steps": 2,
        "warm_steps": 2,
        "bucket_s": 4.0,
        "routes": [{"active": "leaky"}],
    }
    cost = {"rule": "cost", "lead_steps": 1, "handover_cost": PRICE, "back_cost": 0.0, "cooldown_slots": 0}
    return {
        "streams": {"rsrp": stream | changes},
        "predictors": {"leaky": {"plugin": "naive"}},
        "hooks": {"handover": {"plugin": "handover", "stream": "rsrp", "mode": "auto", "options": cost}},
        "actuators": {"log": {"plugin": "log"}},
    }


def reports() -> list[tuple[bytes, bytes]]:
    """UEs that hear some of the radio cells, and hand over late."""
    rng, rows = np.random.default_rng(4), []
    level = rng.normal(-90, 6, (UES, CELLS))
    serving = level.argmax(axis=1)
    for step in range(STEPS):
        level += rng.normal(0, 1, level.shape) + 0.03 * (-90 - level)
        for ue in range(UES):
            if level[ue].max() > level[ue, serving[ue]] + 6:
                serving[ue] = level[ue].argmax()
            heard = [cell for cell in range(CELLS) if level[ue, cell] > level[ue].max() - 9 or cell == serving[ue]]
            ratio = sinr_db(level[ue])
            told = {cell: (float(level[ue, cell].round(1)), float(ratio[cell].round(1))) for cell in heard}
            first = told.pop(int(serving[ue]))
            near = [Neighbour(f"cell-{cell}", rsrp, sinr_db=sinr) for cell, (rsrp, sinr) in told.items()]
            time_us = START_US + step * 200_000
            message = Rsrp(
                "netpredict.rsrp/1", f"cell-{serving[ue]}", time_us, f"ue-{ue}", first[0], None, first[1], near
            )
            rows.append((f"ue-{ue}".encode(), msgspec.json.encode(message)))
    return rows


class Priced(LeakyMean):
    """Says that links cost more than a rule of thumb has it, and that commands fail less."""

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        outputs, hidden = super().advance(features, hidden)
        factors = dict(zip(handover_cost.KPIS, (6, 0.1, 0.1), strict=True))
        return {kpi: values * np.float32(factors.get(kpi, 1)) for kpi, values in outputs.items()}, hidden


def shelf(streams: Sequence[Stream], _: Any) -> StaticShelf:
    made, (stream,) = StaticShelf(), streams
    made.put(stream.name, "leaky", "v1", lambda: Priced(stream.features, stream.output, 0.5))
    return made


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, World]:
    url = f"sqlite:///{tmp_path_factory.mktemp('hindsight')}/store.db"
    migrate.upgrade(url)
    log = new_log(1)
    for key, value in reports():
        log.append("ran.rsrp", key, value, INGEST_MS)
    world = World(log, config(), shelf=shelf)
    with SqlStore(url) as store:
        store.register_model("rsrp", "leaky", "v1", "naive", "-", {}, "active")
        world.run(store, 50)
    return url, world


def test_what_is_measured_is_scored_and_hindsight_is_not(ran: tuple[str, World]) -> None:
    rows = History(ran[0]).scores()
    assert {row["kpi"] for row in rows} == {"rsrp_dbm"}
    assert sum(row["n"] for row in rows) > 500


def test_what_a_report_tells_of_hindsight_is_a_rule_of_thumb(ran: tuple[str, World]) -> None:
    rows = History(ran[0]).recent_observations("rsrp", "ue-1|cell-2", limit=40)
    assert sum(row["values"]["stay_cost"] is not None for row in rows) > 10
    for row in rows:
        seen = row["values"]
        if seen["nbr1_rsrp_dbm"] is None:
            assert seen["stay_cost"] is None
            continue
        given = (np.array(seen[name]) for name in ("rsrp_dbm", "sinr_db", "nbr1_rsrp_dbm"))
        thumb = handover_cost.rules_of_thumb(*given)
        assert [seen[kpi] for kpi in handover_cost.KPIS] == pytest.approx([float(each) for each in thumb], abs=1e-3)


def test_the_hook_fires_what_the_forecast_costs_say(ran: tuple[str, World]) -> None:
    fired, wanted = fired_and_wanted(ran[0], "rsrp", PRICE)
    assert fired == wanted
    assert len(fired) > 10
    assert History(ran[0]).firings(limit=1)[0]["why"]["gain"] > 0


def test_a_rule_of_thumb_that_is_repeated_for_want_of_a_model_is_not_acted_on(tmp_path: Path, ran: Any) -> None:
    url = f"sqlite:///{tmp_path}/cold.db"
    migrate.upgrade(url)
    made = config(warm_steps=10_000)  # the model never is warm: the ladder serves
    world = World(ran[1].log, made, shelf=shelf)
    with SqlStore(url) as store:
        store.register_model("rsrp", "leaky", "v1", "naive", "-", {}, "active")
        world.run(store, 50)
    assert {row["sources"]["stay_cost"] for row in History(url).forecasts("rsrp", "ue-1|cell-2", limit=50)} == {"naive"}
    assert History(url).firings() == []


def test_training_takes_whole_ues_that_were_heard(ran: tuple[str, World]) -> None:
    url, _ = ran
    made = config() | {"store": {"url": url}, "learn": {"history_steps": 100, "series_max": 11}}
    read = parse_config(made)
    (stream,) = build_streams(read)
    dataset = history(read, stream)
    ues = {name.partition("|")[0] for name in dataset.series_names}
    assert 1 <= len(ues) < UES
    assert dataset.hindsight is not None
    assert len(set(dataset.first_slot.tolist())) == 1
    everything = History(url).observations("rsrp", stream.columns, stream.period_us, steps=100)
    heard = np.isfinite(everything.values[:, :, 0]).any(axis=1)
    known = {key for key, some in zip(everything.keys, heard, strict=True) if some and key.partition("|")[0] in ues}
    assert set(dataset.series_names) == known


@pytest.mark.parametrize("most", [11, 1000])
def test_recorded_reports_teach_what_the_stored_ones_do(ran: tuple[str, World], most: int) -> None:
    url, _ = ran
    learn = {"history_steps": 200, "series_max": most}
    read = parse_config(config() | {"store": {"url": url}, "learn": learn})
    (stream,) = build_streams(read)
    kept = [TraceMessage("rsrp", msgspec.json.decode(value)["event_time_us"], key, value) for key, value in reports()]
    told, stored = training_set(stream, kept, read), history(read, stream)
    assert told.values.shape[1] == stored.values.shape[1] == STEPS, "no slot in which nothing was reported yet"
    assert told.hindsight == stored.hindsight
    np.testing.assert_array_equal(told.first_slot, [stored.first_slot[0]] * len(told.series_names))
    if most == 1000:
        order = np.argsort(told.series_names)
        assert [told.series_names[index] for index in order] == sorted(stored.series_names)
        found = stored.values[np.argsort(stored.series_names)]
        np.testing.assert_allclose(told.values[order], found, atol=1e-3)
    else:
        ues = {name.partition("|")[0] for name in told.series_names}
        kept_of = [message for message in kept if message.key.decode() in ues]
        assert set(told.series_names) == set(training_set(stream, kept_of, read).series_names), "whole UEs"
        assert len(ues) < UES


@pytest.mark.postgres
def test_postgresql_gives_the_same_ues_to_a_training(ran: tuple[str, World], postgres: Postgres) -> None:
    url = str(postgres.new_database("hindsight"))
    migrate.upgrade(url)
    world = World(ran[1].log, config(), shelf=shelf)
    with SqlStore(url) as store:
        store.register_model("rsrp", "leaky", "v1", "naive", "-", {}, "active")
        world.run(store, 50)
    told = []
    for each in (ran[0], url):
        read = parse_config(config() | {"store": {"url": each}, "learn": {"history_steps": 100, "series_max": 11}})
        (stream,) = build_streams(read)
        told.append(history(read, stream))
    assert list(told[1].series_names) == list(told[0].series_names)
    np.testing.assert_array_equal(told[1].values, told[0].values)
    np.testing.assert_array_equal(told[1].first_slot, told[0].first_slot)
    assert len({name.partition("|")[0] for name in told[1].series_names}) >= 1
    assert {row["kpi"] for row in History(url).scores()} == {"rsrp_dbm"}


def test_as_many_whole_ues_as_there_is_room_for() -> None:
    keys = [f"ue-{ue}|cell-{cell}" for ue in range(50) for cell in range(ue % 7 + 1)]
    chosen = whole_ues(keys, 60)
    ues = {keys[index].partition("|")[0] for index in chosen}
    assert sorted(chosen) == [index for index, key in enumerate(keys) if key.partition("|")[0] in ues]
    assert 57 <= len(chosen) <= 60
    assert max(np.diff([int(ue[3:]) for ue in sorted(ues, key=lambda ue: int(ue[3:]))])) < 10
    assert whole_ues(keys, 1) == [0]
    assert whole_ues([f"ue|cell-{cell}" for cell in range(7)], 3) == list(range(7)), "one at least, and whole"
    assert whole_ues([], 5) == []
    assert whole_ues(keys, 10_000) == list(range(len(keys)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kpis": ["rsrp_dbm", "stay_cost"]}, "missing: command_failure_ratio, access_failure_ratio"),
        ({"kpis": list(handover_cost.KPIS)}, "missing: rsrp_dbm"),
        ({"kpis": ["rsrp_dbm"], "features": ["serving", "stay_cost"]}, "missing: stay_cost"),
        ({"series_by": ["radio_cell_id"]}, "series_by: stay_cost is of a link"),
        ({"series_by": ["radio_cell_id", "ue_id"]}, "series_by: stay_cost is of a link"),
        ({"period_s": 0.05}, "period_s: stay_cost needs a multiple"),
        ({"period_s": 0.125}, "period_s: stay_cost needs a multiple"),
    ],
)
def test_a_stream_that_cannot_be_labelled_is_refused(changes: dict[str, Any], why: str) -> None:
    made = config(**changes) | {"hooks": {}}
    with pytest.raises(ConfigError, match=why):
        build_streams(parse_config(made))

"""Replays from anchors: what was stored comes out again to the letter, and what was not is named."""

from __future__ import annotations

import copy
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from netpredict.build import build_streams
from netpredict.config import parse_config
from netpredict.learn.verify import KnownModels, Verified, verify, verify_all
from netpredict.store import migrate
from netpredict.store.anchors import Anchors
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.testing import LeakyMean, StaticShelf
from netpredict.types import TopicPartition
from tests.pipeline_world import CONFIG, World, filled, traffic, traffic_rows

VERSIONS = {"v1": 0.7, "v2": 0.2}


class Shelf(StaticShelf):
    """Versions of ``leaky`` under the ids that a store gives them; what it does not hold cannot be loaded."""

    def __init__(self, streams: Any, store: Any, versions: tuple[str, ...] = ("v1", "v2")) -> None:
        super().__init__()
        for stream in streams:
            for version in versions:
                build = lambda s=stream, v=version: LeakyMean(s.features, s.output, VERSIONS[v])  # noqa: E731
                self.put(stream.name, "leaky", version, build, active=version == "v1")
                model_id = store.register_model(stream.name, "leaky", version, "naive", "", {}, "active")
                self._builders[stream.name, "leaky", version] = (model_id, build)
            self._placeholders[stream.name, "leaky"] = store.register_model(
                stream.name, "leaky", "-", "naive", "", {}, "retired"
            )


def config_of(**changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["streams"] = {"traffic": config["streams"]["traffic"] | {"anchor_series_max": 5} | changes}
    config["hooks"] = {name: hook for name, hook in config["hooks"].items() if hook["stream"] == "traffic"}
    return config


def filled_store(folder: Path, rows: Any = None, stops: tuple[int, ...] = (), poll: int = 37, **how: Any) -> str:
    """A store of messy traffic: gaps, late and missing values, series that come and go, uneven throughputs."""
    url = f"sqlite:///{folder}/store.db"
    migrate.upgrade(url)
    world = World(filled({"ran.traffic": rows or traffic_rows(minutes=110)}), config_of(), Shelf, **how)
    for stop in (*stops, None):
        with SqlStore(url) as store:
            world.run(store, poll, stop_after=stop)
    return url


def verified(url: str, days: int = 9, versions: tuple[str, ...] = ("v1", "v2"), **changes: Any) -> Verified:
    (stream,) = build_streams(parse_config(config_of(**changes)))
    shelf = Shelf([stream], KnownModels(History(url)), versions)
    return verify(stream, Anchors(url), shelf, days)


def changed(url: str, sql: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute(sql).rowcount > 0
    connection.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return filled_store(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copied(url: str, tmp_path: Path) -> str:
    path = tmp_path / "store.db"
    with sqlite3.connect(url.removeprefix("sqlite:///")) as source, sqlite3.connect(path) as target:
        source.backup(target)
    source.close()
    target.close()
    return f"sqlite:///{path}"


def test_every_replayed_forecast_is_the_stored_one_to_the_letter(url: str) -> None:
    found = verified(url)
    assert found.difference is None
    assert found.forecasts > 150
    assert found.series > 10
    assert found.skipped == {}
    assert verified(url, days=1).forecasts < found.forecasts


def test_it_is_so_after_deaths_too(tmp_path: Path) -> None:
    found = verified(filled_store(tmp_path, stops=(3, 7)))
    assert found.difference is None
    assert found.forecasts > 150


def test_calibration_is_part_of_it(url: str) -> None:
    """Else the test above would prove less than it says."""
    assert len({mark.mark for lane in Anchors(url).lanes("traffic") for mark in Anchors(url).marks(lane.lane_id)}) > 5


@pytest.mark.parametrize(
    ("column", "sql"),
    [
        ("ticks", "UPDATE forecast SET ticks = replace(ticks, '1', '2') WHERE {}"),
        ("quality", "UPDATE forecast SET quality = quality + 32 WHERE {}"),
        ("sources", "UPDATE forecast SET sources = 'ss' WHERE {}"),
        ("missing", "DELETE FROM forecast WHERE {}"),
    ],
)
def test_the_first_difference_is_named(copied: str, column: str, sql: str) -> None:
    place = "slot_time_us > (SELECT max(slot_time_us) - 1200000000 FROM forecast)"
    changed(copied, sql.format(place))
    found = verified(copied)
    assert found.difference is not None
    assert (found.difference.field, found.difference.stream) == (column, "traffic")
    assert found.difference.series.startswith("cell-")
    assert found.difference.stored != found.difference.replayed


def test_a_changed_observation_is_found_by_what_was_forecast_from_it(copied: str) -> None:
    changed(copied, "UPDATE observation SET ticks = replace(ticks, '3', '7')")
    assert verified(copied).difference is not None


def test_other_weights_under_the_same_name_are_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERSIONS, "v1", 0.71)
    found = verified(url)
    assert found.difference is not None
    assert found.difference.field in ("ticks", "sources")


def test_what_cannot_be_replayed_is_counted_by_reason(copied: str) -> None:
    assert set(verified(copied, warm_steps=4).skipped) == {"the config was another one"}
    assert set(verified(copied, versions=("v2",)).skipped) == {"a version cannot be loaded"}
    changed(copied, "UPDATE state_anchor SET state = zeroblob(length(state))")
    found = verified(copied)
    assert set(found.skipped) == {"the kept state is damaged"}
    assert found.forecasts == 0


def test_a_replay_ends_where_another_version_began_and_the_next_day_goes_on(tmp_path: Path) -> None:
    rows = [traffic(f"cell-{cell}", m, 20.0 + cell + (m * 7) % 11) for m in range(110) for cell in range(4)]
    url = filled_store(
        tmp_path,
        rows,
        challenges={120: ("traffic", "leaky", "v2")},
        activations={260: ("traffic", "leaky", "v2")},
    )
    found = verified(url)
    assert found.difference is None
    assert found.forecasts > 60
    assert found.skipped["something else began to serve"] > 0
    models = {row["version"]: row["model_id"] for row in History(url).models()}
    newest = verified(url, days=1)
    assert (newest.difference, newest.forecasts > 10) == (None, True)
    assert models.keys() == {"v1", "v2", "-"}


def test_late_rows_that_a_later_calibration_met_are_no_difference(tmp_path: Path) -> None:
    """cell-3 always comes twelve minutes after the others: its lane is a bucket ahead."""
    rows = []
    for minute in range(130):
        rows += [traffic(f"cell-{cell}", minute, 20.0 + cell + (minute * 7) % 11) for cell in range(3)]
        if minute >= 12:
            rows.append(traffic("cell-3", minute - 12, 30.0 + (minute * 5) % 13))
    found = verified(filled_store(tmp_path, rows))
    assert found.difference is None
    assert found.forecasts > 100


def test_pruning_takes_anchors_and_marks_and_a_replay_begins_later(copied: str) -> None:
    before = len([a for lane in Anchors(copied).lanes("traffic") for a in Anchors(copied).anchors(lane.lane_id)])
    with SqlStore(copied) as store:
        middle = History(copied)._rows("SELECT (min(slot_time_us) + max(slot_time_us)) / 2 AS t FROM forecast")[0]["t"]
        store.prune(middle, 10**6)
    after = len([a for lane in Anchors(copied).lanes("traffic") for a in Anchors(copied).anchors(lane.lane_id)])
    assert 0 < after < before
    found = verified(copied)
    assert found.difference is None
    assert found.forecasts > 50


def test_anchors_are_few_and_none_where_none_are_wanted(url: str) -> None:
    per_day: dict[tuple[TopicPartition, int], int] = {}
    for lane in Anchors(url).lanes("traffic"):
        for anchor in Anchors(url).anchors(lane.lane_id):
            place = (lane.topic_partition, anchor.slot_time_us // 1_200_000_000)
            per_day[place] = per_day.get(place, 0) + 1
    assert 0 < max(per_day.values()) <= 5


def test_by_the_config_alone_nothing_is_written_and_unknown_versions_are_told(url: str) -> None:
    config = parse_config(config_of() | {"store": {"url": url}})
    before = History(url).models()
    (found,) = verify_all(config, ["traffic"], days=9)
    assert found.difference is None
    assert History(url).models() == before

"""Policies over stored mobility: a daemon on telemetry of UEs that ping-pong, its store, and the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netpredict.build import build_streams
from netpredict.clock import SystemClock
from netpredict.config import parse_config
from netpredict.ingest.messages import Neighbour, Rsrp
from netpredict.ingest.source import MemoryLog
from netpredict.lane import firing_id
from netpredict.operate.policy import PolicyJob, newest_window
from netpredict.store.history import History
from netpredict.store.mobility import MobilityHistory
from netpredict.store.sql import SqlStore
from netpredict.types import ArmState, Mode
from tests.act.stories import assert_whole
from tests.faults.rig import InThread
from tests.faults.world import write_config
from tests.integration.daemon_process import cli
from tests.operate.list_sink import ListSink

START_US = 1_750_000_020_000_000 // 60_000_000 * 60_000_000
TOPIC = "ran.rsrp"
UES = 3
OBJECT = "NRCellCU=cell-0,NRCellRelation=cell-1"


def config_of(folder: Path, mode: Mode = Mode.AUTO) -> dict[str, Any]:
    options = {"window_s": 60.0, "attempts_min": 5, "ping_pong_s": 2.0, "valid_for_s": 1e9}
    return {
        "daemon": {"data_dir": str(folder), "commit_interval_s": 0.05},
        "kafka": {"poll_timeout_s": 0.05},
        "store": {"url": f"sqlite:///{folder}/store.db", "retention_days": 36500.0},
        "http": {"enabled": False},
        "streams": {
            "rsrp": {
                "topic": TOPIC,
                "schema": "rsrp",
                "series_by": ["ue_id", "radio_cell_id"],
                "period_s": 1.0,
                "kpis": ["rsrp_dbm"],
                "features": ["serving"],
                "horizon_steps": 2,
                "bucket_s": 10.0,
                "routes": [{"active": "ewma"}],
            }
        },
        "predictors": {"ewma": {"plugin": "ewma"}},
        "hooks": {
            "cio": {
                "plugin": "cio",
                "stream": "rsrp",
                "mode": str(mode),
                "cooldown_s": 0.0,
                "effect_s": 1e9,
                "exclude": "none",
                "options": options,
            }
        },
        "actuators": {"log": {"plugin": "log"}},
    }


class ClockOf(SystemClock):
    """The system's, set to another time."""

    def __init__(self, now_us: int) -> None:
        self.set(now_us)

    def set(self, now_us: int) -> None:
        self._ahead_us = now_us - super().now_us()

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us


def feed(log: MemoryLog, seconds: range, rsrp_dbm: float = -90.0) -> None:
    """Each UE is in cell-0, but for one second in twelve in cell-1: a handover there and a return."""
    for second in seconds:
        for ue in range(UES):
            serving, other = ("cell-1", "cell-0") if (second + 4 * ue) % 12 == 11 else ("cell-0", "cell-1")
            time_us = START_US + second * 1_000_000
            message = Rsrp(
                "netpredict.rsrp/1", serving, time_us, f"ue-{ue}", rsrp_dbm, neighbours=[Neighbour(other, -95.0)]
            )
            log.append(TOPIC, message.ue_id.encode(), msgspec.json.encode(message), time_us // 1000)  # type: ignore[union-attr]


@pytest.mark.timeout(120)
def test_a_daemon_moves_the_offset_one_step_and_lets_the_next_window_pass(tmp_path: Path) -> None:
    raw, log = config_of(tmp_path), MemoryLog({TOPIC: 2})
    url = raw["store"]["url"]
    with InThread(parse_config(raw), log) as running:
        for minutes, steps in ((2, 1), (3, 1), (4, 2)):
            feed(log, range((minutes - 1) * 60 if minutes > 2 else 0, minutes * 60 + 30))
            running.until(running.drained)
            running.daemon.policy_job.turn()
            running.until(lambda: not History(url).outbox_depth())
            fired = History(url).firings()
            assert len(fired) == steps, minutes
            assert running.daemon.policy_job.turn() == [], "decided already"
    newer, older = fired
    for row, value, minutes in ((older, -1, 2), (newer, -2, 4)):
        until_us = START_US + minutes * 60_000_000
        assert row["firing_id"] == firing_id("cio", OBJECT, "cellIndividualOffset", until_us)
        assert row["value"] == {"rsrpOffsetSSB": value}
        assert row["why"]["window_until_us"] == until_us
        assert row["why"]["early"] >= 5
        assert [outcome["kind"] for outcome in row["outcomes"]] == ["applied"]
        assert_whole(row)


@pytest.mark.timeout(120)
def test_an_offset_that_stands_is_refreshed_before_it_ends_and_published_as_any_action(tmp_path: Path) -> None:
    """Three windows of one minute with a rule that moves once; the action lasts for four."""
    raw, log, sent = config_of(tmp_path), MemoryLog({TOPIC: 2}), ListSink([])
    raw["hooks"]["cio"] |= {"effect_s": 240.0}
    raw["hooks"]["cio"]["options"] |= {"settle_windows": 100}
    raw["publish"] = {"enabled": True}
    url = raw["store"]["url"]
    actions = lambda: [message for topic, message in sent.sent if topic == "netpredict.actions"]  # noqa: E731
    with InThread(parse_config(raw), log, make_sink=lambda _: sent, clock=ClockOf(START_US)) as running:
        for minutes, fired in ((2, 1), (3, 1), (4, 2), (5, 2), (6, 3)):
            feed(log, range((minutes - 1) * 60 if minutes > 2 else 0, minutes * 60 + 30))
            running.until(running.drained)
            running.daemon._review()
            running.until(lambda: not History(url).outbox_depth())
            assert len(History(url).firings()) == fired, minutes
        running.until(lambda: len(actions()) == 3)
    last, refresh, first = History(url).firings()
    assert refresh["firing_id"] == firing_id("cio", OBJECT, "cellIndividualOffset", START_US + 4 * 60_000_000)
    for row in (refresh, last):
        assert (row["value"], row["why"]["refreshes"]) == (first["value"], first["firing_id"])
        assert_whole(row)
        assert row["outcomes"][0]["refreshes"] == first["firing_id"]
    published = [msgspec.json.decode(message.value) for message in actions()]
    assert {one["id"] for one in published} == {row["firing_id"] for row in (first, refresh, last)}


@pytest.mark.timeout(120)
def test_a_policy_whose_stream_is_forecast_no_better_than_naive_does_nothing(tmp_path: Path) -> None:
    raw, log = config_of(tmp_path), MemoryLog({TOPIC: 2})
    raw["streams"]["rsrp"]["routes"], raw["predictors"] = [{"active": "naive"}], {"naive": {"plugin": "naive"}}
    raw["hooks"]["cio"]["breaker"] = {"rows_min": 1}
    url = raw["store"]["url"]
    with InThread(parse_config(raw), log) as running:
        feed(log, range(150))
        running.until(running.drained)
        daemon = running.daemon
        daemon.breakers.follow(daemon._watched())  # look now
        running.until(lambda: daemon.breakers.states.get(("cio", "")) is ArmState.NOT_MEET)
        assert len(daemon.policy_job.turn()) == 1
        running.until(lambda: not History(url).outbox_depth())
    (row,) = History(url).firings()
    assert [(outcome["kind"], outcome["reason"]) for outcome in row["outcomes"]] == [("skipped", "disarmed")]
    assert "skill" in row["outcomes"][0]["checks"]["said"]
    assert_whole(row)


@pytest.mark.timeout(120)
def test_an_offset_behind_which_a_kpi_of_its_radio_cell_fell_is_taken_back_and_stays_so(tmp_path: Path) -> None:
    raw, log, clock = config_of(tmp_path), MemoryLog({TOPIC: 2}), ClockOf(START_US + 150_000_000)
    raw["hooks"]["cio"] |= {
        "effect_s": 400.0,
        "revert": {"kpi": "rsrp_dbm", "worse": "lower", "change": 5.0, "window_s": 60.0},
    }
    raw["hooks"]["cio"]["options"] |= {"settle_windows": 100}
    url = raw["store"]["url"]
    with InThread(parse_config(raw), log, clock=clock) as running:
        feed(log, range(150))
        running.until(running.drained)
        assert len(running.daemon.policy_job.turn()) == 1
        running.until(lambda: not History(url).outbox_depth())
        feed(log, range(150, 330), rsrp_dbm=-110.0)
        running.until(running.drained)
        clock.set(START_US + 240_000_000)
        running.daemon.effects._due_s = float("-inf")
        running.until(lambda: History(url).firings()[0]["reversals"])
        assert running.daemon.policy_job.turn() == [], "neither refreshed nor decided again"
    (row,) = History(url).firings()
    assert (row["effect"]["verdict"], row["reversals"][0]["cause"]) == ("worse", "kpi rsrp_dbm")
    assert row["effect"]["after_mean"] < row["effect"]["before_mean"] - 5
    assert_whole(row)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.ASSIST])
def test_the_verb_decides_as_the_job_does_once(tmp_path: Path, mode: Mode) -> None:
    raw, log = config_of(tmp_path, mode), MemoryLog({TOPIC: 2})
    feed(log, range(150))
    with InThread(parse_config(raw), log) as running:
        running.until(running.drained)
    routes = raw["streams"]["rsrp"].pop("routes")
    config = write_config(tmp_path / "netpredict.toml", raw | {"_routes": [("rsrp", routes[0]["active"])]})
    (found,) = json.loads(cli("actions", "review", "--config", str(config), "--json"))["actions"]
    assert (found["mode"], found["value"]) == (str(mode), {"rsrpOffsetSSB": -1})
    assert json.loads(cli("actions", "review", "--config", str(config), "--json"))["actions"] == []
    (row,) = History(raw["store"]["url"]).firings()
    waiting = [outcome["kind"] for outcome in row["outcomes"]]
    assert waiting == ([] if mode is Mode.SHADOW else [None])


def test_a_second_job_on_the_same_store_decides_the_same_once(tmp_path: Path) -> None:
    """Two instances, or a restart: the ids meet."""
    raw, log = config_of(tmp_path), MemoryLog({TOPIC: 2})
    feed(log, range(150))
    with InThread(parse_config(raw), log) as running:
        running.until(running.drained)
    streams, url = build_streams(parse_config(raw)), raw["store"]["url"]
    with SqlStore(url) as store:
        jobs = [PolicyJob(streams, MobilityHistory(url), store) for _ in range(2)]
        assert [len(job.turn()) for job in jobs] == [1, 0]


@pytest.mark.parametrize(
    ("buckets", "until_s"),
    [
        ([], None),
        ([29, 29], 240),
        ([23, 29], 180),  # the slowest counts
        ([24, 29], 240),
        ([0, 999], 9960),  # nobody speaks there any more
    ],
)
def test_a_window_is_decided_when_every_topic_partition_is_behind_it(
    tmp_path: Path, buckets: list[int], until_s: int | None
) -> None:
    (stream,) = build_streams(parse_config(config_of(tmp_path)))
    window = newest_window(buckets, stream, 60.0)
    assert (None if window is None else window.until_us // 1_000_000) == until_s
    assert window is None or window.until_us - window.from_us == 60_000_000

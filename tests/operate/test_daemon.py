"""The daemon over a log in this process and a real SQLite store: life, reload, retraining, what systemd hears."""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from netpredict.config import Config, parse_config
from netpredict.errors import ConfigError
from netpredict.ingest.messages import Traffic
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.learn import child
from netpredict.learn.registry import Trained, save_artefact
from netpredict.learn.retrain import retrain_all
from netpredict.operate.daemon import Daemon
from netpredict.operate.notify import Notifier
from netpredict.plugins import load
from netpredict.store import migrate
from netpredict.store.compare import dump
from netpredict.store.history import History
from netpredict.transplant import payload
from netpredict.types import TopicPartition, TrainingReport
from tests.services.postgres import Postgres

START_US = 1_750_000_020_000_000
TOPIC = "ran.traffic"


def raw_config(folder: Path, **hook: Any) -> dict[str, Any]:
    return {
        "daemon": {"data_dir": str(folder), "commit_interval_s": 0.1},
        "kafka": {"poll_timeout_s": 0.05},
        "store": {"url": f"sqlite:///{folder}/store.db"},
        "http": {"port": 0},
        "learn": {"history_steps": 200, "timeout_s": 120.0},
        "streams": {
            "traffic": {
                "topic": TOPIC,
                "schema": "traffic",
                "series_by": ["radio_cell_id"],
                "period_s": 60.0,
                "kpis": ["prb_use_dl_percent"],
                "features": ["connected_ues"],
                "horizon_steps": 4,
                "warm_steps": 3,
                "routes": [{"active": "gru"}],
            }
        },
        "predictors": {"gru": {"plugin": "gru", "options": {"units": 8, "train_epochs": 3}}},
        "hooks": {"bandwidth": {"plugin": "bandwidth", "stream": "traffic", **hook}},
        "actuators": {"log": {"plugin": "log"}},
    }


def append(log: MemoryLog, minutes: range, cells: int = 8) -> None:
    """A sine per radio cell, which a network can learn and naive cannot."""
    for minute in minutes:
        for cell in range(cells):
            prb = 50 + 30 * math.sin(minute / 3 + cell)
            time_us = START_US + minute * 60_000_000
            message = Traffic(
                "netpredict.traffic/1", f"cell-{cell}", time_us, prb_use_dl_percent=prb, connected_ues=5.0
            )
            log.append(TOPIC, message.radio_cell_id.encode(), msgspec.json.encode(message), time_us // 1000)


class Running:
    """A daemon in a thread; stopped at the end of the test."""

    def __init__(
        self, folder: Path, log: MemoryLog, learn: dict[str, Any] | None = None, raw: Any = None, **parts: Any
    ) -> None:
        raw = raw or raw_config(folder)
        self.config: Config = parse_config(raw | {"learn": raw["learn"] | (learn or {})})
        self.url = self.config.store_url
        migrate.upgrade(self.url)
        self.daemon = Daemon(self.config, lambda config, _: MemorySource(log, 500), **parts)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.daemon.run()
        except BaseException as error:
            self.error = error

    def until(self, true: Callable[[], object], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            assert self.error is None, self.error
            assert time.monotonic() < deadline, f"not so after {timeout_s} s"
            time.sleep(0.02)

    def drained(self, log: MemoryLog) -> bool:
        ends = {place: log.end(place) for place in log.topic_partitions()}
        rows = {TopicPartition(row["topic"], row["partition"]): row for row in History(self.url).progress()}
        return all(end == 0 or (rows.get(place) or {}).get("next_offset") == end for place, end in ends.items())

    def stop(self) -> None:
        self.daemon.flags.stop = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog({TOPIC: 2})


@pytest.fixture
def start(tmp_path: Path, log: MemoryLog) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def make(**parts: Any) -> Running:
        started.append(Running(tmp_path, log, **parts))
        return started[-1]

    yield make
    for running in started:
        running.stop()


def test_a_stop_drains_and_a_start_goes_on_at_the_stored_offset(start: Callable[..., Running], log: MemoryLog) -> None:
    append(log, range(30))
    first = start()
    first.until(lambda: first.daemon.tally.records > 0)
    first.stop()
    append(log, range(30, 50))
    second = start()
    second.until(lambda: second.drained(log))
    second.stop()
    rows = History(second.url).progress()
    assert sum(row["accepted"] for row in rows) == 50 * 8
    assert not sum(row["duplicate"] + row["late"] + row["dead"] for row in rows)


def test_without_a_model_the_ladder_serves_and_after_retraining_the_network_does(
    start: Callable[..., Running], log: MemoryLog
) -> None:
    append(log, range(200))
    running = start()
    running.until(lambda: running.drained(log))
    runs = retrain_all(running.config, running.daemon.streams, running.daemon.store, running.daemon.clock)
    assert [(run.stream, run.predictor, run.result) for run in runs] == [("traffic", "gru", "promoted")], runs
    running.until(lambda: running.daemon.streams["traffic"].versions.get("gru"))
    append(log, range(200, 220))
    running.until(lambda: running.drained(log))
    running.stop()
    rows = History(running.url).forecasts("traffic", "cell-1", limit=500)
    assert len(rows) == 220
    assert {row["version"] for row in rows[:10]} == {runs[0].version}
    assert {row["version"] for row in rows[20:]} == {"-"}


def test_a_transplant_that_is_asked_for_takes_effect_while_the_daemon_runs(
    start: Callable[..., Running], log: MemoryLog
) -> None:
    append(log, range(5))
    running = start()
    running.until(lambda: running.drained(log))
    history = History(running.url)
    states = {f"cell-{cell}": history.series_states("traffic", f"cell-{cell}")[0] for cell in range(8)}
    key, *others = [key for key, state in states.items() if state.topic_partition == states["cell-0"].topic_partition]
    asked = payload("transplant", states[key], states[others[0]])
    running.daemon.store.request(states[others[0]].lane_id, "transplant", asked)
    running.until(lambda: any(lane.requests_taken for lane in running.daemon.pipeline.lanes.values()))
    append(log, range(5, 6))
    running.until(lambda: running.drained(log))
    running.until(lambda: not running.daemon.store.requests())
    running.stop()
    (row,) = [row for row in dump(running.url, ["control_journal"])["control_journal"] if row[6] == "transplant"]
    assert msgspec.json.decode(row[7])["series"] == others[0]


def untrained(folder: Path, running: Running, seed: int) -> int:
    """Model id of a network that was never trained, as a candidate."""
    stream, plugin = running.daemon.streams["traffic"], load("predictors", "gru")
    options = {"units": 4, "seed": seed}
    weights = plugin.build(plugin.options(**options), stream.features, stream.output).weights()
    report = TrainingReport(1, 1.0, [0.1], [0.1], {})
    made = Trained("gru", options, stream.features, stream.output, weights, report, (0, 1), 0, seed)
    version = save_artefact(folder / str(seed), made).version
    return running.daemon.store.register_model(
        "traffic", "gru", version, "gru", str(folder / str(seed)), {}, "candidate"
    )


def test_a_challenger_runs_live_and_its_promotion_takes_effect(
    start: Callable[..., Running], log: MemoryLog, tmp_path: Path
) -> None:
    append(log, range(20))
    running = start()
    running.until(lambda: running.drained(log))
    store, history = running.daemon.store, History(running.url)
    old, new = (untrained(tmp_path, running, seed) for seed in (1, 2))
    store.move_model(old, "active", "me", "model_promoted", {})
    store.move_model(new, "challenger", "me", "model_challenges", {})
    stream = running.daemon.streams["traffic"]
    running.until(lambda: stream.versions.get("gru") and len(stream.versions["gru"]) == 2)
    append(log, range(20, 60))
    running.until(lambda: running.drained(log))
    running.until(lambda: running.daemon.metrics.render().count(b"netpredict_challenger_info{") == 1)
    rows = history.bucket_sums([old, new])
    assert {row["model_id"] for row in rows} == {old, new}
    store.move_model(new, "active", "me", "model_promoted", {})
    append(log, range(60, 61))
    running.until(lambda: {version.running.model_id for version in stream.versions["gru"]} == {old, new})
    running.until(lambda: any(row["payload"].get("version") for row in history.journal(kind="activate")))
    running.until(lambda: len(running.daemon.pipeline.lanes) and _serves(running, new))
    append(log, range(61, 80))
    running.until(lambda: running.drained(log))
    running.stop()
    kinds = [(row["kind"], row["partition"]) for row in reversed(history.journal()) if row["kind"] != "config"]
    assert sorted(kinds) == sorted((kind, part) for kind in ("activate", "challenge", "activate") for part in (0, 1))
    newest = history.forecasts("traffic", "cell-1", limit=100)
    versions = {row.model_id: row.version for row in store.models("traffic")}
    assert newest[0]["version"] == versions[new]
    both = [row for row in newest if START_US + 40 * 60_000_000 <= row["slot_time_us"] < START_US + 60 * 60_000_000]
    assert {row["version"] for row in both} == {versions[old], versions[new]}
    assert len(both) == 40


def _serves(running: Running, model_id: int) -> bool:
    versions = running.daemon.streams["traffic"].versions["gru"]
    return any(version.running.model_id == model_id and (version.rank == 0).any() for version in versions)


def test_a_stop_ends_a_training_at_once(
    start: Callable[..., Running], log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child sleeps for ever: neither it nor the daemon may outlive the stop by more than moments."""
    script = tmp_path / "endless"
    tell = "import os, sys, time; open(sys.argv[3] + '/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    script.write_text(f"#!{sys.executable}\n{tell}\n")
    script.chmod(0o755)
    append(log, range(60))
    running = start(learn={"enabled": True, "cron": "0 0 29 2 *"})
    running.until(lambda: running.drained(log))
    monkeypatch.setattr(child.sys, "executable", str(script))
    running.daemon.scheduler.run_now("retrain")
    running.until(lambda: list(tmp_path.rglob("pid")))
    pid = int(next(iter(tmp_path.rglob("pid"))).read_text())
    running.stop()
    assert not Path(f"/proc/{pid}").exists()
    (run,) = History(running.url).retrain_runs()
    assert (run["result"], run["detail"]["why"]) == ("cancelled", "the daemon stops")


def test_a_wrong_reload_changes_nothing_and_a_right_one_takes_effect(
    start: Callable[..., Running], log: MemoryLog, tmp_path: Path
) -> None:
    answers: list[Config | ConfigError] = [
        ConfigError("wrong on purpose"),
        parse_config(raw_config(tmp_path, cooldown_s=7.0)),
    ]

    def reread() -> Config:
        answer = answers.pop(0)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    append(log, range(20))
    running = start(reread=reread)
    running.until(lambda: running.drained(log))
    for cooldown_s in (60.0, 7.0):
        running.daemon.flags.reload = True
        running.until(lambda: not running.daemon.flags.reload)
        running.until(lambda expected=cooldown_s: running.daemon.config.hooks["bandwidth"].cooldown_s == expected)  # type: ignore[misc]
    append(log, range(20, 30))
    running.until(lambda: running.drained(log))
    running.stop()
    assert sum(row["accepted"] for row in History(running.url).progress()) == 30 * 8


def test_health_and_metrics_answer_on_loopback(start: Callable[..., Running], log: MemoryLog) -> None:
    append(log, range(20))
    running = start()
    running.until(lambda: running.drained(log) and running.daemon.phase == "running")
    running.until(lambda: running.daemon.http_address)
    assert running.daemon.http_address is not None
    host, port = running.daemon.http_address
    assert host == "127.0.0.1"
    assert httpx.get(f"http://{host}:{port}/livez").status_code == 200
    assert httpx.get(f"http://{host}:{port}/readyz").status_code == 200
    running.until(
        lambda: (
            'netpredict_records_total{outcome="accepted",stream="traffic"} 160.0'
            in httpx.get(f"http://{host}:{port}/metrics").text
        )
    )


def test_systemd_hears_ready_and_stopping(start: Callable[..., Running], log: MemoryLog, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        running = start(notifier=Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
        assert b"READY=1" in listener.recv(1024)
        running.stop()
        assert b"STOPPING=1" in listener.recv(1024)


def test_the_metrics_tell_of_skill_jobs_loops_and_time_behind(start: Callable[..., Running], log: MemoryLog) -> None:
    append(log, range(90))
    log.append(TOPIC, b"cell-0", b"{", (START_US + 90 * 60_000_000) // 1000)
    running = start(learn={"enabled": True, "cron": "0 0 1 1 *"})
    running.until(lambda: running.drained(log))
    running.until(lambda: b"netpredict_dead_letters_total{" in running.daemon.metrics.render())
    running.daemon.scheduler.run_now("trials")
    running.until(lambda: running.daemon.scheduler.last_runs()["trials"].runs)
    found = running.daemon.metrics.render().decode()
    for line in (
        'netpredict_job_runs_total{job="trials",outcome="done"} 1.0',
        'netpredict_assigned_partitions{topic="ran.traffic"} 2.0',
        'netpredict_behind_seconds{partition="0",topic="ran.traffic"} 0.0',
        'netpredict_outbox_depth{hook="bandwidth"} 0.0',
        "netpredict_late_loops 0.0",
    ):
        assert line in found, line
    assert 'netpredict_step_seconds_count{phase="step"}' in found


def test_a_daemon_on_postgresql_commits_acts_and_begins_where_it_stopped(
    start: Callable[..., Running], log: MemoryLog, tmp_path: Path, postgres: Postgres
) -> None:
    raw = raw_config(tmp_path, mode="auto", actuators=["log"])
    raw["store"]["url"] = postgres.new_database()
    raw["predictors"] = {"naive": {"plugin": "naive"}}
    raw["streams"]["traffic"]["routes"] = [{"active": "naive"}]
    append(log, range(20))
    running = start(raw=raw)
    running.until(lambda: running.drained(log))
    firings = History(running.url).firings()
    assert {row["mode"] for row in firings} == {"auto"}
    running.until(lambda: not History(running.url).outbox_depth())  # old telemetry: all of it has expired
    assert {outcome["kind"] for row in firings for outcome in row["outcomes"]} <= {None, "skipped"}
    running.stop()
    append(log, range(20, 25))
    again = start(raw=raw)
    again.until(lambda: again.drained(log))
    assert sum(row["accepted"] for row in History(again.url).progress()) == 25 * 8


@pytest.mark.parametrize(("gib", "kept_from"), [(0.0, 0), (1e-6, 51)])
def test_a_store_above_its_size_keeps_only_what_is_needed_to_go_on(
    start: Callable[..., Running], log: MemoryLog, tmp_path: Path, gib: float, kept_from: int
) -> None:
    """Two horizons of 4 min: forecasts whose truth is to come, with one to spare."""
    raw = raw_config(tmp_path)
    raw["store"]["retention_gib"] = gib
    raw["predictors"] = {"gru": {"plugin": "ewma"}}
    running = start(raw=raw)
    for first in range(0, 60, 20):
        append(log, range(first, first + 20))
        running.until(lambda: running.drained(log))

    def oldest() -> int:
        return min(row[4] for row in dump(running.url, ["forecast"])["forecast"])

    running.until(lambda: oldest() >= START_US + kept_from * 60_000_000)
    running.stop()
    assert oldest() == START_US + kept_from * 60_000_000

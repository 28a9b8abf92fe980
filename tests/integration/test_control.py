"""Verbs of the command line while a real daemon holds the store and consumes from a real broker."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netpredict.config import load_config
from netpredict.errors import StoreError
from netpredict.ingest.messages import Traffic
from netpredict.operate.publisher import KafkaSink
from netpredict.store import compare
from netpredict.store.history import History
from tests.integration.daemon_process import DaemonProcess, cli, toml
from tests.services.kafka_broker import KafkaBroker

pytestmark = pytest.mark.slow
START_US = 1_750_000_020_000_000


def config_file(folder: Path, broker: KafkaBroker, topic: str) -> Path:
    config = {
        "daemon": {"data_dir": str(folder / "data"), "commit_interval_s": 0.1},
        "kafka": {"bootstrap_servers": [broker.bootstrap], "poll_timeout_s": 0.1, "session_timeout_s": 6.0},
        "store": {"url": f"sqlite:///{folder}/store.db", "retention_days": 36500.0},
        "http": {"enabled": False},
        "streams": {
            "traffic": {
                "topic": topic,
                "schema": "traffic",
                "series_by": ["radio_cell_id"],
                "period_s": 60.0,
                "kpis": ["prb_use_dl_percent"],
                "features": ["connected_ues"],
                "horizon_steps": 4,
                "warm_steps": 2,
            }
        },
        "predictors": {"gru": {"plugin": "gru", "options": {"units": 4, "train_epochs": 1, "bptt_steps": 8}}},
    }
    path = folder / "netpredict.toml"
    path.write_text(toml(config) + '[[streams.traffic.routes]]\nactive = "gru"\n')
    return path


def messages(minutes: range) -> list[tuple[bytes, bytes]]:
    found = []
    for minute in minutes:
        for cell in range(4):
            time_us = START_US + minute * 60_000_000
            prb = 50 + 30 * math.sin(minute / 3 + cell)
            message = Traffic(
                "netpredict.traffic/1", f"cell-{cell}", time_us, prb_use_dl_percent=prb, connected_ues=5.0
            )
            found.append((message.radio_cell_id.encode(), msgspec.json.encode(message)))
    return found


def send(broker: KafkaBroker, topic: str, minutes: range) -> None:
    with KafkaSink(broker.bootstrap) as sink:
        for key, value in messages(minutes):
            sink.send(topic, key, value)
        sink.flush()


def trained(config: Path, recorded: Path, *more: str) -> str:
    words = ("train", "traffic", "gru", "--file", str(recorded), "--config", str(config), "--json", *more)
    return str(msgspec.json.decode(cli(*words))["version"])


@pytest.mark.timeout(300)
def test_a_running_daemon_takes_verbs_and_serves_what_was_promoted_without_a_restart(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = broker.new_topic("ran.traffic")
    config = config_file(tmp_path, broker, topic)
    recorded = tmp_path / "history.jsonl"
    cli("simulate", "--to", str(recorded), "--seconds", "5400", "--radio-cells", "8", "--ues", "1")
    url = load_config(config).store.url
    cli("db", "upgrade", "--config", str(config))
    first = trained(config, recorded, "--promote")

    with DaemonProcess(config) as daemon:
        send_until(daemon, broker, topic, url, first, 0)
        pid = daemon.process.pid
        second = trained(config, recorded_again(recorded), "--promote")  # registers and promotes through the daemon
        assert second != first
        send_until(daemon, broker, topic, url, second, 200)
        told = msgspec.json.decode(cli("models", "rollback", "traffic", "gru", "--config", str(config), "--json"))
        assert (told["active"], told["was"]) == (first, second)
        send_until(daemon, broker, topic, url, first, 400)

        cli("streams", "transplant", "traffic", "cell-0", "cell-1", "--config", str(config))
        minutes = iter(range(600, 700))

        def transplanted() -> bool:
            send(broker, topic, range(at := next(minutes), at + 1))
            return bool(History(url).journal(kind="transplant"))

        daemon.wait_until(transplanted, 60)
        assert daemon.process.pid == pid
        assert daemon.terminate() == 0
    cli("models", "promote", "traffic", "gru", second, "--config", str(config))  # and with nobody there, as before
    active = [row["version"] for row in History(url).models("traffic", "gru") if row["stage"] == "active"]
    assert active == [second]


def recorded_again(recorded: Path) -> Path:
    """Half of the history, which makes another version."""
    lines = recorded.read_text().splitlines(keepends=True)
    half = recorded.with_name("half.jsonl")
    half.write_text("".join(lines[: len(lines) // 2]))
    return half


def send_until(daemon: DaemonProcess, broker: KafkaBroker, topic: str, url: str, version: str, minute: int) -> None:
    """Minute by minute, until a version serves: it is warmed up as a shadow first."""
    minutes = iter(range(minute, minute + 200))

    def served() -> bool:
        at = next(minutes)
        send(broker, topic, range(at, at + 1))
        return any(
            row["version"] == version and row["slot_time_us"] >= START_US + minute * 60_000_000
            for row in forecasts(url)
        )

    daemon.wait_until(served, 120)


def forecasts(url: str) -> list[dict[str, Any]]:
    try:
        rows = compare.dump(url, ["forecast"])["forecast"]
    except StoreError:  # the daemon has not made it yet
        return []
    return [{"slot_time_us": row[4], "version": row[8]} for row in rows]

"""The main job, end to end: real traces, a real broker, the daemon as a process, a real receiver of actions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition

from netpredict.store import compare
from netpredict.store.history import History
from tests.integration.daemon_process import DaemonProcess, Receiver, cli, toml
from tests.services.kafka_broker import KafkaBroker

pytestmark = pytest.mark.slow
PARTITIONS = 3
FOREVER_S = 1e9  # the traces are years old: without it every action would have expired


def config_of(broker: KafkaBroker, topics: dict[str, str], folder: Path, url: str, **kafka: Any) -> dict[str, Any]:
    def stream(name: str, series_by: list[str], kpi: str, features: list[str], predictor: str) -> dict[str, Any]:
        return {
            "topic": topics[name],
            "schema": name,
            "series_by": series_by,
            "period_s": 1.0,
            "kpis": [kpi],
            "features": features,
            "horizon_steps": 4,
            "warm_steps": 4,
        }

    ue = ["ue_id", "radio_cell_id"]
    streams = {
        "traffic": stream("traffic", ["radio_cell_id"], "dl_throughput_kbps", ["ul_throughput_kbps"], "gru"),
        "rsrp": stream("rsrp", ue, "rsrp_dbm", ["serving"], "lstm"),
        "channel-state": stream("channel-state", ue, "cqi", ["sinr_db"], "simple_rnn"),
    }
    routes = {"traffic": "gru", "rsrp": "lstm", "channel-state": "simple_rnn"}
    quick = {"units": 16, "train_epochs": 1}
    return {
        "daemon": {"data_dir": str(folder / "data"), "commit_interval_s": 0.2},
        "kafka": {"bootstrap_servers": [broker.bootstrap], "poll_timeout_s": 0.2, "session_timeout_s": 6.0, **kafka},
        "store": {"url": f"sqlite:///{folder}/store.db", "retention_days": 36500.0},
        "http": {"port": 0},
        "streams": streams,
        "predictors": {name: {"plugin": name, "options": quick} for name in ("gru", "lstm", "simple_rnn")},
        "hooks": {
            "bandwidth": {
                "plugin": "bandwidth",
                "stream": "traffic",
                "options": {"demand_kpi": "dl_throughput_kbps", "valid_for_s": FOREVER_S},
            },
            "handover": {
                "plugin": "handover",
                "stream": "rsrp",
                "options": {"allow_approximate": True, "valid_for_s": FOREVER_S, "a3_offset_db": 1.0, "ttt_ms": 0},
            },
            "mcs": {"plugin": "mcs", "stream": "channel-state", "options": {"valid_for_s": FOREVER_S}},
        },
        "actuators": {"webhook": {"plugin": "webhook", "options": {"url": url}}},
        "_routes": routes,
    }


def write_config(path: Path, config: dict[str, Any], mode: str) -> Path:
    """The config file, with the routes (arrays of tables) and the mode of the hooks."""
    routes = config["_routes"]
    config = {key: value for key, value in config.items() if key != "_routes"}
    for hook in config["hooks"].values():
        hook.update({"mode": mode, "actuators": ["webhook"], "cooldown_s": 0.0, "exclude": "none"})
        hook["effect_s"] = FOREVER_S
        hook["refuse_quality"] = []  # the neighbours of these traces are approximate
        hook["breaker"] = {"buckets": 0}  # one train_epoch makes no network that may act
    text = toml(config)
    for stream, predictor in routes.items():
        text += f'[[streams.{stream}.routes]]\nactive = "{predictor}"\nshadows = []\n'
    path.write_text(text)
    return path


def end_offsets(broker: KafkaBroker, topics: dict[str, str]) -> dict[tuple[str, int], int]:
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False)
    places = [KafkaTopicPartition(topic, n) for topic in topics.values() for n in range(PARTITIONS)]
    ends = consumer.end_offsets(places)
    consumer.close()
    return {(place.topic, place.partition): end for place, end in ends.items()}


def progress(url: str) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["topic"], row["partition"]): row for row in History(url).progress()}


def drained(url: str, ends: dict[tuple[str, int], int]) -> bool:
    try:
        rows = progress(url)
    except Exception:  # the daemon has not made the store yet
        return False
    return all(end == 0 or (rows.get(place) or {}).get("next_offset") == end for place, end in ends.items())


def assert_accounted_for(url: str, ends: dict[tuple[str, int], int]) -> None:
    rows = progress(url)
    for place, end in ends.items():
        if end:
            counts = {name: rows[place][name] for name in ("accepted", "duplicate", "late", "dead", "control")}
            assert sum(counts.values()) == end == rows[place]["next_offset"], (place, counts)


@pytest.fixture(scope="module")
def topics(broker: KafkaBroker, data_folder: Path) -> dict[str, str]:
    return {name: broker.new_topic(f"ran.{name}", PARTITIONS) for name in ("traffic", "rsrp", "channel-state")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main-job")


@pytest.fixture(scope="module")
def trained(broker: KafkaBroker, topics: dict[str, str], folder: Path, data_folder: Path) -> Path:
    """A store with an active lstm, gru and simple_rnn, trained for a moment on four of the traces."""
    data = str(data_folder)
    recorded = folder / "history.jsonl.gz"
    cli("replay", "ucc5g", "--to", str(recorded), "--limit-traces", "4", NETPREDICT_DATA=data)
    config = write_config(
        folder / "train.toml", config_of(broker, {k: k for k in topics}, folder, "http://127.0.0.1:1/"), "shadow"
    )
    cli("db", "upgrade", "--config", str(config))
    for stream, predictor in (("traffic", "gru"), ("rsrp", "lstm"), ("channel-state", "simple_rnn")):
        cli("train", stream, predictor, "--file", str(recorded), "--promote", "--config", str(config))
    return folder / "store.db"


@pytest.mark.timeout(600)
def test_the_main_job_end_to_end(
    broker: KafkaBroker, topics: dict[str, str], folder: Path, trained: Path, data_folder: Path
) -> None:
    url = f"sqlite:///{trained}"
    data = {"NETPREDICT_DATA": str(data_folder)}
    with Receiver() as receiver:
        config = write_config(folder / "run.toml", config_of(broker, topics, folder, receiver.url), "auto")
        sent = json.loads(cli(*replay(config, 20), "--json", **data))
        assert "Europe/Dublin" in json.dumps(sent)
        ends = end_offsets(broker, topics)
        assert sum(ends.values()) > 50_000
        with DaemonProcess(config) as daemon:
            daemon.wait_until(lambda: drained(url, ends), 180)
            daemon.wait_until(lambda: receiver.hooks() == {"bandwidth", "handover", "mcs"}, 60)
            assert daemon.terminate() == 0, daemon.tail()
        assert_accounted_for(url, ends)
        forecasts = {row["stream"] for row in History(url).skill()}
        assert forecasts == {"traffic", "rsrp", "channel-state"}
        before = compare.dump(url, ["forecast"])
        cli(*replay(config, 2), **data)  # the same again: all of it is late or duplicate, none of it is applied twice
        later = end_offsets(broker, topics)
        with DaemonProcess(config) as daemon:
            daemon.wait_until(lambda: drained(url, later), 120)
            assert daemon.terminate() == 0, daemon.tail()
        assert_accounted_for(url, later)
        assert compare.difference(before, compare.dump(url, ["forecast"])) == []
        assert not History(url).gaps()


def replay(config: Path, traces: int) -> list[str]:
    return [
        "replay",
        "ucc5g",
        "--to",
        "kafka",
        "--speed",
        "0",
        "--overlay",
        "--limit-traces",
        str(traces),
        "--config",
        str(config),
    ]


@pytest.mark.timeout(600)
def test_the_store_is_the_same_after_kill_9_and_whatever_the_polls(
    broker: KafkaBroker, folder: Path, trained: Path, data_folder: Path
) -> None:
    """Three daemons over one log: polls of 5,000; polls of 700; polls of 5,000, killed three times."""
    topics = {name: broker.new_topic(f"short.{name}", PARTITIONS) for name in ("traffic", "rsrp", "channel-state")}
    config = write_config(folder / "fill.toml", config_of(broker, topics, folder, "http://127.0.0.1:1/"), "shadow")
    cli(*replay(config, 6), NETPREDICT_DATA=str(data_folder))
    ends = end_offsets(broker, topics)
    dumps = []
    for name, poll, kills in (("whole", 5000, 0), ("small", 700, 0), ("killed", 5000, 3)):
        home = folder / name
        home.mkdir()
        config = config_of(broker, topics, home, "http://127.0.0.1:1/", poll_records_max=poll)
        path = write_config(home / "run.toml", config, "shadow")
        url = config["store"]["url"]
        copy_models(trained, path, url)
        for kill in range(kills):
            with DaemonProcess(path) as daemon:
                daemon.wait_until(lambda kill=kill, url=url: covered(url) > (kill + 1) * sum(ends.values()) // 5)  # type: ignore[misc]
                daemon.kill()
        with DaemonProcess(path) as daemon:
            daemon.wait_until(lambda url=url: drained(url, ends), 240)  # type: ignore[misc]
            assert daemon.terminate() == 0, daemon.tail()
        dumps.append(compare.dump(url))
    assert compare.difference(dumps[0], dumps[1]) == []
    assert compare.difference(dumps[0], dumps[2]) == []


def copy_models(trained: Path, config: Path, url: str) -> None:
    """The same active versions in a fresh store."""
    from netpredict.store.sql import SqlStore

    cli("db", "upgrade", "--config", str(config))
    rows = [row for row in History(f"sqlite:///{trained}").models() if row["stage"] == "active"]
    with SqlStore(url) as store:
        for row in rows:
            store.register_model(
                row["stream"], row["predictor"], row["version"], row["plugin"], row["folder"], row["scores"], "active"
            )


def covered(url: str) -> int:
    if not os.path.exists(url.removeprefix("sqlite:///")):
        return 0
    return sum(row["next_offset"] or 0 for row in progress(url).values())

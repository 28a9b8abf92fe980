"""The daemon for half an hour under bursts: memory and descriptors stay flat, the lag drains, nothing stops.

``make soak``; by environment SOAK_MINUTES, SOAK_SERIES, SOAK_PER_S. Writes ``build/soak.json`` and ``build/soak.png``.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from netpredict.ingest.messages import Traffic
from netpredict.store.history import History
from tests.integration.daemon_process import DaemonProcess, Receiver, toml
from tests.services.kafka_broker import KafkaBroker
from tests.services.process import free_ports

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SERIES = int(os.environ.get("SOAK_SERIES", "50000"))
PER_S = float(os.environ.get("SOAK_PER_S", "1000"))
WARM_UP_MINUTES_MAX = 20.0
"""Until then a version serves and another is on trial beside it: from there on nothing new takes memory."""
BURST = 10
BURST_EVERY_S, BURST_S = 180.0, 30.0
PERIOD_S = round(SERIES / (PER_S * (1 + (BURST - 1) * BURST_S / BURST_EVERY_S)))
"""Reports come too slowly by it until a burst brings what is behind: over all, event time goes as the clock does."""
BACKLOG_SLOTS = 60
"""Come at once: enough to train by."""
BUCKET_SLOTS = 5
PARTITIONS = 4
SAMPLE_S = 5.0
DRAIN_S = 120.0
GROWTH_RATIO_MAX = 1.05
"""Most that the last quarter of the run may use above the second one."""
OUT = Path("build/soak.json")


class Load(threading.Thread):
    """Reports of all series in turn, every tenth burst of seconds at ten times the rate; one in 5,000 is damaged."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        super().__init__(name="load", daemon=True)
        self.sent, self.damaged, self.refused = 0, 0, 0
        self.stop = threading.Event()
        self._broker, self._topic = broker, topic

    def run(self) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._broker.bootstrap, "linger.ms": 20})
        rng = np.random.default_rng(3)
        base, walk = rng.uniform(10, 60, SERIES), np.zeros(SERIES)
        first_us = (int(time.time()) // PERIOD_S - BACKLOG_SLOTS) * PERIOD_S * 1_000_000
        began_s, due = time.monotonic(), float(BACKLOG_SLOTS * SERIES)
        last_s = began_s
        encode = msgspec.json.Encoder().encode
        while not self.stop.is_set():
            now_s = time.monotonic()
            burst = (now_s - began_s) % BURST_EVERY_S > BURST_EVERY_S - BURST_S
            due += (now_s - last_s) * PER_S * (BURST if burst else 1)
            last_s = now_s
            while self.sent < due:
                slot, series = divmod(self.sent, SERIES)
                if series == 0:
                    walk = np.clip(0.95 * walk + rng.normal(0, 3, SERIES), -40, 40)
                time_us = first_us + slot * PERIOD_S * 1_000_000
                use = float(round(min(max(base[series] + walk[series], 0.0), 100.0), 1))
                name = f"cell-{series:05d}"
                value = encode(Traffic("netpredict.traffic/1", name, time_us, prb_use_dl_percent=use))
                if self.sent % 5000 == 4999:
                    value, self.damaged = value[:-7], self.damaged + 1
                producer.produce(self._topic, value, name, timestamp=time_us // 1000, on_delivery=self._delivered)
                self.sent += 1
                if self.sent % 500 == 0:
                    producer.poll(0)
            producer.poll(0.01)
        producer.flush(30)

    def _delivered(self, error: object, _: object) -> None:
        self.refused += error is not None


def config_of(broker: KafkaBroker, topic: str, folder: Path, receiver: Receiver, port: int) -> Path:
    table: dict[str, Any] = {
        "daemon": {"data_dir": str(folder / "data")},
        "kafka": {"bootstrap_servers": [broker.bootstrap], "session_timeout_s": 10.0, "group": "soak"},
        "store": {"url": f"sqlite:///{folder}/soak.db", "retention_days": 0.02},
        "http": {"port": port},
        "publish": {"enabled": True, "forecasts_topic": f"{topic}.forecasts", "actions_topic": f"{topic}.actions"},
        "learn": {
            "enabled": True,
            "cron": "*/3 * * * *",
            "series_max": 300,
            "history_steps": 200,
            "timeout_s": 300.0,
            "challenge_buckets_min": 1,
            "challenge_buckets_max": 2,
        },  # a trial ends, and the next training begins
        "streams": {
            "traffic": {
                "topic": topic,
                "schema": "traffic",
                "series_by": ["radio_cell_id"],
                "period_s": float(PERIOD_S),
                "kpis": ["prb_use_dl_percent"],
                "horizon_steps": 6,
                "warm_steps": 2,
                "bucket_s": float(BUCKET_SLOTS * PERIOD_S),
            }
        },
        "predictors": {
            "gru": {"plugin": "gru", "options": {"units": 16, "train_epochs": 1}},
            "ewma": {"plugin": "ewma"},
        },
        "hooks": {
            "bandwidth": {
                "plugin": "bandwidth",
                "stream": "traffic",
                "mode": "auto",
                "actuators": ["webhook"],
                "cooldown_s": 300.0,
                "rate_per_min": 600.0,
                "breaker": {
                    "buckets": 0
                },  # on noise no forecast beats the naive one, and no action would ever be taken
            }
        },
        "actuators": {"webhook": {"plugin": "webhook", "options": {"url": receiver.url}}},
    }
    path = folder / "soak.toml"
    path.write_text(toml(table) + '[[streams.traffic.routes]]\nactive = "gru"\nshadows = ["ewma"]\n')
    return path


def sample(pid: int, port: int) -> dict[str, float]:
    """What the process uses, by /proc, and what it says of itself, by its metrics."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "fds": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    for name in ("consumer_lag_records", "outbox_depth", "unpublished_windows", "series", "late_loops"):
        values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"netpredict_{name}{{")]
        values += [line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"netpredict_{name} ")]
        found[name] = sum(map(float, values))
    return found


def stages(url: str) -> list[str]:
    """Of the versions that were trained, oldest first."""
    return [row["stage"] for row in reversed(History(url).models("traffic", "gru")) if row["version"] != "-"]


def quarters(samples: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Medians of the second and of the last quarter."""
    values = np.array([row[name] for row in samples])
    n = len(values) // 4
    return float(np.median(values[n : 2 * n])), float(np.median(values[-n:]))


def picture(samples: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ("rss_mib", "fds", "threads", "consumer_lag_records", "outbox_depth")
    figure, axes = pyplot.subplots(len(names), 1, sharex=True, figsize=(9, 10))
    minutes = [row["at_s"] / 60 for row in samples]
    for axis, name in zip(axes, names, strict=True):
        axis.plot(minutes, [row[name] for row in samples])
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path)


@pytest.mark.timeout(0)
def test_soak(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = broker.new_topic("soak", PARTITIONS, {"retention.ms": "-1"})
    store = f"sqlite:///{tmp_path}/soak.db"
    for stem in ("forecasts", "actions"):
        broker.create_topic(f"{topic}.{stem}", PARTITIONS, {"retention.ms": "-1", "retention.bytes": "67108864"})
    (port,) = free_ports(1)
    load, samples = Load(broker, topic), []
    with Receiver() as receiver, DaemonProcess(config_of(broker, topic, tmp_path, receiver, port)) as daemon:
        daemon.wait_until(lambda: "phase=running" in daemon.tail() or '"running"' in daemon.tail(), 120)
        load.start()
        began_s = time.monotonic()
        warm_s = float("inf")
        while (at_s := time.monotonic() - began_s) < warm_s + 60 * MINUTES:
            time.sleep(SAMPLE_S)
            assert daemon.process.poll() is None, daemon.tail()
            assert load.is_alive()
            assert load.refused == 0
            samples.append({"at_s": at_s, "sent": load.sent, **sample(daemon.process.pid, port)})
            if len(samples) % 12 == 0:
                print(json.dumps(samples[-1]), flush=True)
                if warm_s == float("inf") and {"active", "challenger"} <= set(stages(store)):
                    warm_s, warm, versions_at_warm = at_s, len(samples), len(stages(store))
                assert min(warm_s, at_s) < 60 * WARM_UP_MINUTES_MAX, stages(store)
        load.stop.set()
        load.join()
        drained_s = time.monotonic()
        daemon.wait_until(lambda: sample(daemon.process.pid, port)["consumer_lag_records"] == 0, DRAIN_S)
        drained_s = time.monotonic() - drained_s
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=30) as reply:
            assert reply.status == 200
        assert daemon.terminate() == 0, daemon.tail()
        actions = len(receiver.actions)
    history = History(store)
    letters = sum(row["dead"] for row in history.progress())  # all that ever were: old ones are pruned
    applied = sum(row["next_offset"] for row in history.progress())
    versions = stages(store)
    rss, fds = quarters(samples[warm:], "rss_mib"), quarters(samples[warm:], "fds")
    result = {
        "minutes": MINUTES,
        "warm_up_minutes": round(warm_s / 60, 1),
        "series": SERIES,
        "records": load.sent,
        "records_per_s": PER_S,
        "burst": BURST,
        "rss_mib_second_quarter": round(rss[0]),
        "rss_mib_last_quarter": round(rss[1]),
        "fds_second_quarter": fds[0],
        "fds_last_quarter": fds[1],
        "lag_records_max": max(row["consumer_lag_records"] for row in samples),
        "drained_s": round(drained_s, 1),
        "outbox_depth_max": max(row["outbox_depth"] for row in samples),
        "actions_received": actions,
        "dead_letters": letters,
        "damaged": load.damaged,
        "versions_at_warm": versions_at_warm,
        "versions": versions,
        "log_mib": round(daemon.log.stat().st_size / 2**20, 2),
        "store_mib": round((tmp_path / "soak.db").stat().st_size / 2**20),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"result": result, "samples": samples}, indent=1) + "\n")
    picture(samples, OUT.with_suffix(".png"))
    print(json.dumps(result, indent=1))
    assert load.refused == 0
    assert applied == load.sent
    assert letters == load.damaged
    assert all(row["late_loops"] == 0 for row in samples)
    assert rss[1] <= GROWTH_RATIO_MAX * rss[0], rss
    assert fds[1] <= fds[0] + 2, fds
    assert len(versions) > versions_at_warm, "trials end and trainings go on"
    assert actions > 0

"""A stream over a broker that asks who we are: files of secrets, config, telemetry, and what came of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from netpredict.errors import StoreError
from netpredict.ingest.messages import Traffic
from netpredict.operate.publisher import KafkaSink
from netpredict.store.history import History
from tests.integration.daemon_process import toml
from tests.services.kafka_secure import PASSWORD, USER, SecureBroker
from tests.services.process import free_ports

START_US = 1_750_000_020_000_000
CELLS = 4
COUNTS = ("accepted", "duplicate", "late", "dead", "control")


def private(path: Path, text: str) -> Path:
    """A file for its owner only, put in place at once."""
    new = path.with_suffix(".new")
    new.write_text(text + "\n")
    new.chmod(0o600)
    return new.rename(path)


def scram(broker: SecureBroker, folder: Path, password: str = PASSWORD) -> dict[str, Any]:
    """``[kafka]`` for a password."""
    return {
        "bootstrap_servers": [broker.scram],
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": str(broker.authority.ca_file),
        "sasl_username": USER,
        "sasl_password_file": str(private(folder / "password", password)),
    }


def mtls(broker: SecureBroker, stem: str = "client", key: Path | None = None) -> dict[str, Any]:
    """``[kafka]`` for a certificate."""
    return {
        "bootstrap_servers": [broker.mtls],
        "security_protocol": "SSL",
        "ssl_ca_file": str(broker.authority.ca_file),
        "ssl_cert_file": str(broker.folder / f"{stem}.crt"),
        "ssl_key_file": str(key or broker.folder / f"{stem}.key"),
    }


class World:
    """A config file with one stream in and forecasts out."""

    def __init__(self, broker: SecureBroker, folder: Path, kafka: dict[str, Any], topic: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.broker = broker
        self.topic = topic or broker.new_topic("ran.traffic", 2)
        self.forecasts, self.actions = broker.new_topic("out.forecasts"), broker.new_topic("out.actions")
        self.group = f"netpredict-{self.topic}"
        self.url = f"sqlite:///{folder}/store.db"
        (self.port,) = free_ports(1)
        common = {"poll_timeout_s": 0.1, "session_timeout_s": 6.0, "group": self.group}
        config = {
            "daemon": {"data_dir": str(folder / "data"), "commit_interval_s": 0.1},
            "kafka": common | kafka,
            "store": {"url": self.url, "retention_days": 36500.0},
            "http": {"port": self.port},
            "publish": {"enabled": True, "forecasts_topic": self.forecasts, "actions_topic": self.actions},
            "streams": {
                "traffic": {
                    "topic": self.topic,
                    "schema": "traffic",
                    "series_by": ["radio_cell_id"],
                    "period_s": 60.0,
                    "kpis": ["prb_use_dl_percent"],
                    "horizon_steps": 4,
                }
            },
            "predictors": {"naive": {"plugin": "naive"}},
        }
        self.path = folder / "netpredict.toml"
        self.path.write_text(toml(config) + '[[streams.traffic.routes]]\nactive = "naive"\n')

    def allow(self) -> None:
        """What deploy/kafka/README.md says that the daemon needs, and nothing else."""
        self.broker.allow(reads=[self.topic], writes=[self.forecasts, self.actions], groups=[self.group])

    def send(self, minutes: range) -> int:
        """Telemetry of some minutes by the administrator; gives how many records."""
        with KafkaSink(self.broker.bootstrap) as sink:
            for minute in minutes:
                for cell in range(CELLS):
                    time_us = START_US + minute * 60_000_000
                    message = Traffic(
                        "netpredict.traffic/1", f"cell-{cell}", time_us, prb_use_dl_percent=float(minute % 50 + cell)
                    )
                    sink.send(self.topic, message.radio_cell_id.encode(), msgspec.json.encode(message))
            sink.flush()
        return len(minutes) * CELLS

    def counted(self) -> dict[str, int]:
        """Records by what became of them."""
        try:
            rows = History(self.url).progress()
        except StoreError:
            return {}
        return {name: sum(row[name] for row in rows) for name in COUNTS}

    def accepted(self) -> int:
        """Records that were used."""
        return self.counted().get("accepted", 0)

    def readiness(self) -> tuple[int, str]:
        """Status and text of /readyz; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as error:
            return error.code, " ".join(json.loads(error.read())["not_ready"])
        except OSError:
            return 0, ""

    def published(self) -> int:
        """Forecasts in Kafka."""
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, enable_auto_commit=False)
        place = TopicPartition(self.forecasts, 0)
        end = consumer.end_offsets([place])[place]
        consumer.close()
        return int(end)

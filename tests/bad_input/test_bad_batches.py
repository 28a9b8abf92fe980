"""B2, B3, B12 and B13 of the catalogue of bad input: what only a real broker can deliver, to a real daemon."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from netpredict.store import migrate
from netpredict.store.compare import Dump, difference, dump
from tests.bad_input.harness import GOOD, MINUTES, message, of
from tests.integration.daemon_process import DaemonProcess, toml
from tests.pipeline_world import INGEST_MS, traffic
from tests.services.kafka_broker import KafkaBroker

LIVE = {
    "daemon": {"commit_interval_s": 0.1},
    "http": {"enabled": False},
    "streams": {
        "traffic": {
            "schema": "traffic",
            "series_by": ["radio_cell_id"],
            "period_s": 60.0,
            "phase_s": 20.0,
            "kpis": ["prb_use_dl_percent"],
            "horizon_steps": 4,
            "warm_steps": 3,
            "bucket_s": 600.0,
            "routes": [{"active": "ewma"}],
        }
    },
    "predictors": {"ewma": {"plugin": "ewma"}},
}


class Live:
    """A topic of one partition with good cells, and what a daemon makes of it."""

    def __init__(self, broker: KafkaBroker, folder: Path, name: str) -> None:
        self.topic = broker.new_topic(name, configs={"max.message.bytes": "20000000", "retention.ms": "-1"})
        self.broker = broker
        self.config = folder / f"{name}.toml"
        self.url = f"sqlite:///{folder}/{name}.db"
        kafka = {"bootstrap_servers": [broker.bootstrap], "group": "test", "session_timeout_s": 6.0}
        config: dict[str, Any] = LIVE | {"kafka": kafka, "store": {"url": self.url}}
        config["daemon"] = LIVE["daemon"] | {"data_dir": str(folder / name)}
        config["streams"] = {"traffic": LIVE["streams"]["traffic"] | {"topic": self.topic}}
        self.config.write_text(toml(config).replace('{"active": "ewma"}', '{ active = "ewma" }'))

    def produce(self, rows: list[tuple[bytes | None, bytes | None]], **settings: Any) -> None:
        """As one batch where it fits."""
        producer = KafkaProducer(
            bootstrap_servers=self.broker.bootstrap, acks="all", linger_ms=300, max_request_size=20_000_000, **settings
        )
        try:
            for key, value in rows:
                producer.send(self.topic, value=value, key=key, partition=0, timestamp_ms=INGEST_MS)
            producer.flush(timeout=30)
        finally:
            producer.close(timeout=10)

    def good(self, first: int, last: int, **settings: Any) -> None:
        """Minutes of the good cells."""
        minutes = range(first, last)
        self.produce([traffic(key, minute, 30.0 + minute % 9) for minute in minutes for key in GOOD], **settings)

    def drained(self, end: int) -> Dump:
        """Run a daemon until the store holds this offset; what the store holds then."""
        migrate.upgrade(self.url)
        with DaemonProcess(self.config) as daemon:
            daemon.wait_until(lambda: [row[5] for row in dump(self.url, ["topic_progress"])["topic_progress"]] == [end])
            assert daemon.terminate() == 0, daemon.tail()
        found = dump(self.url)
        (progress,) = found["topic_progress"]
        assert sum(progress[6:11]) == end
        return {
            table: [tuple("topic" if value == self.topic else value for value in row) for row in rows]
            for table, rows in found.items()
        }


@pytest.fixture(scope="module")
def calm(broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Dump:
    live = Live(broker, tmp_path_factory.mktemp("calm"), "calm")
    live.good(0, MINUTES)
    return live.drained(MINUTES * len(GOOD))


@pytest.fixture
def live(broker: KafkaBroker, tmp_path: Path) -> Live:
    return Live(broker, tmp_path, f"bad-{uuid.uuid4().hex[:6]}")


def unharmed(store: Dump, calm: Dump) -> bool:
    assert of(calm, GOOD)["forecast"]
    assert difference(of(store, GOOD), of(calm, GOOD)) == []
    assert difference({"score": store["score"]}, {"score": calm["score"]}) == []
    return True


@pytest.mark.slow
def test_b02_a_batch_whose_checksum_is_wrong_is_a_gap(live: Live, calm: Dump) -> None:
    live.good(0, 20)
    live.produce([(b"bad", b"damaged by the disk"), (b"bad", message())])
    live.good(20, MINUTES)
    (file,) = (live.broker.folder / "data" / f"{live.topic}-0").glob("*.log")
    content = bytearray(file.read_bytes())
    content[content.index(b"damaged") + 1] ^= 0xFF
    with file.open("r+b") as log:
        log.write(content)
    store = live.drained(MINUTES * len(GOOD) + 2)
    assert [row[4:] for row in store["gap"]] == [(60, 62, "corrupt")]
    assert store["topic_progress"][0][10] == 2, "counted as control"
    assert unharmed(store, calm)


@pytest.mark.slow
def test_b03_records_larger_than_a_fetch_are_letters_cut_to_size(live: Live, calm: Dump) -> None:
    live.good(0, 20)
    live.produce([(b"bad", b"[" * 12_000_000), (b"k" * 100_000, b"{")])
    live.good(20, MINUTES, compression_type="zstd")
    store = live.drained(MINUTES * len(GOOD) + 2)
    found = [(row[2], row[3], len(row[6]), len(row[7]), row[8]) for row in store["dead_letter"]]
    assert found == [(60, "oversize", 3, 65_536, 12_000_000), (61, "undecodable", 65_536, 1, 1)]
    assert unharmed(store, calm)


@pytest.mark.slow
def test_b12_a_codec_that_is_not_there_stops_the_daemon_with_what_to_install(live: Live, calm: Dump) -> None:
    """The data is sound: skipping it would lose it. With the codec the daemon goes on where it stopped."""
    live.good(0, 20)
    live.good(20, MINUTES, compression_type="lz4")
    migrate.upgrade(live.url)
    without = (
        "import sys, kafka.codec; kafka.codec.has_lz4 = lambda: False; from netpredict.cli.app import main; main()"
    )
    command = [sys.executable, "-c", without, "run", "--config", str(live.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 78, done.stderr[-2000:]
    assert "codecs" in done.stderr
    store = live.drained(MINUTES * len(GOOD))
    assert store["gap"] == []
    assert unharmed(store, calm)


@pytest.mark.slow
def test_b13_aborted_transactions_and_their_markers_are_no_loss(live: Live, calm: Dump) -> None:
    live.good(0, 20)
    producer = KafkaProducer(bootstrap_servers=live.broker.bootstrap, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for commit in (False, True, False):
        producer.begin_transaction()
        value = b"{rubbish" if commit else message(radio_cell_id="good-0", event_time_us=1)
        producer.send(live.topic, value=value, partition=0, timestamp_ms=INGEST_MS).get(timeout=30)
        (producer.commit_transaction if commit else producer.abort_transaction)()
    producer.close(timeout=10)
    live.good(20, MINUTES)
    store = live.drained(MINUTES * len(GOOD) + 6)
    assert store["gap"] == []
    assert store["topic_progress"][0][10] == 5, "two aborted records and three markers"
    assert [row[2:4] for row in store["dead_letter"]] == [(62, "undecodable")]
    assert unharmed(store, calm)

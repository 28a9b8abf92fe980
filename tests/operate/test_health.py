import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from netpredict.config import HttpConfig
from netpredict.errors import AlreadyRunning
from netpredict.operate.health import HealthServer, health_app
from netpredict.operate.metrics import Metrics


class Daemon:
    def __init__(self) -> None:
        self.late: list[str] = []
        self.missing: list[str] = ["no topic partition yet"]
        self.metrics = Metrics()
        app = health_app(lambda: self.late, lambda: self.missing, self.metrics)
        self.server = HealthServer(app, HttpConfig(port=0))

    def get(self, path: str) -> tuple[int, str]:
        host, port = self.server.address
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    daemon.server.start()
    yield daemon
    daemon.server.stop()


def test_alive_names_the_loops_that_are_late(daemon: Daemon) -> None:
    assert daemon.get("/livez") == (200, '{"status":"ok","late":[]}')
    daemon.late = ["outbox", "poll"]
    status, body = daemon.get("/livez")
    assert status == 503
    assert json.loads(body) == {"status": "late", "late": ["outbox", "poll"]}


def test_ready_says_what_is_missing(daemon: Daemon) -> None:
    status, body = daemon.get("/readyz")
    assert (status, json.loads(body)["not_ready"]) == (503, ["no topic partition yet"])
    daemon.missing = []
    assert daemon.get("/readyz")[0] == 200


def test_a_check_that_fails_is_not_alive(daemon: Daemon) -> None:
    daemon.late = None  # type: ignore[assignment]
    daemon.server.stop()
    broken = HealthServer(health_app(lambda: 1 / 0, list, daemon.metrics), HttpConfig(port=0))  # type: ignore[arg-type, return-value]
    broken.start()
    daemon.server = broken
    assert daemon.get("/livez")[0] == 503


def test_metrics_are_served_as_prometheus_wants_them(daemon: Daemon) -> None:
    daemon.metrics.records.labels("traffic", "accepted").inc(2)
    status, body = daemon.get("/metrics")
    assert status == 200
    assert 'netpredict_records_total{outcome="accepted",stream="traffic"} 2.0' in body


def test_only_reading_is_possible(daemon: Daemon) -> None:
    assert daemon.get("/")[0] == 404
    host, port = daemon.server.address
    request = urllib.request.Request(f"http://{host}:{port}/livez", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=10)


def test_it_listens_on_loopback_and_leaves_nothing_behind() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    daemon = Daemon()
    daemon.server.start()
    assert signal.getsignal(signal.SIGTERM) is handler
    host, port = daemon.server.address
    assert host == "127.0.0.1"
    started_s = time.monotonic()
    daemon.server.stop()
    assert time.monotonic() - started_s < 5
    with socket.socket() as probe:
        assert probe.connect_ex((host, port)) != 0
    assert threading.active_count() <= threads
    daemon.server.stop()


def test_a_taken_port_is_an_error_in_the_caller(daemon: Daemon) -> None:
    second = HealthServer(health_app(list, list, daemon.metrics), HttpConfig(port=daemon.server.address[1]))
    with pytest.raises(AlreadyRunning, match=r"http\.port"):
        second.start()


def test_switched_off_it_does_not_listen() -> None:
    server = HealthServer(health_app(list, list, Metrics()), HttpConfig(enabled=False))
    server.start()
    with pytest.raises(RuntimeError):
        _ = server.address
    server.stop()

"""F23: receivers of actions that fail, hang, cannot be found or answer without end. Ingest does not notice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from netpredict.config import parse_config
from netpredict.ingest.source import MemoryLog
from netpredict.store.sqlite import path_of
from tests.faults import rig
from tests.faults.conftest import Recorder
from tests.faults.rig import InThread, raw_config

TIMEOUT_S = 0.3
HUGE_BYTES = 1 << 30


class Broken(ThreadingHTTPServer):
    """Answers by the path: /500, /hang, /huge. ``requests`` counts by path, ``sent_bytes`` is what /huge got rid of."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests = {"/500": 0, "/hang": 0, "/huge": 0}
        self.sent_bytes = 0
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Broken

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests[self.path] += 1
        if self.path == "/hang":
            self.server.over.wait(60)
            return
        self.send_response(500 if self.path == "/500" else 200)
        self.send_header("Content-Length", str(HUGE_BYTES if self.path == "/huge" else 0))
        self.end_headers()
        while self.path == "/huge" and self.server.sent_bytes < HUGE_BYTES:
            try:
                self.server.sent_bytes += self.wfile.write(b"x" * 65536)
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken() -> Iterator[Broken]:
    with Broken() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()


def outcomes(url: str) -> dict[str, set[tuple[str, str, int]]]:
    with closing(sqlite3.connect(path_of(url))) as connection:
        found: dict[str, set[tuple[str, str, int]]] = {}
        for actuator, *rest in connection.execute(
            "SELECT actuator, kind, reason, attempts FROM outbox WHERE kind IS NOT NULL"
        ):
            found.setdefault(actuator, set()).add(tuple(rest))
    return found


def test_f23_a_broken_receiver_costs_outcomes_and_no_record(broken: Broken, tmp_path: Path, record: Recorder) -> None:
    record.about("F23")
    log = MemoryLog({rig.TOPIC: 3})
    at = f"http://127.0.0.1:{broken.server_port}"
    urls = {"fails": f"{at}/500", "hangs": f"{at}/hang", "huge": f"{at}/huge", "lost": "https://nowhere.invalid/"}
    raw = raw_config(
        tmp_path,
        actuators={
            name: {"plugin": "webhook", "options": {"url": url, "timeout_s": TIMEOUT_S}} for name, url in urls.items()
        },
    )
    # when a reply comes is no matter of the log, so no exclusion may follow from it where two runs are compared
    raw["hooks"]["bandwidth"] |= {"mode": "auto", "actuators": list(urls), "exclude": "none"}
    rig.fill(log, rig.rows(range(2), cells=1))
    with InThread(parse_config(raw), log) as running:
        running.until(lambda: set(outcomes(running.url)) == set(urls), 90)
        assert broken.sent_bytes < 16 << 20, "a reply without end is left unread"
        since_s = time.monotonic()
        rig.fill(log, rig.rows(range(2, 6)))
        running.until(running.drained)
        ingest_s = time.monotonic() - since_s
        assert running.daemon.watchdog.late() == []
        assert running.daemon.runner.failure is None
        found = outcomes(running.url)
    given_up = {("failed", "attempts", 5)}
    assert found["fails"] >= given_up
    assert found["hangs"] >= given_up
    assert found["lost"] >= given_up
    assert {kind for kind, *_ in found["huge"]} == {"applied"}, "its status said so"
    healthy = rig.unfaulted(tmp_path, log, raw=raw | {"store": {"url": f"sqlite:///{tmp_path}/unfaulted/store.db"}})
    rig.assert_equal(running.url, healthy)
    record("F23", [], "500, hang, DNS, huge reply", 242, f"ingest {ingest_s:.1f} s, 5 attempts, outcomes")

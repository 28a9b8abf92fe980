"""Real daemons that live one behind the other on one store, and a real HTTP receiver of their actions."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from netpredict.clock import SystemClock
from netpredict.store.breakers import SqlBreakers
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.store.sqlite import path_of
from netpredict.types import ArmState, Breaker
from tests.faults import memory_daemon, rig
from tests.faults.supervisor import CONTEXT

CELLS = 2
COOLDOWN_S = 2.0
NEVER_ENOUGH = 10**9
"""So many scores are wanted that a breaker stays as a test sets it."""


class Delivery(NamedTuple):
    """One POST, as it came; ``key`` is the action's id, with /revert where it is taken back."""

    at_s: float
    path: str
    key: str
    object_id: str


class Receiver(ThreadingHTTPServer):
    """Notes each delivery, and applies each id once."""

    def __init__(self) -> None:
        self.log: list[Delivery] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def applied(self) -> dict[str, Delivery]:
        """The first delivery of each id."""
        return {delivery.key: delivery for delivery in reversed(self.log)}


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        action = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.log.append(Delivery(time.time(), self.path, self.headers["Idempotency-Key"], action["object_id"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Life:
    """One store and the daemons that live on it, one behind the other."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        urls = {"url": f"{receiver.url}/apply", "revert_url": f"{receiver.url}/revert"}
        webhook = {"plugin": "webhook", "options": urls}
        raw = rig.raw_config(folder, http={"enabled": False}, actuators={"http": webhook})
        raw["hooks"]["bandwidth"] |= {
            "mode": "auto",
            "actuators": ["http"],
            "cooldown_s": COOLDOWN_S,
            "breaker": {"buckets": 1, "rows_min": NEVER_ENOUGH},
        }
        self.url: str = raw["store"]["url"]
        self.settings = raw
        self._log = folder / "daemon.log"
        self._config = folder / "config.json"
        self._config.write_text(json.dumps(raw))

    @contextmanager
    def daemon(self, minutes: int, *faults: str) -> Iterator[BaseProcess]:
        """A process over so many minutes of telemetry; SIGKILL at the end of the block if it still runs."""
        words = (str(self._config), minutes, CELLS, faults, str(self._log))
        process = CONTEXT.Process(target=memory_daemon.run, args=words, daemon=True)
        process.start()
        try:
            yield process
        finally:
            if process.is_alive():
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
            process.join(30)

    def dies(self, minutes: int, fault: str) -> None:
        """A daemon that the fault ends."""
        with self.daemon(minutes, fault) as process:
            process.join(60)
            assert process.exitcode == -signal.SIGKILL, self._log.read_text()[-3000:]

    def done(self, minutes: int) -> None:
        """A daemon that is killed once it has read all and every action has its outcome."""
        with self.daemon(minutes) as process:
            ends = rig.ends_of(memory_daemon.log_of(minutes, CELLS))
            self._until(lambda: rig.drained(self.url, ends) and not History(self.url).outbox_depth(), process)

    def _until(self, true: Callable[[], bool], process: BaseProcess) -> None:
        deadline_s = time.monotonic() + 60
        while not true():
            assert process.is_alive(), self._log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, self._log.read_text()[-3000:]
            time.sleep(0.05)

    def turn(self, state: ArmState) -> None:
        """Say how the breaker stands, while no daemon runs."""
        now_us = SystemClock().now_us()
        with closing(SqlStore(self.url, SystemClock())) as store:
            store.start()
            SqlBreakers(store).put(Breaker("bandwidth", "", state, "test", 0, None, None, now_us, now_us))

    def let_effects_end(self) -> None:
        """As if so much time had gone by while no daemon runs that everything applied has held too long."""
        with closing(sqlite3.connect(path_of(self.url))) as connection, connection:
            connection.execute("UPDATE firing SET effect_until_us = slot_time_us + 1")
            connection.execute("UPDATE lease SET until_us = taken_us")

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Kind and reason by action."""
        with closing(sqlite3.connect(path_of(self.url))) as connection:
            rows = connection.execute("SELECT firing_id, kind, reason FROM outbox").fetchall()
        return {firing_id: (kind, reason) for firing_id, kind, reason in rows}

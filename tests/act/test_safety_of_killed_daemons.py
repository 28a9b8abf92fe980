"""What holds for real processes that are killed around an action: a daemon, its store, and an HTTP receiver."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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
    """One POST, as it came."""

    at_s: float
    action_id: str
    object_id: str


class Receiver(ThreadingHTTPServer):
    """Notes each delivery, and applies each id once."""

    def __init__(self) -> None:
        self.log: list[Delivery] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def applied(self) -> dict[str, Delivery]:
        """The first delivery of each id."""
        return {delivery.action_id: delivery for delivery in reversed(self.log)}


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        action = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.log.append(Delivery(time.time(), self.headers["Idempotency-Key"], action["object_id"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Life:
    """One store and the daemons that live on it, one behind the other."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        url = f"http://127.0.0.1:{receiver.server_port}/"
        raw = rig.raw_config(folder, http={"enabled": False}, actuators={"http": webhook(url)})
        raw["hooks"]["bandwidth"] |= {
            "mode": "auto",
            "actuators": ["http"],
            "cooldown_s": COOLDOWN_S,
            "breaker": {"buckets": 1, "rows_min": NEVER_ENOUGH},
        }
        self.url: str = raw["store"]["url"]
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

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Kind and reason by action."""
        with closing(sqlite3.connect(path_of(self.url))) as connection:
            rows = connection.execute("SELECT firing_id, kind, reason FROM outbox").fetchall()
        return {firing_id: (kind, reason) for firing_id, kind, reason in rows}


def webhook(url: str) -> dict[str, Any]:
    return {"plugin": "webhook", "options": {"url": url}}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_kills_around_an_action_neither_double_it_nor_forget_its_cooldown(receiver: Receiver, tmp_path: Path) -> None:
    life = Life(tmp_path, receiver)
    life.dies(8, "crash:after_apply:1")
    assert len(receiver.log) == 1, "the receiver has it, the store does not know"
    (unrecorded,) = receiver.applied()
    assert life.outcomes()[unrecorded][0] is None
    life.done(12)
    assert Counter(delivery.action_id for delivery in receiver.log)[unrecorded] == 2, "sent again, under its id"
    assert ("skipped", "cooldown") in life.outcomes().values()

    time.sleep(COOLDOWN_S)
    before = list(receiver.log)
    life.turn(ArmState.NOT_MEET)
    life.done(18)
    assert receiver.log == before, "something was sent while disarmed"
    assert ("skipped", "disarmed") in life.outcomes().values()

    life.turn(ArmState.MEET)
    life.dies(24, "crash:before_apply:1")
    assert receiver.log == before, "it died before it sent"
    life.dies(30, "crash:after_apply:2")
    life.done(36)

    applied, outcomes = receiver.applied(), life.outcomes()
    assert len(applied) > len({delivery.action_id for delivery in before})
    assert applied.keys() == {name for name, (kind, _) in outcomes.items() if kind == "applied"}
    for object_id in {delivery.object_id for delivery in applied.values()}:
        times_s = sorted(delivery.at_s for delivery in applied.values() if delivery.object_id == object_id)
        assert len(times_s) > 1
        assert all(later - earlier > COOLDOWN_S - 0.5 for earlier, later in pairwise(times_s)), times_s

import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpredict.operate.notify import Notifier, Watchdog


class HandClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_us(self) -> int:
        return int(self.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify") if request.param == "file" else f"@netpredict-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + path[1:] if path.startswith("@") else path)
        listener.settimeout(5)
        yield listener, path


def test_systemd_is_told_each_state(manager: tuple[socket.socket, str]) -> None:
    listener, path = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    assert notifier.enabled
    assert notifier.ready("reading 3 topics\nSTOPPING=1")
    assert listener.recv(1000) == b"READY=1\nSTATUS=reading 3 topics STOPPING=1", "a status cannot smuggle a line"
    before_us = time.monotonic_ns() // 1000
    assert notifier.reloading()
    first, _, second = listener.recv(1000).decode().partition("\n")
    assert first == "RELOADING=1"
    assert before_us <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.alive()
    assert listener.recv(1000) == b"WATCHDOG=1"
    notifier.extend_timeout(1.5)
    assert listener.recv(1000) == b"EXTEND_TIMEOUT_USEC=1500000"
    notifier.stopping()
    assert listener.recv(1000) == b"STOPPING=1"


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_interval_is_systemds_and_for_this_process(environment: dict[str, str], interval_s: float | None) -> None:
    assert Notifier(environment).watchdog_s == interval_s


def test_a_loop_that_stands_still_silences_the_watchdog(manager: tuple[socket.socket, str]) -> None:
    listener, path = manager
    clock = HandClock()
    beats = {"poll": 1000.0, "outbox": 1000.0}
    watchdog = Watchdog(Notifier({"NOTIFY_SOCKET": path}), clock)
    watchdog.register("poll", lambda: beats["poll"], 60)
    watchdog.register("outbox", lambda: beats["outbox"], 30)
    assert watchdog.ping()
    assert listener.recv(100) == b"WATCHDOG=1"
    clock.now_s = 1031.0
    beats["poll"] = 1031.0
    assert watchdog.late() == ["outbox"]
    assert not watchdog.ping()
    watchdog.forget("outbox")
    assert watchdog.ping()
    watchdog.register("broken", lambda: 1 / 0, 60)
    assert watchdog.late() == ["broken"], "a beat that cannot be read is none"


def test_the_thread_pings_at_half_the_interval(manager: tuple[socket.socket, str]) -> None:
    listener, path = manager
    watchdog = Watchdog(Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "100000"}))
    watchdog.start()
    assert [listener.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    watchdog.stop()
    Watchdog(Notifier({})).start()

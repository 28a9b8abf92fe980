"""What systemd wants to hear, and who may say that the daemon is alive: every loop that moved, or nobody."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from netpredict.clock import Clock, SystemClock


class Notifier:
    """Sends state to systemd's datagram socket; does nothing where there is none. Never raises."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        path = environment.get("NOTIFY_SOCKET", "")
        # a leading @ stands for the NUL of an abstract socket
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_s = _watchdog_s(environment)

    @property
    def enabled(self) -> bool:
        """Whether somebody listens."""
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        """Started, or done with a reload."""
        return self._send("READY=1", _status(status))

    def reloading(self) -> bool:
        """A reload begins; ``ready`` ends it. Without the time systemd would wait for minutes."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> bool:
        """The drain begins."""
        return self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send(_status(text))

    def alive(self) -> bool:
        """Keep the watchdog quiet for one more interval."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for more time to start or stop."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(1.0)
                out.sendto("\n".join(filter(None, lines)).encode(), self._address)
        except OSError:
            return False
        return True


class _Loop(NamedTuple):
    beat: Callable[[], float]
    limit_s: float


class Watchdog:
    """Knows the loops of the daemon and when each moved last; pings systemd only while none is late.

    A loop is registered with ``beat``, which gives the monotonic time of its last move, and how long it may rest.
    """

    def __init__(self, notifier: Notifier | None = None, clock: Clock | None = None) -> None:
        self._notifier = notifier or Notifier({})
        self._clock = clock or SystemClock()
        self._loops: dict[str, _Loop] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, name: str, beat: Callable[[], float], limit_s: float) -> None:
        """Watch a loop; a name that is known already is replaced."""
        with self._lock:
            self._loops[name] = _Loop(beat, limit_s)

    def forget(self, name: str) -> None:
        """Stop watching a loop, because it ends on purpose."""
        with self._lock:
            self._loops.pop(name, None)

    def late(self) -> list[str]:
        """Names of the loops that stood still for too long, or whose beat cannot be read."""
        with self._lock:
            loops = dict(self._loops)
        now_s = self._clock.monotonic_s()
        return sorted(name for name, loop in loops.items() if _age_s(loop, now_s) > loop.limit_s)

    def ping(self) -> bool:
        """Tell systemd that the daemon is alive, unless a loop is late."""
        return not self.late() and self._notifier.alive()

    def start(self) -> None:
        """Ping at half the interval that systemd asks for; without one there is nothing to start."""
        interval_s = self._notifier.watchdog_s
        if interval_s is None or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, args=(interval_s / 2,), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, interval_s: float) -> None:
        while True:
            self.ping()
            if self._stop.wait(interval_s):
                return


def _age_s(loop: _Loop, now_s: float) -> float:
    try:
        return now_s - loop.beat()
    except Exception:
        return float("inf")


def _status(text: str) -> str:
    # a line break would begin another assignment
    return f"STATUS={' '.join(text.split())}" if text else ""


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    pid = environment.get("WATCHDOG_PID", "")
    try:
        interval_s = int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000
        meant = not pid or int(pid) == os.getpid()
    except ValueError:
        return None
    return interval_s if meant and interval_s > 0 else None

"""What the servers share: free ports, child processes that end with us, waiting for an answer."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

POLL_S = 0.1


class ServiceMissing(Exception):
    """This machine lacks what the server needs; the text says what."""


class ServiceFailed(Exception):
    """The server did not start, answer or stop; the text shows the end of its log."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that are free now; another process may still be quicker."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def accepts(port: int) -> bool:
    """Tell whether something listens on this port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ServerProcess:
    """One child process with its log file. It is signalled by its own id only."""

    def __init__(self, argv: Sequence[str], log_file: Path, death_signal: signal.Signals, cwd: Path) -> None:
        # The kernel ends the server when the thread that started it ends, so a killed test run leaves nothing behind.
        setpriv = shutil.which("setpriv")
        tether = [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG")] if setpriv else []
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                [*tether, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._popen.poll() is None

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``ready`` says so; ServiceFailed when the process ends or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                raise ServiceFailed(f"ended with status {self._popen.returncode}\n{self.log_end()}")
            if time.monotonic() > deadline_s:
                raise ServiceFailed(f"no answer within {timeout_s:.0f} s\n{self.log_end()}")
            time.sleep(POLL_S)

    def stop(self, signal_number: signal.Signals, timeout_s: float) -> None:
        """Ask the process to end, and end it when it has not by then."""
        self.send(signal_number)
        self.send(signal.SIGCONT)
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def log_end(self, lines: int = 30) -> str:
        """Return the last lines of the log."""
        text = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join([f"--- end of {self.log_file}", *text[-lines:]])

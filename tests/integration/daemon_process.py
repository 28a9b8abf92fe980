"""Real processes for integration tests: the daemon, CLI verbs, and an HTTP receiver of actions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NETPREDICT = [sys.executable, "-m", "netpredict"]


def cli(*words: str, timeout_s: float = 180.0, **environment: str) -> str:
    """Run a verb to its end; its standard output. Fails the test with its standard error."""
    done = subprocess.run(
        [*NETPREDICT, *words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, f"netpredict {' '.join(words)} left with {done.returncode}:\n{done.stderr[-3000:]}"
    return done.stdout


class DaemonProcess:
    """``netpredict run`` as a process of its own; ended by its id, also when the test fails."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.log = config.with_suffix(".log")
        self._out = self.log.open("ab")
        self.process = subprocess.Popen(
            [*NETPREDICT, "run", "--config", str(config)], stdout=self._out, stderr=self._out
        )

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def wait_until(self, true: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Until something holds, while the process lives."""
        deadline = time.monotonic() + timeout_s
        while not true():
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.tail()}"
            assert time.monotonic() < deadline, f"still not so after {timeout_s} s:\n{self.tail()}"
            time.sleep(0.2)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._out.close()


class Receiver:
    """An HTTP server on loopback that takes actions and remembers them by idempotency key."""

    def __init__(self) -> None:
        self.actions: dict[str, dict[str, Any]] = {}
        received = self.actions

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received[self.headers["Idempotency-Key"]] = body
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/actions"

    def hooks(self) -> set[str]:
        """Names of the hooks that something came from."""
        return {action["hook"] for action in list(self.actions.values())}

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Nested tables as TOML text."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"[{prefix}]"] if prefix and plain else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines.append(toml(value, f"{prefix}.{key}" if prefix else key))
    return "\n".join(lines) + "\n"

"""``tests.faults.memory_daemon`` as a process that can be killed, cut off from power, and asked what it said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

needs_shims = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="needs gcc and LD_PRELOAD"
)


def preloadable(source: Path, folder: Path) -> Path:
    """Compile a shim for LD_PRELOAD into a folder."""
    shim = folder / f"{source.stem}.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl", "-lpthread"], check=True)
    return shim


class Process:
    """Ended by its id at the end of the block."""

    def __init__(self, config: Path, minutes: int, *, log: Path, **environment: str) -> None:
        self.url: str = json.loads(config.read_text())["store"]["url"]
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.memory_daemon", str(config), str(minutes)],
                stdout=out,
                stderr=out,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **environment},
            )

    def until(self, true: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait until something holds, while the process lives."""
        deadline_s = time.monotonic() + timeout_s
        while not true():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline_s, f"still not so:\n{self.said()[-3000:]}"
            time.sleep(0.05)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Its exit code when it ends by itself."""
        return self.process.wait(timeout_s)

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def said(self) -> str:
        """Its log lines."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

"""A daemon that loses power again and again: ``python -m tests.faults.power_cuts CONFIG.json MINUTES CUTS SEED``.

Runs under LD_PRELOAD of ``power_cut.c``. Each child is cut after a random number of writes; then a last one drains.
What was acknowledged before a cut must be there after it. Prints one line of JSON with figures.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults import memory_daemon, rig
from tests.faults.process import preloadable

SOURCE = Path(__file__).with_name("power_cut.c")
OPERATIONS_MAX = 250


def run_under_cuts(config: Path, minutes: int, cuts: int, seed: int, folder: Path) -> dict[str, Any]:
    """Compile the shim, run this module under it; its figures. AssertionError with its words when it fails."""
    shim = preloadable(SOURCE, folder)
    words = [str(config), str(minutes), str(cuts), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.power_cuts", *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        timeout=60 + 20 * cuts,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(config: Path, minutes: int, cuts: int, seed: int) -> None:
    """Cut ``cuts`` times, then drain."""
    url, rng = json.loads(config.read_text())["store"]["url"], random.Random(seed)
    ends = {str(place): end for place, end in rig.ends_of(memory_daemon.log_of(minutes)).items()}
    told = config.parent.with_name("told.json")
    done = 0
    for _ in range(cuts):
        told.unlink(missing_ok=True)
        was_cut = watch(child(config, minutes, told, rng.randrange(OPERATIONS_MAX), rng.randrange(2**31)), told, ends)
        done += was_cut
        # nobody may have the file open while it is cut: so it is read only now
        stored = {str(place): offset or 0 for place, offset in rig.stored(url).items()}
        for place, offset in offsets_in(told).items():
            assert stored.get(place, 0) >= offset, f"{place}: {offset} was acknowledged, stored is {stored.get(place)}"
        if not was_cut:
            break
    told.unlink(missing_ok=True)
    assert not watch(child(config, minutes, told, -1, 0), told, ends)
    print(json.dumps({"cuts": done}))


def child(config: Path, minutes: int, told: Path, operations: int, seed: int) -> int:
    """A daemon whose disk loses power after so many writes and syncs; below 0 never."""
    pid = os.fork()
    if pid:
        return pid
    try:
        folder = os.fsencode(str(config.parent.resolve()))
        ctypes.CDLL(None).power_cut_after(folder, ctypes.c_long(operations), ctypes.c_uint(seed))
        os._exit(memory_daemon.main(config, minutes, told))
    finally:
        os._exit(70)


def watch(pid: int, told: Path, ends: dict[str, int]) -> bool:
    """Whether it was cut; else it came to the end of the log, and was stopped."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"it ended with {status}"
            return True
        if all(offsets_in(told).get(place, 0) >= end for place, end in ends.items()):
            os.kill(pid, signal.SIGTERM)
            _, status = os.waitpid(pid, 0)
            return status != 0  # the cut may still have come
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("neither cut nor drained in time")


def offsets_in(told: Path) -> dict[str, int]:
    """What the daemon has acknowledged since it was started."""
    return json.loads(told.read_text()) if told.exists() else {}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

"""A daemon that loses power again and again: ``python -m tests.faults.power_cuts CONFIG.json MINUTES CUTS SEED``.

Runs under LD_PRELOAD of ``power_cut.c``. Each child is cut after a random number of writes; then a last one drains.
What a reader saw as committed before a cut must be there after it. Prints one line of JSON with figures.
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

SOURCE = Path(__file__).with_name("power_cut.c")
OPERATIONS_MAX = 250


def run_under_cuts(config: Path, minutes: int, cuts: int, seed: int, folder: Path) -> dict[str, Any]:
    """Compile the shim, run this module under it; its figures. AssertionError with its words when it fails."""
    shim = folder / "power_cut.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(SOURCE), "-ldl", "-lpthread"], check=True)
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
    raw = json.loads(config.read_text())
    url, rng = raw["store"]["url"], random.Random(seed)
    ends = rig.ends_of(memory_daemon.log_of(minutes))
    done = seen_records = 0
    for _ in range(cuts):
        pid = child(config, minutes, rng.randrange(OPERATIONS_MAX), rng.randrange(2**31))
        seen = watch(pid, url, ends)
        done += seen is not None
        after = rig.stored(url)
        for place, offset in (seen or {}).items():
            assert (after.get(place) or 0) >= (offset or 0), f"{place}: {offset} was committed, now {after.get(place)}"
        seen_records = sum(offset or 0 for offset in after.values())
        if rig.drained(url, ends):
            break
    pid = child(config, minutes, -1, 0)
    watch(pid, url, ends)
    print(json.dumps({"cuts": done, "records_before_last_cut": seen_records, "drained": rig.drained(url, ends)}))


def child(config: Path, minutes: int, operations: int, seed: int) -> int:
    """A daemon whose disk loses power after so many writes and syncs; below 0 never."""
    pid = os.fork()
    if pid:
        return pid
    try:
        folder = os.fsencode(str(config.parent.resolve()))
        ctypes.CDLL(None).power_cut_after(folder, ctypes.c_long(operations), ctypes.c_uint(seed))
        os._exit(memory_daemon.main(config, minutes))
    finally:
        os._exit(70)


def watch(pid: int, url: str, ends: Any) -> Any:
    """What was committed last before the end of the child; None when it came to the end of the log."""
    seen: dict[Any, Any] = {}
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert os.WIFSIGNALED(status), f"it ended with {status}"
            assert os.WTERMSIG(status) == signal.SIGKILL, f"it ended with {status}"
            return seen
        found = rig.stored(url)
        seen = found or seen
        if rig.drained(url, ends):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("neither cut nor drained in time")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

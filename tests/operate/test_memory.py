"""What a burst took goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from netpredict.operate import memory


def resident_mib() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_pages_between_blocks_that_live_are_given_back() -> None:
    taken = [bytes(4000) for _ in range(50_000)]
    left = taken[::64]
    del taken
    before = resident_mib()
    memory.collect()
    assert resident_mib() < before - 100
    assert len(left) == 782


def test_what_only_a_cycle_keeps_is_ended() -> None:
    ended = []

    class Knot:
        def __del__(self) -> None:
            ended.append(self)

    knot = Knot()
    knot.itself = knot
    del knot
    memory.collect()
    assert len(ended) == 1

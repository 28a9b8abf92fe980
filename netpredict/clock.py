"""The wall clock and the monotonic clock behind one small port, so that tests own time.

Nothing between poll and commit may use it: results are a function of the log and the control journal.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What the parts outside the function of the log ask for the time."""

    def now_us(self) -> int:
        """Wall clock, µs since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Never goes back, s."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, s."""
        ...


class SystemClock:
    """The real clock."""

    def now_us(self) -> int:
        """Wall clock, µs since the epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Never goes back, s."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, s."""
        time.sleep(seconds)

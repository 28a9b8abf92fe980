"""The wall clock and the monotonic clock behind one small port, so that tests own time.

Nothing between poll and commit may use it: results are a function of the log and the control journal.
"""

import re
import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from netpredict.errors import ConfigError

_MINUTE_US = 60_000_000
_MINUTES_A_DAY = 24 * 60
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


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


class DayWindow(NamedTuple):
    """Minutes of the UTC day, ``end`` excluded; an end before the begin runs over midnight."""

    begin_minute: int
    end_minute: int

    def holds(self, minute: int) -> bool:
        """Whether this minute of the day lies inside."""
        if self.begin_minute < self.end_minute:
            return self.begin_minute <= minute < self.end_minute
        return minute >= self.begin_minute or minute < self.end_minute


def parse_day_windows(texts: Iterable[str], key: str) -> tuple[DayWindow, ...]:
    """Read windows like "22:00-05:30" (UTC); ConfigError, naming ``key``, for another form or an empty window."""
    return tuple(_parse_day_window(text, key) for text in texts)


def in_day_windows(now_us: int, windows: Iterable[DayWindow]) -> bool:
    """Whether the minute of ``now_us`` lies in one of the windows."""
    minute = now_us // _MINUTE_US % _MINUTES_A_DAY
    return any(window.holds(minute) for window in windows)


def _parse_day_window(text: str, key: str) -> DayWindow:
    match = _WINDOW.fullmatch(text)
    if match is None or text[:5] == text[6:]:
        raise ConfigError(f'{key}: {text!r} is not allowed: use two different times like "22:00-05:30"')
    begin_h, begin_min, end_h, end_min = map(int, match.groups())
    return DayWindow(begin_h * 60 + begin_min, end_h * 60 + end_min)

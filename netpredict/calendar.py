"""Calendar columns of the features: hour, weekday, bucket of the season and holiday, in the time zone of a stream.

Zones come from the system's (or the tzdata package's) IANA database; its offsets change at quarters of an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from netpredict.errors import ConfigError
from netpredict.types import FeatureSpec, FloatArray, IntArray

_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_QUARTER_US = 900_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def calendar(slot_time_us: IntArray, features: FeatureSpec) -> FloatArray:
    """The columns ``FeatureSpec.CALENDAR`` of slots at these times (µs since the epoch, UTC): float32 (n, 4).

    ConfigError for a time zone or a holiday that does not exist.
    """
    local_us = _local_us(slot_time_us, features.time_zone)
    day = local_us // _DAY_US
    columns = np.zeros((len(slot_time_us), len(features.CALENDAR)), np.float32)
    columns[:, 0] = (local_us % _DAY_US) / _HOUR_US
    columns[:, 1] = (day + 3) % 7  # the epoch was a Thursday
    if features.season_buckets:
        columns[:, 2] = local_us % features.season_us * features.season_buckets // features.season_us
    if features.holidays:
        columns[:, 3] = _ahead(day, _days(features.holidays))
    return columns


def _ahead(day: IntArray, holidays: IntArray) -> FloatArray:
    """Which of the days from these on are holidays, as the sum of powers of two."""
    days, place = np.unique(day, return_inverse=True)
    ahead = np.arange(FeatureSpec.HOLIDAY_DAYS)
    sums = np.isin(days[:, None] + ahead, holidays) @ 2.0**ahead
    return np.asarray(sums[place], np.float32)


def check_time_zone(name: str) -> None:
    """ConfigError when the database has no such zone."""
    _zone(name)


def check_holidays(holidays: Sequence[str]) -> None:
    """ConfigError when one of them is no ISO date."""
    _days(tuple(holidays))


def _local_us(time_us: IntArray, time_zone: str) -> IntArray:
    if time_zone == "UTC":
        return time_us
    quarters, place = np.unique(time_us // _QUARTER_US, return_inverse=True)
    offsets = np.array([_offset_us(time_zone, quarter) for quarter in quarters.tolist()], np.int64)
    return time_us + offsets[place]


@lru_cache(maxsize=65_536)
def _offset_us(time_zone: str, quarter: int) -> int:
    moment = (_EPOCH + timedelta(microseconds=quarter * _QUARTER_US)).astimezone(_zone(time_zone))
    return (moment.utcoffset() or timedelta()) // timedelta(microseconds=1)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f'no time zone named {name!r}; give an IANA name such as "Europe/Rome" or "UTC"') from error


@lru_cache(maxsize=64)
def _days(holidays: tuple[str, ...]) -> IntArray:
    """Days since the epoch."""
    try:
        dates = [date.fromisoformat(holiday) for holiday in holidays]
    except ValueError as error:
        raise ConfigError(f'holidays are ISO dates such as "2013-12-25": {error}') from error
    return np.array([(day - _EPOCH.date()).days for day in dates], np.int64)

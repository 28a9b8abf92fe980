"""Whether a firing may be applied now. Pure: the history comes from the outbox, the time from the caller."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from netpredict.clock import DayWindow, in_day_windows
from netpredict.errors import ConfigError
from netpredict.types import Firing, LastApplied, Mode

RATE_WINDOW_US = 60_000_000
"""The window over which applied firings of a hook are counted for ``Reason.RATE``."""


class Reason(enum.StrEnum):
    """Why a firing is not applied; the ``reason`` of a SKIPPED outcome."""

    SHADOW = "shadow"  # its hook only records
    EXPIRED = "expired"  # the forecast behind it speaks of the past
    SUPERSEDED = "superseded"  # a younger firing has set the attribute already
    BLACKOUT = "blackout"  # a time of day at which the operator wants no action
    COOLDOWN = "cooldown"  # the attribute was set too short a while ago
    RATE = "rate"  # its hook has had its share of this minute


@dataclass(frozen=True)
class GuardSettings:
    """Guards of one hook."""

    cooldown_s: float = 60.0
    rate_per_min: float = 600.0
    blackouts: tuple[DayWindow, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.cooldown_s < float("inf"):
            raise ConfigError(f"cooldown_s = {self.cooldown_s!r} is not allowed: use a finite number of seconds >= 0")
        if not self.rate_per_min > 0:
            raise ConfigError(f"rate_per_min = {self.rate_per_min!r} is not allowed: use a number above 0")


def why_not(
    firing: Firing, last: LastApplied | None, now_us: int, settings: GuardSettings, *, applied_last_minute: int
) -> Reason | None:
    """The first reason against applying ``firing`` at ``now_us``, or None.

    ``last`` is what was last applied to the same object and attribute, ``applied_last_minute`` the number of firings
    of the same hook applied within ``RATE_WINDOW_US``. A firing that one of its actuators has applied already is
    neither cooled down nor counted again for the others.
    """
    if firing.mode is not Mode.AUTO:
        return Reason.SHADOW
    if now_us >= firing.expires_at_us:
        return Reason.EXPIRED
    if last is not None and last.slot_time_us > firing.slot_time_us:
        return Reason.SUPERSEDED
    if in_day_windows(now_us, settings.blackouts):
        return Reason.BLACKOUT
    if last is not None and last.firing_id == firing.firing_id:
        return None
    if last is not None and now_us - last.at_us < settings.cooldown_s * 1e6:
        return Reason.COOLDOWN
    if applied_last_minute >= settings.rate_per_min:
        return Reason.RATE
    return None

"""Sleep and wake of capacity radio cells by the forecast load of the radio cell that covers for them.

As the load thresholds of candidate cells in TS 28.310: they may sleep while the covering one stays below one level as
far ahead as is looked, and must wake as soon as it passes a higher one. What a covering radio cell takes over when the
others sleep must fit between the two, or it would wake them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netpredict.types import NO_SLOT, AnyArray, StateArray

ATTRIBUTE = "energySavingControl"
SLEEP, WAKE = "TO_BE_ENERGY_SAVING", "TO_BE_NOT_ENERGY_SAVING"
_UNKNOWN, _AWAKE, _ASLEEP = -1, 0, 1


def state_spec() -> Mapping[str, StateArray]:
    """Of the covering radio cell: whether the others sleep (-1: not known), since which slot, when last told to."""
    return {
        "asleep": StateArray((), "int8", _UNKNOWN),
        "asleep_slot": StateArray((), "int64", NO_SLOT),
        "asleep_sent_slot": StateArray((), "int64", NO_SLOT),
    }


def control_of(asleep: int) -> str:
    """What capacity radio cells are told that are to sleep, or to be awake."""
    return SLEEP if asleep == _ASLEEP else WAKE


def decided(
    peak: AnyArray, usable: AnyArray, slot: AnyArray, refresh_slots: int, state: Mapping[str, AnyArray], options: Any
) -> tuple[AnyArray, AnyArray, Mapping[str, AnyArray]]:
    """Rows with capacity radio cells, their highest demand ahead in percent -> what changes, what is to be said again.

    Sleeping waits until the radio cells have been awake for ``sleep_stay_slots``; waking never waits, for too few
    resource blocks are what costs most.
    """
    asleep = state["asleep"]
    stayed = (asleep == _UNKNOWN) | (slot - state["asleep_slot"] >= options.sleep_stay_slots)
    sleeps = usable & (peak < options.sleep_below_percent) & (asleep != _ASLEEP) & stayed
    wakes = usable & (peak > options.wake_above_percent) & (asleep != _AWAKE)
    fires = sleeps | wakes
    due = (refresh_slots > 0) & (slot - state["asleep_sent_slot"] >= refresh_slots)
    again = usable & (asleep != _UNKNOWN) & ~fires & due
    after = {
        "asleep": np.where(sleeps, _ASLEEP, np.where(wakes, _AWAKE, asleep)).astype(asleep.dtype),
        "asleep_slot": np.where(fires, slot, state["asleep_slot"]),
        "asleep_sent_slot": np.where(fires | again, slot, state["asleep_sent_slot"]),
    }
    return fires, again, after

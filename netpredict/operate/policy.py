"""Policies over stored mobility: each window of event time is decided once, when every topic partition is behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

import structlog

from netpredict.act.hook import MobilityPolicy
from netpredict.decide import BoundHook
from netpredict.lane import firing_id
from netpredict.store.mobility import MobilityHistory
from netpredict.stream import Stream
from netpredict.types import REFRESHES, Firing, PolicyAction, Window

LOG = structlog.get_logger(__name__)

LATE_S = 3600.0
"""A topic partition that lies behind the others by more than this is not waited for: nobody may speak on it."""


FIRINGS_AT_ONCE = 200
"""So many fit into one question to the process that holds the store."""


class Fires(Protocol):
    """Where firings of policies are stored. Raises StoreUnavailable (retriable)."""

    def fire(self, firings: Sequence[Firing], actuators: Sequence[str], publish: bool) -> list[str]:
        """Store the firings of a window, to be published too; gives the ids of those that were not there already."""
        ...


class PolicyJob:
    """Decides the newest complete window of each policy; a window that was decided before gives the same ids again."""

    def __init__(
        self, streams: Sequence[Stream], history: MobilityHistory, store: Fires, *, publish: bool = False
    ) -> None:
        self.follow(streams)
        self._publish = publish
        self._history = history
        self._store = store
        self._decided: dict[str, int] = {}
        self._one_at_a_time = threading.Lock()

    def follow(self, streams: Sequence[Stream]) -> None:
        """Decide by the policies of these streams from the next turn on."""
        self._policies = list(policies(streams))

    def scheduled(self) -> None:
        """``turn`` as the daemon's scheduler calls it."""
        for firing in self.turn():
            LOG.info("policy_fired", hook=firing.hook, firing_id=firing.firing_id, object_id=firing.object_id)

    def turn(self) -> list[Firing]:
        """Look at every policy; gives what is new. Raises what the store raises."""
        with self._one_at_a_time:
            return [firing for stream, bound, policy in self._policies for firing in self._look(stream, bound, policy)]

    def _look(self, stream: Stream, bound: BoundHook, policy: MobilityPolicy) -> list[Firing]:
        window = newest_window(self._history.buckets(stream.name), stream, policy.window_s())
        if window is None or self._decided.get(bound.name, window.from_us) >= window.until_us:
            return []
        from_us = window.from_us - round(policy.lookback_s() * 1e6)
        served = self._history.served(stream.name, stream.period_us, from_us, window.until_us)
        last_set = partial(self._history.last_set, at_us=window.until_us)
        firings = [firing_of(bound, stream.name, action, window) for action in policy.review(served, window, last_set)]
        firings += self._refreshes(bound, stream.name, window, firings)
        new = {
            firing_id
            for start in range(0, len(firings), FIRINGS_AT_ONCE)
            for firing_id in self._store.fire(
                firings[start : start + FIRINGS_AT_ONCE], bound.config.actuators, self._publish
            )
        }
        self._decided[bound.name] = window.until_us
        return [firing for firing in firings if firing.firing_id in new]

    def _refreshes(self, bound: BoundHook, stream: str, window: Window, fired: Sequence[Firing]) -> list[Firing]:
        """What is to stand is asked for again once half of its time is over: a policy speaks of changes only."""
        half_us = round(bound.config.effect_s * 500_000)
        changed = {(firing.object_id, firing.attribute) for firing in fired}
        return [
            firing_of(bound, stream, _again(firing, origin), window)
            for firing, origin in self._history.ending(bound.name, window.until_us, window.until_us + half_us)
            if (firing.object_id, firing.attribute) not in changed and firing.slot_time_us < window.until_us
        ]


def policies(streams: Sequence[Stream]) -> Iterator[tuple[Stream, BoundHook, MobilityPolicy]]:
    """Hooks that decide by stored mobility, with their streams."""
    for stream in streams:
        for bound in stream.hooks:
            if isinstance(bound.hook, MobilityPolicy):
                yield stream, bound, bound.hook


def newest_window(buckets: Sequence[int], stream: Stream, window_s: float) -> Window | None:
    """The newest window that all topic partitions in these buckets are behind; None before the first.

    Only event time counts, so the same log gives the same windows whenever it is looked at.
    """
    if not buckets:
        return None
    window_us, bucket_us = round(window_s * 1e6), stream.bucket_slots * stream.period_us
    late = round(LATE_S * 1e6) // bucket_us
    slowest = min(bucket for bucket in buckets if bucket >= max(buckets) - late)
    complete_us = slowest * bucket_us + stream.phase_us
    until_us = complete_us // window_us * window_us
    return Window(until_us - window_us, until_us)


def _again(firing: Firing, origin: str) -> PolicyAction:
    why = {**firing.why, REFRESHES: origin}
    valid_for_s = (firing.expires_at_us - firing.slot_time_us) / 1e6
    what = (firing.object_id, firing.attribute, firing.value)
    return PolicyAction(firing.radio_cell_id, *what, why, valid_for_s)


def firing_of(bound: BoundHook, stream: str, action: PolicyAction, window: Window) -> Firing:
    """The firing of an action; its id depends on hook, object, attribute and window, on nothing else."""
    group = bound.config.group_of(action.radio_cell_id)
    return Firing(
        firing_id(bound.name, action.object_id, action.attribute, window.until_us),
        bound.name,
        stream,
        action.object_id,
        action.attribute,
        action.value,
        action.why,
        bound.config.mode_of(action.radio_cell_id),
        window.until_us,
        window.until_us + round(action.valid_for_s * 1e6),
        window.until_us + round(bound.config.effect_s * 1e6),
        series=action.radio_cell_id,
        group="" if group is None else group.name,
    )

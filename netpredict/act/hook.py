"""The contracts of adaptation hooks and actuators.

Entry points of ``netpredict.hooks`` and ``netpredict.actuators`` name a ``netpredict.plugins.Plugin`` whose ``build``
is called as ``build(options) -> AdaptationHook`` and ``build(options) -> Actuator``; an actuator with ``needs_kafka``
by ``build(options, kafka)``: ``[kafka]`` of the config, from which ``ingest.kafka_access`` makes client settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from netpredict.types import (
    AnyArray,
    Firing,
    FiringBatch,
    HookBatch,
    LastSet,
    Outcome,
    PolicyAction,
    Served,
    StateArray,
    Window,
)


class AdaptationHook(Protocol):
    """A pure function of forecasts, observations and its own state; sees the active predictor only.

    State is one row per series (the rows of a report are separate series that stand together in the batch).
    ``decide`` must answer the same for a series whatever other reports share the batch, and never reads a clock. Its
    arrays are read-only. A report for which it raises fires nothing and keeps its state.

    An action ends at ``effect_until``. A hook whose value is to stand asks for it again ``refresh_slots`` of the batch
    behind its last action, with the ``set_slot`` of the action that it refreshes; where nothing can be decided it does
    not, and the receiver falls back.
    """

    api_version: int

    def levels_needed(self) -> Sequence[float]:
        """Quantile levels that must be among the stream's."""
        ...

    def kpis_needed(self) -> Sequence[str]:
        """Forecast KPIs without which the hook cannot decide; checked against the stream when the config is read."""
        ...

    def columns_needed(self) -> Sequence[str]:
        """Observed columns that it reads; checked against the stream's KPIs and features when the config is read."""
        ...

    def steps_needed(self) -> int:
        """The farthest lead that it reads, steps; checked against the stream's horizon when the config is read."""
        ...

    def state_spec(self) -> Mapping[str, StateArray]:
        """Name -> shape and dtype of ONE series; {} when it keeps nothing."""
        ...

    def decide(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        """(batch of n rows, {name: (n, …)}) -> due actions, new state of the same shapes. Touches nothing outside."""
        ...


@runtime_checkable
class MobilityPolicy(Protocol):
    """A hook that decides by stored mobility over all topic partitions, a window at a time, in a scheduled job.

    Windows lie end to end on the axis of slot times and are decided once they are complete. ``review`` is pure: the
    same rows and settings give the same actions.
    """

    def window_s(self) -> float:
        """Length of a window."""
        ...

    def lookback_s(self) -> float:
        """How much before the window it must see."""
        ...

    def review(
        self, served: Iterable[Served], window: Window, last_set: Callable[[str, str], LastSet | None]
    ) -> Sequence[PolicyAction]:
        """Actions for what was served, by slot time from the look-back on; ``last_set`` by object and attribute."""
        ...


class Actuator(Protocol):
    """Carries a firing out. Called from the action runner's thread only; may block up to its own timeout."""

    api_version: int

    def apply(self, firing: Firing) -> Outcome:
        """Set the value; idempotent by ``firing_id``. Raises ActuatorError, ``retriable`` when a retry may help."""
        ...

    def verify(self, firing: Firing) -> Outcome:
        """Read back what was set."""
        ...

    def revert(self, firing: Firing) -> Outcome:
        """Set back what ``apply`` replaced; of a refresh what the firing replaced whose value it repeats."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...

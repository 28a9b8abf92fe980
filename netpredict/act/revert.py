"""Taking actions back: because a person or a timer asks, or because a KPI became worse behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from netpredict.act.hook import Actuator
from netpredict.clock import Clock
from netpredict.config import RevertConfig
from netpredict.errors import ActuatorError, DataError
from netpredict.types import Firing, Outcome, OutcomeKind

LOG = structlog.get_logger(__name__)

TURN_S = 30.0
"""Effects are looked at this often at most."""
PAGE = 100
OLDEST_US = 86_400_000_000
"""An action that was applied longer ago is not looked at any more."""

Means = tuple[float | None, float | None]


class Reversals(Protocol):
    """Where reversals are noted. Every method may raise StoreUnavailable (retriable)."""

    def begin_reversal(self, firing_id: str, cause: str, who: str) -> list[tuple[Firing, str]]:
        """Note that a firing is being taken back; gives what is to be reverted at which actuator.

        DataError when there is no need.
        """
        ...

    def end_reversal(self, firing_id: str, actuator: str, outcome: Outcome) -> None:
        """Store what came of it at one actuator."""
        ...


class FollowUps(Reversals, Protocol):
    """Applied firings whose effect is to be looked at."""

    def due(self, hook: str, from_us: int, until_us: int, limit: int) -> list[tuple[Firing, int]]:
        """Firings of a hook applied within these times, and when, whose KPI was not compared yet."""
        ...

    def put(self, firing: Firing, kpi: str, means: Sequence[float | None], verdict: str, at_us: int) -> None:
        """Store what a KPI did behind a firing."""
        ...


def revert(
    store: Reversals, actuators: Mapping[str, Actuator], firing_id: str, cause: str, who: str
) -> list[tuple[str, Outcome]]:
    """Take a firing back at every actuator that applied it; outcomes by actuator. DataError when there is no need."""
    done = []
    for firing, name in store.begin_reversal(firing_id, cause, who):
        outcome = _reverted(actuators.get(name), name, firing)
        store.end_reversal(firing.firing_id, name, outcome)
        done.append((name, outcome))
    return done


def _reverted(actuator: Actuator | None, name: str, firing: Firing) -> Outcome:
    if actuator is None:
        return Outcome(OutcomeKind.FAILED, "no_actuator", f"no actuator {name!r} is configured")
    try:
        return actuator.revert(firing)
    except ActuatorError as error:
        return Outcome(OutcomeKind.FAILED, "refused", str(error)[:500])
    except Exception as error:  # a plugin may raise anything: the others are still to be asked
        return Outcome(OutcomeKind.FAILED, "crashed", f"{type(error).__name__}: {error}"[:500])


def verdict_of(means: Means, config: RevertConfig) -> str:
    """``kept``, ``worse`` or, where one of the means is not known, ``unknown``."""
    before, after = means
    if before is None or after is None:
        return "unknown"
    worse = after - before if config.worse == "higher" else before - after
    return "worse" if worse > config.change else "kept"


class EffectWatch:
    """Compares KPIs before and behind applied actions, and takes those back behind which they became worse.

    ``mean(stream, series, column, from_us, to_us)`` is the mean of an observed column, None when there is none;
    ``series`` may be a radio cell: what a policy decides concerns all its series, and so does a KPI of another stream.
    """

    def __init__(
        self,
        store: FollowUps,
        actuators: Mapping[str, Actuator],
        mean: Callable[[str, str, str, int, int], float | None],
        hooks: Mapping[str, RevertConfig],
        clock: Clock,
    ) -> None:
        self._store = store
        self._actuators = actuators
        self._mean = mean
        self._hooks = dict(hooks)
        self._clock = clock
        self._due_s = float("-inf")

    def follow(self, hooks: Mapping[str, RevertConfig]) -> None:
        """Look by these settings from now on."""
        self._hooks = dict(hooks)

    def turn(self) -> None:
        """Look when it is time. Raises what the store raises."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + TURN_S
        for name, config in self._hooks.items():
            if config.kpi:
                until_us = self._clock.now_us() - round(config.window_s * 1e6)
                for firing, applied_us in self._store.due(name, until_us - OLDEST_US, until_us, PAGE):
                    self._look(firing, applied_us, config)

    def _look(self, firing: Firing, applied_us: int, config: RevertConfig) -> None:
        elsewhere = config.stream not in ("", firing.stream)
        series = (config.stream, firing.radio_cell_id) if elsewhere else (firing.stream, firing.series)
        window_us, place = round(config.window_s * 1e6), (*series, config.kpi)
        means = (
            self._mean(*place, applied_us - window_us, applied_us),
            self._mean(*place, applied_us + 1, applied_us + window_us),
        )
        verdict = verdict_of(means, config)
        if verdict == "worse":  # first: a death between the two only has it looked at again
            try:
                done = revert(self._store, self._actuators, firing.firing_id, f"kpi {config.kpi}", "netpredict")
                kinds = {actuator: str(outcome.kind) for actuator, outcome in done}
                LOG.warning("action_reverted", firing_id=firing.firing_id, kpi=config.kpi, outcomes=kinds)
            except DataError as error:
                LOG.info("action_not_reverted", firing_id=firing.firing_id, why=str(error))
        self._store.put(firing, config.kpi, means, verdict, self._clock.now_us())

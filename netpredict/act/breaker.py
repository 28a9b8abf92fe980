"""Circuit breakers: a hook disarms itself where its forecasts are no better than the plain ones, and arms again.

After NOT_MEET / MEET of TS 29.520 (``AnalyticsAccuracyIndication``), with a least number of scored forecasts and with
hysteresis. What own actions change is no truth, so a hook that acts everywhere at once would never be told that it is
wrong: one that has heard nothing for ``blind_buckets`` is disarmed too, and its actions end; behind them truths count
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

import structlog

from netpredict.clock import Clock
from netpredict.config import BreakerConfig, HookConfig, RouteConfig, StreamConfig
from netpredict.radio.quantities import is_hindsight
from netpredict.types import ArmState, Breaker, Evidence

LOG = structlog.get_logger(__name__)

TURN_S = 10.0
"""Breakers are judged anew at most this often."""


class Breakers(Protocol):
    """Scores and states as the store has them. Every method may raise StoreUnavailable (retriable)."""

    def evidence(
        self,
        stream: str,
        predictors: Sequence[str],
        kpis: Sequence[str],
        lead_steps: int,
        buckets: int,
        reached: int | None,
    ) -> list[Evidence]:
        """By KPI, what these predictors served at leads up to ``lead_steps`` in the newest score buckets with scores.

        Those up to ``reached`` only: what lies beyond is numbered by a ``bucket_s`` that is not in force any more.
        """
        ...

    def reached(self, stream: str) -> int | None:
        """The newest score bucket of the stream, whether anything in it was scored or not; None before the first."""
        ...

    def states(self) -> list[Breaker]:
        """All that were ever judged."""
        ...

    def put(self, breaker: Breaker) -> None:
        """Store how a breaker stands now, durable on return."""
        ...


@dataclass(frozen=True)
class Watched:
    """What one hook is judged by in one group: predictors of the group's routes, KPIs and leads that the hook reads.

    ``nominal`` is the share of truths that the outer levels promise to hold.
    """

    hook: str
    group: str
    stream: str
    predictors: tuple[str, ...]
    kpis: tuple[str, ...]
    lead_steps: int
    nominal: float
    config: BreakerConfig


class Measured(NamedTuple):
    """The worst KPI: least skill against the better of naive and seasonal naive, coverage farthest from nominal."""

    n: int
    skill: float | None
    coverage: float | None


def measured(evidence: Sequence[Evidence], nominal: float, rows_min: int) -> Measured:
    """What KPIs with at least ``rows_min`` scored forecasts say; None where none of them can say anything."""
    enough = [sums for sums in evidence if sums.n >= rows_min]
    best = [(sums.abs_ticks, min(sums.naive_abs_ticks, sums.seasonal_abs_ticks)) for sums in enough]
    skills = [1 - error / plain for error, plain in best if plain]
    shares = [sums.covered / sums.spread for sums in enough if sums.spread]
    coverage = max(shares, key=lambda share: abs(share - nominal), default=None)
    return Measured(sum(sums.n for sums in evidence), min(skills, default=None), coverage)


def turned(before: ArmState, found: Measured, watched: Watched) -> tuple[ArmState, str]:
    """The state after a look, and why. Where nothing can be said the state stays."""
    config = watched.config
    if found.skill is None:
        return before, "too few scored forecasts"
    off = 0.0 if found.coverage is None else abs(found.coverage - watched.nominal)
    if found.skill <= config.skill_min:
        return ArmState.NOT_MEET, f"skill {found.skill:.3f} against the better of naive and seasonal naive"
    if off > config.coverage_off:
        return ArmState.NOT_MEET, f"coverage {found.coverage:.3f} where {watched.nominal:.3f} is promised"
    if before is ArmState.NOT_MEET and (found.skill <= config.skill_rearm or off > config.coverage_rearm):
        return before, f"skill {found.skill:.3f} and coverage {found.coverage or 0:.3f} do not arm it again yet"
    return ArmState.MEET, f"skill {found.skill:.3f}"


def heard(evidence: Sequence[Evidence], rows_min: int, before: Breaker | None, reached: int | None) -> int | None:
    """Up to which score bucket there was evidence enough, whatever it said; where there never was any, since when."""
    if reached is None:
        return None
    newest = [sums.bucket for sums in evidence if sums.n >= rows_min]
    known = [before.heard_bucket] if before and before.heard_bucket is not None else []
    return min(max(newest + known, default=reached), reached)  # another bucket_s may have numbered what is known


def blind(heard_bucket: int | None, reached: int | None, config: BreakerConfig) -> str:
    """What to say of a hook that has heard nothing for too long, "" while it has."""
    if not config.blind_buckets or heard_bucket is None or reached is None:
        return ""
    most = max(config.blind_buckets, config.buckets)  # with fewer, what is judged again were old
    if reached - heard_bucket <= most:
        return ""
    return f"too few scored forecasts for over {most} score buckets: see holdout_ratio, exclude, breaker.rows_min"


class CircuitBreakers:
    """Judges every hook in every group; the states are the store's. ``states`` are those of the last look."""

    def __init__(self, store: Breakers, watched: Sequence[Watched], clock: Clock) -> None:
        self.states: Mapping[tuple[str, str], ArmState] = {}
        self._store = store
        self._watched = list(watched)
        self._clock = clock
        self._due_s = float("-inf")

    def follow(self, watched: Sequence[Watched]) -> None:
        """Judge these from the next look on."""
        self._watched, self._due_s = list(watched), float("-inf")

    def turn(self) -> None:
        """Look when it is time. Raises what the store raises: then nothing may be applied."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + TURN_S  # first: a reload that comes meanwhile asks for another look
        try:
            before = {(breaker.hook, breaker.group): breaker for breaker in self._store.states()}
            self.states = {(watched.hook, watched.group): self._judge(watched, before) for watched in self._watched}
        except BaseException:
            self._due_s = float("-inf")
            raise

    def _judge(self, watched: Watched, known: Mapping[tuple[str, str], Breaker]) -> ArmState:
        now_us = self._clock.now_us()
        before = known.get((watched.hook, watched.group))
        begun = before or known.get((watched.hook, ""))  # a group that is new has shown nothing by its name
        state = begun.state if begun else ArmState.MEET
        found, heard_bucket, after, said = self._look(watched, begun, state)
        if after is not state:
            event = "hook_disarmed" if after is ArmState.NOT_MEET else "hook_armed"
            LOG.warning(event, hook=watched.hook, group=watched.group, why=said)
        looked = (*found, heard_bucket)
        if before is None or after is not state or looked != (*before[4:7], before.heard_bucket):
            since_us = before.since_us if before and after is state else now_us
            self._store.put(Breaker(watched.hook, watched.group, after, said, *found, since_us, now_us, heard_bucket))
        return after

    def _look(
        self, watched: Watched, before: Breaker | None, state: ArmState
    ) -> tuple[Measured, int | None, ArmState, str]:
        """What is measured, up to which bucket it was heard of, and the state behind it, with why."""
        config = watched.config
        if not config.buckets:
            return Measured(0, None, None), None, ArmState.MEET, "it never disarms"
        reached = self._store.reached(watched.stream)
        sums = self._store.evidence(
            watched.stream, watched.predictors, watched.kpis, watched.lead_steps, config.buckets, reached
        )
        found = measured(sums, watched.nominal, config.rows_min)
        heard_bucket = heard(sums, config.rows_min, before, reached)
        if said := blind(heard_bucket, reached, config):
            return found, heard_bucket, ArmState.NOT_MEET, said
        return found, heard_bucket, *turned(state, found, watched)


def watched_of(
    name: str, hook: HookConfig, stream: StreamConfig, kpis: Sequence[str], lead_steps: int, levels: Sequence[float]
) -> list[Watched]:
    """Everything of a hook that has a verdict of its own: each group of radio cells, and the rest.

    What is known in hindsight only has no scores: instead of it counts all that the stream measures.

    Scores are kept by predictor: groups whose routes share one share its scores. A hook that reads no forecast is
    judged by all of its stream: a stream of which nothing is forecast well is none to decide by.
    """
    if not kpis:
        kpis, lead_steps = stream.kpi_columns(), stream.horizon_steps
    kpis = hook.breaker.kpis or kpis
    if any(map(is_hindsight, kpis)):
        kpis = [kpi for kpi in dict.fromkeys([*kpis, *stream.kpi_columns()]) if not is_hindsight(kpi)]
    prefix = "*|" if len(stream.series_by) > 1 else ""
    matches = {"": "*", **{group.name: prefix + group.match for group in hook.groups}}
    nominal = levels[-1] - levels[0]
    return [
        Watched(
            name,
            group,
            hook.stream,
            tuple(sorted(predictors_of(stream.routes, match))),
            tuple(kpis),
            lead_steps,
            nominal,
            hook.breaker,
        )
        for group, match in matches.items()
    ]


def predictors_of(routes: Sequence[RouteConfig], match: str) -> set[str]:
    """Active predictors of the routes that keys of this pattern may take; one that takes them all is the last."""
    found: set[str] = set()
    for route in routes:
        if overlap(route.match, match):
            found.add(route.active)
        plain = not {"[", "?"} & {*route.match} and "[" not in match
        if route.match in ("*", match) or (plain and fnmatchcase(match, route.match)):
            break
    return found


def overlap(one: str, two: str) -> bool:
    """Whether some text may match both shell patterns; one with a set of characters overlaps with everything."""
    if "[" in one + two:
        return True
    if not one or not two:
        return not one.strip("*") and not two.strip("*")
    if one[0] == "*":
        return overlap(one[1:], two) or overlap(one, two[1:])
    if two[0] == "*":
        return overlap(one, two[1:]) or overlap(one[1:], two)
    return (one[0] == two[0] or "?" in (one[0], two[0])) and overlap(one[1:], two[1:])

"""Whether a firing may be applied now. Pure: the history comes from the outbox, the time from the caller."""

from __future__ import annotations

import enum
import functools
import operator
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netpredict.clock import DayWindow, in_day_windows, parse_day_windows
from netpredict.config import HookConfig
from netpredict.errors import ConfigError
from netpredict.types import Firing, LastApplied, Lease, Mode, Quality, Standing

RATE_WINDOW_US = 60_000_000
"""The window over which applied firings of a hook are counted for ``Reason.RATE``."""

BLAST_WINDOW_US = 3_600_000_000
"""The window over which changed radio cells of a stream are counted for ``Reason.BLAST_RADIUS``."""


class Reason(enum.StrEnum):
    """Why a firing is not applied; the ``reason`` of a SKIPPED outcome."""

    SHADOW = "shadow"  # its hook only records, or does by now, or is gone
    EXPIRED = "expired"  # the forecast behind it speaks of the past
    SUPERSEDED = "superseded"  # a younger firing has set the attribute already, or waits to
    TAKEN_BACK = "taken_back"  # it would set again what a person or a KPI has had reverted
    DISARMED = "disarmed"  # the forecasts of its hook are no better than the plain ones, or their intervals are wrong
    HOLDOUT = "holdout"  # its radio cell is one of those that show what happens without actions
    BLACKOUT = "blackout"  # a time of day at which the operator wants no action
    QUALITY = "quality"  # the forecast behind it has a source or a flag that is not trusted to act
    DEVIATION = "deviation"  # it goes farther from the baseline than the operator allows
    LEASE = "lease"  # a hook of the same or a higher priority has set the attribute, and that still holds
    COOLDOWN = "cooldown"  # the attribute was set too short a while ago
    RATE = "rate"  # its hook has had its share of this minute
    BLAST_RADIUS = "blast_radius"  # enough radio cells of the stream were changed in this hour
    REJECTED = "rejected"  # a person said no


@dataclass(frozen=True)
class Deviation:
    """The member of a firing's value that is bounded, and how far from its baseline it may go.

    The baseline is the number under ``baseline_why`` in the firing's ``why``, else ``baseline``.
    """

    member: str
    most: float
    baseline: float | None = None
    baseline_why: str = ""


@dataclass(frozen=True)
class GuardSettings:
    """Guards of one hook."""

    cooldown_s: float = 60.0
    rate_per_min: float = 600.0
    blackouts: tuple[DayWindow, ...] = ()
    priority: int = 0
    blast_ratio: float = 1.0
    sources: frozenset[str] = frozenset({"model", "seasonal", "naive"})
    refused_quality: Quality = Quality.GOOD
    deviations: tuple[Deviation, ...] = ()
    holdout_ratio: float = 0.0
    mode_of: Callable[[str], Mode] = lambda radio_cell_id: Mode.AUTO

    def __post_init__(self) -> None:
        if not 0 <= self.cooldown_s < float("inf"):
            raise ConfigError(f"cooldown_s = {self.cooldown_s!r} is not allowed: use a finite number of seconds >= 0")
        if not self.rate_per_min > 0:
            raise ConfigError(f"rate_per_min = {self.rate_per_min!r} is not allowed: use a number above 0")
        if not 0 < self.blast_ratio <= 1:
            raise ConfigError(f"blast_ratio = {self.blast_ratio!r} is not allowed: use a share above 0, up to 1")


NOT_CONFIGURED = GuardSettings(mode_of=lambda radio_cell_id: Mode.SHADOW)
"""Of a hook that the config does not know any more: nobody says how far it may go."""


def guards_of(hook: HookConfig) -> GuardSettings:
    """The guards of a configured hook."""
    refused = [flag for flag in Quality if flag.name and flag.name.lower() in hook.refuse_quality]
    return GuardSettings(
        hook.cooldown_s,
        hook.rate_per_min,
        parse_day_windows(hook.blackout_utc, "blackout_utc"),
        hook.priority,
        hook.blast_ratio,
        frozenset(hook.sources),
        functools.reduce(operator.or_, refused, Quality.GOOD),
        tuple(Deviation(d.member, d.most, d.baseline, d.baseline_why) for d in hook.deviations),
        hook.holdout_ratio,
        hook.mode_of,
    )


class Facts(NamedTuple):
    """What one firing is judged by: the part of a ``Standing`` that concerns it."""

    last: LastApplied | None = None
    lease: Lease | None = None
    applied_last_minute: int = 0
    changed: frozenset[str] | set[str] = frozenset()
    radio_cells: int = 0
    disarmed: str = ""
    younger: str = ""


def facts_of(firing: Firing, standing: Standing) -> Facts:
    """What concerns one firing."""
    attribute = (firing.object_id, firing.attribute)
    return Facts(
        standing.last.get(attribute),
        standing.leases.get(attribute),
        standing.applied_last_minute.get(firing.hook, 0),
        standing.changed.get(firing.stream, frozenset()),
        standing.radio_cells.get(firing.stream, 0),
        standing.disarmed.get((firing.hook, firing.group), ""),
        standing.younger.get(firing.firing_id, ""),
    )


class Verdict(NamedTuple):
    """``reason`` is the first guard that refuses, None when none does; ``said`` its word, ``passed`` those before.

    ``refreshes`` is the applied firing whose value it only repeats while that holds, "" where it changes something.
    """

    reason: Reason | None
    said: str = ""
    passed: tuple[str, ...] = ()
    refreshes: str = ""

    def record(self) -> dict[str, Any]:
        """As it is stored with the outcome."""
        refused = {"refused": str(self.reason), "said": self.said} if self.reason else {}
        return {"passed": list(self.passed), **refused}


def judged(firing: Firing, facts: Facts, now_us: int, settings: GuardSettings) -> Verdict:
    """What the guards say of applying ``firing`` at ``now_us``.

    A firing that one of its actuators has applied already is neither cooled down nor counted again for the others, nor
    is one that only repeats what holds.
    """
    applied_already = facts.last is not None and facts.last.firing_id == firing.firing_id
    refreshes = refreshed(firing, facts, now_us)
    case = _Case(firing, facts, now_us, settings)
    passed: list[str] = []
    for reason, guard in _ALWAYS if applied_already or refreshes else _ALWAYS + _ONCE:
        if said := guard(case):
            return Verdict(reason, said, tuple(passed))
        passed.append(str(reason))
    return Verdict(None, "", tuple(passed), refreshes)


def refreshed(firing: Firing, facts: Facts, now_us: int) -> str:
    """The applied firing whose value this one keeps in force, "" where that does not hold (any more).

    A hook that says so is not enough: its first action may have been refused, have ended, or have been replaced.
    """
    last, lease = facts.last, facts.lease
    if last is None or last.firing_id == firing.firing_id:
        return last.refreshes if last else ""
    unsure = lease is not None and lease.firing_id not in (last.firing_id, firing.firing_id)
    if unsure or last.taken_back or last.effect_until_us <= now_us or not _repeats(firing, last):
        return ""
    return last.origin


def _repeats(firing: Firing, last: LastApplied) -> bool:
    return bool(firing.refreshes) and last.hook == firing.hook and last.value == firing.value


@dataclass(frozen=True)
class _Case:
    firing: Firing
    facts: Facts
    now_us: int
    settings: GuardSettings
    basis: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        basis = self.firing.why.get("basis", {})
        object.__setattr__(self, "basis", basis if isinstance(basis, Mapping) else {})


_Guard = Callable[[_Case], str]
"""What speaks against the case, "" when nothing does."""


def _shadow(case: _Case) -> str:
    """What is on its way does not outlive the mode in which it was decided."""
    if case.settings is NOT_CONFIGURED:
        return f"no hook {case.firing.hook!r} is configured"
    mode, now = case.firing.mode, case.settings.mode_of(case.firing.radio_cell_id)
    if mode is Mode.SHADOW:
        return "the hook is in mode shadow"
    held_back = now is Mode.SHADOW or (now is Mode.ASSIST and mode is Mode.AUTO)
    return f"the hook is in mode {now} by now" if held_back else ""


def _expired(case: _Case) -> str:
    late_us = case.now_us - case.firing.expires_at_us
    return f"{late_us / 1e6:.1f} s after expires_at" if late_us >= 0 else ""


def _superseded(case: _Case) -> str:
    last, lease, younger = case.facts.last, case.facts.lease, case.facts.younger
    if last is not None and last.slot_time_us > case.firing.slot_time_us:
        return f"{last.firing_id} is of a later slot"
    under_way = lease is not None and lease.firing_id == case.firing.firing_id  # it may have been applied: say so
    return f"{younger} is of a later slot, and waits" if younger and not under_way else ""


def _disarmed(case: _Case) -> str:
    return case.facts.disarmed


def held_out(radio_cell_id: str, ratio: float) -> bool:
    """Whether a radio cell is in the share that never gets an action: by a hash of its name, the same everywhere."""
    return zlib.crc32(radio_cell_id.encode()) < ratio * 2**32


def _holdout(case: _Case) -> str:
    held = held_out(case.firing.radio_cell_id, case.settings.holdout_ratio)
    return f"{case.firing.radio_cell_id} never gets an action" if held else ""


def _taken_back(case: _Case) -> str:
    last = case.facts.last
    same = last is not None and (last.firing_id == case.firing.firing_id or _repeats(case.firing, last))
    gone = same and last is not None and last.taken_back
    return f"{last.firing_id} was taken back" if last and gone else ""


def _blackout(case: _Case) -> str:
    return "in blackout_utc" if in_day_windows(case.now_us, case.settings.blackouts) else ""


def _quality(case: _Case) -> str:
    source = case.basis.get("source")
    if source is not None and source not in case.settings.sources:
        return f"the forecast is of source {source}"
    flags = Quality(case.basis.get("quality", 0)) & case.settings.refused_quality
    return f"the forecast is flagged {quality_names(flags)}" if flags else ""


def quality_names(flags: int) -> str:
    """Names of ``Quality`` bits, joined by commas."""
    return ", ".join(flag.name.lower() for flag in Quality if flag & flags and flag.name)


def _deviation(case: _Case) -> str:
    for bound in case.settings.deviations:
        if bound.member not in case.firing.value:
            continue
        value, baseline = case.firing.value[bound.member], baseline_of(case.firing, bound)
        if baseline is None:
            return f"{bound.member} has no baseline"
        if not isinstance(value, int | float) or not abs(value - baseline) <= bound.most:
            return f"{bound.member} = {value} is more than {bound.most:g} from {baseline:g}"
    return ""


def baseline_of(firing: Firing, bound: Deviation) -> float | None:
    """What a member of the value may not leave too far behind; None when nothing says."""
    told = firing.why.get(bound.baseline_why) if bound.baseline_why else None
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else bound.baseline


def _lease(case: _Case) -> str:
    lease, firing = case.facts.lease, case.firing
    if lease is None or lease.hook == firing.hook or lease.until_us <= case.now_us:
        return ""
    return f"{lease.hook} has it by {lease.firing_id}" if lease.priority >= case.settings.priority else ""


def _cooldown(case: _Case) -> str:
    last, lease = case.facts.last, case.facts.lease
    # what was taken may have been applied by a runner that died before it could say so
    known = [(last.changed_us or last.at_us, last.origin)] if last else []
    recorded = {case.firing.firing_id, last.firing_id if last else ""}
    known += [(lease.taken_us, lease.firing_id)] if lease and lease.firing_id not in recorded else []
    if not known:
        return ""
    at_us, other = max(known)
    ago_us = case.now_us - at_us
    return f"{other} was applied {ago_us / 1e6:.1f} s ago" if ago_us < case.settings.cooldown_s * 1e6 else ""


def _rate(case: _Case) -> str:
    count = case.facts.applied_last_minute
    return f"{count} were applied within a minute" if count >= case.settings.rate_per_min else ""


def _blast_radius(case: _Case) -> str:
    changed, cells, ratio = case.facts.changed, case.facts.radio_cells, case.settings.blast_ratio
    if ratio >= 1 or case.firing.radio_cell_id in changed:
        return ""
    most = max(1.0, ratio * cells)  # of a handful of radio cells one may still be changed
    return f"{len(changed)} of {cells} radio cells were changed within an hour" if len(changed) + 1 > most else ""


_ALWAYS: tuple[tuple[Reason, _Guard], ...] = (
    (Reason.SHADOW, _shadow),
    (Reason.EXPIRED, _expired),
    (Reason.DISARMED, _disarmed),
    (Reason.HOLDOUT, _holdout),
    (Reason.SUPERSEDED, _superseded),
    (Reason.TAKEN_BACK, _taken_back),
    (Reason.BLACKOUT, _blackout),
    (Reason.QUALITY, _quality),
    (Reason.DEVIATION, _deviation),
    (Reason.LEASE, _lease),
)
_ONCE: tuple[tuple[Reason, _Guard], ...] = (
    (Reason.COOLDOWN, _cooldown),
    (Reason.RATE, _rate),
    (Reason.BLAST_RADIUS, _blast_radius),
)
"""What a firing has to pass for the first of its actuators only, and not where it refreshes what holds."""

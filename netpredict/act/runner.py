"""The ActionRunner carries firings out in a thread of its own: guards -> apply -> verify -> record.

A firing stays pending in the outbox until each of its actuators has an outcome, and ``apply`` is idempotent by
``firing_id``; so a crash between apply and record applies the same id once more and loses nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from netpredict import crash
from netpredict.act.guards import (
    BLAST_WINDOW_US,
    NOT_CONFIGURED,
    RATE_WINDOW_US,
    GuardSettings,
    Reason,
    Verdict,
    facts_of,
    judged,
)
from netpredict.act.hook import Actuator
from netpredict.clock import Clock
from netpredict.errors import ActuatorError, ConfigError, NetpredictError
from netpredict.types import (
    Firing,
    LastApplied,
    Lease,
    Outcome,
    OutcomeKind,
    PendingFiring,
    Settled,
    Since,
    Standing,
    Taken,
)

_DETAIL_CHARS = 500
_GUARDED = frozenset[str](Reason)


class Outbox(Protocol):
    """The stored firings as the runner sees them. Every method may raise StoreUnavailable (retriable)."""

    def expire(self, now_us: int, rows: int) -> int:
        """Settle at most ``rows`` of those that have expired, waiting for a person or not; gives how many."""
        ...

    def pending(self, limit: int) -> Sequence[PendingFiring]:
        """Firings that may be applied and lack the outcome of an actuator, oldest first, ``limit`` per actuator.

        The limit holds for each actuator, so that one that is down does not hide the firings of the others.
        """
        ...

    def standing(self, items: Sequence[PendingFiring], since: Since, blasting: Sequence[str]) -> Standing:
        """What the guards must know of the past to judge these; radio cells that the hooks ``blasting`` changed."""
        ...

    def take(
        self, item: PendingFiring, lease: Lease, last: LastApplied | None, now_us: int, seen: Lease | None = None
    ) -> Taken:
        """Claim a firing, and the lease on its attribute, for this runner among those of all instances; durable.

        ``last`` is what was applied to the attribute when the firing was judged, ``seen`` the lease that was on it.
        """
        ...

    def record(self, done: Sequence[Settled]) -> None:
        """Store what came of firings, all or none, durable on return. The same again changes nothing."""
        ...


class GaveUp(enum.StrEnum):
    """The ``reason`` of a FAILED outcome that the runner itself gives."""

    REFUSED = "refused"  # the actuator raised an error that no retry mends
    ATTEMPTS = "attempts"  # it failed max_attempts times
    DEADLINE = "deadline"  # the next attempt would come after expires_at
    CRASHED = "crashed"  # it raised something that is no ActuatorError, or broke its contract
    NO_ACTUATOR = "no_actuator"  # no actuator of that name is configured


UNVERIFIED = "unverified"
"""The ``reason`` of an APPLIED outcome whose read-back failed: it was sent and acknowledged, its effect is unproven."""


@dataclass(frozen=True)
class RunnerSettings:
    """How often and how long the runner tries. Backoff before attempt n+1 is uniform in 0..base * 2**(n-1), capped.

    Behind ``walk_max_s`` no attempt begins before the outbox, breakers and KPIs were looked at again.
    """

    max_attempts: int = 5
    backoff_base_s: float = 0.5
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 300.0
    idle_s: float = 1.0
    page: int = 500
    expire_rows: int = 2000
    walk_max_s: float = 10.0

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{setting.name} = {value!r} is not allowed: use a finite number above 0")


@dataclass
class _Attempts:
    """What is remembered of a firing between two attempts; lost in a crash, which only starts the count again."""

    made: int = 0
    resume_s: float = 0.0


@dataclass
class _Pass:
    """One walk over the pending firings; an actuator that fails once waits for the next walk, so others get theirs.

    ``refused`` is stored at the end of the walk in one transaction: a crash before only has them judged again.
    """

    standing: Standing
    failing: set[str] = field(default_factory=set)
    refused: list[Settled] = field(default_factory=list)
    postponed: bool = False
    settled: int = 0


class ActionRunner:
    """Applies pending firings one at a time. All actuators are called, and at the end closed, on its thread.

    ``beat`` is the monotonic time of its last move: the loop or an attempt, so it stands still for as long as an
    actuator blocks, at most. ``failure`` is the error that ended the thread, if any. ``stats`` are running totals.
    ``chores`` are done before each pass on its thread: nothing is applied until they are.
    """

    def __init__(
        self,
        outbox: Outbox,
        actuators: Mapping[str, Actuator],
        clock: Clock,
        *,
        guards: Mapping[str, GuardSettings],
        settings: RunnerSettings | None = None,
        rng: random.Random | None = None,
        chores: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.beat = clock.monotonic_s()
        self.failure: BaseException | None = None
        self.stats = dict.fromkeys(
            ["attempts", "retries", "store_unavailable", *OutcomeKind, *(f"skipped_{reason}" for reason in Reason)], 0
        )
        self._outbox = outbox
        self._actuators = dict(actuators)
        self._clock = clock
        self.follow(guards)
        self._settings = settings or RunnerSettings()
        self._rng = rng or random.Random()
        self._chores = list(chores)
        self._attempts: dict[tuple[str, str], _Attempts] = {}
        self._resting_until_s: dict[str, float] = {}
        self._taken_from: dict[str, Lease] = {}
        self._unrecorded: Settled | None = None
        self._store_failures = 0
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="action-runner", daemon=True)
        self._log = structlog.get_logger("netpredict.act")

    def follow(self, guards: Mapping[str, GuardSettings]) -> None:
        """Judge by these guards from the next pass on."""
        self._guards = dict(guards)
        self._blasting = sorted(guards) if any(g.blast_ratio < 1 for g in guards.values()) else []

    def start(self) -> None:
        """Begin; once in the life of a runner."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the outbox now: a commit has brought firings."""
        self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Let the attempt under way end, begin no other, close the actuators. False when that took too long."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is None:
            self._close_actuators()
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait_s = self.run_pass()
                self._wake.wait(wait_s)
                self._wake.clear()
            self._settle_at_last()
        except Exception as error:
            self.failure = error
            self._log.error("action_runner_ended", error=_said(error))
        finally:
            self._close_actuators()

    def _settle_at_last(self) -> None:
        try:
            self._settle()
        except NetpredictError as error:
            if not error.retriable:
                raise
            self._log.warning("action_outcome_lost", error=_said(error))  # its firing is sent once more, under its id

    def run_pass(self) -> float:
        """Walk once over the pending firings; answers for how many seconds nothing is due.

        Raises what the outbox raises unless it is retriable: beyond the durable point nothing is applied.
        """
        self.beat = self._clock.monotonic_s()
        try:
            self._settle()
            for chore in self._chores:
                chore()
            self._expire()
            pending = self._outbox.pending(self._settings.page)
            self._forget_all_but(pending)
            walk = _Pass(self._standing(pending))
            walk_until_s = self._clock.monotonic_s() + self._settings.walk_max_s
            for item in pending:
                if self._stopping:
                    break
                if self._clock.monotonic_s() >= walk_until_s:
                    walk.postponed = True
                    break
                self._carry_out(item, walk)
                self.beat = self._clock.monotonic_s()
            self._settle_refused(walk)
        except NetpredictError as error:
            if not error.retriable:
                raise
            return self._store_is_away(error)
        self._store_failures = 0
        more = walk.settled > 0 and len(pending) >= self._settings.page
        return 0.0 if walk.postponed or more else self._idle_s()

    def _expire(self) -> None:
        """Settle all that has expired, in bulk: a walk may take long, and meanwhile more expires than one piece."""
        expired = self._settings.expire_rows
        while expired >= self._settings.expire_rows and not self._stopping:
            expired = self._outbox.expire(self._clock.now_us(), self._settings.expire_rows)
            self.stats[OutcomeKind.SKIPPED] += expired
            self.stats[f"skipped_{Reason.EXPIRED}"] += expired
            self.beat = self._clock.monotonic_s()

    def _standing(self, pending: Sequence[PendingFiring]) -> Standing:
        if not pending:
            return Standing()
        now_us = self._clock.now_us()
        since = Since(now_us, now_us - RATE_WINDOW_US, now_us - BLAST_WINDOW_US)
        return self._outbox.standing(pending, since, self._blasting)

    def _carry_out(self, item: PendingFiring, walk: _Pass) -> None:
        if not self._is_due(item):
            return
        if item.actuator_name in walk.failing:
            walk.postponed = True
            return
        verdict = self._judged(item.firing, walk)
        if verdict.reason is None and item.actuator_name in self._actuators:
            taken = self._take(item, walk)
            if taken is Taken.BUSY:
                return
            verdict = self._judged(item.firing, walk)  # what the outbox had to say may have taken a while
            if taken is Taken.LEASED:
                verdict = Verdict(Reason.LEASE, "another hook has just taken it", verdict.passed)
            elif taken is Taken.DISARMED:
                verdict = Verdict(Reason.DISARMED, "its hook has just been disarmed", verdict.passed)
        if verdict.reason is not None:
            skipped = Outcome(OutcomeKind.SKIPPED, verdict.reason)
            walk.refused.append(Settled(*item, skipped, self._clock.now_us(), verdict.record()))
            return
        outcome, reply = self._attempt(item, walk)
        if outcome is not None:
            now_us = self._clock.now_us()
            self._unrecorded = Settled(
                *item,
                outcome,
                now_us,
                verdict.record(),
                reply,
                _maybe_set(outcome),
                verdict.refreshes,
                self._stands(item.firing, walk),
            )
            self._remember(self._unrecorded, walk.standing)
            self._settle()
            walk.settled += 1

    def _settings_of(self, firing: Firing) -> GuardSettings:
        return self._guards.get(firing.hook, NOT_CONFIGURED)

    def _judged(self, firing: Firing, walk: _Pass) -> Verdict:
        return judged(firing, facts_of(firing, walk.standing), self._clock.now_us(), self._settings_of(firing))

    def _take(self, item: PendingFiring, walk: _Pass) -> Taken:
        firing, priority = item.firing, self._settings_of(item.firing).priority
        now_us = self._clock.now_us()
        lease = Lease(firing.hook, firing.firing_id, priority, firing.effect_until_us, now_us)
        last = walk.standing.last.get((firing.object_id, firing.attribute))
        before = walk.standing.leases.get((firing.object_id, firing.attribute))
        taken = self._outbox.take(item, lease, last, now_us, before)
        if taken is Taken.YES:
            if before and before.firing_id != firing.firing_id:
                self._taken_from[firing.firing_id] = before
            walk.standing.leases[firing.object_id, firing.attribute] = lease
        return taken

    def _stands(self, firing: Firing, walk: _Pass) -> Lease | None:
        """The lease that this firing has taken over, else that of what was applied before; None when nothing holds."""
        if firing.firing_id in self._taken_from:
            return self._taken_from[firing.firing_id]
        last = walk.standing.last.get((firing.object_id, firing.attribute))
        if last is None or last.firing_id == firing.firing_id or last.taken_back:
            return None
        priority = self._guards.get(last.hook, NOT_CONFIGURED).priority
        return Lease(last.hook, last.firing_id, priority, last.effect_until_us, last.at_us)

    def _remember(self, done: Settled, standing: Standing) -> None:
        """Let the rest of the page be judged by what was just applied, or may have been."""
        applied = done.outcome.kind is OutcomeKind.APPLIED
        if not applied and not done.maybe_set:
            return
        firing, attribute = done.firing, (done.firing.object_id, done.firing.attribute)
        before = standing.last.get(attribute)
        changed_us = before.changed_us or before.at_us if before and done.refreshes else done.at_us
        holds = (firing.hook, firing.value, firing.effect_until_us, done.refreshes, False, changed_us)
        if applied:
            standing.last[attribute] = LastApplied(firing.firing_id, firing.slot_time_us, done.at_us, *holds)
        if done.refreshes:
            return
        if before is None or before.firing_id != firing.firing_id:
            standing.applied_last_minute[firing.hook] = standing.applied_last_minute.get(firing.hook, 0) + 1
        standing.changed.setdefault(firing.stream, set()).add(firing.radio_cell_id)

    def _settle_refused(self, walk: _Pass) -> None:
        if walk.refused:
            self._outbox.record(walk.refused)
            for settled in walk.refused:
                self._count(settled)
            walk.settled += len(walk.refused)

    def _attempt(self, item: PendingFiring, walk: _Pass) -> tuple[Outcome | None, str]:
        """One attempt: its outcome, or None when there is to be another; and what the actuator replied."""
        firing, name = item
        actuator = self._actuators.get(name)
        if actuator is None:
            return Outcome(OutcomeKind.FAILED, GaveUp.NO_ACTUATOR, f"no actuator {name!r} is configured"), ""
        attempts = self._attempts.setdefault((firing.firing_id, name), _Attempts())
        attempts.made += 1
        self.stats["attempts"] += 1
        try:
            crash.reached("before_apply")
            outcome = _answer(actuator.apply, firing)
            crash.reached("after_apply")
        except ActuatorError as error:
            if not error.retriable:
                return Outcome(OutcomeKind.FAILED, GaveUp.REFUSED, _said(error), attempts.made), ""
            walk.failing.add(name)
            return self._try_again_or_give_up(item, attempts, error), ""
        except Exception as error:
            return Outcome(OutcomeKind.FAILED, GaveUp.CRASHED, _said(error), attempts.made), ""
        reply = ": ".join(filter(None, (outcome.reason, outcome.detail)))
        if outcome.kind is OutcomeKind.APPLIED:
            outcome = _verified(actuator, firing)
        return dataclasses.replace(outcome, attempts=attempts.made), reply

    def _try_again_or_give_up(self, item: PendingFiring, attempts: _Attempts, error: ActuatorError) -> Outcome | None:
        settings = self._settings
        delay_s = self._backoff_s(attempts.made)
        now_s = self._clock.monotonic_s()
        if error.retry_after_s is not None:
            rest_s = min(max(error.retry_after_s, 0.0), settings.retry_after_max_s)
            self._resting_until_s[item.actuator_name] = now_s + rest_s
            delay_s = max(delay_s, rest_s)
        if attempts.made >= settings.max_attempts:
            return Outcome(OutcomeKind.FAILED, GaveUp.ATTEMPTS, _said(error), attempts.made)
        if self._clock.now_us() + delay_s * 1e6 >= item.firing.expires_at_us:
            return Outcome(OutcomeKind.FAILED, GaveUp.DEADLINE, _said(error), attempts.made)
        attempts.resume_s = now_s + delay_s
        self.stats["retries"] += 1
        return None

    def _backoff_s(self, attempts: int) -> float:
        # 2.0**63 is beyond any cap and still a float, however long the store has been away
        ceiling_s = self._settings.backoff_base_s * 2.0 ** min(attempts - 1, 63)
        return self._rng.uniform(0.0, min(ceiling_s, self._settings.backoff_max_s))

    def _is_due(self, item: PendingFiring) -> bool:
        now_s = self._clock.monotonic_s()
        attempts = self._attempts.get((item.firing.firing_id, item.actuator_name))
        resting_until_s = self._resting_until_s.get(item.actuator_name, 0.0)
        return now_s >= max(resting_until_s, attempts.resume_s if attempts else 0.0)

    def _idle_s(self) -> float:
        now_s = self._clock.monotonic_s()
        resumes_s = [attempts.resume_s - now_s for attempts in self._attempts.values()]
        return min([self._settings.idle_s, *(resume_s for resume_s in resumes_s if resume_s > 0)])

    def _forget_all_but(self, pending: Sequence[PendingFiring]) -> None:
        """Memory is bounded by what the outbox shows: a firing settled elsewhere leaves no trace."""
        keys = {(item.firing.firing_id, item.actuator_name) for item in pending}
        self._attempts = {key: attempts for key, attempts in self._attempts.items() if key in keys}
        ids = {item.firing.firing_id for item in pending}
        self._taken_from = {key: lease for key, lease in self._taken_from.items() if key in ids}

    def _settle(self) -> None:
        """Record the outcome in hand; until the store takes it nothing is applied, so this firing is not sent twice."""
        if self._unrecorded is None:
            return
        done = self._unrecorded
        self._outbox.record([done])
        self._unrecorded = None
        self._attempts.pop((done.firing.firing_id, done.actuator_name), None)
        self._count(done)

    def _count(self, done: Settled) -> None:
        outcome = done.outcome
        self.stats[outcome.kind] += 1
        if outcome.kind is OutcomeKind.SKIPPED and outcome.reason in _GUARDED:
            self.stats[f"skipped_{outcome.reason}"] += 1
        if outcome.kind is OutcomeKind.FAILED:
            self._log.warning(
                "action_failed",
                firing_id=done.firing.firing_id,
                actuator=done.actuator_name,
                reason=outcome.reason,
                detail=outcome.detail,
            )

    def _store_is_away(self, error: NetpredictError) -> float:
        self.stats["store_unavailable"] += 1
        self._store_failures += 1
        if self._store_failures == 1:
            self._log.warning("action_outbox_unavailable", error=_said(error))
        return self._backoff_s(self._store_failures)

    def _close_actuators(self) -> None:
        for name, actuator in self._actuators.items():
            try:
                actuator.close()
            except Exception as error:
                self._log.warning("actuator_close_failed", actuator=name, error=_said(error))


def _maybe_set(outcome: Outcome) -> bool:
    """Whether a failure leaves open what the receiver did: a lost reply does, a refusal at the first attempt not."""
    refused = outcome.reason in (GaveUp.REFUSED, GaveUp.NO_ACTUATOR) and outcome.attempts <= 1
    return outcome.kind is OutcomeKind.FAILED and not refused


def _verified(actuator: Actuator, firing: Firing) -> Outcome:
    """What the read-back says. Without one the value may well be set: the outcome stays APPLIED and guards see it."""
    try:
        return _answer(actuator.verify, firing)
    except Exception as error:
        return Outcome(OutcomeKind.APPLIED, UNVERIFIED, _said(error))


def _answer(call: Callable[[Firing], Outcome], firing: Firing) -> Outcome:
    outcome: object = call(firing)
    if not isinstance(outcome, Outcome):
        raise TypeError(f"the actuator answered {type(outcome).__name__}, not an Outcome")
    return dataclasses.replace(outcome, detail=outcome.detail[:_DETAIL_CHARS])


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_DETAIL_CHARS]

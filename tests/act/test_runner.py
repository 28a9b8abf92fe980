from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from netpredict.act.guards import GuardSettings, Reason
from netpredict.act.hook import Actuator
from netpredict.act.runner import UNVERIFIED, ActionRunner, GaveUp, Outbox, RunnerSettings
from netpredict.errors import ActuatorError, ConfigError, StoreError, StoreUnavailable
from netpredict.types import Firing, Mode, Outcome, OutcomeKind, Settled, Since, Taken
from tests.act.memory_outbox import NOW_US, FakeActuator, FakeClock, MemoryOutbox, firing

NO_GUARDS = {"bandwidth": GuardSettings(cooldown_s=0.0)}


class Rig:
    """A runner on fakes, driven pass by pass in the test's own thread."""

    def __init__(self, settings: RunnerSettings | None = None, guards: dict[str, GuardSettings] = NO_GUARDS) -> None:
        self.clock = FakeClock()
        self.outbox = MemoryOutbox()
        self.log, self.webhook = FakeActuator(), FakeActuator()
        self.settings, self.guards = settings, guards
        self.runner = self.new_runner()

    def new_runner(self) -> ActionRunner:
        """Another runner on the same outbox, as after a crash."""
        actuators: dict[str, Actuator] = {"log": self.log, "webhook": self.webhook}
        rng = random.Random(1)
        return ActionRunner(self.outbox, actuators, self.clock, guards=self.guards, settings=self.settings, rng=rng)

    def drain(self, passes: int = 200) -> None:
        """Pass after pass, the clock moved as far as each asks, until nothing is pending."""
        for _ in range(passes):
            wait_s = self.runner.run_pass()
            if not self.outbox.down and not self.outbox.pending(1):
                return
            self.clock.sleep(wait_s)
        raise AssertionError("firings are pending still")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def busy(retry_after_s: float | None = None) -> ActuatorError:
    error = ActuatorError("busy", retriable=True)
    if retry_after_s is not None:
        error.retry_after_s = retry_after_s
    return error


def test_a_pending_firing_is_applied_verified_and_recorded_with_the_time(rig: Rig) -> None:
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    assert rig.outbox.outcomes[("f1", "log")] == (Outcome(OutcomeKind.APPLIED, "verified", attempts=1), NOW_US)
    assert rig.runner.stats["applied"] == 1


def test_a_firing_that_another_runner_claimed_is_left_to_it_and_taken_over_when_its_claim_ends(rig: Rig) -> None:
    rig.outbox.add(firing("f1"))
    rig.outbox.add(firing("f2"))
    rig.outbox.claimed_elsewhere = {("f1", "log")}
    rig.runner.run_pass()
    assert rig.log.applied == ["f2"]
    assert rig.outbox.outcome("f1") is None
    rig.outbox.claimed_elsewhere.clear()
    rig.runner.run_pass()
    assert rig.log.applied == ["f2", "f1"]


def test_a_recorded_firing_is_not_applied_again(rig: Rig) -> None:
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    rig.runner.run_pass()
    assert rig.log.applied == ["f1"]
    assert rig.runner.stats["applied"] == 1


def test_every_actuator_of_a_firing_gets_it_though_the_cooldown_runs() -> None:
    rig = Rig(guards={"bandwidth": GuardSettings(cooldown_s=600.0, rate_per_min=1)})
    rig.outbox.add(firing("f1"), "log", "webhook")
    rig.drain()
    assert rig.log.applied == rig.webhook.applied == ["f1"]


def test_a_second_firing_on_the_same_attribute_waits_for_the_cooldown() -> None:
    rig = Rig(guards={"bandwidth": GuardSettings(cooldown_s=60.0)})
    rig.outbox.add(firing("f1", object_id="o"))
    rig.runner.run_pass()
    rig.outbox.add(firing("f2", object_id="o", slot_time_us=NOW_US))
    rig.runner.run_pass()
    assert rig.outbox.outcome("f2") == Outcome(OutcomeKind.SKIPPED, Reason.COOLDOWN)
    assert rig.runner.stats["skipped_cooldown"] == 1


def test_of_two_that_wait_for_an_attribute_the_younger_one_is_applied_and_no_cooldown_stands_in_its_way() -> None:
    rig = Rig(guards={"bandwidth": GuardSettings(cooldown_s=60.0)})
    rig.outbox.add(firing("f1", object_id="o"))
    rig.outbox.add(firing("f2", object_id="o", slot_time_us=NOW_US))
    rig.drain()
    assert rig.log.applied == ["f2"]
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.SKIPPED, Reason.SUPERSEDED)


def test_all_that_has_expired_is_settled_before_anything_is_applied() -> None:
    rig = Rig(settings=RunnerSettings(expire_rows=2, page=1))
    for number in range(7):
        rig.outbox.add(firing(f"old-{number}", expires_at_us=NOW_US - 1))
    rig.outbox.add(firing("new"))
    rig.runner.run_pass()
    assert rig.runner.stats["skipped_expired"] == 7
    assert rig.log.applied == ["new"]


def test_breakers_and_kpis_are_looked_at_again_in_time_however_slow_an_actuator_is(rig: Rig) -> None:
    looked_s: list[float] = []
    rig.runner._chores.append(lambda: looked_s.append(rig.clock.monotonic_s()))
    rig.log.verify_with = lambda _: rig.clock.sleep(4.0) or Outcome(OutcomeKind.APPLIED, "verified")
    for number in range(12):
        rig.outbox.add(firing(f"f{number}"))
    rig.drain()
    assert len(rig.log.applied) == 12
    looked_s.append(rig.clock.monotonic_s())
    assert max(after - before for before, after in pairwise(looked_s)) <= 12.0, "acted by what it knew long ago"


def test_the_rate_counts_the_firings_of_the_last_minute_only() -> None:
    rig = Rig(guards={"bandwidth": GuardSettings(cooldown_s=0.0, rate_per_min=2)})
    for name in ("f1", "f2", "f3"):
        rig.outbox.add(firing(name))
    rig.runner.run_pass()
    assert rig.outbox.outcome("f3") == Outcome(OutcomeKind.SKIPPED, Reason.RATE)
    rig.clock.sleep(60.001)
    rig.outbox.add(firing("f4", expires_at_us=NOW_US + 10**9))
    rig.runner.run_pass()
    assert rig.log.applied == ["f1", "f2", "f4"]


def test_an_expired_firing_is_skipped_by_name(rig: Rig) -> None:
    rig.outbox.add(firing("f1", expires_at_us=NOW_US))
    rig.runner.run_pass()
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.SKIPPED, Reason.EXPIRED)
    assert rig.log.applied == []


def test_expiry_is_judged_when_the_turn_comes_and_not_when_the_page_was_read(rig: Rig) -> None:
    class Slow(FakeActuator):
        def apply(self, firing: Firing) -> Outcome:
            rig.clock.sleep(6.0)
            return super().apply(firing)

    rig.log = Slow()
    rig.runner = rig.new_runner()
    rig.outbox.add(firing("f1"))
    rig.outbox.add(firing("f2", expires_at_us=NOW_US + 5_000_000))
    rig.runner.run_pass()
    assert rig.log.applied == ["f1"]
    assert rig.outbox.outcome("f2") == Outcome(OutcomeKind.SKIPPED, Reason.EXPIRED)


def test_a_slow_outbox_cannot_carry_a_firing_over_its_expiry(rig: Rig) -> None:
    class SlowOutbox(MemoryOutbox):
        def take(self, *asked: object) -> Taken:
            rig.clock.sleep(120.0)
            return super().take(*asked)  # type: ignore[arg-type]

    rig.outbox = SlowOutbox()
    rig.runner = rig.new_runner()
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    assert rig.log.applied == []


def test_a_retriable_failure_is_tried_again_until_it_works(rig: Rig) -> None:
    rig.log.script = [busy(), busy()]
    rig.outbox.add(firing("f1"))
    rig.drain()
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.APPLIED, "verified", attempts=3)
    assert rig.runner.stats["retries"] == 2


def test_attempts_are_bounded(rig: Rig) -> None:
    rig.log.script = [busy() for _ in range(99)]
    rig.outbox.add(firing("f1", expires_at_us=NOW_US + 10**12))
    rig.drain()
    outcome = rig.outbox.outcome("f1")
    assert outcome is not None
    assert (outcome.kind, outcome.reason, outcome.attempts) == (OutcomeKind.FAILED, GaveUp.ATTEMPTS, 5)


def test_the_backoff_has_full_jitter_below_a_doubling_and_capped_ceiling() -> None:
    rig = Rig(RunnerSettings(backoff_base_s=1.0, backoff_max_s=6.0))
    rng = random.Random(1)
    for attempt, ceiling_s in enumerate([1.0, 2.0, 4.0, 6.0, 6.0], start=1):
        assert rig.runner._backoff_s(attempt) == rng.uniform(0.0, ceiling_s)
    assert 0.0 <= rig.runner._backoff_s(10**6) <= 6.0


def test_no_attempt_is_waited_for_that_would_come_after_expiry(rig: Rig) -> None:
    rig.log.script = [busy(retry_after_s=120.0)]
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    outcome = rig.outbox.outcome("f1")
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, GaveUp.DEADLINE)


def test_retry_after_rests_the_whole_actuator_and_no_other(rig: Rig) -> None:
    rig.webhook.script = [busy(retry_after_s=10.0)]
    for name in ("f1", "f2"):
        rig.outbox.add(firing(name), "webhook", "log")
    rig.runner.run_pass()
    rig.clock.sleep(9.9)
    rig.runner.run_pass()
    assert rig.webhook.applied == ["f1"]
    assert rig.log.applied == ["f1", "f2"]
    rig.clock.sleep(0.2)
    rig.runner.run_pass()
    assert rig.webhook.applied == ["f1", "f1", "f2"]


def test_an_absurd_retry_after_is_capped() -> None:
    rig = Rig(RunnerSettings(retry_after_max_s=5.0))
    rig.log.script = [busy(retry_after_s=1e9)]
    rig.outbox.add(firing("f1"))
    rig.drain()
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.APPLIED, "verified", attempts=2)


def test_a_firing_that_expires_while_its_actuator_rests_gets_its_outcome(rig: Rig) -> None:
    rig.log.script = [busy(retry_after_s=30.0)]
    rig.outbox.add(firing("f1"))
    rig.outbox.add(firing("f2", expires_at_us=NOW_US + 1_000_000))
    rig.runner.run_pass()
    rig.clock.sleep(2.0)
    rig.runner.run_pass()
    assert rig.outbox.outcome("f2") == Outcome(OutcomeKind.SKIPPED, Reason.EXPIRED)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ActuatorError("bad request"), GaveUp.REFUSED),
        (ValueError("a bug"), GaveUp.CRASHED),
        (None, GaveUp.CRASHED),
        ("ok", GaveUp.CRASHED),
    ],
)
def test_one_broken_firing_costs_one_outcome(rig: Rig, answer: object, reason: GaveUp) -> None:
    if answer is None:
        rig.log.script = [object()]
    else:
        rig.log.script = [answer]
    rig.outbox.add(firing("f1"))
    rig.outbox.add(firing("f2"))
    rig.runner.run_pass()
    broken = rig.outbox.outcome("f1")
    assert broken is not None
    assert (broken.kind, broken.reason, broken.attempts) == (OutcomeKind.FAILED, reason, 1)
    assert rig.outbox.outcome("f2") == Outcome(OutcomeKind.APPLIED, "verified", attempts=1)


def test_a_failing_actuator_costs_each_pass_one_attempt_and_never_stops_the_others(rig: Rig) -> None:
    rig.webhook.script = [busy() for _ in range(99)]
    for number in range(20):
        rig.outbox.add(firing(f"f{number}"), "webhook", "log")
    rig.runner.run_pass()
    assert len(rig.webhook.applied) == 1
    assert len(rig.log.applied) == 20


def test_firings_behind_a_poisoned_one_are_not_held_up_by_its_backoff(rig: Rig) -> None:
    rig.log.script = [busy()]
    for name in ("f1", "f2", "f3"):
        rig.outbox.add(firing(name))
    assert rig.runner.run_pass() == 0.0
    rig.runner.run_pass()
    assert rig.log.applied[:3] == ["f1", "f2", "f3"]


def test_an_actuator_that_says_failed_is_believed_and_not_verified(rig: Rig) -> None:
    rig.log.script = [Outcome(OutcomeKind.FAILED, "locked")]
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.FAILED, "locked", attempts=1)


def test_a_read_back_that_differs_is_a_failure(rig: Rig) -> None:
    rig.log.verify_with = lambda firing: Outcome(OutcomeKind.FAILED, "mismatch", "min is 20")
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.FAILED, "mismatch", "min is 20", attempts=1)


def test_a_read_back_that_fails_leaves_the_firing_applied_for_the_guards(rig: Rig) -> None:
    def fail(firing: Firing) -> Outcome:
        raise busy()

    rig.log.verify_with = fail
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    outcome = rig.outbox.outcome("f1")
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.APPLIED, UNVERIFIED)
    item = rig.outbox.items[0]
    assert ("NRCellDU=f1", "rRMPolicyRatio") in rig.outbox.standing([item], Since(NOW_US, 0, 0), []).last


def test_an_actuator_that_is_not_configured_any_more_costs_a_named_outcome(rig: Rig) -> None:
    rig.outbox.add(firing("f1"), "kafka")
    rig.runner.run_pass()
    outcome = rig.outbox.outcome("f1", "kafka")
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, GaveUp.NO_ACTUATOR)


def test_a_shadow_firing_shown_by_mistake_is_skipped(rig: Rig) -> None:
    class Careless(MemoryOutbox):
        def pending(self, limit: int) -> list:  # type: ignore[type-arg]
            return [item for item in self.items if (item.firing.firing_id, item.actuator_name) not in self.outcomes]

    rig.outbox = Careless()
    rig.runner = rig.new_runner()
    rig.outbox.add(firing("f1", mode=Mode.SHADOW))
    rig.runner.run_pass()
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.SKIPPED, Reason.SHADOW)
    assert rig.log.applied == []


def test_a_crash_between_apply_and_record_applies_the_same_id_once_more(rig: Rig) -> None:
    rig.outbox.down_for_record = True
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    rig.outbox.down_for_record = False
    rig.runner = rig.new_runner()
    rig.runner.run_pass()
    assert rig.log.applied == ["f1", "f1"]
    assert rig.outbox.outcome("f1") == Outcome(OutcomeKind.APPLIED, "verified", attempts=1)


def test_while_the_outcome_cannot_be_recorded_nothing_else_is_applied_and_nothing_twice(rig: Rig) -> None:
    rig.outbox.down_for_record = True
    for name in ("f1", "f2"):
        rig.outbox.add(firing(name))
    for _ in range(5):
        rig.clock.sleep(rig.runner.run_pass())
    assert rig.log.applied == ["f1"]
    assert rig.runner.stats["store_unavailable"] == 5
    rig.outbox.down_for_record = False
    rig.drain()
    assert rig.log.applied == ["f1", "f2"]
    assert rig.outbox.outcomes[("f1", "log")][1] == NOW_US


def test_an_outbox_that_is_away_is_asked_again_with_backoff(rig: Rig) -> None:
    rig.outbox.add(firing("f1"))
    rig.outbox.down = True
    waits_s = [rig.runner.run_pass() for _ in range(12)]
    assert max(waits_s) > 1.0
    rig.outbox.down = False
    rig.drain()
    assert rig.log.applied == ["f1"]
    rig.outbox.down = True
    assert rig.runner.run_pass() <= 0.5


def test_an_outbox_that_no_retry_mends_ends_the_pass(rig: Rig) -> None:
    class Damaged(MemoryOutbox):
        def pending(self, limit: int) -> list:  # type: ignore[type-arg]
            raise StoreError("unknown head")

    rig.outbox = Damaged()
    rig.runner = rig.new_runner()
    with pytest.raises(StoreError):
        rig.runner.run_pass()


def test_memory_is_bounded_by_the_page() -> None:
    rig = Rig(RunnerSettings(page=10, max_attempts=99, backoff_base_s=30.0))
    rig.log.script = [busy() for _ in range(10_000)]
    for number in range(500):
        rig.outbox.add(firing(f"f{number}", expires_at_us=NOW_US + 10**12))
    for _ in range(50):
        rig.runner.run_pass()
    assert len(rig.runner._attempts) <= 10
    rig.outbox.items.clear()
    rig.runner.run_pass()
    assert rig.runner._attempts == {}


def test_a_full_page_asks_for_the_next_one_at_once() -> None:
    rig = Rig(RunnerSettings(page=2))
    for number in range(3):
        rig.outbox.add(firing(f"f{number}"))
    assert rig.runner.run_pass() == 0.0
    assert rig.runner.run_pass() == 1.0
    assert rig.log.applied == ["f0", "f1", "f2"]


def test_a_pass_asks_to_be_called_again_when_the_next_retry_is_due() -> None:
    rig = Rig(RunnerSettings(backoff_base_s=0.5, idle_s=5.0))
    rig.log.script = [busy()]
    rig.outbox.add(firing("f1"))
    assert rig.runner.run_pass() == random.Random(1).uniform(0.0, 0.5)


@pytest.mark.parametrize("answer", [ActuatorError("x" * 10_000), Outcome(OutcomeKind.FAILED, "locked", "x" * 10_000)])
def test_a_long_detail_is_cut(rig: Rig, answer: object) -> None:
    rig.log.script = [answer]
    rig.outbox.add(firing("f1"))
    rig.runner.run_pass()
    outcome = rig.outbox.outcome("f1")
    assert outcome is not None
    assert len(outcome.detail) == 500


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"idle_s": 0.0}, {"backoff_max_s": float("inf")}])
def test_runner_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RunnerSettings(**wrong)  # type: ignore[arg-type]


class TickingClock:
    """The real clocks; a thread needs time that passes."""

    def now_us(self) -> int:
        return NOW_US + time.monotonic_ns() // 10**9

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def until(condition: object, timeout_s: float = 5.0) -> None:
    assert callable(condition)
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, "it never came"
        time.sleep(0.002)


class Threaded:
    """A runner on its own thread."""

    def __init__(self, outbox: Outbox, actuator: Actuator, idle_s: float = 30.0) -> None:
        self.actuator = actuator
        settings = RunnerSettings(idle_s=idle_s)
        self.runner = ActionRunner(outbox, {"log": actuator}, TickingClock(), guards=NO_GUARDS, settings=settings)


@pytest.fixture
def outbox() -> MemoryOutbox:
    return MemoryOutbox()


@pytest.fixture
def threaded(outbox: MemoryOutbox) -> Iterator[Threaded]:
    threaded = Threaded(outbox, FakeActuator())
    threaded.runner.start()
    yield threaded
    threaded.runner.stop(5.0)


def far(firing_id: str) -> Firing:
    return firing(firing_id, expires_at_us=2 * NOW_US)


def test_wake_brings_the_runner_to_the_outbox_at_once(threaded: Threaded, outbox: MemoryOutbox) -> None:
    outbox.add(far("f1"))
    threaded.runner.wake()
    until(lambda: outbox.outcome("f1") is not None)


def test_stop_ends_the_thread_and_closes_the_actuators(threaded: Threaded) -> None:
    assert threaded.runner.stop(5.0)
    assert isinstance(threaded.actuator, FakeActuator)
    assert threaded.actuator.closed == 1
    assert threaded.runner.failure is None


def test_the_beat_moves_with_the_loop_and_stands_still_in_a_hanging_actuator(outbox: MemoryOutbox) -> None:
    release = threading.Event()

    class Hanging(FakeActuator):
        def apply(self, firing: Firing) -> Outcome:
            release.wait(5.0)
            return super().apply(firing)

    runner = Threaded(outbox, Hanging(), idle_s=0.01).runner
    runner.start()
    first = runner.beat
    until(lambda: runner.beat > first)
    outbox.add(far("f1"))
    until(lambda: runner.stats["attempts"] == 1)
    still = runner.beat
    assert not runner.stop(0.05)
    assert runner.beat == still
    release.set()
    assert runner.stop(5.0)
    assert outbox.outcome("f1") is not None


def test_a_damaged_store_ends_the_thread_and_leaves_the_error(outbox: MemoryOutbox) -> None:
    class Damaged(MemoryOutbox):
        def pending(self, limit: int) -> list:  # type: ignore[type-arg]
            raise StoreError("unknown head")

    runner = Threaded(Damaged(), FakeActuator()).runner
    runner.start()
    until(lambda: runner.failure is not None)
    assert isinstance(runner.failure, StoreError)
    assert runner.stop(5.0)


def test_stop_records_what_was_applied_when_the_store_is_back(outbox: MemoryOutbox) -> None:
    outbox.down_for_record = True
    outbox.add(far("f1"))
    threaded = Threaded(outbox, FakeActuator())
    threaded.runner.start()
    until(lambda: threaded.runner.stats["store_unavailable"] > 0)
    outbox.down_for_record = False
    assert threaded.runner.stop(5.0)
    assert outbox.outcome("f1") is not None


def test_stop_gives_up_on_an_outcome_the_store_does_not_take(outbox: MemoryOutbox) -> None:
    outbox.down_for_record = True
    outbox.add(far("f1"))
    threaded = Threaded(outbox, FakeActuator())
    threaded.runner.start()
    until(lambda: threaded.runner.stats["store_unavailable"] > 0)
    assert threaded.runner.stop(5.0)
    assert threaded.runner.failure is None
    with pytest.raises(StoreUnavailable):
        outbox.record([Settled(far("f1"), "log", Outcome(OutcomeKind.APPLIED, "verified"), NOW_US)])


def test_a_runner_that_was_never_started_can_be_stopped(outbox: MemoryOutbox) -> None:
    actuator = FakeActuator()
    assert Threaded(outbox, actuator).runner.stop(1.0)
    assert actuator.closed == 1

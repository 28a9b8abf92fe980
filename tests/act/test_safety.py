"""What must hold whatever happens: random histories of firings, verdicts, breakers and kills on a real store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netpredict.act.guards import Deviation, GuardSettings
from netpredict.act.revert import EffectWatch, revert
from netpredict.act.runner import ActionRunner
from netpredict.config import RevertConfig
from netpredict.errors import ActuatorError, DataError
from netpredict.store import migrate
from netpredict.store.breakers import SqlBreakers
from netpredict.store.commit import Commit
from netpredict.store.history import History
from netpredict.store.outbox import SqlOutbox
from netpredict.store.reversal import SqlFollowUps
from netpredict.store.sql import SqlStore
from netpredict.types import ArmState, Breaker, Firing, Mode, Outcome, OutcomeKind
from tests.act.memory_outbox import NOW_US, FakeActuator, FakeClock
from tests.act.stories import assert_whole
from tests.store.store_builders import assign, firing, lane_commit

COOLDOWN_S, MOST, BASELINE = 30.0, 20.0, 50.0
PRIORITY = {"low": 0, "high": 1}
GUARDS = {
    hook: GuardSettings(
        cooldown_s=COOLDOWN_S, rate_per_min=1e9, priority=priority, deviations=(Deviation("quota", MOST, BASELINE),)
    )
    for hook, priority in PRIORITY.items()
}
BASIS = {
    "model": "gru/v1",
    "source": "model",
    "quality": 0,
    "observed": {"prb_use_dl_percent": 48.5},
    "levels": [0.1, 0.5, 0.9],
    "forecast": {"prb_use_dl_percent": [[40.0, 50.0, 60.0]]},
}
WHY = {"rule": "r", "c_under": 4.0, "c_over": 1.0, "basis": BASIS}
REVERT = RevertConfig(kpi="prb_use_dl_percent", worse="higher", change=5.0, window_s=20.0)
LONG_S = 200.0
"""Behind it everything has expired and every effect was looked at."""


class KilledError(BaseException):
    """SIGKILL: nothing below gets to run."""


@dataclass
class Receiver(FakeActuator):
    """An idempotent receiver: what it did, when, and who was disarmed then. ``fate`` of the next calls."""

    clock: FakeClock = field(default_factory=FakeClock)
    disarmed: set[tuple[str, str]] = field(default_factory=set)
    modes: dict[str, Mode] = field(default_factory=lambda: dict.fromkeys(PRIORITY, Mode.AUTO))
    fate: str = "works"
    did: dict[str, tuple[Firing, int, bool]] = field(default_factory=dict)
    taken_back: set[str] = field(default_factory=set)

    def apply(self, firing: Firing) -> Outcome:
        fate, self.fate = self.fate, "works"
        if fate == "busy":
            raise ActuatorError("busy", retriable=True)
        if fate == "refuses":
            raise ActuatorError("no such object")
        wanted = self.modes[firing.hook] in {Mode.AUTO, firing.mode}
        armed = wanted and (firing.hook, firing.group) not in self.disarmed
        if firing.firing_id not in self.did:
            self.did[firing.firing_id] = (firing, self.clock.now_us(), armed)
        if fate == "killed":
            raise KilledError
        if fate == "mismatch":
            self.verify_with = lambda _: Outcome(OutcomeKind.FAILED, "mismatch", "read back 3, set 4")
        else:
            self.verify_with = lambda _: Outcome(OutcomeKind.APPLIED, "verified")
        return Outcome(OutcomeKind.APPLIED, "accepted", "200")

    def revert(self, firing: Firing) -> Outcome:
        self.taken_back.add(firing.firing_id)
        return Outcome(OutcomeKind.APPLIED, "reverted")


STEPS = st.one_of(
    st.tuples(
        st.just("fire"),
        st.sampled_from(sorted(PRIORITY)),
        st.sampled_from(["cell-a", "cell-b"]),
        st.sampled_from([*Mode, Mode.AUTO, Mode.AUTO]),
        st.sampled_from([20, 30, 50, 70, 71]),
        st.sampled_from(["", "lab"]),
        st.sampled_from([2, 20, 120]),
    ),
    st.tuples(st.just("refresh"), st.integers(0, 10), st.sampled_from([2, 20, 120])),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 29, 31, 60, 91])),
    st.tuples(st.just("fate"), st.sampled_from(["busy", "killed", "refuses", "mismatch"])),
    st.tuples(st.sampled_from(["arm", "disarm"]), st.sampled_from(sorted(PRIORITY)), st.sampled_from(["", "lab"])),
    st.tuples(st.sampled_from(["approve", "reject"]), st.integers(0, 30)),
    st.tuples(st.just("takeback"), st.integers(0, 30)),
    st.tuples(st.just("mode"), st.sampled_from(sorted(PRIORITY)), st.sampled_from(list(Mode))),
    st.tuples(st.just("kpi"), st.sampled_from([0.0, 10.0])),
    st.tuples(st.just("restart")),
)


class Life:
    """A store, a receiver, and the runner that lives at the moment."""

    def __init__(self, path: Path) -> None:
        self.store = SqlStore(f"sqlite:///{path}", clock := FakeClock())  # type: ignore[arg-type]
        self.store.start()
        self.clock, self.receiver = clock, Receiver(clock=clock)
        self.lane, self.offset = assign(self.store), 0
        self.fired: list[Firing] = []
        self.approved: dict[str, int] = {}
        self.rise = 0.0
        self.restart()

    def restart(self) -> None:
        actuators = {"log": self.receiver}
        follow_ups, watched = SqlFollowUps(self.store), dict.fromkeys(PRIORITY, REVERT)
        self.effects = EffectWatch(follow_ups, actuators, self._mean, watched, self.clock)
        chores = [self.effects.turn]
        modes = self.receiver.modes
        guards = {name: replace(guard, mode_of=lambda _, name=name: modes[name]) for name, guard in GUARDS.items()}  # type: ignore[misc]
        self.runner = ActionRunner(SqlOutbox(self.store), actuators, self.clock, guards=guards, chores=chores)

    def _mean(self, stream: str, series: str, column: str, from_us: int, to_us: int) -> float:
        """Behind an action the KPI is higher by as much as the history says."""
        return 50.0 + (self.rise if from_us % 1_000_000 == 1 else 0.0)

    def end(self) -> None:
        """Let everything come to its end; then the timer takes back what still holds."""
        self.receiver.fate = "works"
        for _ in range(2):
            self.clock.sleep(LONG_S)
            self.runner.run_pass()
        for name in History(self.store.url).expired_actions(self.clock.now_us()):
            revert(self.store, {"log": self.receiver}, name, "expired", "timer")

    def step(self, step: tuple[Any, ...]) -> None:
        getattr(self, f"_{step[0]}", self._verdict)(*step) if step[0] != "restart" else self.restart()
        try:
            self.runner.run_pass()
        except KilledError:
            self.restart()

    def _fire(self, _: str, hook: str, cell: str, mode: Mode, quota: int, group: str, valid_s: int) -> None:
        now_us = self.clock.now_us()
        number = len(self.fired)
        fresh = firing(
            number, mode, firing_id=f"{number:04x}", hook=hook, object_id=cell, value={"quota": quota},
            slot_time_us=now_us, expires_at_us=now_us + valid_s * 1_000_000, effect_until_us=now_us + 90_000_000,
            group=group, series=cell, why=WHY,
        )  # fmt: skip
        self._commit(fresh)

    def _refresh(self, _: str, number: int, valid_s: int) -> None:
        """As a hook does whose value stands, whatever came of the action."""
        if number >= len(self.fired):
            return
        now_us, set_by = self.clock.now_us(), self.fired[number]
        times = {"expires_at_us": now_us + valid_s * 1_000_000, "effect_until_us": now_us + 90_000_000}
        why = {**WHY, "refreshes": set_by.firing_id}
        self._commit(
            replace(set_by, firing_id=f"{len(self.fired):04x}", slot_time_us=now_us, why=why, **times)  # type: ignore[arg-type]
        )

    def _commit(self, fresh: Firing) -> None:
        self.store.commit(Commit([lane_commit(self.lane, self.offset, self.offset + 1, firings=[(fresh, ("log",))])]))
        self.offset += 1
        self.fired.append(fresh)

    def _wait(self, _: str, seconds: int) -> None:
        self.clock.sleep(float(seconds))

    def _fate(self, _: str, fate: str) -> None:
        self.receiver.fate = fate

    def _turn(self, hook: str, group: str, state: ArmState) -> None:
        now_us = self.clock.now_us()
        SqlBreakers(self.store).put(Breaker(hook, group, state, "test", 1, 0.0, None, now_us, now_us))

    def _arm(self, _: str, hook: str, group: str) -> None:
        self._turn(hook, group, ArmState.MEET)
        self.receiver.disarmed.discard((hook, group))

    def _disarm(self, _: str, hook: str, group: str) -> None:
        self._turn(hook, group, ArmState.NOT_MEET)
        self.receiver.disarmed.add((hook, group))

    def _takeback(self, _: str, number: int) -> None:
        try:
            revert(self.store, {"log": self.receiver}, f"{number:04x}", "asked", "ann")
        except DataError:
            return

    def _mode(self, _: str, hook: str, mode: Mode) -> None:
        self.receiver.modes[hook] = mode

    def _kpi(self, _: str, rise: float) -> None:
        self.rise = rise

    def _verdict(self, verdict: str, number: int) -> None:
        try:
            name = self.store.decide_action(f"{number:04x}", verdict, "ann")
        except DataError:
            return
        if verdict == "approve":
            self.approved[name] = self.clock.now_us()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


def fire(hook: str, quota: int = 50, valid_s: int = 100) -> tuple[Any, ...]:
    return ("fire", hook, "cell-a", Mode.AUTO, quota, "", valid_s)


@example([("fate", "killed"), fire("low", valid_s=2), ("wait", 5), fire("low")])  # cooled down over a kill
@example([("disarm", "low", ""), fire("low"), ("restart",), fire("high")])
@example([fire("high"), ("wait", 45), fire("low"), ("wait", 60), fire("low")])  # one holder of a lease
@example([("fire", "low", "cell-a", Mode.ASSIST, 50, "", 100), ("reject", 0)])
@example([("fate", "mismatch"), fire("low"), fire("low"), ("wait", 31), fire("high")])  # what was set cools down too
@example([fire("low"), ("takeback", 0), ("wait", 31), fire("high")])
@example([("fate", "killed"), fire("low"), ("disarm", "low", ""), ("wait", 1), ("wait", 1)])  # yet it may stand
@example([("fate", "busy"), fire("low"), ("mode", "low", Mode.SHADOW), ("wait", 5), ("wait", 5)])  # the kill switch
@example([("fate", "killed"), fire("low", valid_s=2), ("wait", 31), ("fate", "refuses"), fire("low")])
@example([fire("low"), ("wait", 31), ("fate", "busy"), fire("low", 30, 2), ("wait", 5)])
@example([fire("low"), ("kpi", 10.0), ("wait", 60), fire("low")])
@example([("fate", "refuses"), fire("low"), ("fate", "mismatch"), fire("high")])
@example([("fate", "busy"), fire("low", valid_s=2), ("wait", 5), ("wait", 5)])  # never beyond its expiry
@example([("fire", "low", "cell-a", Mode.ASSIST, 50, "", 120), ("wait", 91), ("approve", 0)])  # nor behind its effect
@example([fire("low"), ("refresh", 0, 100), ("wait", 1), ("refresh", 0, 100), ("wait", 31), fire("low", 30)])
@example([fire("low"), ("takeback", 0), ("wait", 31), ("refresh", 0, 100)])
@example([fire("low"), ("kpi", 10.0), ("refresh", 0, 100), ("wait", 60), ("refresh", 0, 100)])
@example([("fate", "refuses"), fire("low"), ("refresh", 0, 100), ("refresh", 0, 100)])
@example([fire("low"), ("wait", 45), ("refresh", 0, 100), ("wait", 60), fire("low", 30), fire("high")])
@example(
    [fire("high"), ("wait", 31), ("fate", "refuses"), fire("high", 30), ("wait", 31), fire("low")]
)  # it still holds
@example([fire("high"), ("wait", 31), ("fate", "refuses"), ("refresh", 0, 100), ("wait", 31), fire("low")])
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_whatever_happens_actions_are_safe(template: Path, steps: list[tuple[Any, ...]]) -> None:
    path = template.with_name("life.db")
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(template, path)
    life = Life(path)
    try:
        for step in steps:
            life.step(step)
        life.end()
        stories = {row["firing_id"]: row for row in History(life.store.url).firings(limit=1000)}
    finally:
        life.store.close()
    done = sorted(life.receiver.did.values(), key=lambda entry: entry[1])
    for f, at_us, armed in done:
        assert armed, "applied while disarmed, or while its hook was to wait or only to record"
        assert f.mode is not Mode.SHADOW
        assert f.mode is Mode.AUTO or life.approved[f.firing_id] <= at_us
        assert at_us < f.expires_at_us
        assert at_us < f.effect_until_us, "applied when its effect was over: nothing takes it back in time"
        assert abs(f.value["quota"] - BASELINE) <= MOST
    for attribute in ("cell-a", "cell-b"):
        of_one = [entry for entry in done if entry[0].object_id == attribute]
        changed_us = of_one[0][1] if of_one else 0
        if of_one:
            assert of_one[-1][0].firing_id in life.receiver.taken_back, "nobody takes back what holds for ever"
        for (before, _, _), (after, after_us, _) in pairwise(of_one):
            reversals = stories[before.firing_id]["reversals"]
            taken_back = any(one["kind"] == "applied" and one["at_us"] <= after_us for one in reversals)
            repeats = bool(after.refreshes) and (before.hook, before.value) == (after.hook, after.value)
            assert not (repeats and taken_back), "brought back what was taken back"
            if not repeats or after_us >= before.effect_until_us:
                assert after_us - changed_us >= COOLDOWN_S * 1e6, "cooled down too little"
                changed_us = after_us
            other = before.hook != after.hook and after_us < before.effect_until_us and not taken_back
            assert not other or PRIORITY[after.hook] > PRIORITY[before.hook], "two holders of a lease"
    for name, story in stories.items():
        assert_whole(story)
        for outcome in story["outcomes"]:
            assert outcome["kind"] is not None, "still pending, long behind its expiry"
            if outcome["kind"] == "applied":
                assert name in life.receiver.did
                looked = story["effect"] is not None
                assert looked is not bool(outcome["refreshes"]), "nobody looked at what it did"
                if not looked:
                    continue
                assert (story["effect"]["verdict"] == "worse") <= bool(story["reversals"] or superseded(story, stories))
            elif outcome["reason"] == "expired" and name in life.receiver.did:
                assert outcome["detail"], "applied by a runner that died: the record says so"


def superseded(story: dict[str, Any], stories: dict[str, dict[str, Any]]) -> bool:
    """Whether a younger action took its place: then there is nothing to take back."""
    at_us = max(outcome["at_us"] for outcome in story["outcomes"])
    return any(
        other["object_id"] == story["object_id"]
        and outcome["kind"] == "applied"
        and outcome["at_us"] > at_us
        and outcome["refreshes"] != story["firing_id"]
        for other in stories.values()
        for outcome in other["outcomes"]
    )


def test_the_clock_of_these_histories_is_the_fake_one() -> None:
    assert FakeClock().now_us() == NOW_US

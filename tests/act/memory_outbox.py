"""An outbox in memory and the small fakes around the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from netpredict.errors import StoreUnavailable
from netpredict.types import (
    Firing,
    LastApplied,
    Lease,
    Mode,
    Outcome,
    OutcomeKind,
    PendingFiring,
    Settled,
    Since,
    Standing,
    Taken,
)

NOW_US = 1_772_452_800_000_000  # 2026-03-02 12:00:00 UTC

A_FIRING = Firing(
    firing_id="f1",
    hook="bandwidth",
    stream="traffic",
    object_id="NRCellDU=c1,RRMPolicyRatio=1",
    attribute="rRMPolicyRatio",
    value={"rRMPolicyMinRatio": 40},
    why={"rule": "test"},
    mode=Mode.AUTO,
    slot_time_us=NOW_US - 1_000_000,
    expires_at_us=NOW_US + 60_000_000,
    effect_until_us=NOW_US + 900_000_000,
)


def firing(firing_id: str, **changes: object) -> Firing:
    """A firing of its own object unless told otherwise."""
    return replace(A_FIRING, **({"firing_id": firing_id, "object_id": f"NRCellDU={firing_id}"} | changes))  # type: ignore[arg-type]


class FakeClock:
    """Stands still until told to move; wall and monotonic time move together."""

    def __init__(self) -> None:
        self.wall_us = NOW_US
        self.slept_s = 0.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic_s(self) -> float:
        return self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.wall_us += round(seconds * 1e6)


@dataclass
class MemoryOutbox:
    """Fits ``netpredict.act.runner.Outbox``. ``down`` makes every call raise, ``down_for_record`` only ``record``."""

    items: list[PendingFiring] = field(default_factory=list)
    outcomes: dict[tuple[str, str], tuple[Outcome, int]] = field(default_factory=dict)
    claimed_elsewhere: set[tuple[str, str]] = field(default_factory=set)
    leases: dict[tuple[str, str], Lease] = field(default_factory=dict)
    settled: list[Settled] = field(default_factory=list)
    radio_cells: int = 0
    down: bool = False
    down_for_record: bool = False

    def add(self, firing: Firing, *actuator_names: str) -> None:
        self.items += [PendingFiring(firing, name) for name in actuator_names or ("log",)]

    def pending(self, limit: int) -> list[PendingFiring]:
        self._check(self.down)
        shown: dict[str, int] = {}
        page = []
        for item in sorted(self.items, key=lambda item: item.firing.slot_time_us):
            open_still = (item.firing.firing_id, item.actuator_name) not in self.outcomes
            if open_still and item.firing.mode is Mode.AUTO and shown.get(item.actuator_name, 0) < limit:
                shown[item.actuator_name] = shown.get(item.actuator_name, 0) + 1
                page.append(item)
        return page

    def expire(self, now_us: int, rows: int) -> int:
        self._check(self.down)
        late = [(i.firing.firing_id, i.actuator_name) for i in self.items if i.firing.expires_at_us <= now_us]
        late = [key for key in late if key not in self.outcomes][:rows]
        self._check(self.down_for_record and bool(late))
        self.outcomes |= {key: (Outcome(OutcomeKind.SKIPPED, "expired"), now_us) for key in late}
        return len(late)

    def standing(self, items: Sequence[PendingFiring], since: Since, blasting: Sequence[str]) -> Standing:
        self._check(self.down)
        found = Standing(leases=dict(self.leases))
        for firing, at_us in sorted(self._applied(), key=lambda done: (done[0].slot_time_us, done[1])):
            told = (firing.hook, firing.value, firing.effect_until_us, self._refreshes(firing))
            last = LastApplied(firing.firing_id, firing.slot_time_us, at_us, *told)
            found.last[firing.object_id, firing.attribute] = last
            if at_us >= since.blast_us and firing.hook in blasting and not self._refreshes(firing):
                found.changed.setdefault(firing.stream, set()).add(firing.radio_cell_id)
        for hook in {item.firing.hook for item in items}:
            of_hook = {f.firing_id for f, at_us in self._applied() if f.hook == hook and at_us >= since.rate_us}
            of_hook -= {done.firing.firing_id for done in self.settled if done.refreshes}
            found.applied_last_minute[hook] = len(of_hook)
        for old in items:
            for new in self.items:
                waits = (new.firing.firing_id, new.actuator_name) not in self.outcomes
                same = all(
                    getattr(old.firing, name) == getattr(new.firing, name)
                    for name in ("hook", "object_id", "attribute")
                )
                if waits and same and new.firing.slot_time_us > old.firing.slot_time_us:
                    found.younger[old.firing.firing_id] = new.firing.firing_id
        found.radio_cells = dict.fromkeys((item.firing.stream for item in items), self.radio_cells)
        return found

    def take(
        self, item: PendingFiring, lease: Lease, last: LastApplied | None, now_us: int, seen: Lease | None = None
    ) -> Taken:
        self._check(self.down)
        if (item.firing.firing_id, item.actuator_name) in self.claimed_elsewhere:
            return Taken.BUSY
        self.leases[item.firing.object_id, item.firing.attribute] = lease
        return Taken.YES

    def record(self, done: Sequence[Settled]) -> None:
        self._check(self.down or self.down_for_record)
        self.settled += done
        for firing, name, outcome, at_us, *_ in done:
            self.outcomes.setdefault((firing.firing_id, name), (outcome, at_us))

    def outcome(self, firing_id: str, actuator_name: str = "log") -> Outcome | None:
        found = self.outcomes.get((firing_id, actuator_name))
        return found[0] if found else None

    def _refreshes(self, firing: Firing) -> str:
        return next((done.refreshes for done in self.settled if done.firing.firing_id == firing.firing_id), "")

    def _applied(self) -> list[tuple[Firing, int]]:
        done = [(item.firing, self.outcomes.get((item.firing.firing_id, item.actuator_name))) for item in self.items]
        return [(f, found[1]) for f, found in done if found and found[0].kind is OutcomeKind.APPLIED]

    def _check(self, away: bool) -> None:
        if away:
            raise StoreUnavailable("the outbox is away")


@dataclass
class FakeActuator:
    """Does what its script says, one entry per ``apply``: an exception is raised, anything else answered."""

    script: list[object] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    verify_with: Callable[[Firing], Outcome] = lambda firing: Outcome(OutcomeKind.APPLIED, "verified")
    closed: int = 0
    api_version: int = 1

    def apply(self, firing: Firing) -> Outcome:
        self.applied.append(firing.firing_id)
        answer = self.script.pop(0) if self.script else Outcome(OutcomeKind.APPLIED, "accepted")
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]

    def verify(self, firing: Firing) -> Outcome:
        return self.verify_with(firing)

    def revert(self, firing: Firing) -> Outcome:
        return Outcome(OutcomeKind.APPLIED, "reverted")

    def close(self) -> None:
        self.closed += 1

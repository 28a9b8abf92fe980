"""Hook ``cio``: mobility robustness. One step of a relation's cell individual offset by the handovers of a window.

After TS 38.300 15.5.2 (MRO): handovers that come too late ask for a higher offset towards the target, those that come
too early, to the wrong radio cell, or for nothing (ping-pong) for a lower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, NamedTuple

import msgspec

from netpredict.errors import ConfigError
from netpredict.plugins import Plugin
from netpredict.radio.events import Mobility, MobilityClass, classify_mobility
from netpredict.radio.quantities import check_cio_db, step_cio_db
from netpredict.types import (
    AnyArray,
    FiringBatch,
    HookBatch,
    LastSet,
    PolicyAction,
    Served,
    StateArray,
    Window,
)

ATTRIBUTE = "cellIndividualOffset"
MEMBER = "rsrpOffsetSSB"
RULE = (
    "late = too late + after a wrong radio cell, early = too early + wrong radio cell + ping-pong; one step against the"
    " larger, where it counts troubles_min and leads by lead_ratio of the attempts"
)


class CioOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the cio hook. ``cio_db`` is by source and target radio_cell_id."""

    window_s: float = 3600.0
    settle_windows: int = 1
    attempts_min: int = 30
    troubles_min: int = 3
    lead_ratio: float = 0.05
    failure_dbm: float = -120.0
    recent_s: float = 2.0
    ping_pong_s: float = 1.0
    most_db: int = 6
    cio_db: dict[str, dict[str, int]] = {}
    object_template: str = "NRCellCU={source},NRCellRelation={target}"
    valid_for_s: float = 0.0

    def __post_init__(self) -> None:
        _check(1 <= self.window_s <= 604_800, "window_s", self.window_s, "1..604800 s")
        _check(self.settle_windows >= 0, "settle_windows", self.settle_windows, "0 or more")
        _check(self.attempts_min >= 1, "attempts_min", self.attempts_min, "1 or more")
        _check(self.troubles_min >= 1, "troubles_min", self.troubles_min, "1 or more")
        _check(0 <= self.lead_ratio < 1, "lead_ratio", self.lead_ratio, "0 to below 1")
        _check(-156 <= self.failure_dbm <= -31, "failure_dbm", self.failure_dbm, "-156..-31 dBm")
        _check(0 < self.recent_s <= 102.3, "recent_s", self.recent_s, "above 0, up to 102.3 s (tstoreUEcntxt)")
        _check(0 < self.ping_pong_s <= 60, "ping_pong_s", self.ping_pong_s, "above 0, up to 60 s")
        check_cio_db(self.most_db, "most_db")
        _check(self.most_db > 0, "most_db", self.most_db, "above 0")
        for source, targets in self.cio_db.items():
            for target, cio_db in targets.items():
                check_cio_db(cio_db, f"cio_db.{source}.{target}")
        _check(0 <= self.valid_for_s < float("inf"), "valid_for_s", self.valid_for_s, "0 or more seconds")
        _check_template(self.object_template)


class Relation(NamedTuple):
    """Two radio cells, in this direction."""

    source: str
    target: str


@dataclass
class Counts:
    """What came of a relation in a window. ``after_wrong``: the UE came back in the target after a wrong radio cell."""

    handovers: int = 0
    too_late: int = 0
    after_wrong: int = 0
    too_early: int = 0
    wrong_radio_cell: int = 0
    ping_pong: int = 0

    @property
    def late(self) -> int:
        """What a higher offset would have avoided."""
        return self.too_late + self.after_wrong

    @property
    def early(self) -> int:
        """What a lower offset would have avoided."""
        return self.too_early + self.wrong_radio_cell + self.ping_pong

    @property
    def attempts(self) -> int:
        """Handovers, and failures that one would have avoided."""
        return self.handovers + self.late


@dataclass
class _Stay:
    """Where a UE is: since when (None: since before we looked), from where, and what was measured last."""

    radio_cell_id: str
    since_us: int | None
    source: str | None
    last_us: int
    last_dbm: float | None


class CioHook:
    """Keeps nothing: what it set before comes from the store."""

    api_version = 1

    def __init__(self, options: CioOptions) -> None:
        self._options = options

    def levels_needed(self) -> Sequence[float]:
        """None: it sees no forecast."""
        return ()

    def kpis_needed(self) -> Sequence[str]:
        """None."""
        return ()

    def columns_needed(self) -> Sequence[str]:
        """Level of the serving radio cell, and which it is."""
        return ("rsrp_dbm", "serving")

    def steps_needed(self) -> int:
        """None."""
        return 0

    def state_spec(self) -> Mapping[str, StateArray]:
        """Nothing."""
        return {}

    def decide(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        """Nothing: one round says nothing about a relation."""
        return [], dict(state)

    def window_s(self) -> float:
        """See ``MobilityPolicy``."""
        return self._options.window_s

    def lookback_s(self) -> float:
        """Where a UE came from matters for as long as a handover may be to blame."""
        return max(self._options.recent_s, self._options.ping_pong_s)

    def review(
        self, served: Iterable[Served], window: Window, last_set: Callable[[str, str], LastSet | None]
    ) -> Sequence[PolicyAction]:
        """One step for each relation that asks for one, sorted by relation."""
        actions = []
        for relation, counts in sorted(counted(served, window, self._options).items()):
            step = step_of(counts, self._options)
            action = self._action(relation, counts, step, window, last_set) if step else None
            if action is not None:
                actions.append(action)
        return actions

    def _action(
        self,
        relation: Relation,
        counts: Counts,
        step: int,
        window: Window,
        last_set: Callable[[str, str], LastSet | None],
    ) -> PolicyAction | None:
        options = self._options
        object_id = options.object_template.format(source=relation.source, target=relation.target)
        baseline_db = options.cio_db.get(relation.source, {}).get(relation.target, 0)
        last = last_set(object_id, ATTRIBUTE)
        before_db = int(last.value[MEMBER]) if last and last.value else baseline_db
        settled_us = options.settle_windows * (window.until_us - window.from_us)
        if last is not None and window.from_us < last.slot_time_us + settled_us:
            return None
        after_db = step_cio_db(before_db, step)
        if after_db == before_db or abs(before_db) < abs(after_db) > options.most_db:
            return None
        why: dict[str, Any] = {
            "rule": RULE,
            "window_from_us": window.from_us,
            "window_until_us": window.until_us,
            "late": counts.late,
            "early": counts.early,
            "attempts": counts.attempts,
            "set_before_db": before_db,
            "baseline_db": baseline_db,
            **{name: getattr(options, name) for name in _SAID},
            "basis": {
                "model": None,
                "source": None,
                "quality": 0,
                "observed": {name: getattr(counts, name) for name in Counts.__dataclass_fields__},
                "levels": [],
                "forecast": {},
            },
        }
        valid_for_s = options.valid_for_s or options.window_s
        return PolicyAction(relation.source, object_id, ATTRIBUTE, {MEMBER: after_db}, why, valid_for_s)


_SAID = (
    *("settle_windows", "attempts_min", "troubles_min", "lead_ratio"),
    *("failure_dbm", "recent_s", "ping_pong_s", "most_db"),
)


def step_of(counts: Counts, options: CioOptions) -> int:
    """+1, -1 or 0 rungs."""
    lead = counts.late - counts.early
    enough = counts.attempts >= options.attempts_min and max(counts.late, counts.early) >= options.troubles_min
    if not enough or lead == 0 or abs(lead) < options.lead_ratio * counts.attempts:
        return 0
    return 1 if lead > 0 else -1


def counted(served: Iterable[Served], window: Window, options: CioOptions) -> dict[Relation, Counts]:
    """What came of each relation in the window. Memory goes with the UEs of window and look-back."""
    found: dict[Relation, Counts] = {}

    def of(source: str, target: str) -> Counts:
        return found.setdefault(Relation(source, target), Counts())

    for left_us, mobility in _departures(served, options):
        if not window.from_us <= left_us < window.until_us:
            continue
        if not mobility.failed:
            of(mobility.serving, mobility.reappeared_in).handovers += 1
        match classify_mobility(mobility, recent_s=options.recent_s, ping_pong_s=options.ping_pong_s):
            case MobilityClass.TOO_LATE:
                of(mobility.serving, mobility.reappeared_in).too_late += 1
            case MobilityClass.TOO_EARLY if mobility.source is not None:
                of(mobility.source, mobility.serving).too_early += 1
            case MobilityClass.WRONG_RADIO_CELL if mobility.source is not None:
                of(mobility.source, mobility.serving).wrong_radio_cell += 1
                of(mobility.source, mobility.reappeared_in).after_wrong += 1
            case MobilityClass.PING_PONG if mobility.source is not None:
                of(mobility.source, mobility.serving).ping_pong += 1
    return found


def _departures(served: Iterable[Served], options: CioOptions) -> Iterator[tuple[int, Mobility]]:
    """When and how each UE left a radio cell, in the order of the rows."""
    stays: dict[str, _Stay] = {}
    for slot_time_us, ue_id, radio_cell_id, rsrp_dbm in served:
        stay = stays.get(ue_id)
        if stay is None:
            stays[ue_id] = _Stay(radio_cell_id, None, None, slot_time_us, rsrp_dbm)
        elif stay.radio_cell_id == radio_cell_id:
            stay.last_us, stay.last_dbm = slot_time_us, rsrp_dbm
        else:
            failed = stay.last_dbm is not None and stay.last_dbm <= options.failure_dbm
            since_s = None if stay.since_us is None else (slot_time_us - stay.since_us) / 1e6
            stay_s = float("inf") if since_s is None else since_s
            yield (
                slot_time_us,
                Mobility(stay.radio_cell_id, stay.source, radio_cell_id, failed, since_s, stay_s),
            )
            # a UE that re-established itself was not handed over: nothing is to blame for what follows
            source, since_us = (None, None) if failed else (stay.radio_cell_id, slot_time_us)
            stays[ue_id] = _Stay(radio_cell_id, since_us, source, slot_time_us, rsrp_dbm)


def _check_template(template: str) -> None:
    parts = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    plain = not any(spec or conversion for _, spec, conversion in parts)
    named = {name for name, _, _ in parts} == {"source", "target"}
    _check(plain and named, "object_template", template, "a text with {source} and {target}")


def _check(true: bool, key: str, value: object, wording: str) -> None:
    if not true:
        raise ConfigError(f"{key} = {value!r} is not allowed: use {wording}")


PLUGIN = Plugin("cio", options=CioOptions, build=CioHook)

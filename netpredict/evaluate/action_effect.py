"""What actions did to a KPI, by the hold-out: how it changed around an action against around one that was withheld.

A hook decides for the radio cells held out as for all others, and a hash of their names chose them: around its withheld
actions is seen what would have come anyway. The estimate is the difference of the two mean changes (difference in
differences), its interval a bootstrap over radio cells. It is of one action within its window: what an earlier one has
left behind stands on both sides.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from netpredict.evaluate.bootstrap import Estimate, estimate
from netpredict.types import AnyArray, radio_cell_of

RADIO_CELLS_MIN = 8
"""With fewer radio cells on a side an interval drawn from them would be too narrow to be believed."""
FIRINGS_MIN = 20


class Acted(NamedTuple):
    """A firing that was applied, or withheld because its radio cell is held out."""

    hook: str
    attribute: str
    stream: str
    series: str
    slot_time_us: int
    effect_until_us: int
    applied: bool

    @property
    def radio_cell_id(self) -> str:
        """The last field of the key of its series."""
        return radio_cell_of(self.series)


class Observed(NamedTuple):
    """A series by slot time: ``times_us`` (T,) rising, ``values`` (T, k) by ``columns``, NaN = missing."""

    times_us: AnyArray
    columns: Sequence[str]
    values: AnyArray


class Verdict(enum.StrEnum):
    """What can be said of an effect."""

    HIGHER = "higher"
    LOWER = "lower"
    NONE_SEEN = "none seen"  # the interval holds zero
    NO_HOLDOUT = "no hold-out"  # before and after only: it may have come anyway
    TOO_LITTLE = "too little data"


@dataclass
class Side:
    """Sums of one side by radio cell: firings, their means before and after."""

    by_radio_cell: dict[str, AnyArray] = field(default_factory=dict)

    def add(self, radio_cell_id: str, before: float, after: float) -> None:
        """Take in one firing."""
        sums = self.by_radio_cell.setdefault(radio_cell_id, np.zeros(3))
        sums += (1.0, before, after)

    @property
    def sums(self) -> AnyArray:
        """(radio cells, 3), and none of them is empty."""
        return np.array([self.by_radio_cell[name] for name in sorted(self.by_radio_cell)]).reshape(-1, 3)

    @property
    def enough(self) -> bool:
        """Whether an interval can be drawn."""
        return len(self.by_radio_cell) >= RADIO_CELLS_MIN and self.sums[:, 0].sum() >= FIRINGS_MIN

    def row(self) -> dict[str, Any]:
        """As JSON: counts and means, None without firings."""
        firings, before, after = self.sums.sum(axis=0).tolist()
        means = {"before": before / firings, "after": after / firings} if firings else {"before": None, "after": None}
        return {"radio_cells": len(self.by_radio_cell), "firings": round(firings), **means}


@dataclass
class Effect:
    """What one hook did to one KPI by setting one attribute."""

    hook: str
    attribute: str
    stream: str
    kpi: str
    treated: Side = field(default_factory=Side)
    held_out: Side = field(default_factory=Side)

    def judged(self) -> tuple[Verdict, str, Estimate | None]:
        """The verdict, what is missing to a better one, and the estimate where there is one."""
        if not self.treated.enough:
            return Verdict.TOO_LITTLE, _lacking("acted on", self.treated), None
        if not self.held_out.by_radio_cell:
            found = estimate(self.treated.sums, _change)
            return Verdict.NO_HOLDOUT, "holdout_ratio of the hook is 0, or nothing was withheld yet", found
        if not self.held_out.enough:
            return Verdict.TOO_LITTLE, _lacking("held out", self.held_out), None
        found = estimate(_side_by_side(self.treated.sums, self.held_out.sums), _difference)
        if not found.excludes_zero:
            return Verdict.NONE_SEEN, "", found
        return (Verdict.HIGHER if found.value > 0 else Verdict.LOWER), "", found

    def row(self) -> dict[str, Any]:
        """As JSON; ``effect`` in the unit of the KPI with its interval of 95 %."""
        verdict, why, found = self.judged()
        return {
            "hook": self.hook,
            "attribute": self.attribute,
            "stream": self.stream,
            "kpi": self.kpi,
            "acted": self.treated.row(),
            "held_out": self.held_out.row(),
            "effect": found.value if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "verdict": str(verdict),
            "why": why,
        }


def _lacking(what: str, side: Side) -> str:
    firings = int(side.sums[:, 0].sum())
    return (
        f"{len(side.by_radio_cell)} radio cells {what} with {firings} actions, "
        f"at least {RADIO_CELLS_MIN} with {FIRINGS_MIN} are needed"
    )


def _side_by_side(treated: AnyArray, held_out: AnyArray) -> AnyArray:
    """Blocks (radio cells, 6): each has sums of its own side only."""
    parts = np.zeros((len(treated) + len(held_out), 6))
    parts[: len(treated), :3], parts[len(treated) :, 3:] = treated, held_out
    return parts


def _change(sums: AnyArray) -> AnyArray:
    change: AnyArray = (sums[:, 2] - sums[:, 1]) / sums[:, 0]
    return change


def _difference(sums: AnyArray) -> AnyArray:
    return _change(sums[:, :3]) - _change(sums[:, 3:])


def effects(
    acted: Iterable[Acted],
    observed: Callable[[str, str, int, int], Observed],
    window_us: int | None = None,
    kpis: Sequence[str] = (),
) -> list[Effect]:
    """Effects by hook, attribute and KPI (all observed ones, or these).

    ``observed(stream, series, from_us, to_us)`` is asked once a series. A KPI's mean over the window before an action,
    its own slot included, is compared with that behind it; windows are as long as the action was meant to hold, or
    ``window_us``. An action without a value on either side does not count for that KPI.
    """
    found: dict[tuple[str, str, str, str], Effect] = {}
    ordered = sorted(acted, key=lambda one: (one.stream, one.series))
    for (stream, series), group in groupby(ordered, key=lambda one: (one.stream, one.series)):
        for one, column, before, after in _means(list(group), observed, stream, series, window_us):
            if kpis and column not in kpis:
                continue
            key = (one.hook, one.attribute, stream, column)
            effect = found.setdefault(key, Effect(*key))
            side = effect.treated if one.applied else effect.held_out
            side.add(one.radio_cell_id, before, after)
    return [found[key] for key in sorted(found)]


def _means(
    acted: Sequence[Acted],
    observed: Callable[[str, str, int, int], Observed],
    stream: str,
    series: str,
    window_us: int | None,
) -> Iterator[tuple[Acted, str, float, float]]:
    """Each action with each column and the column's means before and after it."""
    windows = [window_us or one.effect_until_us - one.slot_time_us for one in acted]
    first = min(one.slot_time_us - window for one, window in zip(acted, windows, strict=True))
    last = max(one.slot_time_us + window for one, window in zip(acted, windows, strict=True))
    seen = observed(stream, series, first, last)
    if not len(seen.times_us):
        return
    known = np.isfinite(seen.values)
    zero = np.zeros((1, len(seen.columns)))
    sums = np.concatenate([zero, np.cumsum(np.where(known, seen.values, 0.0), axis=0)])
    counts = np.concatenate([zero, np.cumsum(known, axis=0)])
    for one, window in zip(acted, windows, strict=True):
        edges = (one.slot_time_us - window, one.slot_time_us, one.slot_time_us + window)
        at = np.searchsorted(seen.times_us, edges, side="right")
        with np.errstate(invalid="ignore", divide="ignore"):
            before, after = np.diff(sums[at], axis=0) / np.diff(counts[at], axis=0)
        for place, column in enumerate(seen.columns):
            if np.isfinite(before[place]) and np.isfinite(after[place]):
                yield one, column, float(before[place]), float(after[place])


def acted_of(rows: Iterable[Mapping[str, Any]]) -> list[Acted]:
    """Rows of ``History.acted``."""
    return [Acted(**{name: row[name] for name in Acted._fields[:-1]}, applied=bool(row["applied"])) for row in rows]

"""Failures beside plain A3 at as many ping-pongs, and at as many handovers: along the plain grid's Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from netpredict.evaluate.bootstrap import estimate
from netpredict.evaluate.handover_model import Counts
from netpredict.types import AnyArray, FloatArray


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A setting and what happened with it, per UE-minute."""

    setting: str
    failures: float
    handovers: float
    ping_pongs: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Our failures over those of plain A3 at an equal price, less 1, with a 95 % interval by bootstrap over UEs.

    ``plain_failures`` per UE-minute, where the price lies between two settings a mixture of both. ``difference`` is
    ours less theirs, per UE-minute: it says something where there are few failures, too. None where no setting is that
    cheap; ``change`` also where plain A3 has no failure there.
    """

    plain_failures: float | None = None
    plain_settings: tuple[str, ...] = ()
    change: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    @property
    def is_less(self) -> bool:
        """Whether all of the interval lies below zero."""
        return self.high is not None and self.high < 0


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One setting against plain A3 at as many ping-pongs and at as many handovers."""

    point: Point
    at_equal_ping_pongs: Change
    at_equal_handovers: Change


class Front:
    """Plain settings of which none on the training seed has both less of a price and less failures, as scored."""

    def __init__(self, names: Sequence[str], tuned: Counts, scored: Counts, price: str) -> None:
        self._price, self._failures = _minutely(scored, price), _minutely(scored, "failures")
        before, failed = (_minutely(tuned, which).mean(axis=1) for which in (price, "failures"))
        kept = undominated(before, failed)
        again = undominated(self._price[kept].mean(axis=1), self._failures[kept].mean(axis=1))
        self.rows = [kept[index] for index in again]
        self._names = names
        self.price_name = price

    def change(self, ours: Counts, setting: int) -> Change:
        """Of one setting of ours against the mixture of plain settings at its price."""
        price, failures = (_minutely(ours, which)[setting] for which in (self.price_name, "failures"))
        at = self._price[self.rows].mean(axis=1)
        above = int(np.searchsorted(at, price.mean(), side="left"))
        if above == 0 and price.mean() < at[0]:
            return Change()
        high = min(above, len(at) - 1)
        low = high if above == len(at) or at[high] == price.mean() else high - 1
        share = 0.0 if low == high else float((price.mean() - at[low]) / (at[high] - at[low]))
        rows = (self.rows[low], self.rows[high])
        names = tuple(dict.fromkeys(self._names[row] for row in rows))
        mixed = [(1 - share) * each[rows[0]] + share * each[rows[1]] for each in (self._price, self._failures)]
        step = at[high] - at[low]
        slope = 0.0 if low == high else float(np.diff(self._failures[list(rows)].mean(axis=1))[0] / step)
        return _judged(np.stack([failures, price, mixed[1], mixed[0]], axis=1), slope, names)


def beside(name: str, ours: Counts, setting: int, plain: Counts, row: int) -> Change:
    """One setting against this one of plain A3, whatever the price of each."""
    failures, theirs = _minutely(ours, "failures")[setting], _minutely(plain, "failures")[row]
    return _judged(np.stack([failures, failures * 0, theirs, failures * 0], axis=1), 0.0, (name,))


def _judged(parts: FloatArray, slope: float, names: tuple[str, ...]) -> Change:
    """A draw of UEs moves the prices apart a little: the plain failures follow theirs along the front."""

    def expected(sums: AnyArray) -> AnyArray:
        failures: AnyArray = sums[:, 2] + slope * (sums[:, 1] - sums[:, 3])
        return failures

    def relative(sums: AnyArray) -> AnyArray:
        ratio: AnyArray = sums[:, 0] / expected(sums) - 1
        return ratio

    def absolute(sums: AnyArray) -> AnyArray:
        difference: AnyArray = (sums[:, 0] - expected(sums)) / len(parts)
        return difference

    plain, apart = float(parts[:, 2].mean()), estimate(parts, absolute)
    found = estimate(parts, relative) if plain > 0 else None
    return Change(
        plain_failures=plain,
        plain_settings=names,
        change=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        difference=apart.value,
        difference_low=apart.low,
        difference_high=apart.high,
    )


def undominated(price: AnyArray, failures: AnyArray) -> list[int]:
    """Those that none of lower or equal price beats, by rising price."""
    kept: list[int] = []
    for index in np.lexsort((failures, price)).tolist():
        if not kept or failures[index] < failures[kept[-1]]:
            kept.append(index)
    return kept


def _minutely(counts: Counts, which: str) -> FloatArray:
    """(settings, UEs) per minute."""
    each: FloatArray = getattr(counts, which) / counts.minutes
    return each


def point(name: str, counts: Counts, index: int) -> Point:
    """The means over the UEs."""
    failures, handovers, ping_pongs = (
        float(_minutely(counts, which)[index].mean()) for which in ("failures", "handovers", "ping_pongs")
    )
    return Point(setting=name, failures=failures, handovers=handovers, ping_pongs=ping_pongs)


def judged(name: str, counts: Counts, index: int, by_ping_pongs: Front, by_handovers: Front) -> Judged:
    """One setting of ours on both fronts."""
    return Judged(
        point=point(name, counts, index),
        at_equal_ping_pongs=by_ping_pongs.change(counts, index),
        at_equal_handovers=by_handovers.change(counts, index),
    )


def least_failures(counts: Counts, ping_pongs: float, handovers: float = np.inf) -> int:
    """The setting with the least failures, then handovers, within these limits per UE-minute; or nearest to them."""
    failed, handed, returned = (
        _minutely(counts, which).mean(axis=1) for which in ("failures", "handovers", "ping_pongs")
    )
    over = np.maximum(returned - ping_pongs, 0) + np.maximum(handed - handovers, 0)
    return int(np.lexsort((handed, failed, over))[0])

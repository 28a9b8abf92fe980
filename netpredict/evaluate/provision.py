"""Provisioning: what too little and too much cost, and the plain rules, each tuned exactly on the training part.

A plain rule is a base (last value, EWMA, rolling quantile or maximum, the same hour of days or weeks before) with a
margin: a factor, or a sum on top, one for all series or one each. The cost of base * m is the pinball loss of y / base
weighted by base, so the best m is a weighted quantile of y / base, and the best sum a quantile of y - base: no grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from netpredict.errors import DataError
from netpredict.evaluate import baselines
from netpredict.radio.policy import cost_quantile
from netpredict.types import AnyArray

MARGINS = ("times", "plus", "times by series", "plus by series")


@dataclass(frozen=True, slots=True)
class Family:
    """The grid of plain rules: rolling quantiles of the last steps (share 1 is the maximum), EWMA, means of seasons.

    ``seasons`` by name: steps of one, and how many of them are averaged.
    """

    windows: tuple[int, ...]
    shares: tuple[float, ...]
    alphas: tuple[float, ...]
    seasons: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def lookback_steps(self) -> int:
        """Steps after which every base is known, at any lead up to its season."""
        return max([*self.windows, *(steps * (back + 1) for steps, back in self.seasons.values())])


@dataclass(frozen=True, slots=True)
class PlainRule:
    """A base with its margin, and what it cost a step of the training part; ``margin`` (series,)."""

    base: str
    kind: str
    margin: AnyArray
    training_cost: float

    def provided(self, base: AnyArray) -> AnyArray:
        """(series, steps) of its base -> what is provided."""
        answer: AnyArray = base * self.margin[:, None] if "times" in self.kind else base + self.margin[:, None]
        return answer

    def __str__(self) -> str:
        low, high = float(self.margin.min()), float(self.margin.max())
        told = f"{low:.3g}" if low == high else f"{low:.3g}..{high:.3g}"
        return f"{self.base} {'x' if 'times' in self.kind else '+'} {told}"


def cost(demand: AnyArray, provided: AnyArray, c_under: float, c_over: float = 1.0) -> AnyArray:
    """Of each step: c_under for what was lacking, c_over for what was too much, in units of the demand."""
    lacking = np.asarray(demand, np.float64) - provided
    answer: AnyArray = np.where(lacking > 0, c_under * lacking, -c_over * lacking)
    return answer


def cost_of_late(demand: AnyArray, provided: AnyArray, late_ratio: float, c_under: float) -> AnyArray:
    """``cost`` where each decision comes a share of a step late: until then that of the step before stands."""
    before = np.concatenate([provided[:, :1], provided[:, :-1]], axis=1)
    whole = (1.0 - late_ratio) * cost(demand, provided, c_under) + late_ratio * cost(demand, before, c_under)
    return whole


def weighted_quantile(values: AnyArray, weights: AnyArray, level: float) -> float:
    """The least value with at least ``level`` of the weight at or below it: the minimum of the weighted pinball loss.

    DataError where nothing has weight.
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(np.asarray(weights, np.float64)[order])
    if not len(below) or not below[-1] > 0:
        raise DataError("no step of the training part has a demand and a base above 0")
    place = min(int(np.searchsorted(below, level * below[-1])), len(below) - 1)
    return float(np.asarray(values)[order][place])


class Bases:
    """The bases of a family over values (series, steps), NaN = missing; what does not depend on the lead is kept."""

    def __init__(self, values: AnyArray, family: Family) -> None:
        self._values, self._family = baselines.filled(values), family
        self._of_now = dict(self._now())

    def at(self, lead: int) -> Iterator[tuple[str, AnyArray]]:
        """Name and (series, steps): what the base says at each step about ``lead`` steps later; NaN = not known."""
        yield from self._of_now.items()
        for name, (season, back) in self._family.seasons.items():
            nearest = -(-lead // season) * season - lead
            yield name, np.mean([self._shifted(nearest + season * which) for which in range(back)], axis=0)

    def _now(self) -> Iterator[tuple[str, AnyArray]]:
        yield "last value", self._values.astype(np.float64)
        for alpha in self._family.alphas:
            yield f"EWMA {alpha:g}", baselines.ewma(alpha)(self._values).astype(np.float64)
        for window in self._family.windows:
            for share, rolled in zip(self._family.shares, self._rolled(window), strict=True):
                name = {0.5: "median", 1.0: "maximum"}.get(share, f"{share:g} quantile")
                yield f"{name} of {window}", rolled

    def _rolled(self, window: int) -> AnyArray:
        """(shares, series, steps)."""
        rolled = np.full((len(self._family.shares), *self._values.shape), np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(self._values, window, axis=1)
        rolled[:, :, window - 1 :] = np.quantile(windows, self._family.shares, axis=2)
        return rolled

    def _shifted(self, steps: int) -> AnyArray:
        shifted = np.full(self._values.shape, np.nan)
        shifted[:, steps:] = self._values[:, : self._values.shape[1] - steps]
        return shifted


def tuned(
    values: AnyArray, bases: Bases, steps: Sequence[int] | AnyArray, lead: int, c_under: float
) -> list[tuple[PlainRule, AnyArray]]:
    """Every rule with its best margin over the issues ``steps``, the cheapest first, and its base (series, all steps).

    All rules are tuned and ranked on the same pairs: those where the demand and every base are known.
    """
    issues = np.asarray(steps)
    demand, found = values[:, issues + lead].astype(np.float64), list(bases.at(lead))
    known = np.isfinite(demand)
    for _, base in found:
        known &= np.isfinite(base[:, issues])
    rules = []
    for name, base in found:
        for kind in MARGINS[: 4 if len(values) > 1 else 2]:
            rules.append((_fitted(name, kind, demand, base[:, issues], known, c_under), base))
    return sorted(rules, key=lambda rule: rule[0].training_cost)


def _fitted(name: str, kind: str, demand: AnyArray, base: AnyArray, known: AnyArray, c_under: float) -> PlainRule:
    level, series = cost_quantile(c_under, 1.0), len(demand)
    rows = [known[row : row + 1] for row in range(series)] if "series" in kind else [known]
    margins = []
    for row, part in enumerate(rows):
        of = slice(row, row + 1) if len(rows) > 1 else slice(None)
        margins.append(_margin(kind, demand[of][part], base[of][part], level))
    margin = np.array(margins) if len(margins) == series else np.full(series, margins[0])
    rule = PlainRule(name, kind, margin, 0.0)
    paid = cost(demand, rule.provided(base), c_under)[known].mean()
    return PlainRule(name, kind, margin, float(paid))


def _margin(kind: str, demand: AnyArray, base: AnyArray, level: float) -> float:
    if "times" not in kind:
        return weighted_quantile(demand - base, np.ones(len(demand)), level)
    above = base > 0
    return weighted_quantile(demand[above] / base[above], base[above], level)

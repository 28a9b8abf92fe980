"""The plain rules of link adaptation, with their whole parameter grids: what a gNB does without a forecast.

A base says a CQI from what was reported; a fixed back-off or the outer loop (OLLA) moves it. Bases are the minimum of
the last reports (of one: the last report), a rolling quantile, an exponential mean, and a table by the last report
(Markov), read at a probability or by cost, as the hook does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from netpredict.evaluate.goodput import LOWEST_CQI, Fixed, Panel, Rule, bounded, known
from netpredict.radio.link import Olla, choose_cqi
from netpredict.radio.tables import MAX_CQI, cqi_efficiency
from netpredict.types import AnyArray, BoolArray, FloatArray, IntArray

MINIMUM_STEPS = (2, 3, 4, 5, 6, 7, 8, 10, 15, 20)
QUANTILE_STEPS = (5, 10, 20, 30, 60)
QUANTILE_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
MEAN_WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.7)
BACK_OFFS = (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0)
OLLA_STEPS = (0.0005, 0.002, 0.005, 0.01, 0.03)
OLLA_TARGETS = (0.08, 0.09, 0.1, 0.11, 0.12, 0.15, 0.2, 0.3)
OLLA_STARTS = (0.0, 0.5)
TABLE_LEVELS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.95)
TABLE_PRICES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
PRIOR_COUNT = 5.0


class Candidate(NamedTuple):
    """A plain rule: its family of bases, the base, and what moves it ("-1", "OLLA …")."""

    family: str
    base: str
    moved_by: str

    def __str__(self) -> str:
        return f"{self.base}, {self.moved_by}"

    @property
    def has_loop(self) -> bool:
        """Whether an outer loop moves it."""
        return self.moved_by.startswith("OLLA")


@dataclass(frozen=True, slots=True)
class Bases:
    """Real-valued CQI (rows, B) by bases of these (family, name), NaN where nothing was reported yet."""

    names: tuple[tuple[str, str], ...]
    cqi: FloatArray


class OuterLoop:
    """The outer loop around every base with every setting; feedback that comes late is taken when it comes.

    Candidate b * settings + s is base b with setting s; the steps are those of ``radio.link.advance_olla``.
    """

    def __init__(self, bases: FloatArray, settings: Sequence[tuple[float, float, float]], traces: int) -> None:
        """``settings``: step of an ACK (CQI), BLER target, first offset (CQI)."""
        self._bases, count = bases[:, :, None], bases.shape[1]
        step, target, first = (np.tile(np.array(part, np.float32), count) for part in zip(*settings, strict=True))
        self.candidates = len(step)
        self._up, self._down = step, (-step * (1 - target) / target).astype(np.float32)
        self._bound = np.float32(Olla().max_offset)
        self._offset = np.tile(first, (traces, 1))

    def choose(self, rows: slice) -> IntArray:
        """See ``Rule``."""
        base = self._bases[rows]
        n, bases, _ = base.shape
        return bounded((base + self._offset[:n].reshape(n, bases, -1)).reshape(n, -1))

    def hear(self, nack: AnyArray, chosen: IntArray, heard: BoolArray) -> None:
        """See ``Rule``; blocks are lost or not."""
        moved = np.where(nack, self._down, self._up)
        moved[~heard] = 0.0
        moved[chosen == np.where(nack, LOWEST_CQI, MAX_CQI)] = 0.0
        offset = self._offset[: len(heard)]
        offset += moved
        np.minimum(offset, self._bound, out=offset)
        np.maximum(offset, -self._bound, out=offset)


def report_bases(panel: Panel, delay: int) -> Bases:
    """What needs no training: minima, quantiles and means of what was reported."""
    found = [_of_trace(known(each, delay)) for each in panel.unflat(panel.cqi)]
    names = tuple(name for name, _ in found[0])
    return Bases(names, panel.flat([np.stack([values for _, values in each], axis=1) for each in found]))


def _of_trace(held: FloatArray) -> list[tuple[tuple[str, str], FloatArray]]:
    longest = max(*MINIMUM_STEPS, *QUANTILE_STEPS)
    first = held[np.isfinite(held)][:1]
    start = np.full(longest - 1, first[0] if len(first) else np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([start, held]), longest)
    windows = np.where(np.isnan(windows), start[0], windows)
    found = [(("last", "last"), windows[:, -1])]
    found += [(("minimum", f"minimum of {n}"), windows[:, -n:].min(axis=1)) for n in MINIMUM_STEPS]
    for n in QUANTILE_STEPS:
        levels = np.quantile(windows[:, -n:], QUANTILE_LEVELS, axis=1, method="lower")
        named = [("quantile", f"{q:g} quantile of {n}") for q in QUANTILE_LEVELS]
        found += zip(named, levels, strict=True)
    for weight in MEAN_WEIGHTS:
        found.append((("mean", f"mean with weight {weight:g}"), _mean(held, weight)))
    unknown = np.isnan(held)
    return [(name, np.where(unknown, np.nan, values).astype(np.float32)) for name, values in found]


def _mean(held: FloatArray, weight: float) -> AnyArray:
    mean, means = np.nan, np.empty(len(held))
    for step, value in enumerate(held.tolist()):
        mean = value if mean != mean else mean + weight * (value - mean)
        means[step] = mean
    return means


def markov_table(series: Sequence[FloatArray], lead: int) -> FloatArray:
    """P(CQI >= c | last report) from measured pairs ``lead`` seconds apart, (16 last, 16 c); rows drawn towards the
    mean of all by ``PRIOR_COUNT`` observations.
    """
    count = np.zeros((MAX_CQI + 1, MAX_CQI + 1))
    for cqi in series:
        now = known(cqi, lead)
        both = np.isfinite(now) & np.isfinite(cqi)
        np.add.at(count, (now[both].astype(int), cqi[both].astype(int)), 1)
    share = (count.sum(axis=0) + 1) / (count.sum() + MAX_CQI + 1)
    chance = (count + PRIOR_COUNT * share) / (count.sum(axis=1, keepdims=True) + PRIOR_COUNT)
    at_least: FloatArray = np.cumsum(chance[:, ::-1], axis=1)[:, ::-1].astype(np.float32)
    return at_least


def markov_bases(at_least: FloatArray, held: AnyArray, tables: Sequence[int]) -> Bases:
    """The table read at probabilities, and by cost for these CQI tables, for held reports (rows,)."""
    by_level = [(at_least >= level).sum(axis=1) - 1 for level in TABLE_LEVELS]
    prices = list(product(tables, TABLE_PRICES))
    by_cost = [choose_cqi(at_least, cqi_efficiency(table), price) for table, price in prices]
    read = [f"at {level:g}" for level in TABLE_LEVELS]
    read += [f"at price {price:g} by CQI table {table}" for table, price in prices]
    choices = np.maximum(np.stack([*by_level, *by_cost], axis=1), LOWEST_CQI).astype(np.float32)
    cqi = np.where(np.isfinite(held)[:, None], choices[np.nan_to_num(held).astype(int)], np.nan)
    return Bases(tuple(("table", f"table {how}") for how in read), cqi.astype(np.float32))


def candidates(bases: Bases, traces: int, most: int = 900) -> Iterator[tuple[list[Candidate], Rule]]:
    """Every base with every back-off, and with every outer loop, some bases at a time: at most ``most`` candidates."""
    shifted = (bases.cqi[:, :, None] + np.array(BACK_OFFS, np.float32)).reshape(len(bases.cqi), -1)
    yield (
        [Candidate(*name, f"{back_off:+g}") for name, back_off in product(bases.names, BACK_OFFS)],
        Fixed(bounded(shifted)),
    )
    loops = list(product(OLLA_STEPS, OLLA_TARGETS, OLLA_STARTS))
    told = [f"OLLA step {step:g} target {target:g} from {start:+g}" for step, target, start in loops]
    at_once = max(1, most // len(loops))
    for first in range(0, len(bases.names), at_once):
        some = slice(first, first + at_once)
        rule = OuterLoop(bases.cqi[:, some], loops, traces)
        yield [Candidate(*name, loop) for name, loop in product(bases.names[some], told)], rule

"""Bootstrap intervals of statistics of sums: whole blocks (traces, series, days) are drawn, never single steps.

Steps of one block are alike, so drawing them one by one would tell an interval that is too narrow (Künsch 1989). Where
blocks lie on two axes that each have something in common (all series have the same days), both are drawn: the draw of a
block counts as often as its row times as often as its column (Owen 2007, the pigeonhole bootstrap, which errs on the
wide side).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.errors import DataError
from netpredict.types import AnyArray

DRAWS = 2_000
COVERAGE = 0.95
SEED = 1

Statistic = Callable[[AnyArray], AnyArray]
"""Sums (n, k) -> values (n,)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic of the whole and the interval in which 95 % of the draws lie; NaN where nothing can be said."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def estimate(parts: AnyArray, statistic: Statistic, draws: int = DRAWS, seed: int = SEED) -> Estimate:
    """``parts`` (blocks, k), or (rows, columns, k) with both axes drawn: what each block adds to the k sums.

    DataError without blocks. The draws are a function of the shape and the seed alone, so that two statistics of the
    same blocks see the same draws.
    """
    sums = np.asarray(parts, np.float64)
    axes = sums.ndim - 1
    if axes not in (1, 2) or 0 in sums.shape[:axes]:
        raise DataError(f"nothing to draw from blocks of the shape {sums.shape}: use (blocks, k) or (rows, columns, k)")
    rng = np.random.default_rng(seed)
    weights = [_weights(rng, blocks, draws) for blocks in sums.shape[:axes]]
    drawn = weights[0] @ sums if axes == 1 else np.einsum("dr,dc,rck->dk", *weights, sums, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = statistic(sums.sum(axis=tuple(range(axes)))[None])
        values = statistic(drawn)
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, _tails()) if known.size else (np.nan, np.nan)
    return Estimate(float(whole[0]), float(low), float(high))


def change(ours: AnyArray, theirs: AnyArray, draws: int = DRAWS, seed: int = SEED) -> Estimate:
    """Relative change of a total, ours / theirs - 1: below zero ours is less. Both (blocks,) or (rows, columns)."""
    return estimate(np.stack([ours, theirs], axis=-1), _relative, draws, seed)


def _relative(sums: AnyArray) -> AnyArray:
    ratio: AnyArray = sums[:, 0] / sums[:, 1] - 1.0
    return ratio


def _weights(rng: np.random.Generator, blocks: int, draws: int) -> AnyArray:
    """How often each block is drawn: (draws, blocks)."""
    return rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=draws).astype(np.float64)


def _tails() -> Sequence[float]:
    return (0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2)

"""Champion against challenger, live: the same series and buckets, a paired test, a minimum and an end.

Per finished score bucket both versions' pinball loss (a proper score: Gneiting and Raftery 2007) is compared as the
logarithm of its ratio, mean over the KPIs. The signs and sizes of these differences go through Wilcoxon's signed-rank
test (Wilcoxon 1945), which asks no normality and is not carried by one wild bucket. It is looked at only after fixed
numbers of buckets, always the first ones, each look at an equal share of ``challenge_alpha`` (Bonferroni): when
somebody looks, and how often, changes no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netpredict.config import LearnConfig

PAIRED_SHARE = 0.9
"""A bucket counts when both versions were scored on nearly the same forecasts: the fewer are this share of the more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``result`` is promoted, refused, or empty while the trial goes on."""

    result: str = ""
    why: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


def differences(rows: Sequence[Mapping[str, Any]], ours: int, theirs: int, rows_min: int) -> list[float]:
    """Log of our loss over theirs by bucket, oldest first, from ``History.bucket_sums`` of both model ids."""
    by_place = {(row["bucket"], row["kpi"], row["model_id"]): row for row in rows}
    found: dict[int, list[float]] = {}
    for bucket, kpi, model_id in sorted(by_place):
        if model_id == ours and (other := by_place.get((bucket, kpi, theirs))) is not None:
            mine = by_place[bucket, kpi, ours]
            fewer, more = sorted((mine["n"], other["n"]))
            if fewer >= max(rows_min, PAIRED_SHARE * more):
                found.setdefault(bucket, []).append(math.log(_loss(mine) / _loss(other)))
    return [sum(logs) / len(logs) for _, logs in sorted(found.items())]


def _loss(row: Mapping[str, Any]) -> float:
    """Pinball loss of a forecast in ticks / 1000; one is added, so that flat truth can be compared too."""
    return float(row["pinball"]) / float(row["n"]) + 1.0


def verdict(logs: Sequence[float], learn: LearnConfig) -> Verdict:
    """What the first buckets say; the trial goes on when they say nothing yet and are fewer than the most."""
    looks = looks_at(learn)
    for look in looks:
        if len(logs) < look:
            break
        better, worse = signed_rank(logs[:look])
        gain = 1 - math.exp(sum(logs[:look]) / look)
        detail = {"buckets": look, "gain": gain, "p_better": better, "p_worse": worse, "looks": looks}
        alpha = learn.challenge_alpha / len(looks)
        if better <= alpha and gain > 0:
            why = f"pinball loss {gain:.1%} lower over {look} buckets, p = {better:.2g} <= {alpha:.2g}"
            return Verdict("promoted", why, detail)
        if worse <= alpha and gain < 0:
            why = f"pinball loss {-gain:.1%} higher over {look} buckets, p = {worse:.2g} <= {alpha:.2g}"
            return Verdict("refused", why, detail)
        if look == looks[-1]:
            why = f"no better for certain after {look} buckets: pinball loss {gain:+.1%} lower, p = {better:.2g}"
            return Verdict("refused", why, detail)
    return Verdict(detail={"buckets": len(logs)})


def looks_at(learn: LearnConfig) -> list[int]:
    """Numbers of buckets after which a trial is looked at: the least, its doubles, the most."""
    looks, least, most = [], learn.challenge_buckets_min, learn.challenge_buckets_max
    while least < most:
        looks.append(least)
        least *= 2
    return [*looks, most]


def signed_rank(values: Sequence[float]) -> tuple[float, float]:
    """Exact one-sided p-values of Wilcoxon's signed-rank test: that values tend below zero, and above it.

    Zeros are dropped, ties share the mean of their ranks. Under the null every value has either sign with probability
    1/2; the distribution of the sum of (doubled) ranks of positive values is built rank by rank.
    """
    kept = np.array([value for value in values if value != 0.0])
    if not len(kept):
        return 1.0, 1.0
    _, place, count = np.unique(np.abs(kept), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(count) - count + 1)[place]
    chances = np.zeros(int(doubled.sum()) + 1)
    chances[0] = 1.0
    for rank in doubled.tolist():
        chances[rank:] = chances[rank:] + chances[:-rank].copy()
        chances /= 2
    reached = int(doubled[kept > 0].sum())
    return float(chances[: reached + 1].sum()), float(chances[reached:].sum())

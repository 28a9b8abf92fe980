"""Ping-pongs at equal outage, and outage at equal handovers: two families of settings compared along their curves.

A curve has one point for each limit: in each fold the setting that does best within the limit on the training part
(fewest ping-pongs within an outage, least outage within a rate of handovers), pooled over the folds as it did on what
is scored. Between two points a curve is a straight line, which mixing the two settings in time would reach. Whole runs
are drawn for the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.evaluate.bootstrap import Estimate, estimate
from netpredict.evaluate.handover_real_field import Tally
from netpredict.types import AnyArray, BoolArray

OUTAGE_LIMITS = tuple(float(x) for x in np.geomspace(0.015, 0.2, 40).round(5))
HANDOVER_LIMITS = tuple(float(x) for x in np.geomspace(0.5, 6.0, 40).round(4))


@dataclass(frozen=True, slots=True)
class Fold:
    """Settings of a family with what they did: ``tally`` (N, P); ``tuned`` and ``scored`` (N,) stretches."""

    names: Sequence[str]
    tally: Tally
    tuned: BoolArray
    scored: BoolArray


@dataclass(frozen=True, slots=True)
class Curve:
    """By run and limit (R, L): outage in s, handovers, ping-pongs; ``names`` by limit what was chosen in each fold."""

    outages: AnyArray
    handovers: AnyArray
    ping_pongs: AnyArray
    names: Sequence[Sequence[str]]


def curve(
    folds: Sequence[Fold], seconds: AnyArray, run: AnyArray, limits: Sequence[float], by: str, late_s: float
) -> Curve:
    """``by`` "outage" or "handovers" is what is limited; ``seconds`` and ``run`` (N,) of each stretch."""
    runs = int(run.max()) + 1
    sums = [np.zeros((runs, len(limits))) for _ in range(3)]
    names: list[list[str]] = [[] for _ in limits]
    for each in folds:
        chosen = [_chosen(each, seconds, limit, by, late_s) for limit in limits]
        outages = each.tally.outages[:, chosen] + late_s * each.tally.late[:, chosen]
        for total, part in zip(
            sums, (outages, each.tally.handovers[:, chosen], each.tally.ping_pongs[:, chosen]), strict=True
        ):
            np.add.at(total, run[each.scored], part[each.scored])
        for told, index in zip(names, chosen, strict=True):
            told.append(each.names[index])
    return Curve(sums[0], sums[1], sums[2], names)


def _chosen(fold: Fold, seconds: AnyArray, limit: float, by: str, late_s: float) -> int:
    tuned, tally = fold.tuned, fold.tally
    whole = seconds[tuned].sum()
    outage = (tally.outages[tuned].sum(axis=0) + late_s * tally.late[tuned].sum(axis=0)) / whole
    handovers, returns = (60 * part[tuned].sum(axis=0) / whole for part in (tally.handovers, tally.ping_pongs))
    limited, least, then = (outage, returns, handovers) if by == "outage" else (handovers, outage, returns)
    within = limited <= limit
    if not within.any():
        return int(np.argmin(limited))
    return int(np.lexsort((then, np.where(within, least, np.inf)))[0])


def at_outage(curve: Curve, seconds_by_run: AnyArray, outage: float) -> tuple[float, float]:
    """Ping-pongs and handovers a minute where the curve has this outage."""
    whole = seconds_by_run.sum()
    x = curve.outages.sum(axis=0)[None] / whole
    rates = [60 * part.sum(axis=0)[None] / whole for part in (curve.ping_pongs, curve.handovers)]
    found = [float(interpolated(x, rate, np.array([outage]))[0]) for rate in rates]
    return found[0], found[1]


def fewer_ping_pongs(ours: Curve, plain: Curve, seconds_by_run: AnyArray, outage: float) -> Estimate:
    """Ping-pongs of ours over those of plain, less 1, where both have this outage."""
    return _change((ours.outages, ours.ping_pongs), (plain.outages, plain.ping_pongs), seconds_by_run, outage)


def less_outage(ours: Curve, plain: Curve, seconds_by_run: AnyArray, handovers_per_min: float) -> Estimate:
    """Outage of ours over that of plain, less 1, where both have so many handovers a minute."""
    at = handovers_per_min / 60
    return _change((ours.handovers, ours.outages), (plain.handovers, plain.outages), seconds_by_run, at)


def _change(
    ours: tuple[AnyArray, AnyArray], plain: tuple[AnyArray, AnyArray], seconds: AnyArray, at: float
) -> Estimate:
    limits = ours[0].shape[1]
    parts = np.concatenate([seconds[:, None], *ours, *plain], axis=1)

    def statistic(sums: AnyArray) -> AnyArray:
        rates = sums[:, 1:] / sums[:, :1]
        x, y, plain_x, plain_y = (rates[:, place * limits : (place + 1) * limits] for place in range(4))
        where = np.full(len(sums), at)
        ratio: AnyArray = interpolated(x, y, where) / interpolated(plain_x, plain_y, where) - 1.0
        return ratio

    return estimate(parts, statistic)


def interpolated(x: AnyArray, y: AnyArray, at: AnyArray) -> AnyArray:
    """Value of each curve (n, L), taken by rising ``x``, at its ``at`` (n,); NaN where a curve does not reach."""
    found = np.full(len(x), np.nan)
    for row, (along, height, where) in enumerate(zip(x, y, at, strict=True)):
        order = np.lexsort((height, along))
        if along[order[0]] <= where <= along[order[-1]]:
            found[row] = np.interp(where, along[order], height[order])
    return found

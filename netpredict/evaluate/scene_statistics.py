"""Statistics of a radio network by which handovers are won or lost, of scenes with every radio cell known.

They tell whether ``netpredict simulate`` is like the recording ``ns3-uma``, and where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netpredict.evaluate.handover_model import TICKS, PlainA3, radio_of, walk
from netpredict.radio.link_failure import Radio, filtered
from netpredict.traces.layout import SECTORS
from netpredict.traces.ns3_uma import PERIOD_MS, STEP_MS, Places, Scene, measure
from netpredict.traces.propagation import NEAREST_M, median_dbm
from netpredict.types import AnyArray, BoolArray, FloatArray, IntArray

FILTER_K, OFFSET_DB = 4, 3.0
TTTS_MS = (480, 160)
NEAR_M = 350.0
"""Farther sites may be missing among the strongest that a recording keeps."""
SHARES = (0.05, 0.5, 0.95)
LAGS_M = tuple(range(5, 155, 5))


SLOW_KMH, SLOW_FACTOR = 10.0, 2.0
"""A UE of 3 km/h goes 333 m in all of a recording: its two seeds already differ by 1.5 dB."""


class Statistic(NamedTuple):
    """A name, its unit, and how far a simulation may lie from the recording: so much, or so much of its value."""

    name: str
    unit: str
    apart: float
    apart_ratio: float = 0.0

    def allowed(self, recorded: float, speed_kmh: float) -> float:
        """The wider of both, ``SLOW_FACTOR`` times as wide for slow UEs."""
        factor = SLOW_FACTOR if speed_kmh < SLOW_KMH else 1.0
        return factor * max(self.apart, self.apart_ratio * abs(recorded))


def _statistics() -> tuple[Statistic, ...]:
    found = [Statistic(f"serving RSRP, {share:.0%} quantile", "dBm", 1.5) for share in SHARES]
    found += [Statistic(f"best over second best, {share:.0%} quantile", "dB", 0.3, 0.1) for share in SHARES]
    found += [Statistic("shadowing, standard deviation", "dB", 0.4), Statistic("its decorrelation distance", "m", 8.0)]
    found += [Statistic("changes of the best radio cell", "/UE-minute", 0.5, 0.12)]
    found += [Statistic("time out of sync", "%", 0.1, 0.25)]
    for ttt_ms in TTTS_MS:
        of = f"A3 {OFFSET_DB:g} dB, {ttt_ms} ms"
        found += [Statistic(f"{of}: handovers", "/UE-minute", 0.1, 0.12)]
        found += [Statistic(f"{of}: failures", "/UE-minute", 0.1, 0.2)]
        found += [Statistic(f"{of}: ping-pongs", "/UE-minute", 0.05, 0.5)]
    return tuple(found)


STATISTICS = _statistics()


def statistics(scenes: Sequence[tuple[Scene, Places]]) -> list[float]:
    """The values of ``STATISTICS`` over scenes of one speed together."""
    walked = [_Walked(scene, radio_of(scene)) for scene, _ in scenes]
    levels = np.concatenate([each.serving_dbm.ravel() for each in walked])
    gaps = np.concatenate([_gap_db(scene).ravel() for scene, _ in scenes])
    values = [float(value) for sample in (levels, gaps) for value in np.quantile(sample, SHARES)]
    values += _shadowing(scenes)
    values.append(float(np.mean([each.best_changes for each in walked])))
    values.append(100 * float(np.mean([each.out_of_sync.mean() for each in walked])))
    outcomes: list[float] = np.mean([each.outcomes for each in walked], axis=0).ravel().tolist()
    return values + outcomes


class _Walked:
    """Plain A3 on one scene, and what its UEs met with the first time to trigger."""

    def __init__(self, scene: Scene, radio: Radio) -> None:
        measured_dbm = measure(scene)
        rule = _Noting(PlainA3(measured_dbm, [FILTER_K], [OFFSET_DB], TTTS_MS))
        counts = walk(radio, rule)
        each = np.stack([counts.handovers, counts.failures, counts.ping_pongs])
        self.outcomes: FloatArray = each.mean(axis=-1).T / counts.minutes
        best = filtered(measured_dbm, FILTER_K).argmax(axis=-1)
        self.best_changes = float((np.diff(best, axis=1) != 0).sum() / (counts.minutes * radio.ues))
        period, ue = np.ogrid[: radio.periods, : radio.ues]
        step = period * (PERIOD_MS // STEP_MS)
        self.serving_dbm: FloatArray = scene.rsrp_dbm[ue, step, rule.serving]
        self.out_of_sync: BoolArray = radio.out[period * TICKS, ue, rule.serving]


class _Noting:
    """A rule, and who served each UE under its first setting, (periods, UEs)."""

    def __init__(self, rule: PlainA3) -> None:
        self.best, self.wait, self.settings = rule.best, rule.wait, rule.settings
        self._rule = rule
        self._served: list[IntArray] = []

    @property
    def serving(self) -> IntArray:
        return np.array(self._served)

    def decide(self, period: int, serving: IntArray, began: IntArray) -> IntArray:
        """See ``handover_model.Rule``."""
        self._served.append(serving[0].copy())
        return self._rule.decide(period, serving, began)


def _gap_db(scene: Scene) -> AnyArray:
    second, first = np.moveaxis(np.partition(scene.rsrp_dbm, -2, axis=-1)[..., -2:], -1, 0)
    gap: AnyArray = first - second
    return gap


def _shadowing(scenes: Sequence[tuple[Scene, Places]]) -> list[float]:
    """Standard deviation, dB, and the way after which the correlation has fallen to 1 / e, m; of near sites."""
    power, products, counts = 0.0, np.zeros(len(LAGS_M)), np.zeros(len(LAGS_M))
    lags_m = np.zeros(len(LAGS_M))
    seen = 0
    for scene, places in scenes:
        shadow_db, near = _shadow_db(scene, places)
        power, seen = power + float((shadow_db[near] ** 2).sum()), seen + int(near.sum())
        step_m = scene.speed_kmh / 3.6 * STEP_MS / 1000
        for place, lag_m in enumerate(LAGS_M):
            steps = max(1, round(lag_m / step_m))
            both = near[:, :-steps] & near[:, steps:]
            lags_m[place] = steps * step_m
            products[place] += float((shadow_db[:, :-steps] * shadow_db[:, steps:])[both].sum())
            counts[place] += int(both.sum())
    correlation = products / np.maximum(counts, 1) / (power / seen)
    return [(power / seen) ** 0.5, _falls_to(np.exp(-1), np.append(1.0, correlation), np.append(0.0, lags_m))]


def _falls_to(limit: float, correlation: FloatArray, lags_m: FloatArray) -> float:
    below = np.flatnonzero(correlation < limit)
    if not below.size:
        return float("inf")
    at = int(below[0])
    share = (correlation[at - 1] - limit) / (correlation[at - 1] - correlation[at])
    return float(lags_m[at - 1] + share * (lags_m[at] - lags_m[at - 1]))


def _shadow_db(scene: Scene, places: Places) -> tuple[FloatArray, BoolArray]:
    """Shadowing of each site by its sector that points to the UE best, and whether the UE was near it."""
    offset_m = places.ue_xy_m[:, :, None, :] - places.site_xy_m
    distance_m = np.hypot(offset_m[..., 0], offset_m[..., 1])
    median = median_dbm(offset_m[..., 0], offset_m[..., 1])
    facing = median.argmax(axis=-1)[..., None]
    sectors_dbm = scene.rsrp_dbm.reshape(*distance_m.shape, SECTORS)
    shadow_db = np.take_along_axis(sectors_dbm - median, facing, axis=-1)[..., 0]
    return shadow_db.astype(np.float64), (distance_m > NEAREST_M) & (distance_m < NEAR_M)

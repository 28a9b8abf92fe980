"""Scenes as the handover evaluation sees them: measurements, reports, and what links would have cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netpredict.evaluate.handover_model import radio_of
from netpredict.learn.hindsight import LINK_FILTER_K, REFERENCE_FILTER_K, Past, costs
from netpredict.radio.link_failure import REPORTED_DB, Radio, fates, filtered, sinr_db
from netpredict.radio.quantities import KPIS
from netpredict.traces import ns3_uma
from netpredict.traces.layout import SECTORS
from netpredict.types import BoolArray, FloatArray, IntArray

REPORTED: tuple[str, ...] = ("rsrp_dbm", "sinr_db", "nbr1_rsrp_dbm", "nbr1_sinr_db")
REPORTED += ("nbr2_rsrp_dbm", "onsite_rsrp_dbm", "offsite_rsrp_dbm")
"""Columns of a row of a report."""


@dataclass(frozen=True, slots=True)
class World:
    """A scene, its tables, and one draw of measurements (UEs, periods, radio cells) with what follows from them.

    ``best`` (periods, UEs): where a UE goes after a failure; ``strongest`` (UEs, periods): whom costs are taken from.
    """

    scene: ns3_uma.Scene
    radio: Radio
    measured_dbm: FloatArray
    best: IntArray
    strongest: IntArray

    @property
    def reported(self) -> BoolArray:
        """(UEs, periods, radio cells)."""
        close: BoolArray = self.measured_dbm > self.measured_dbm.max(axis=-1, keepdims=True) - REPORTED_DB
        return close


def world_of(scene: ns3_uma.Scene) -> World:
    """With the noise of the data README."""
    measured_dbm = ns3_uma.measure(scene)
    best = filtered(measured_dbm, LINK_FILTER_K).argmax(axis=-1).T
    strongest = filtered(measured_dbm, REFERENCE_FILTER_K).argmax(axis=-1)
    return World(scene, radio_of(scene), measured_dbm, best, strongest)


def reports(measured_dbm: FloatArray) -> FloatArray:
    """What a report says of each radio cell: (UEs, periods, radio cells, ``REPORTED``), rounded as reported KPIs.

    RSRP and SINR, and both of the strongest other radio cell, all from the same measurement. Where the second strongest
    other one, or one of the same or of another site, is too weak to be reported stands the level that it is below.
    """
    sinr = sinr_db(measured_dbm)
    first, second, third = (
        each[..., None] for each in np.moveaxis(np.argsort(measured_dbm, axis=-1)[..., :-4:-1], -1, 0)
    )
    cell = np.arange(measured_dbm.shape[-1])
    columns = [measured_dbm, sinr]
    for values in (measured_dbm, sinr):
        high, low = (np.take_along_axis(values, place, axis=-1) for place in (first, second))
        columns.append(np.where(cell == first, low, high))
    highest_dbm, next_dbm, last_dbm = (
        np.take_along_axis(measured_dbm, each, axis=-1) for each in (first, second, third)
    )
    weakest_dbm = highest_dbm - REPORTED_DB
    others = [np.where((cell == first) | (cell == second), last_dbm, next_dbm), *_by_site(measured_dbm)]
    columns += [np.maximum(each, weakest_dbm) for each in others]
    ranges = [KPIS[kpi] for kpi in REPORTED]
    rounded = [
        np.clip(np.round(each, kpi.decimals), kpi.low, kpi.high) for each, kpi in zip(columns, ranges, strict=True)
    ]
    return np.stack(rounded, axis=-1).astype(np.float32)


def _by_site(measured_dbm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """RSRP of the strongest other radio cell of the same site, and of the strongest of another site."""
    by_site = measured_dbm.reshape(*measured_dbm.shape[:2], -1, SECTORS)
    onsite = np.stack([np.delete(by_site, sector, axis=-1).max(axis=-1) for sector in range(SECTORS)], axis=-1)
    of_site = by_site.max(axis=-1)
    low, high = (np.partition(of_site, rank, axis=-1)[..., rank, None] for rank in (-2, -1))
    offsite = np.where(of_site == high, low, high)
    return onsite.reshape(measured_dbm.shape), np.repeat(offsite, SECTORS, axis=-1)


def targets(world: World, forecasts: FloatArray, handover_cost: float) -> FloatArray:
    """(UEs, periods, radio cells, 3) of the KPIs of ``radio.handover_cost``, by the policy on these ``forecasts``.

    ``forecasts`` are (periods, UEs, radio cells, 3).
    """
    past = Past(fates(world.radio), world.best, world.strongest.T)
    return np.moveaxis(costs(past, forecasts, handover_cost, ns3_uma.PERIOD_MS), 0, 1)

"""What a link would have cost, in hindsight: the targets that the forecasts of the handover policy are taught.

A UE's choices change nothing on the air, so on a recorded scene every policy can be followed from every radio cell at
every period, backwards in time. A target is then what staying one period and following the policy costs from here, in
radio-link and handover failures and handovers at their price, less the same from the strongest radio cell: both ways
soon meet, and what happens after that cancels. Acting on forecasts of these costs is one step of policy iteration
(Howard 1960), and its policy gives the next targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netpredict.evaluate.handover_model import EXECUTION, PREPARATION, T310, TICKS, Radio, filtered, radio_of, sinr_db
from netpredict.radio.handover_cost import arrival_cost, gain_of_going
from netpredict.radio.quantities import KPIS
from netpredict.traces import ns3_uma
from netpredict.traces.layout import SECTORS
from netpredict.types import BoolArray, FloatArray, IntArray

REPORTED: tuple[str, ...] = ("rsrp_dbm", "sinr_db", "nbr1_rsrp_dbm", "nbr1_sinr_db")
REPORTED += ("nbr2_rsrp_dbm", "onsite_rsrp_dbm", "offsite_rsrp_dbm")
"""Columns of a row of a report."""
FORGET = 0.98
"""By period: a cost so much later counts so much less, 10 s on 0.36."""
LINK_FILTER_K, REFERENCE_FILTER_K = 4, 2
REPORTED_DB = 16.0
"""A UE reports radio cells so close to the best one."""


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
    radio = world.radio
    tick = TICKS * np.arange(radio.periods)
    late = radio.lost[tick + PREPARATION] >= 0
    refused = radio.out[tick + PREPARATION + EXECUTION]
    stay = _stay_costs(world, forecasts, late, refused, handover_cost)
    of_strongest = np.take_along_axis(stay, world.strongest.T[: radio.periods, :, None], axis=-1)
    known = np.stack([np.clip(stay - of_strongest, -0.5, 1.5), late, refused], axis=-1).astype(np.float32)
    return np.moveaxis(known, 0, 1)


def _stay_costs(
    world: World, forecasts: FloatArray, late: BoolArray, refused: BoolArray, handover_cost: float
) -> FloatArray:
    """Of staying one period and then following the policy, (periods, UEs, radio cells), backwards."""
    radio, ue = world.radio, np.arange(world.radio.ues)
    tick = TICKS * np.arange(radio.periods)
    ends = radio.ends[np.maximum(tick - T310, 0)]  # of a link that is old enough to fail whenever it can
    drops = (ends > tick[:, None, None]) & (ends <= tick[:, None, None] + TICKS)
    going = np.zeros((radio.periods + 3, *late.shape[1:]), np.float32)
    stay = np.zeros(late.shape, np.float32)
    for period in range(radio.periods - 1, -1, -1):
        failed = (1 + FORGET**2 * going[period + 2][ue, world.best[period + 1]])[:, None]
        stay[period] = np.where(drops[period], failed, FORGET * going[period + 1])
        stay_cost, late_ratio, refused_ratio = np.moveaxis(forecasts[period], -1, 0)
        arrival = arrival_cost(stay_cost, refused_ratio)
        target = arrival.argmin(axis=-1)
        goes = gain_of_going(stay_cost, late_ratio, arrival[ue, target][:, None], handover_cost) > 0
        there = (handover_cost + FORGET * going[period + 1][ue, target])[:, None]
        reached = np.where(refused[period][ue, target][:, None], failed, there)
        going[period] = np.where(goes, np.where(late[period], failed, reached), stay[period])
    return stay

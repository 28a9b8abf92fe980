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
from netpredict.types import BoolArray, FloatArray, IntArray

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

    def again(self, noise_seed: int) -> World:
        """The same with other noise."""
        return _measured(self.scene, self.radio, noise_seed)

    def of(self, ues: IntArray) -> World:
        """Only these UEs, with what they have measured."""
        scene = ns3_uma.Scene(self.scene.name, self.scene.seed, self.scene.speed_kmh, self.scene.rsrp_dbm[ues])
        radio = Radio(self.radio.ends[:, ues], self.radio.lost[:, ues], self.radio.out[:, ues])
        return World(scene, radio, self.measured_dbm[ues], self.best[:, ues], self.strongest[ues])


def world_of(scene: ns3_uma.Scene) -> World:
    """With the noise of the data README."""
    return _measured(scene, radio_of(scene), ns3_uma.NOISE_SEED)


def backwards(scene: ns3_uma.Scene) -> ns3_uma.Scene:
    """The way back: as likely as the way there, for paths and shadowing alike, so it doubles what there is to learn."""
    return ns3_uma.Scene(scene.name, scene.seed, scene.speed_kmh, scene.rsrp_dbm[:, ::-1].copy())


def _measured(scene: ns3_uma.Scene, radio: Radio, noise_seed: int) -> World:
    measured_dbm = ns3_uma.measure(scene, noise_seed=noise_seed)
    best = filtered(measured_dbm, LINK_FILTER_K).argmax(axis=-1).T
    return World(scene, radio, measured_dbm, best, filtered(measured_dbm, REFERENCE_FILTER_K).argmax(axis=-1))


def reports(measured_dbm: FloatArray) -> FloatArray:
    """What a report says of each radio cell: (UEs, periods, radio cells, 4).

    RSRP and SINR, and both of the strongest other radio cell, all from the same measurement, rounded as reported KPIs.
    """
    sinr = sinr_db(measured_dbm)
    first, second = (each[..., None] for each in np.moveaxis(np.argsort(measured_dbm, axis=-1)[..., :-3:-1], -1, 0))
    is_first = np.arange(measured_dbm.shape[-1]) == first
    columns = [measured_dbm, sinr]
    for values in (measured_dbm, sinr):
        high, low = (np.take_along_axis(values, place, axis=-1) for place in (first, second))
        columns.append(np.where(is_first, low, high))
    ranges = [KPIS["rsrp_dbm"], KPIS["sinr_db"]] * 2
    rounded = [np.clip(np.round(each, 2), kpi.low, kpi.high) for each, kpi in zip(columns, ranges, strict=True)]
    return np.stack(rounded, axis=-1).astype(np.float32)


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

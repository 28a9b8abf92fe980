"""The handover policy on forecasts: a recurrent predictor learns what links cost, and the rule of the hook acts on it.

``CostRule`` decides by ``radio.handover_cost``, as the hook ``handover`` does with ``rule = "cost"``; the hook walks
reports of one UE as they come, this rule all UEs under many prices at once (a test holds the two together).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from netpredict.evaluate.datasets import Period
from netpredict.evaluate.forecasting import walk as walk_forecasts
from netpredict.evaluate.handover_labels import World, reports, targets
from netpredict.evaluate.handover_model import OUT_OF_SYNC_DB, PING_PONG, TICKS
from netpredict.forecast.predictor import Predictor
from netpredict.radio import handover_cost as cost
from netpredict.radio.quantities import KPIS
from netpredict.traces.ns3_uma import PERIOD_MS
from netpredict.types import FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet

REPORTED = ("rsrp_dbm", "sinr_db", "nbr1_rsrp_dbm", "nbr1_sinr_db")
FEATURES = FeatureSpec((*REPORTED, *cost.KPIS), PERIOD_MS * 1000)
PIECE_STEPS, PIECE_EVERY = 40, 32
LEAST_REPORTED = 0.25
"""Share of a piece in which a radio cell is reported, below which it is not learnt from."""
FIRST_DB, SYNC_SPREAD_DB = 60.0, 4.0
"""Rules of thumb: so many dB below another radio cell are one failure; how unsure a measured SINR is."""
UNKNOWN = (5.0, 1.0, 1.0)
"""Of a radio cell that is not reported: never a target, and no command would reach a UE that it serves."""

Fit = Callable[[TrainingSet, str], Predictor]
"""Trains on a set, with a name to show."""


def output(leads: int) -> OutputSpec:
    """Lead 1 is for a decision at once, lead 2 for one that is made a period later, and so on."""
    return OutputSpec(cost.KPIS, leads, (0.5,))


class Prices(NamedTuple):
    """Of a handover, and on top of it of one that returns within a second, in failures."""

    handover: float
    back: float


class Lesson(NamedTuple):
    """Worlds with what is known in hindsight of their links, (UEs, periods, radio cells, 3) each."""

    worlds: list[World]
    known: list[FloatArray]

    def of(self, ues: IntArray) -> Lesson:
        """Of these UEs only."""
        return Lesson([world.of(ues) for world in self.worlds], [each[ues] for each in self.known])


def improved(worlds: Sequence[World], fit: Fit, price: float, rounds: int, leads: int) -> tuple[Predictor, Lesson]:
    """So many rounds of policy iteration; every round trains from scratch on new noise and on the mean of two targets.

    The mean of this round's and the last one's keeps the policy from swinging. Answers the last predictor with what it
    was taught.
    """
    lesson = Lesson(list(worlds), [targets(world, first_guess(world), price) for world in worlds])
    predictor = fit(training_set(lesson, leads), f"round 1 of {rounds}")
    for number in range(1, rounds):
        fresh = [world.again(1000 * number + index) for index, world in enumerate(lesson.worlds)]
        found = [targets(world, forecasts(predictor, world)[..., 0, :], price) for world in fresh]
        if number > 1:
            found = [(new + old) / np.float32(2) for new, old in zip(found, lesson.known, strict=True)]
        lesson = Lesson(fresh, found)
        predictor = fit(training_set(lesson, leads), f"round {number + 1} of {rounds}")
    return predictor, lesson


def first_guess(world: World) -> FloatArray:
    """A3 in the terms of the rule, (periods, UEs, radio cells, 3)."""
    level_dbm = np.moveaxis(world.measured_dbm, 0, 1)[: world.radio.periods]
    stay = (level_dbm.max(axis=-1, keepdims=True) - level_dbm) / FIRST_DB
    guess: FloatArray = np.stack([stay, np.zeros_like(stay), np.zeros_like(stay)], axis=-1)
    return guess


def training_set(lesson: Lesson, leads: int) -> TrainingSet:
    """Pieces of links as series, each from cold; what is not reported is no target."""
    parts = [_pieces(world, known) for world, known in zip(*lesson, strict=True)]
    values, truth = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    return TrainingSet(FEATURES, output(leads), values, np.zeros(len(values), np.int64), PIECE_STEPS, truth=truth)


def _pieces(world: World, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values (S, steps, features) and truths (S, steps, KPIs): what is decided at a step is the truth of the next."""
    places = piece_places(world, known.shape[1])
    start, ue, cell = places.T
    steps = start[:, None] + np.arange(PIECE_STEPS)
    reported = world.reported[:, : known.shape[1]]
    masked = np.where(reported[..., None], known, np.nan)
    truth = np.full((len(places), PIECE_STEPS, len(cost.KPIS)), np.nan, np.float32)
    truth[:, 1:] = masked[ue[:, None], steps[:, :-1], cell[:, None]]
    return _with_outcomes(reports(world.measured_dbm)[ue[:, None], steps, cell[:, None]]), truth


def piece_places(world: World, periods: int) -> IntArray:
    """Start, UE and radio cell of every piece."""
    reported = world.reported
    found = []
    for start in range(0, periods - PIECE_STEPS, PIECE_EVERY):
        share = reported[:, start : start + PIECE_STEPS].mean(axis=1)
        ue, cell = np.nonzero(share > LEAST_REPORTED)
        found.append(np.stack([np.full(len(ue), start), ue, cell], axis=1))
    places: IntArray = np.concatenate(found)
    return places


def _with_outcomes(reported: FloatArray) -> FloatArray:
    """Beside what is reported its rule of thumb of each outcome, which is known in hindsight only.

    It is what a naive forecast repeats, and varies as a measurement does.
    """
    rsrp_dbm, sinr_db, other_dbm = reported[..., 0], reported[..., 1], reported[..., 2]
    stay = np.clip((other_dbm - rsrp_dbm) / FIRST_DB, KPIS[cost.STAY_COST].low, KPIS[cost.STAY_COST].high)
    lost = 1 / (1 + np.exp((sinr_db - OUT_OF_SYNC_DB) / SYNC_SPREAD_DB))
    columns = [np.round(each, KPIS[cost.STAY_COST].decimals)[..., None] for each in (stay, lost, lost)]
    return np.concatenate([reported, *columns], axis=-1).astype(np.float32)


def forecasts(predictor: Predictor, world: World) -> FloatArray:
    """As the daemon would issue them, by ``advance`` from report to report: (periods, UEs, radio cells, leads, 3)."""
    periods, ues = world.radio.periods, world.radio.ues
    ue, cell = np.nonzero(world.reported.any(axis=1))
    values = _with_outcomes(reports(world.measured_dbm)[ue, :, cell])
    leads = predictor.output_spec().horizon_steps
    period = _period(values, periods, leads)
    answers = np.moveaxis(walk_forecasts(predictor, FEATURES, period, 0)[..., 0], 2, 3)
    ranges = [KPIS[kpi] for kpi in cost.KPIS]
    rounded = [np.clip(np.round(answers[..., i], kpi.decimals), kpi.low, kpi.high) for i, kpi in enumerate(ranges)]
    full = np.empty((periods, ues, world.measured_dbm.shape[2], leads, len(cost.KPIS)), np.float32)
    full[:] = UNKNOWN
    full[:, ue, cell] = np.stack(rounded, axis=-1)
    full[~np.moveaxis(world.reported, 0, 1)[:periods]] = UNKNOWN
    return full


def _period(values: FloatArray, periods: int, leads: int) -> Period:
    first_slot = np.zeros(len(values), np.int64)
    training = TrainingSet(FEATURES, output(leads), values[:0], first_slot[:0], 0)
    return Period("links", training, values[:0], values, first_slot, 0, periods + 1, 0)


class CostRule:
    """The hook's rule under many prices side by side, one setting each, on forecasts (periods, UEs, radio cells, 3)."""

    def __init__(self, known: FloatArray, links: IntArray, prices: Sequence[Prices]) -> None:
        self._known, self._links = known, links
        self._handover, self._back = (np.array(each)[:, None] for each in zip(*prices, strict=True))
        self.settings = len(prices)
        self.wait = np.zeros((self.settings, 1), np.int64)
        shape = (self.settings, known.shape[1])
        self._source = np.full(shape, -1, np.int64)
        self._serving = np.array(np.broadcast_to(links[0], shape))

    def best(self, period: int) -> IntArray:
        """By the filtered RSRP."""
        links: IntArray = self._links[period : period + 1]
        return links

    def decide(self, period: int, serving: IntArray, began: IntArray) -> IntArray:
        """See ``Rule``."""
        self._follow(serving, began)
        now = self._known[period]
        ue = np.arange(now.shape[0])
        arrival = cost.arrival_cost(now[..., 0], now[..., 2])
        target = arrival.argmin(axis=-1)
        returns = (target == self._source) & (period * TICKS - began < PING_PONG - TICKS // 2)
        stay, late = now[ue, serving, 0], now[ue, serving, 1]
        goes = cost.gain_of_going(stay, late, arrival[ue, target], self._handover + self._back * returns) > 0
        decided: IntArray = np.where(goes & (target != serving), target, -1)
        return decided

    def _follow(self, serving: IntArray, began: IntArray) -> None:
        """Which radio cell each UE has come from by its last handover or failure."""
        moved = serving != self._serving
        self._source = np.where(moved, self._serving, self._source)
        self._serving = serving.copy()

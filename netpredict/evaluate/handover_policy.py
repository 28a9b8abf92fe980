"""The handover policy on forecasts: a recurrent predictor learns what links cost, and the rule of the hook acts on it.

``CostRule`` decides by ``radio.handover_cost``, as the hook ``handover`` does with ``rule = "cost"``; the hook walks
reports of one UE as they come, this rule all UEs under many prices at once (a test holds the two together).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from netpredict.evaluate.datasets import Period
from netpredict.evaluate.forecasting import walk as walk_forecasts
from netpredict.evaluate.handover_labels import REPORTED, World, reports, targets
from netpredict.evaluate.handover_model import PING_PONG, TICKS
from netpredict.forecast.predictor import Predictor
from netpredict.learn import hindsight
from netpredict.learn.hindsight import LEAST_REPORTED, UNKNOWN
from netpredict.radio import handover_cost as cost
from netpredict.radio.quantities import KPIS
from netpredict.traces.ns3_uma import PERIOD_MS
from netpredict.types import FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet

FEATURES = FeatureSpec((*REPORTED, *cost.KPIS), PERIOD_MS * 1000)
PIECE_STEPS, PIECE_EVERY = 40, 32
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
    """Pieces of links as series: values (S, steps, features), and truths (S, steps, KPIs)."""

    values: FloatArray
    truth: FloatArray


def improved(draw: Callable[[int], Iterable[World]], fit: Fit, price: float, rounds: int, leads: int) -> Predictor:
    """So many rounds of policy iteration, each on the worlds that ``draw`` gives for it; the last round's predictor.

    Every round trains from scratch. The policy before the first one is ``first_guess``.
    """
    predictor = fit(training_set([_lesson(each, None, price) for each in draw(0)], leads), f"round 1 of {rounds}")
    for number in range(1, rounds):
        lessons = [_lesson(each, predictor, price) for each in draw(number)]
        predictor = fit(training_set(lessons, leads), f"round {number + 1} of {rounds}")
    return predictor


def _lesson(world: World, predictor: Predictor | None, price: float) -> Lesson:
    acted_on = first_guess(world) if predictor is None else forecasts(predictor, world)[..., 0, :]
    return lesson_of(world, targets(world, acted_on, price))


def first_guess(world: World) -> FloatArray:
    """A3 in the terms of the rule, (periods, UEs, radio cells, 3)."""
    return hindsight.first_guess(np.moveaxis(world.measured_dbm, 0, 1)[: world.radio.periods])


def training_set(lessons: Sequence[Lesson], leads: int) -> TrainingSet:
    """Each piece from cold; what is not reported is no target."""
    values, truth = (np.concatenate(each) for each in zip(*lessons, strict=True))
    return TrainingSet(FEATURES, output(leads), values, np.zeros(len(values), np.int64), PIECE_STEPS, truth=truth)


def lesson_of(world: World, known: FloatArray) -> Lesson:
    """Of what is known in hindsight, (UEs, periods, radio cells, 3): decided at a step, it is the truth of the next."""
    places = piece_places(world, known.shape[1])
    start, ue, cell = places.T
    steps = start[:, None] + np.arange(PIECE_STEPS)
    reported = world.reported[:, : known.shape[1]]
    masked = np.where(reported[..., None], known, np.nan)
    truth = np.full((len(places), PIECE_STEPS, len(cost.KPIS)), np.nan, np.float32)
    truth[:, 1:] = masked[ue[:, None], steps[:, :-1], cell[:, None]]
    return Lesson(_with_outcomes(reports(world.measured_dbm)[ue[:, None], steps, cell[:, None]]), truth)


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
    """Beside what is reported its rule of thumb of each outcome, which is known in hindsight only."""
    stay, *lost = cost.rules_of_thumb(reported[..., 0], reported[..., 1], reported[..., 2])
    stay = np.clip(stay, KPIS[cost.STAY_COST].low, KPIS[cost.STAY_COST].high)
    columns = [np.round(each, KPIS[cost.STAY_COST].decimals)[..., None] for each in (stay, *lost)]
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

"""What KPIs of hindsight were, from the reports of every UE, and how a predictor is taught them.

A UE's choices change nothing on the air. So on what it has reported every policy can be followed from every radio cell
at every period, backwards in time. ``stay_cost`` is what staying one period and following the policy costs from here,
in radio-link and handover failures and handovers at their price, less the same from the strongest radio cell: both ways
soon meet, and what happens after that cancels. Acting on forecasts of these costs is one step of policy iteration
(Howard 1960), and its policy gives the next targets.

Whether a link is in sync tells its reported SINR. Without one, and for a radio cell that the UE did not report, which
counts as ``REPORTED_DB`` below the strongest one, SINR is made of the levels at a load of all others.

Arrays have the periods first: (periods, UEs, radio cells), every UE with radio cells of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from netpredict.errors import DataError
from netpredict.forecast.calibrate import middle_of
from netpredict.forecast.predictor import Predictor, Trainable
from netpredict.forecast.running import RunningPredictor
from netpredict.forecast.series import SeriesTable
from netpredict.learn.evaluate import features_at
from netpredict.radio import handover_cost
from netpredict.radio.handover_cost import arrival_cost, gain_of_going
from netpredict.radio.link_failure import OUTAGE, REPORTED_DB, TICK_MS, Fates, fates, filtered, radio_of_sinr, sinr_db
from netpredict.radio.quantities import kpi_of
from netpredict.types import BoolArray, FloatArray, Hindsight, IntArray, TrainingReport, TrainingSet, ue_of

SINR = "sinr_db"
LINK_FILTER_K, REFERENCE_FILTER_K = 4, 2
FORGET, FORGET_MS = 0.98, 200
"""A cost so much later counts so much less: 10 s on 0.36."""
UNKNOWN = (5.0, 1.0, 1.0)
"""Of a radio cell that is not reported: never a target, and no command would reach a UE that it serves."""
NOT_SERVED = (0.0, 1.0, 2.0)
"""Of a link of which no model says a thing: left alone, as the hook does, and a target that costs more than any."""
LEAST_REPORTED = 0.25
"""Share of a piece in which a radio cell is reported, below which it is not learnt from."""
SILENT_PERIODS = 5
"""A UE that reports nothing for longer has gone: nothing that comes later was a consequence."""
TICKS_AT_ONCE = 20_000_000
"""Of links that are looked at together; each takes a dozen bytes."""
FAR_DBM = -200.0

Fit = Callable[[TrainingSet], tuple[Trainable, TrainingReport]]
"""Trains a fresh predictor."""


class Past(NamedTuple):
    """What has come of links.

    (periods, UEs) each: ``best`` is where a UE goes after a failure, ``strongest`` whom costs are taken from, ``heard``
    whether the UE was there, None = always.
    """

    fates: Fates
    best: IntArray
    strongest: IntArray
    heard: BoolArray | None = None


def costs(past: Past, forecasts: FloatArray, price: float, period_ms: int = FORGET_MS) -> FloatArray:
    """(periods, UEs, radio cells, 3) of ``handover_cost.KPIS``, by the policy on these ``forecasts`` of them."""
    stay = _stay_costs(past, forecasts, price, period_ms)
    of_strongest = np.take_along_axis(stay, past.strongest[: len(stay), :, None], axis=-1)
    known = kpi_of(handover_cost.STAY_COST)
    relative = np.clip(stay - of_strongest, known.low, known.high)
    return np.stack([relative, past.fates.late, past.fates.refused], axis=-1).astype(np.float32)


def _stay_costs(past: Past, forecasts: FloatArray, price: float, period_ms: int) -> FloatArray:
    """Of staying one period and then following the policy, (periods, UEs, radio cells), backwards."""
    late, refused, drops = past.fates
    periods, ue = len(late), np.arange(late.shape[1])
    forget = FORGET ** (period_ms / FORGET_MS)
    outage = 1 + -(-OUTAGE * TICK_MS // period_ms)
    going = np.zeros((periods + 1 + outage, *late.shape[1:]), np.float32)
    stay = np.zeros(late.shape, np.float32)
    for period in range(periods - 1, -1, -1):
        failed = (1 + forget**outage * going[period + outage][ue, past.best[period + 1]])[:, None]
        stay[period] = np.where(drops[period], failed, forget * going[period + 1])
        stay_cost, late_ratio, refused_ratio = np.moveaxis(forecasts[period], -1, 0)
        arrival = arrival_cost(stay_cost, refused_ratio)
        target = arrival.argmin(axis=-1)
        goes = gain_of_going(stay_cost, late_ratio, arrival[ue, target][:, None], price) > 0
        there = (price + forget * going[period + 1][ue, target])[:, None]
        reached = np.where(refused[period][ue, target][:, None], failed, there)
        going[period] = np.where(goes, np.where(late[period], failed, reached), stay[period])
        if past.heard is not None:
            going[period][~past.heard[period]] = 0
    return stay


def first_guess(level_dbm: FloatArray) -> FloatArray:
    """A3 in the terms of the rule, for levels (…, radio cells): (…, radio cells, 3)."""
    stay = (level_dbm.max(axis=-1, keepdims=True) - level_dbm) / handover_cost.FIRST_DB
    guess: FloatArray = np.stack([stay, np.zeros_like(stay), np.zeros_like(stay)], axis=-1)
    return guess


class _Together(NamedTuple):
    """Some UEs side by side. ``series`` (UEs, radio cells): index of each link, -1 where a UE has fewer."""

    series: IntArray
    level_dbm: FloatArray
    reported: BoolArray
    past: Past

    @property
    def periods(self) -> int:
        """Those that costs are known of: what is decided in the last one can still be carried out."""
        return len(self.past.fates.late)


class Links:
    """The series (UE, radio cell) of a training set, and what came of each link."""

    def __init__(self, dataset: TrainingSet, settings: Hindsight) -> None:
        self._settings, self._shape = settings, dataset.values.shape[:2]
        self._period_ms = _period_ms(dataset)
        names = dataset.features.observed
        level_dbm = dataset.values[:, :, names.index(handover_cost.RSRP)]
        told_db = dataset.values[:, :, names.index(SINR)] if SINR in names else np.full_like(level_dbm, np.nan)
        ticks = level_dbm.shape[1] * self._period_ms // TICK_MS
        ues = _by_ue(dataset, max(1, TICKS_AT_ONCE // ticks))
        self._together = [self._of(level_dbm, told_db, some) for some in ues]

    def costs(self, forecasts: FloatArray | None) -> FloatArray:
        """(S, T, 3): what was decided at a step by the policy on ``forecasts`` is the truth of the next; NaN unknown.

        ``forecasts`` (T, S, 3) are of ``handover_cost.KPIS``, at once; None: plain A3.
        """
        truth = np.full((*self._shape, len(handover_cost.KPIS)), np.nan, np.float32)
        for some in self._together:
            known = costs(some.past, self._acted_on(some, forecasts), self._settings.handover_cost, self._period_ms)
            known[~some.reported[: some.periods]] = np.nan
            there = some.series >= 0
            truth[some.series[there], 1 : 1 + some.periods] = known[:, there].swapaxes(0, 1)
        return truth

    @staticmethod
    def _acted_on(some: _Together, forecasts: FloatArray | None) -> FloatArray:
        if forecasts is None:
            guess = first_guess(some.level_dbm[: some.periods])
        else:
            guess = forecasts[: some.periods, np.maximum(some.series, 0)]
        guess = np.where(np.isfinite(guess).all(axis=-1, keepdims=True), guess, np.array(NOT_SERVED, np.float32))
        return np.where(some.reported[: some.periods, ..., None], guess, np.array(UNKNOWN, np.float32))

    def _of(self, level_dbm: FloatArray, told_db: FloatArray, ues: Sequence[Sequence[int]]) -> _Together:
        series = np.full((len(ues), max(map(len, ues))), -1, np.int64)
        for ue, mine in enumerate(ues):
            series[ue, : len(mine)] = mine
        levels, told = (
            np.moveaxis(np.where((series >= 0)[..., None], each[np.maximum(series, 0)], np.nan), -1, 0)
            for each in (level_dbm, told_db)
        )
        reported, filled, heard = np.isfinite(levels), *_filled(levels)
        by_ue = np.moveaxis(filled, 0, 1)
        ratio = np.where(np.isfinite(told), told, sinr_db(filled, self._settings.load_ratio))
        radio = radio_of_sinr(np.moveaxis(ratio, 0, 1).astype(np.float32), self._period_ms)
        best, strongest = (filtered(by_ue, k).argmax(axis=-1).T for k in (LINK_FILTER_K, REFERENCE_FILTER_K))
        return _Together(series, filled, reported, Past(fates(radio), best, strongest, heard))


def _filled(level_dbm: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Levels (T, UEs, radio cells) without gaps, and when a UE was there, (T, UEs)."""
    reported = np.isfinite(level_dbm)
    there = reported.any(axis=-1)
    step = np.arange(len(level_dbm))[:, None]
    before = np.maximum.accumulate(np.where(there, step, -1), axis=0)
    after = np.minimum.accumulate(np.where(there, step, len(step))[::-1], axis=0)[::-1]
    highest = np.where(reported, level_dbm, -np.inf).max(axis=-1, keepdims=True)
    weakest = np.minimum(np.where(reported, level_dbm, np.inf).min(axis=-1, keepdims=True), highest - REPORTED_DB)
    filled = np.where(reported, level_dbm, weakest)
    held = np.where(before >= 0, before, np.minimum(after, len(step) - 1))
    filled = np.take_along_axis(filled, held[..., None], axis=0)
    heard: BoolArray = after - before <= SILENT_PERIODS + 1
    return np.where(np.isfinite(filled), filled, FAR_DBM).astype(np.float32), heard


def _by_ue(dataset: TrainingSet, links: int) -> Iterator[list[list[int]]]:
    """Indices of the series of each UE by name, some UEs at a time: those with as many, for little is filled up then.

    So many that there are ``links`` at most, but for a UE that has more by itself.
    """
    found: dict[str, list[int]] = {}
    for name, index in sorted((name, index) for index, name in enumerate(dataset.series_names)):
        found.setdefault(ue_of(name), []).append(index)
    if not found:
        raise DataError("the links of no UE are known: hindsight needs the names of the series")
    some: list[list[int]] = []
    for ue in sorted(found.values(), key=len):
        if some and (len(some) + 1) * len(ue) > links:
            yield some
            some = []
        some.append(ue)
    yield some


def _period_ms(dataset: TrainingSet) -> int:
    slots: dict[str, int] = {}
    for name, slot in zip(dataset.series_names, dataset.first_slot.tolist(), strict=False):
        if slots.setdefault(ue_of(name), slot) != slot:
            raise DataError(f"hindsight needs all links of a UE on one grid: {name} begins at another slot")
    return dataset.features.period_us // 1000


def taught(dataset: TrainingSet, settings: Hindsight, fit: Fit) -> tuple[Trainable, TrainingReport]:
    """So many rounds of policy iteration on the part that is not held out; the predictor of the last one.

    The policy before the first round is plain A3. Every round trains from scratch on pieces of links, each from cold.
    """
    part = replace(dataset, values=dataset.values[:, : dataset.validation_from])
    links = Links(part, settings)
    taught = fit(pieces(with_truth(part, links.costs(None)), settings.piece_steps))
    for _ in range(1, settings.rounds):
        known = links.costs(walked(taught[0], part, settings))
        taught = fit(pieces(with_truth(part, known), settings.piece_steps))
    return taught


def labelled(dataset: TrainingSet, predictor: Predictor) -> TrainingSet:
    """With the truth of hindsight by the policy on this predictor's forecasts; as it is where there is no such KPI."""
    settings = dataset.hindsight
    if settings is None:
        return dataset
    return with_truth(dataset, Links(dataset, settings).costs(walked(predictor, dataset, settings)))


def with_truth(dataset: TrainingSet, known: FloatArray) -> TrainingSet:
    """Targets: of hindsight (S, T, 3) what is ``known``, of other KPIs what was observed."""
    kpis, truth = dataset.output.kpis, np.array(dataset.targets)
    truth[:, :, [kpis.index(kpi) for kpi in handover_cost.KPIS]] = known
    return replace(dataset, truth=truth)


def pieces(dataset: TrainingSet, steps: int) -> TrainingSet:
    """Pieces of so many steps of the links, where they are reported, overlapping by a fifth; none is held out."""
    assert dataset.truth is not None
    reported = np.isfinite(dataset.values[:, :, dataset.features.observed.index(handover_cost.RSRP)])
    found = []
    for start in range(0, reported.shape[1] - steps + 1, max(1, steps * 4 // 5)):
        (series,) = np.nonzero(reported[:, start : start + steps].mean(axis=1) > LEAST_REPORTED)
        found.append(np.stack([np.full(len(series), start), series], axis=1))
    start, series = np.concatenate([np.empty((0, 2), np.int64), *found]).T
    if not len(series):
        raise DataError(
            f"no link is reported in over {LEAST_REPORTED:.0%} of any {steps} steps (hindsight.piece_steps) before the"
            f" held-out slice: train on a longer history, here it has {reported.shape[1]} steps, or on shorter pieces"
        )
    place = series[:, None], start[:, None] + np.arange(steps)
    slots = dataset.first_slot[series] + start
    truth = dataset.truth[place]
    truth[:, 0] = np.nan  # decided before the piece
    return TrainingSet(dataset.features, dataset.output, dataset.values[place], slots, steps, truth=truth)


def walked(predictor: Predictor, dataset: TrainingSet, settings: Hindsight, lead_steps: int = 1) -> FloatArray:
    """Forecasts of ``handover_cost.KPIS`` at a lead as the daemon would serve them, (T, S, 3), NaN without a report."""
    running = RunningPredictor("hindsight", "-", 0, predictor)
    table = SeriesTable()
    table.add_columns(running.columns())
    series, steps, _ = dataset.values.shape
    rows = np.array([table.allocate(0, str(number), number) for number in range(series)], np.int64)
    reported = np.isfinite(dataset.values[:, :, dataset.features.observed.index(handover_cost.RSRP)])
    kpis, middle = [dataset.output.kpis.index(kpi) for kpi in handover_cost.KPIS], middle_of(dataset.output.levels)
    answers = np.full((steps, series, len(kpis)), np.nan, np.float32)
    silent = np.full(series, settings.max_gap_steps + 1)
    for step in range(steps):
        now = reported[:, step]
        table.reset(rows[now & (silent > settings.max_gap_steps)])
        silent = np.where(now, 0, silent + 1)
        (here,) = np.nonzero(silent <= settings.max_gap_steps)
        if len(here):
            found = running.advance(table, rows[here], features_at(dataset, step)[here]).values
            serves = now[here] & (running.steps(table, rows[here]) >= settings.warm_steps)
            answers[step, here] = np.where(serves[:, None], found[:, kpis, lead_steps - 1, middle], np.nan)
    known = [kpi_of(kpi) for kpi in handover_cost.KPIS]
    low, high = (np.array(ends, np.float32) for ends in ([kpi.low for kpi in known], [kpi.high for kpi in known]))
    return np.clip(answers, low, high)

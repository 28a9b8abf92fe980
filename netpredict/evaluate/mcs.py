"""What the mcs hook would have done beside the plain rules of link adaptation, on the UCC 5G traces.

A CQI report takes 1, 2, 3 or 5 s; the hook decides by the forecast so far ahead, the plain rules by what was reported.
All that is chosen, weights, the hook's price and the plain rules' parameters, is chosen on the other folds' traces; the
price on forecasts by weights that have not seen those traces either (one half of the training part for the other).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from netpredict.evaluate.bootstrap import change
from netpredict.evaluate.goodput import BLER_LIMIT, Panel, Tally, best, known, walk
from netpredict.evaluate.mcs_forecasts import DELAYS_S, Fit, World, forecast_by_folds, in_time
from netpredict.evaluate.mcs_result import Choice, Fitness, Result, Row
from netpredict.evaluate.plain_link import Bases, Candidate, candidates, markov_bases, markov_table, report_bases
from netpredict.evaluate.priced import Priced
from netpredict.evaluate.published import Recording
from netpredict.radio.link import Price
from netpredict.radio.tables import MAX_CQI, cqi_efficiency
from netpredict.types import AnyArray, FloatArray, IntArray

TABLES = (1, 2)
FAMILIES = ("last", "minimum", "quantile", "mean", "table")
LEAST_LIKELY = 1e-4

LIMITED = tuple(
    Price(target, first, rate, 0.05, 200.0)
    for target, first, rate in product((0.095, 0.1, 0.105, 0.11, 0.115, 0.12), (2.0, 4.0), (0.0, 0.02, 0.05, 0.1, 0.2))
    if rate or target == 0.1
)
"""Prices tried where BLER is limited; without a rate the target says nothing."""
FREE = tuple(Price(first=first, rate=0.0, least=first) for first in (1e-6, 0.1, 0.2, 0.35, 0.5, 1.0))
"""Prices tried where it is not."""


def run(
    recordings: Sequence[Recording],
    fit: Fit,
    *,
    folds: int,
    decision_delay_ms: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train by folds, tune, walk; ``recordings`` hold the columns of ``FEATURES``. DataError as ``forecast_by_folds``.

    ``folds`` below 5 scores only that part of the traces.
    """
    world = forecast_by_folds(recordings, fit, folds)
    rows, fitness = list[Row](), list[Fitness]()
    for delay in DELAYS_S:
        tell(f"reports {delay} s late")
        found, fits = _at_delay(world, delay, tuple(dict.fromkeys((0, decision_delay_ms))))
        rows += found
        fitness.append(fits)
    traces = int((world.fold < folds).sum())
    return Result(traces=traces, folds=folds, decision_delay_ms=decision_delay_ms, rows=rows, fitness=fitness)


@dataclass(frozen=True, slots=True)
class _Round:
    """One fold: traces to choose the plain rules by, to tune the price by, to score.

    ``table`` is its Markov table; ``by_last`` and ``forecast`` (rows, 16) are P(CQI >= c) of the table and the model.
    """

    train: IntArray
    tuned: IntArray
    test: IntArray
    table: FloatArray
    by_last: FloatArray
    forecast: FloatArray


def _at_delay(world: World, delay: int, decision_delays_ms: Sequence[int]) -> tuple[list[Row], Fitness]:
    panel = Panel(world.series())
    held = panel.flat([known(each, delay) for each in world.series()])
    rounds = [_round(world, panel, held, delay, *part) for part in world.parts()]
    reported = _walked(panel, report_bases(panel, delay), delay)
    plain = []
    for each in rounds:
        bases = markov_bases(each.table, held, TABLES)
        names, tally = _walked(panel, bases, delay)
        plain.append((reported[0] + names, Tally.side_by_side([reported[1], tally])))
    settings = [_Setting(panel, rounds, delay, table) for table in TABLES]
    rows = [row for setting in settings for row in _rows(setting, plain, decision_delays_ms)]
    return rows, _fitness(rounds, panel, delay)


def _round(
    world: World, panel: Panel, held: AnyArray, delay: int, number: int, train: IntArray, test: IntArray
) -> _Round:
    series, forecasts = world.series(), world.forecasts[number]
    table = markov_table([series[index] for index in train.tolist()], delay)
    by_last = np.where(np.isfinite(held)[:, None], table[np.nan_to_num(held).astype(int)], np.float32(np.nan))
    forecast = [
        np.full((len(each.values), MAX_CQI + 1), np.nan, np.float32)
        if answers is None
        else in_time(answers, each.values, delay)
        for answers, each in zip(forecasts, world.recordings, strict=True)
    ]
    tuned = np.array([index for index in train.tolist() if forecasts[index] is not None])
    return _Round(train, tuned, test, table, by_last, panel.flat(forecast))


def _walked(panel: Panel, bases: Bases, delay: int) -> tuple[list[Candidate], Tally]:
    """Every candidate of these bases."""
    found = [(names, walk(panel, rule, delay, TABLES)) for names, rule in candidates(bases, panel.traces)]
    return [name for names, _ in found for name in names], Tally.side_by_side([tally for _, tally in found])


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the rows of one reporting delay and CQI table are taken on."""

    panel: Panel
    rounds: Sequence[_Round]
    delay: int
    table: int

    def best_plain(
        self,
        plain: Sequence[tuple[list[Candidate], Tally]],
        limited: bool,
        family: str | None = None,
        loop: bool = False,
    ) -> Choice:
        """The best candidate on each fold's training part: of all, or of a family without or with an outer loop."""
        choice = Choice(self.table)
        for (names, tally), each in zip(plain, self.rounds, strict=True):
            allowed = [
                index
                for index, name in enumerate(names)
                if family is None or (name.family == family and name.has_loop == loop)
            ]
            winner = allowed[best(tally.only(np.array(allowed)), self.table, each.train, limited)]
            choice.add(str(names[winner]), tally.only(np.array([winner])), each.test)
        return choice

    def priced(self, limited: bool, forecasts: Sequence[AnyArray], tuned: Sequence[IntArray], late_ms: int) -> Choice:
        """The hook's policy on ``forecasts`` of each fold, its price chosen on the traces ``tuned``."""
        settings, choice = LIMITED if limited else FREE, Choice(self.table)
        for each, at_least, traces in zip(self.rounds, forecasts, tuned, strict=True):
            needed = np.concatenate([traces, each.test])
            panel = self.panel.only(needed)
            rule = Priced(self.panel.of(at_least, panel, needed), cqi_efficiency(self.table), settings, len(needed))
            tally = walk(panel, rule, self.delay, (self.table,), late_ms / 1e3)
            place = np.arange(len(needed))
            winner = best(tally, self.table, place[: len(traces)], limited)
            choice.add(_told(settings[winner], limited), tally.only(np.array([winner])), place[len(traces) :])
        return choice


def _rows(
    setting: _Setting, plain: Sequence[tuple[list[Candidate], Tally]], decision_delays_ms: Sequence[int]
) -> Iterator[Row]:
    """``plain``: of each fold all plain candidates, by reports and by the fold's own table."""
    rounds = setting.rounds
    train, tuned = [each.train for each in rounds], [each.tuned for each in rounds]
    for limited in (True, False):
        opponent = setting.best_plain(plain, limited)
        families = [
            setting.best_plain(plain, limited, family, loop).outcome(f"{family}{' + OLLA' if loop else ''}")
            for family, loop in product(FAMILIES, (False, True))
        ]
        same = setting.priced(limited, [each.by_last for each in rounds], train, 0)
        for late_ms in decision_delays_ms:
            ours = setting.priced(limited, [each.forecast for each in rounds], tuned, late_ms)
            gain = change(ours.goodput, opponent.goodput)
            yield Row(
                delay_s=setting.delay,
                cqi_table=setting.table,
                bler_limit=BLER_LIMIT if limited else None,
                decision_delay_ms=late_ms,
                gain=gain.value,
                gain_low=gain.low,
                gain_high=gain.high,
                ours=ours.outcome(),
                plain=opponent.outcome(),
                same_policy_by_table=same.outcome(),
                families=families,
                ours_bler_by_trace=ours.bler_by_trace(),
                plain_bler_by_trace=opponent.bler_by_trace(),
            )


def _told(price: Price, limited: bool) -> str:
    moves = f", rate {price.rate:g}, BLER target {price.bler_target:g}" if limited else ""
    return f"price {price.first:g}{moves}"


def _fitness(rounds: Sequence[_Round], panel: Panel, delay: int) -> Fitness:
    """Cross-entropy in nats of the forecast acted on and of the Markov table, on the scored traces."""
    truth = panel.unflat(panel.cqi)
    model, table = list[AnyArray](), list[AnyArray]()
    for each in rounds:
        forecast, by_last = panel.unflat(each.forecast), panel.unflat(each.by_last)
        for index in each.test.tolist():
            both = np.isfinite(truth[index]) & np.isfinite(forecast[index][:, 0]) & np.isfinite(by_last[index][:, 0])
            cqi = truth[index][both].astype(int)
            model.append(_surprise(forecast[index][both], cqi))
            table.append(_surprise(by_last[index][both], cqi))
    log_loss, markov_log_loss = (float(np.concatenate(parts).mean()) for parts in (model, table))
    return Fitness(delay_s=delay, log_loss=log_loss, markov_log_loss=markov_log_loss)


def _surprise(at_least: AnyArray, cqi: IntArray) -> AnyArray:
    """-log P(CQI = cqi) of each row."""
    chance = -np.diff(at_least, axis=1, append=0.0)[np.arange(len(cqi)), cqi]
    surprise: AnyArray = -np.log(np.maximum(chance, LEAST_LIKELY))
    return surprise

"""The handover hook on the WMN-LAB drives: ping-pongs beside plain A3 over linked levels, and early warning.

Folds are over runs: phones that drove together are never on both sides. Plain A3 is chosen from its whole grid on the
other folds. So is the policy on the forecast, by forecasts of weights that have seen neither the scored fold nor the
runs that it is chosen on (one half of the training part for the other).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from netpredict import plugins
from netpredict.errors import DataError
from netpredict.evaluate import handover_real_pairs as pairs_
from netpredict.evaluate import handover_real_warning as warning
from netpredict.evaluate.bootstrap import Estimate
from netpredict.evaluate.handover_real_compare import (
    HANDOVER_LIMITS,
    OUTAGE_LIMITS,
    Curve,
    Fold,
    at_outage,
    curve,
    fewer_ping_pongs,
    less_outage,
)
from netpredict.evaluate.handover_real_drives import FOLDS, Drive, drives_of, folds_of, runs_of
from netpredict.evaluate.handover_real_field import Field, Tally, field_of
from netpredict.evaluate.handover_real_links import CONSERVATIVE, LIBERAL, Linking, Stretch, stretches_of
from netpredict.evaluate.handover_real_pairs import Pairs, Promised
from netpredict.evaluate.handover_real_replay import (
    GRID_FILTER_KS,
    GRID_OFFSETS_DB,
    GRID_TTTS_MS,
    PING_PONG_S,
    USUAL,
    A3Setting,
    PlainA3,
    recorded_of,
    replay,
)
from netpredict.evaluate.handover_real_result import (
    AlarmPoint,
    AlarmRow,
    CurvePoint,
    Curves,
    PingPongRow,
    Rates,
    Result,
    Span,
    WarningRow,
)
from netpredict.evaluate.handover_real_tables import tables as tables
from netpredict.evaluate.handover_wish import Tell, Wish
from netpredict.forecast.predictor import Predictor, Trainable
from netpredict.traces import wmnlab
from netpredict.types import AnyArray, FloatArray, IntArray, TrainingSet

SCENES = {"liberal": LIBERAL, "conservative": CONSERVATIVE, "warning": None}
PREDICTOR = "gru"
SHARED: dict[str, Any] = {
    "inputs": "levels",
    "calendar": False,
    "units": 32,
    "head_units": 32,
    "schedule": "cosine",
    "final_rate_ratio": 0.05,
    "patience": 100,
}
WARNING_RECIPE = SHARED | {"loss": "bce", "minibatch_size": 16, "bptt_steps": 64}
PAIRS_RECIPE = SHARED | {"train_epochs": 6, "minibatch_size": 64, "bptt_steps": 40}
BARS_DB = (1.0, 2.0, 3.0, 4.0, 6.0)
LEADS = (1, 2, 3, 5)
CHANCES = tuple(round(0.3 + 0.025 * n, 3) for n in range(25))
OUTAGES = (0.03, 0.035, 0.04, 0.05, 0.06)
"""Shares of the seconds at which ping-pongs are compared, beside that of the usual plain rule."""
ALARM_BARS = tuple(float(x) for x in np.geomspace(0.02, 0.95, 120).round(4))

WARNED_BY: tuple[dict[str, Any], ...] = (
    {"dropout": 0.2, "train_epochs": 12},
    {"dropout": 0.4, "train_epochs": 32},
)
"""The early warning is the mean of two recipes, one trained briefly, one for long at a strong dropout: either alone
falls behind at the bar of one false alarm in ten minutes.
"""

Fit = Callable[[TrainingSet, str], Predictor]


def run(folder: Path, wish: Wish, tell: Tell) -> Result:
    """Read, link, train by folds, replay; DataError with too few runs or an unknown scene."""
    scenes = wish.scenes or tuple(SCENES)
    if unknown := [name for name in scenes if name not in SCENES]:
        raise DataError(f"there is no scene {', '.join(unknown)}: take {', '.join(SCENES)}")
    drives = drives_of(wmnlab.read(folder, wish.limit_traces))
    more = {} if wish.train_epochs is None else {"train_epochs": wish.train_epochs}
    recipes = {"ping_pongs": [PAIRS_RECIPE | more], "warning": [WARNING_RECIPE | each | more for each in WARNED_BY]}
    fits = {name: [fitting(recipe, tell) for recipe in each] for name, each in recipes.items()}
    return evaluate(drives, scenes, wish.decision_delay_ms, fits, recipes, tell)


def fitting(recipe: dict[str, Any], tell: Tell) -> Fit:
    """Builds and trains the predictor as the daemon does."""
    plugin = plugins.load("predictors", PREDICTOR)
    decoded = plugins.options_of(plugin, recipe, f"options of {PREDICTOR}")

    def fit(dataset: TrainingSet, name: str) -> Predictor:
        predictor: Trainable = plugin.build(decoded, dataset.features, dataset.output)
        report = predictor.fit(dataset, None)
        tell(f"{name}: {report.train_epochs} train_epochs in {report.training_s:.0f} s")
        return predictor

    return fit


def evaluate(
    drives: Sequence[Drive],
    scenes: Sequence[str],
    decision_delay_ms: int,
    fits: Mapping[str, Sequence[Fit]],
    recipes: Mapping[str, list[dict[str, Any]]],
    tell: Tell,
) -> Result:
    """The scenes on these drives; ``fits`` train for "warning" and "ping_pongs"."""
    run_of = runs_of(drives)
    fold = folds_of(run_of)
    rows, curves = list[PingPongRow](), list[Curves]()
    for name in scenes:
        if (linking := SCENES[name]) is not None:
            found, told = _linked(drives, run_of, fold, linking, decision_delay_ms, fits["ping_pongs"][0], tell)
            rows += found
            curves.append(told)
    warnings, alarms = _warned(drives, run_of, fold, fits["warning"]) if "warning" in scenes else ([], [])
    return Result(
        drives=len(drives),
        runs=int(run_of.max()) + 1,
        folds=FOLDS,
        decision_delay_ms=decision_delay_ms,
        ping_pong_s=PING_PONG_S,
        ping_pongs=rows,
        curves=curves,
        warnings=warnings,
        alarms=alarms,
        options=dict(recipes),
    )


def _linked(
    drives: Sequence[Drive],
    run_of: IntArray,
    fold: IntArray,
    linking: Linking,
    decision_delay_ms: int,
    fit: Fit,
    tell: Tell,
) -> tuple[list[PingPongRow], Curves]:
    stretches = stretches_of(drives, linking)
    field = field_of(stretches, linking)
    tell(f"{linking.name}: {len(stretches)} stretches, {int(field.counted().sum()) / 60:.0f} minutes")
    run, of_fold = run_of[field.drive], fold[field.drive]
    plain = plain_folds(field, of_fold)
    tell(f"{linking.name}: plain A3 walked {len(plain[0].names)} settings")
    ours = forecast_folds(field, run, of_fold, fit, linking.name)
    seconds = field.counted().astype(np.float64)
    by_run = np.bincount(run, seconds, minlength=int(run.max()) + 1)
    usual = _usual_outage(plain[0], seconds)
    rows = []
    plain_curves = [curve(plain, seconds, run, limits, by, 0.0) for limits, by in LIMITS]
    for delay_ms in dict.fromkeys((0, decision_delay_ms)):
        curves = [curve(ours, seconds, run, limits, by, delay_ms / 1e3) for limits, by in LIMITS]
        for at, outage in ((str(A3Setting(*USUAL)), usual), *((f"{each:.1%}", each) for each in OUTAGES)):
            rows.append(_row(linking.name, delay_ms, at, outage, plain_curves, curves, by_run))
        if delay_ms == 0:
            shown = curves[0]
    told = _curves(linking.name, stretches, plain, ours, plain_curves[0], shown, by_run)
    return rows, told


LIMITS = ((OUTAGE_LIMITS, "outage"), (HANDOVER_LIMITS, "handovers"))


def plain_folds(field: Field, of_fold: IntArray) -> list[Fold]:
    """Plain A3 of the whole grid, the same in each fold but for what it is chosen on."""
    names, parts = list[str](), list[Tally]()
    for filter_k in GRID_FILTER_KS:
        settings = [A3Setting(offset, ttt, filter_k) for offset, ttt in product(GRID_OFFSETS_DB, GRID_TTTS_MS)]
        for start in range(0, len(settings), 61):
            some = settings[start : start + 61]
            names += [str(each) for each in some]
            parts.append(replay(field, PlainA3(field, some)))
    tally = Tally.side_by_side(parts)
    return [Fold(names, tally, of_fold != number, of_fold == number) for number in range(FOLDS)]


def forecast_folds(field: Field, run: IntArray, of_fold: IntArray, fit: Fit, name: str) -> list[Fold]:
    """The policy on forecasts of each fold: scored by weights of all other runs, chosen by those of half of them."""
    pairs = pairs_.pairs_of(field)
    found = []
    for number in range(FOLDS):
        scored = of_fold == number
        tuned = ~scored & (run % 2 == 0)
        told = f"{name}, fold {number + 1} of {FOLDS}"
        learnt = {told: ~scored, f"{told}, to tune by": ~scored & ~tuned}
        answered = [scored, tuned]
        chosen = [pairs.only(np.flatnonzero(mask[pairs.stretch])) for mask in answered]
        answers = list[FloatArray]()
        for (what, mask), some in zip(learnt.items(), chosen, strict=True):
            predictor = fit(pairs_.training_set(pairs.only(np.flatnonzero(mask[pairs.stretch]))), what)
            answers += pairs_.quantiles(predictor, some)
        both = Pairs.joined(chosen)
        found.append(Fold(*_promised(field, both, answers), tuned, scored))
    return found


def _promised(field: Field, pairs: Pairs, answers: Sequence[FloatArray]) -> tuple[list[str], Tally]:
    names, parts = list[str](), list[Tally]()
    for bar_db in BARS_DB:
        for leads, promise in zip(LEADS, pairs_.promises(field, pairs, answers, bar_db, LEADS), strict=True):
            names += [f"P({bar_db:g} dB better, {leads} s) > {chance:g}" for chance in CHANCES]
            parts.append(replay(field, Promised(promise, CHANCES)))
    return names, Tally.side_by_side(parts)


def _usual_outage(plain: Fold, seconds: AnyArray) -> float:
    index = list(plain.names).index(str(A3Setting(*USUAL)))
    return float(plain.tally.outages[:, index].sum() / seconds.sum())


def _row(
    name: str, delay_ms: int, at: str, outage: float, plain: Sequence[Curve], ours: Sequence[Curve], by_run: AnyArray
) -> PingPongRow:
    """``plain`` and ``ours`` are each the curve by outage and that by handovers."""
    rates = [_rates(each[0], by_run, outage) for each in (plain, ours)]
    handovers = rates[0].handovers_per_min
    return PingPongRow(
        linking=name,
        decision_delay_ms=delay_ms,
        at=at,
        outage_ratio=outage,
        plain=rates[0],
        ours=rates[1],
        change=_span(fewer_ping_pongs(ours[0], plain[0], by_run, outage)),
        handovers_per_min=handovers,
        outage_change=_span(less_outage(ours[1], plain[1], by_run, handovers)),
    )


def _rates(each: Curve, by_run: AnyArray, outage: float) -> Rates:
    ping_pongs, handovers = at_outage(each, by_run, outage)
    nearest = int(np.abs(each.outages.sum(axis=0) / by_run.sum() - outage).argmin())
    return Rates(handovers_per_min=handovers, ping_pongs_per_min=ping_pongs, chosen=list(each.names[nearest]))


def _curves(
    name: str,
    stretches: Sequence[Stretch],
    plain: Sequence[Fold],
    ours: Sequence[Fold],
    plain_curve: Curve,
    our_curve: Curve,
    by_run: AnyArray,
) -> Curves:
    minutes = float(by_run.sum()) / 60
    recorded = recorded_of(stretches)
    return Curves(
        linking=name,
        stretches=len(stretches),
        minutes=minutes,
        radio_cells_per_min=sum(each.levels.shape[1] for each in stretches) / minutes,
        settings_plain=len(plain[0].names),
        settings_ours=len(ours[0].names),
        recorded=CurvePoint(recorded[0] / (60 * minutes), recorded[1] / minutes, recorded[2] / minutes),
        plain=_points(plain_curve, by_run),
        ours=_points(our_curve, by_run),
    )


def _points(each: Curve, by_run: AnyArray) -> list[CurvePoint]:
    whole = by_run.sum()
    columns = (each.outages / whole, 60 * each.handovers / whole, 60 * each.ping_pongs / whole)
    return [CurvePoint(*map(float, row)) for row in np.stack([part.sum(axis=0) for part in columns], axis=1)]


def _warned(
    drives: Sequence[Drive], run_of: IntArray, fold: IntArray, fits: Sequence[Fit]
) -> tuple[list[WarningRow], list[AlarmRow]]:
    chances = warning.chances_by_folds(drives, fold, FOLDS, fits)
    rows = []
    for kind, name in enumerate(warning.KINDS):
        for ahead_s in warning.AHEAD_S:
            both = [warning.scored(drives, run_of, chances, kind, ahead_s, exactly) for exactly in (False, True)]
            spans = [_span(warning.auc_by_runs(each)) for each in both]
            positives = int(both[0].positive.sum())
            seconds = len(both[0].positive)
            rows.append(
                WarningRow(
                    event=name, ahead_s=ahead_s, positives=positives, seconds=seconds, within=spans[0], exactly=spans[1]
                )
            )
    return rows, [_alarm_row(drives, run_of, fold, [warning.within(each[:, 0]) for each in chances])]


def _alarm_row(drives: Sequence[Drive], run_of: IntArray, fold: IntArray, chances: Sequence[FloatArray]) -> AlarmRow:
    runs = int(run_of.max()) + 1

    bars = []
    for number in range(FOLDS):
        other = np.flatnonzero(fold != number).tolist()
        bars.append(warning.bar_for([drives[n] for n in other], [chances[n] for n in other], ALARM_BARS))
    found = [warning.alarms(drives[n], chances[n], bars[int(fold[n])]) for n in range(len(drives))]
    sums = warning.totals(found, run_of.tolist(), runs)
    recall, precision = warning.shares(sums)
    curve = []
    for bar in ALARM_BARS:
        at_bar = [warning.alarms(drive, chance, bar) for drive, chance in zip(drives, chances, strict=True)]
        curve.append(_alarm_point(warning.totals(at_bar, run_of.tolist(), runs), bar))
    return AlarmRow(
        horizon_s=warning.HORIZON_S,
        events=int(sums[:, 0].sum()),
        chosen=_alarm_point(sums, float(np.median(bars))),
        recall=_span(recall),
        precision=_span(precision),
        lead_s=float(np.median([float(lead) for each in found for lead in each.leads_s] or [np.nan])),
        curve=curve,
    )


def _alarm_point(sums: AnyArray, bar: float) -> AlarmPoint:
    events, caught, false, seconds = sums.sum(axis=0).tolist()
    raised = caught + false
    return AlarmPoint(
        recall=caught / events if events else float("nan"),
        precision=caught / raised if raised else float("nan"),
        false_alarms_per_10_min=600 * false / seconds,
        bar=bar,
    )


def _span(found: Estimate) -> Span:
    return Span(found.value, found.low, found.high)


def write_report(result: Result) -> str:
    """The result as one HTML page."""
    from netpredict.evaluate.handover_real_report import write_report as written

    return written(result)

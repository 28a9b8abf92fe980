"""Early warning on the WMN-LAB drives: will the radio link fail, or a handover begin, within the next seconds.

A recurrent network with a sigmoid head answers, at the end of each second, the chance of an event in each of the next
five; within h seconds it is 1 - product of (1 - chance). What it sees is known at that time: levels as measured, with
marks where they are missing or an exact repeat, moves, events so far.

What counts:

- a *positive* at h is a second t with an event in t + 1 … t + h (``within``) or in t + h (``exactly``);
- *left out* are seconds in which such an event happens itself (its own row mixes before and after), seconds without a
  row, the first ``WARM_S`` of a drive and the last h, whose outcome is not known. Seconds after an event are kept;
- an *alarm* is raised in a second whose chance passes the bar while none stands; it stands until an event or for the
  horizon. It is true if an event comes in that time, else false; those cut off by the end of the drive count as
  neither. *Recall* is events for which an alarm stood over all events after the warm-up, *precision* true alarms over
  all, *false alarms* are told per 10 minutes of all recorded time after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.evaluate.bootstrap import COVERAGE, DRAWS, SEED, Estimate, estimate
from netpredict.evaluate.datasets import Period
from netpredict.evaluate.forecasting import walk
from netpredict.evaluate.handover_real_drives import LEVELS, Drive
from netpredict.forecast.predictor import Predictor
from netpredict.types import AnyArray, BoolArray, FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet

KINDS = {
    "rlf": ("rlf",),
    "handover": ("lte_handovers", "mn_handovers"),
    "nr_handover": ("nr_handovers",),
}
AHEAD_S = (1, 3, 5)
HORIZON_S = max(AHEAD_S)
WARM_S = 8
FALSE_PER_10_MIN = 1.0
AIMED_PRECISION = 0.76
"""A little above the 0.75 that are wanted: the bar is chosen on other runs than those that it is for."""
WEAK_DBM = -125.0
_RSRP = (0, 2, 4, 6, 8, 10)
_REPEATED = (0, 1, 6)  # serving RSRP and RSRQ, NR serving RSRP
_NEVER_S = 300.0
AUC_DRAWS = 200

Fit = Callable[[TrainingSet, str], Predictor]
"""Trains on a set, with a name to show."""


def inputs_of(drive: Drive) -> FloatArray:
    """(T, columns), NaN = not measured; nothing in a row is later than its second."""
    levels, events = drive.levels.astype(np.float64), drive.events.astype(np.float64)
    rsrp = levels[:, _RSRP]
    filled = np.where(np.isnan(rsrp), WEAK_DBM, rsrp)
    moving = filled[:, [0, 1, 3]]
    repeated = (levels[:, _REPEATED] == _before(levels[:, _REPEATED], 1)).astype(np.float64)
    happened = (events > 0).astype(np.float64)
    seconds = np.arange(len(events))[:, None]
    last = np.maximum.accumulate(np.where(happened > 0, seconds, -1), axis=0)
    since = np.where(last >= 0, seconds - last, _NEVER_S)
    parts = [
        *(levels, filled[:, :1] - filled[:, 1:3], filled[:, 3:4] - filled[:, 4:]),
        *(moving - np.where(np.isnan(_before(moving, k)), moving, _before(moving, k)) for k in (2, 5)),
        *(repeated, _sum_of(repeated, 3), _sum_of(np.isnan(rsrp).astype(np.float64), 5)),
        *(happened, *(np.log1p(_sum_of(events, span)) for span in (3, 10, 30))),
        *(np.log1p(since), np.log1p(np.cumsum(events, axis=0)), ~drive.recorded[:, None]),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _before(values: AnyArray, steps: int) -> AnyArray:
    shifted = np.full_like(values, np.nan)
    shifted[steps:] = values[:-steps]
    return shifted


def _sum_of(values: AnyArray, span: int) -> AnyArray:
    """Over the last ``span`` rows, this one included."""
    total = np.cumsum(np.concatenate([np.zeros((span, values.shape[1])), values]), axis=0)
    summed: AnyArray = total[span:] - total[:-span]
    return summed


def features_of(columns: int) -> FeatureSpec:
    """The inputs, and for each kind a column that stands at 0: the head starts from the logit of its last value."""
    return FeatureSpec((*LEVELS, *(f"input_{n}" for n in range(len(LEVELS), columns)), *KINDS), 1_000_000)


OUTPUT = OutputSpec(tuple(KINDS), HORIZON_S, (0.1, 0.5, 0.9))


def happened(drive: Drive) -> BoolArray:
    """(T, kinds)."""
    return np.stack([drive.happened(*events) for events in KINDS.values()], axis=1)


def laid_out(drives: Sequence[Drive]) -> TrainingSet:
    """Drives as series of one length; nothing is known of seconds without a row, nor beyond the end."""
    inputs = [inputs_of(each) for each in drives]
    steps, columns = max(len(each) for each in inputs) + HORIZON_S, inputs[0].shape[1]
    values = np.full((len(drives), steps, columns + len(KINDS)), np.nan, np.float32)
    truth = np.full((len(drives), steps, len(KINDS)), np.nan, np.float32)
    for row, (drive, each) in enumerate(zip(drives, inputs, strict=True)):
        values[row, : len(each), :columns], values[row, : len(each), columns:] = each, 0.0
        truth[row, : len(each)] = np.where(drive.recorded[:, None], happened(drive), np.nan)
    first_slot = np.zeros(len(drives), np.int64)
    names = [each.name for each in drives]
    return TrainingSet(features_of(columns), OUTPUT, values, first_slot, steps, names, truth)


def chances_of(predictor: Predictor, drives: Sequence[Drive]) -> list[FloatArray]:
    """Chance of each kind in each of the next seconds, (T, kinds, leads) of each drive."""
    whole = laid_out(drives)
    period = Period("drives", whole, whole.values[:0], whole.values, whole.first_slot, 0, whole.values.shape[1], 0)
    answers = walk(predictor, whole.features, period, 0)[..., 1]
    return [answers[: len(each.recorded), row] for row, each in enumerate(drives)]


def chances_by_folds(drives: Sequence[Drive], fold: IntArray, folds: int, fits: Sequence[Fit]) -> list[FloatArray]:
    """Each drive by weights of the other folds: the mean of what the ``fits`` give."""
    found: dict[int, FloatArray] = {}
    for number in range(folds):
        train, test = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        learnt, told = laid_out([drives[index] for index in train]), f"early warning, fold {number + 1} of {folds}"
        scored = [drives[index] for index in test]
        answers = [chances_of(fit(learnt, told), scored) for fit in fits]
        found |= {index: np.mean(each, axis=0) for index, each in zip(test, zip(*answers, strict=True), strict=True)}
    return [found[index] for index in range(len(drives))]


def within(chances: FloatArray) -> FloatArray:
    """Chance of at least one in the seconds of the last axis."""
    answer: FloatArray = 1.0 - np.prod(1.0 - chances, axis=-1)
    return answer


@dataclass(frozen=True, slots=True)
class Scored:
    """Seconds that count, of all drives: their run, chance, and whether it was one."""

    run: IntArray
    chance: FloatArray
    positive: BoolArray


def scored(
    drives: Sequence[Drive], run: IntArray, chances: Sequence[FloatArray], kind: int, ahead_s: int, exactly: bool
) -> Scored:
    """See the top of the module for what is left out."""
    parts = []
    for drive, number, each in zip(drives, run.tolist(), chances, strict=True):
        event = happened(drive)[:, kind]
        counts = drive.recorded & ~event
        counts[:WARM_S], counts[len(event) - ahead_s :] = False, False
        ahead = [np.append(event[step:], np.zeros(step, np.bool_)) for step in range(1, ahead_s + 1)]
        positive = ahead[-1] if exactly else np.any(ahead, axis=0)
        chance = each[:, kind, ahead_s - 1] if exactly else within(each[:, kind, :ahead_s])
        parts.append((np.full(counts.sum(), number), chance[counts], positive[counts]))
    return Scored(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def auc(chance: AnyArray, positive: BoolArray, weight: AnyArray | None = None) -> float:
    """Area under the receiver's curve: P(a positive stands above a negative), ties count half; NaN without either."""
    weights = np.ones(len(chance)) if weight is None else weight
    _, place = np.unique(chance, return_inverse=True)
    hit, miss = (np.bincount(place, weights * side, minlength=place.max() + 1) for side in (positive, ~positive))
    under = np.cumsum(miss) - 0.5 * miss
    total = hit.sum() * miss.sum()
    return float((hit * under).sum() / total) if total else float("nan")


def auc_by_runs(each: Scored) -> Estimate:
    """With an interval by drawing whole runs."""
    runs = int(each.run.max()) + 1
    draws = np.random.default_rng(SEED).multinomial(runs, np.full(runs, 1 / runs), size=AUC_DRAWS)
    order = np.argsort(each.chance, kind="stable")
    chance, positive, run = each.chance[order], each.positive[order], each.run[order]
    drawn = np.array([auc(chance, positive, draw[run].astype(np.float64)) for draw in draws])
    known, tail = drawn[np.isfinite(drawn)], 0.5 - COVERAGE / 2
    low, high = np.quantile(known, (tail, 1 - tail)) if known.size else (np.nan, np.nan)
    return Estimate(auc(chance, positive), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Alarms:
    """Of one drive at one bar; ``leads_s`` from each true alarm to its event."""

    events: int
    caught: int
    false: int
    seconds: int
    leads_s: Sequence[int]


def alarms(drive: Drive, chance: FloatArray, bar: float) -> Alarms:
    """Walk one drive by ``chance`` (T,) of a radio-link failure within ``HORIZON_S``."""
    event = drive.happened("rlf")
    times = np.flatnonzero(event)
    may = np.flatnonzero(drive.recorded & ~event & (chance > bar))
    second, caught, false, leads = WARM_S, 0, 0, list[int]()
    while (at := int(np.searchsorted(may, second))) < len(may):
        raised = int(may[at])
        ahead = int(np.searchsorted(times, raised))
        if ahead < len(times) and times[ahead] <= raised + HORIZON_S:
            caught, second = caught + 1, int(times[ahead]) + 1
            leads.append(int(times[ahead]) - raised)
        else:
            false += raised + HORIZON_S < len(event)
            second = raised + HORIZON_S + 1
    return Alarms(int((times > WARM_S).sum()), caught, false, int(drive.recorded[WARM_S:].sum()), leads)


def totals(found: Sequence[Alarms], run: Sequence[int], runs: int) -> AnyArray:
    """Events, caught, false alarms and seconds by run, (runs, 4)."""
    sums = np.zeros((runs, 4))
    for each, number in zip(found, run, strict=True):
        sums[number] += (each.events, each.caught, each.false, each.seconds)
    return sums


def bar_for(drives: Sequence[Drive], chances: Sequence[FloatArray], bars: Sequence[float]) -> float:
    """The lowest of the bars that keeps both bounds on these drives: at most ``FALSE_PER_10_MIN``, and of the alarms at
    least ``AIMED_PRECISION`` true; the highest where none does.
    """
    for bar in sorted(bars):
        found = [alarms(drive, chance, bar) for drive, chance in zip(drives, chances, strict=True)]
        caught, false = sum(each.caught for each in found), sum(each.false for each in found)
        rare = 600 * false <= FALSE_PER_10_MIN * sum(each.seconds for each in found)
        if rare and caught >= AIMED_PRECISION * (caught + false):
            return bar
    return max(bars)


def shares(sums: AnyArray) -> tuple[Estimate, Estimate]:
    """Recall and precision with intervals by drawing whole runs, of ``totals``."""
    recall = estimate(sums, lambda part: part[:, 1] / part[:, 0], DRAWS)
    precision = estimate(sums, lambda part: part[:, 1] / (part[:, 1] + part[:, 2]), DRAWS)
    return recall, precision

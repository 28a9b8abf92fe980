"""Predictors trained on the same split and scored on the same forecasts, with what each cost."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np

from netpredict.errors import ConfigError, PluginError
from netpredict.evaluate.cases import Case
from netpredict.evaluate.rolling import Rolled, issue_steps, roll
from netpredict.plugins import Plugin, load, options_of
from netpredict.types import AnyArray, FloatArray, TrainingReport

VERSIONS_OF = ("netpredict", "tensorflow", "keras", "numpy", "plotly")
EXAMPLES = 3
LEAST_BLOCK_STEPS = 20
"""Errors of neighbouring issue times are not independent: they are compared in blocks at least so long."""

Told = Callable[[str, int, int, float, float, float], None]
"""Called after each train_epoch with the predictor, done and total, loss, validation loss, time left in s."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Of n forecasts: errors in the KPI's unit, ``skill`` = 1 - mae / naive_mae, ``coverage`` of the outer levels."""

    n: int
    mae: float
    rmse: float
    pinball: float
    naive_mae: float
    skill: float | None
    coverage: float


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One predictor. What has nothing to train took no time, and has no losses and no weights."""

    predictor: str
    options: dict[str, Any]
    weights: int
    training_s: float
    train_epoch_s: list[float]
    train_epoch_processor_s: list[float]
    loss: list[float]
    validation_loss: list[float]
    forecast_us: float
    overall: Score
    by_lead: list[Score]

    @property
    def usual_train_epoch_s(self) -> float | None:
        """The median over train_epochs but the first, in which graphs are built."""
        return _usual(self.train_epoch_s)

    @property
    def usual_train_epoch_processor_s(self) -> float | None:
        """The same of the processor's time over all threads, which a busy machine disturbs less."""
        return _usual(self.train_epoch_processor_s)


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One issue time of one series: ``truth`` from ``truth_from`` steps before it on, and what each predictor said.

    ``rollout[predictor]`` are one-step forecasts fed back; ``ahead[predictor]`` the levels of each lead of the one
    forecast issued then. Missing values are null.
    """

    series: str
    issued_at_us: int
    truth_from: int
    truth: list[float]
    rollout: dict[str, list[float]]
    ahead: dict[str, list[list[float]]]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The least mean absolute error, the next, and their difference with its standard error over blocks of time."""

    best: str
    second: str | None
    difference: float | None
    standard_error: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than two standard errors."""
        return self.difference is not None and self.standard_error is not None and (
            self.difference > 2 * self.standard_error
        )  # fmt: skip


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that the report shows; JSON as it stands. Entries by rising mean absolute error."""

    case: str
    about: str
    kpi: str
    unit: str
    period_s: float
    horizon_steps: int
    levels: list[float]
    seed: int
    series: list[str]
    steps: int
    values: int
    validation_from: int
    scored_from: int
    span_us: tuple[int, int]
    least_mae: float | None
    verdict: Verdict
    entries: list[Entry]
    examples: list[Example]
    versions: dict[str, str]
    machine: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What every trainable predictor is told, where its plugin knows the option."""

    seed: int = 1
    units: int = 32
    train_epochs: int = 15

    def options(self, plugin: Plugin) -> dict[str, Any]:
        """Those of these that the plugin has."""
        known = {field.encode_name for field in msgspec.structs.fields(plugin.options)}
        given = {"seed": self.seed, "units": self.units, "train_epochs": self.train_epochs}
        return {name: value for name, value in given.items() if name in known}


def _usual(train_epoch_s: Sequence[float]) -> float | None:
    later = train_epoch_s[1:] or train_epoch_s
    return float(np.median(later)) if later else None


def compare(case: Case, predictors: Sequence[str], asked: Asked, told: Told) -> Comparison:
    """Train, forecast and score each; PluginError or ConfigError before any work when one cannot be compared."""
    if len(set(predictors)) != len(predictors) or not predictors:
        raise ConfigError(f"--predictors: name some predictors, each once, not {', '.join(predictors) or 'nothing'}")
    plugins = {name: load("predictors", name) for name in predictors}
    built = {name: _build(plugin, case, asked) for name, plugin in plugins.items()}
    whole, steps = case.whole, issue_steps(case.values[:, :, 0], case.scored_from, _rollout_steps(case), EXAMPLES)
    trained = {name: _train(name, plugins[name], predictor, case, told) for name, predictor in built.items()}
    rolled = {name: roll(predictor, whole, steps, _rollout_steps(case)) for name, predictor in built.items()}
    judged = _judge(case, rolled)
    entries = [_entry(case, asked, plugins[name], built[name], trained[name], rolled[name], judged) for name in plugins]
    entries.sort(key=lambda entry: entry.overall.mae)
    return Comparison(
        case=case.name,
        about=case.about,
        kpi=case.kpi,
        unit=case.unit,
        period_s=whole.features.period_us / 1e6,
        horizon_steps=whole.output.horizon_steps,
        levels=list(whole.output.levels),
        seed=asked.seed,
        series=list(whole.series_names),
        steps=whole.values.shape[1],
        values=int(np.isfinite(whole.values).sum()),
        validation_from=case.training.validation_from,
        scored_from=case.scored_from,
        span_us=_span_us(case),
        least_mae=case.least_mae,
        verdict=_verdict(entries, judged),
        entries=entries,
        examples=[_example(case, rolled, place, steps[place]) for place in range(len(steps))],
        versions={"python": platform.python_version(), **{name: version(name) for name in VERSIONS_OF}},
        machine=f"{platform.machine()}, {os.cpu_count()} processors",
    )


def _build(plugin: Plugin, case: Case, asked: Asked) -> Any:
    options = options_of(plugin, asked.options(plugin), f"options of {plugin.name}")
    return plugin.build(options, case.training.features, case.training.output)


def _rollout_steps(case: Case) -> int:
    """Beyond the horizon, as far as the scored part lets three examples go."""
    room = (int(case.values.shape[1]) - case.scored_from) // 2
    return max(case.training.output.horizon_steps, min(4 * case.training.output.horizon_steps, room, 120))


def _train(name: str, plugin: Plugin, predictor: Any, case: Case, told: Told) -> tuple[TrainingReport, AnyArray]:
    """The report, and of each train_epoch the time by the wall and by the processor, s (train_epochs, 2)."""
    if not plugin.trainable:
        return TrainingReport(0, 0.0, [], []), np.empty((0, 2))
    stamps = [(time.monotonic(), time.process_time())]

    def progress(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
        stamps.append((time.monotonic(), time.process_time()))
        told(name, done, total, loss, validation_loss, left_s)

    return predictor.fit(case.training, progress), np.diff(np.array(stamps), axis=0)


@dataclass(frozen=True, slots=True)
class _Judged:
    """Truth and naive's answer (S, T', horizon) of each scored forecast, and where all predictors answered."""

    truth: FloatArray
    naive: FloatArray
    counts: AnyArray
    errors: dict[str, AnyArray]


def _judge(case: Case, rolled: Mapping[str, Rolled]) -> _Judged:
    values, horizon = case.values[:, :, 0], case.training.output.horizon_steps
    padded = np.concatenate([values, np.full((len(values), horizon), np.nan, np.float32)], axis=1)
    issued = range(case.scored_from, values.shape[1] - 1)
    truth = np.stack([padded[:, step + 1 : step + 1 + horizon] for step in issued], axis=1)
    naive = np.repeat(_last_known(values)[:, issued.start : issued.stop, None], horizon, axis=2)
    counts = np.isfinite(truth) & np.isfinite(naive)
    for one in rolled.values():
        counts &= np.isfinite(one.answers).all(axis=-1)
    if not counts.any():
        raise PluginError(f"{case.name}: nothing can be scored: no forecast of all predictors has a truth")
    middle = _middle(case)
    errors = {name: np.where(counts, np.abs(truth - one.answers[..., middle]), 0.0) for name, one in rolled.items()}
    return _Judged(truth, naive, counts, errors)


def _last_known(values: FloatArray) -> FloatArray:
    """Each value, or the last one before it."""
    place = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(values.shape[1]), 0), axis=1)
    known: FloatArray = np.take_along_axis(values, place, axis=1)
    return known


def _middle(case: Case) -> int:
    return case.training.output.levels.index(0.5)


def _entry(
    case: Case,
    asked: Asked,
    plugin: Plugin,
    predictor: Any,
    trained: tuple[TrainingReport, AnyArray],
    rolled: Rolled,
    judged: _Judged,
) -> Entry:
    report, times_s = trained
    leads = range(case.training.output.horizon_steps)
    return Entry(
        predictor=plugin.name,
        options=msgspec.to_builtins(options_of(plugin, asked.options(plugin), plugin.name)),
        weights=sum(int(np.size(array)) for array in predictor.weights().values()) if plugin.trainable else 0,
        training_s=report.training_s,
        train_epoch_s=times_s[:, 0].tolist(),
        train_epoch_processor_s=times_s[:, 1].tolist(),
        loss=list(report.loss),
        validation_loss=list(report.validation_loss),
        forecast_us=rolled.forecast_us,
        overall=_score(case, rolled.answers, judged, slice(None)),
        by_lead=[_score(case, rolled.answers, judged, slice(lead, lead + 1)) for lead in leads],
    )


def _score(case: Case, answers: FloatArray, judged: _Judged, leads: slice) -> Score:
    counts = judged.counts[:, :, leads]
    truth, naive, answer = (
        part[:, :, leads][counts].astype(np.float64) for part in (judged.truth, judged.naive, answers)
    )
    if not len(truth):
        raise PluginError(f"{case.name}: no truth {leads.start + 1} steps ahead; take a shorter horizon")
    levels = np.asarray(case.training.output.levels)
    off = truth[:, None] - answer
    mae, naive_mae = float(np.abs(off[:, _middle(case)]).mean()), float(np.abs(truth - naive).mean())
    return Score(
        n=len(truth),
        mae=mae,
        rmse=math.sqrt(float(np.square(off[:, _middle(case)]).mean())),
        pinball=float(np.maximum(levels * off, (levels - 1) * off).mean()),
        naive_mae=naive_mae,
        skill=1 - mae / naive_mae if naive_mae else None,
        coverage=float(((truth >= answer[:, 0]) & (truth <= answer[:, -1])).mean()),
    )


def _verdict(entries: Sequence[Entry], judged: _Judged) -> Verdict:
    best = entries[0].predictor
    if len(entries) == 1:
        return Verdict(best=best, second=None, difference=None, standard_error=None)
    second = entries[1].predictor
    n = judged.counts.sum(axis=(0, 2)).astype(np.float64)
    gained = (judged.errors[second] - judged.errors[best]).sum(axis=(0, 2))
    difference = float(gained.sum() / n.sum())
    length = max(LEAST_BLOCK_STEPS, judged.truth.shape[2])
    blocks = np.arange(len(n)) // length
    off = np.bincount(blocks, gained) - difference * np.bincount(blocks, n)
    count = len(off)
    error = math.sqrt(count / (count - 1) * float(np.square(off).sum())) / float(n.sum()) if count > 1 else None
    return Verdict(best=best, second=second, difference=difference, standard_error=error)


def _example(case: Case, rolled: Mapping[str, Rolled], place: int, issue: tuple[int, int]) -> Example:
    row, step = issue
    length = _rollout_steps(case)
    first = max(0, step - length // 2)
    whole = case.whole
    period_us = whole.features.period_us
    return Example(
        series=str(whole.series_names[row]),
        issued_at_us=(int(whole.first_slot[row]) + step) * period_us,
        truth_from=first - step,
        truth=[float(value) for value in case.values[row, first : step + 1 + length, 0]],
        rollout={name: one.rollouts[place].tolist() for name, one in rolled.items()},
        ahead={name: one.answers[row, step - case.scored_from].tolist() for name, one in rolled.items()},
    )


def _span_us(case: Case) -> tuple[int, int]:
    first, steps, period_us = case.training.first_slot, case.values.shape[1], case.training.features.period_us
    return int(first.min()) * period_us, (int(first.max()) + steps) * period_us

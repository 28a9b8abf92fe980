"""One training in this process: plugin by name, history in, artefact out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from netpredict import plugins
from netpredict.errors import PluginError
from netpredict.forecast.predictor import Trainable
from netpredict.learn import hindsight
from netpredict.learn.dataset import mase_scales
from netpredict.learn.evaluate import held_out
from netpredict.learn.registry import Artefact, Trained, save_artefact
from netpredict.types import Progress, TrainingReport, TrainingSet

LOSS_CURVE = "loss_curve.png"


def train(
    dataset: TrainingSet,
    plugin_name: str,
    options: Mapping[str, Any],
    folder: Path,
    *,
    now_us: int,
    progress: Progress | None = None,
) -> tuple[Artefact, TrainingReport]:
    """Train, save to ``folder`` and say how it went; ConfigError before any work when plugin or options do not fit."""
    plugin = plugins.load("predictors", plugin_name)
    if not plugin.trainable:
        raise PluginError(f"predictor {plugin_name!r} has nothing to train")
    decoded = plugins.options_of(plugin, dict(options), f"options of {plugin_name}")
    predictor: Trainable = plugin.build(decoded, dataset.features, dataset.output)

    def fit(lesson: TrainingSet, told: Progress | None) -> tuple[Trainable, TrainingReport]:
        fresh: Trainable = plugin.build(decoded, lesson.features, lesson.output)
        return fresh, fresh.fit(lesson, told)

    if dataset.hindsight is None:
        report = predictor.fit(dataset, progress)
    else:
        predictor, report = _in_hindsight(dataset, fit, progress)
    report = replace(report, scores={**report.scores, **mase_scales(dataset)})
    trained = Trained(
        predictor=plugin_name,
        options=msgspec.to_builtins(decoded),
        features=dataset.features,
        output=dataset.output,
        weights=predictor.weights(),
        report=report,
        window_us=window_us(dataset),
        trained_at_us=now_us,
        seed=int(getattr(decoded, "seed", 0)),
    )
    return save_artefact(folder, trained, lambda draft: draw_loss(draft / LOSS_CURVE, plugin_name, report)), report


def _in_hindsight(
    dataset: TrainingSet,
    fit: Callable[[TrainingSet, Progress | None], tuple[Trainable, TrainingReport]],
    progress: Progress | None,
) -> tuple[Trainable, TrainingReport]:
    """Scores are of the held-out slice, for the pieces that are taught have none; the time is that of all rounds."""
    settings, times_s = dataset.hindsight, list[float]()
    assert settings is not None

    def fit_of_round(lesson: TrainingSet) -> tuple[Trainable, TrainingReport]:
        told = None if progress is None else _of_all_rounds(progress, len(times_s), settings.rounds)
        predictor, report = fit(lesson, told)
        times_s.append(report.training_s)
        return predictor, report

    predictor, report = hindsight.taught(dataset, settings, fit_of_round)
    scores = held_out(predictor, hindsight.labelled(dataset, predictor))
    return predictor, replace(report, scores=scores, training_s=sum(times_s))


def _of_all_rounds(progress: Progress, before: int, rounds: int) -> Progress:
    """The progress of a round, with ``before`` behind it, as that of all: each of them takes as long as the others."""

    def told(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
        whole = rounds * total
        behind = before * total + done
        of_round = left_s / (total - done) if done < total else 0.0
        progress(behind, whole, loss, validation_loss, (whole - behind) * of_round)

    return told


def window_us(dataset: TrainingSet) -> tuple[int, int]:
    """Time of the first slot of any series, and of the end of the last one."""
    period_us, steps = dataset.features.period_us, dataset.values.shape[1]
    return int(dataset.first_slot.min()) * period_us, (int(dataset.first_slot.max()) + steps) * period_us


def draw_loss(path: Path, title: str, report: TrainingReport) -> None:
    """The losses by train_epoch, as a picture without a display and without a date."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    train_epochs = range(1, report.train_epochs + 1)
    axes.plot(train_epochs, report.loss, marker=".", label="training")
    axes.plot(train_epochs, report.validation_loss, marker=".", label="validation")
    axes.set_xlabel("train_epoch")
    axes.set_ylabel("loss")
    axes.set_title(title)
    axes.legend()
    figure.savefig(path, metadata={"Software": None})

"""``netpredict backtest --protocol published``: a predictor trained by folds and scored as the published table was."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from netpredict.cli.terminal import print_json, print_table, progress, say
from netpredict.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from rich.progress import Progress

    from netpredict.evaluate.published import Recording, Result, Table
    from netpredict.forecast.predictor import Trainable
    from netpredict.traces.trace import Trace
    from netpredict.types import TrainingSet

DATASET = "ucc5g"
PREDICTOR = "gru"
FOLDS = 5
RECIPE: dict[str, Any] = {
    "units": 64,
    "head_units": 64,
    "inputs": "history",
    "lags": 12,
    "calendar": False,
    "mixture": True,
    "round_to_grain": True,
    "learning_rate": 0.003,
    "schedule": "cosine",
    "final_rate_ratio": 0.02,
    "train_epochs": 10,
    "minibatch_size": 14,
    "bptt_steps": 240,
}
"""Found on held-out training traces; docs of the protocol tell what else was tried."""


def backtest_published(
    dataset: str | None, limit_traces: int | None, predictor: str, options: Path | None, folds: int, as_json: bool
) -> None:
    """Train by folds, score, print."""
    if dataset != DATASET:
        raise typer.BadParameter(f"the published protocol is that of {DATASET}", param_hint="--dataset")
    from netpredict.evaluate import published
    from netpredict.traces.datasets import data_folder

    folder = data_folder() / DATASET
    chosen = RECIPE if options is None else _read_options(options)
    fit = _fitting(predictor, chosen, folds)
    started_s = time.monotonic()
    result = published.run(read_recordings(folder, limit_traces), fit, folds)
    told = {
        "dataset": dataset,
        "protocol": "published",
        "predictor": predictor,
        "options": chosen,
        "took_s": round(time.monotonic() - started_s, 1),
        **_document(result),
        "published": list(published.published_rows(folder)),
    }
    if as_json:
        print_json(told)
    else:
        _print(told)


def read_recordings(folder: Path, limit_traces: int | None) -> list[Recording]:
    """The traces on their grids; -200 dBm and its like are values here, as they are in the published table."""
    from netpredict.traces import ucc5g

    names = None if limit_traces is None else spread_over_groups(folder, limit_traces)
    return [_recording(trace) for trace in ucc5g.read(folder, keep_sentinels=True, names=names)]


def spread_over_groups(folder: Path, limit: int) -> set[str]:
    """The first traces of every group in turn: the folds need some of each."""
    from netpredict.traces import ucc5g

    by_group: dict[str, list[str]] = {}
    for name, group in ucc5g.list_traces(folder):
        by_group.setdefault(group, []).append(name)
    ranked = sorted((rank, name) for names in by_group.values() for rank, name in enumerate(names))
    return {name for _, name in ranked[:limit]}


def _recording(trace: Trace) -> Recording:
    from netpredict.evaluate import published

    frame = trace.frame
    second = frame["event_time_us"].to_numpy() // published.FEATURES.period_us
    return published.recording(trace.name, str(trace.group), second, frame[list(published.KPIS)].to_numpy())


def _read_options(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _fitting(name: str, options: Mapping[str, Any], folds: int) -> Callable[[TrainingSet, int], Trainable]:
    """Builds the predictor as the daemon's training does, and trains it; one bar a fold on stderr."""
    from netpredict import plugins

    plugin = plugins.load("predictors", name)
    if not plugin.trainable:
        raise PluginError(f"predictor {name!r} has nothing to train; the naive forecast stands beside every row anyway")
    decoded = plugins.options_of(plugin, dict(options), f"options of {name}")

    def fit(dataset: TrainingSet, fold: int) -> Trainable:
        predictor: Trainable = plugin.build(decoded, dataset.features, dataset.output)
        began_s = time.monotonic()
        with _bar() as shown:
            task = shown.add_task(f"fold {fold + 1} of {folds}: {name}", total=None, losses="")

            def step(done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
                took_s = time.monotonic() - began_s
                all_left_s = left_s + (folds - fold - 1) * took_s * total / done
                told = f"loss {loss:.4f}, {left_s:.0f} s left, {all_left_s:.0f} s in all"
                shown.update(task, completed=done, total=total, losses=told)

            report = predictor.fit(dataset, step)
        say(f"fold {fold + 1} of {folds}: {report.train_epochs} train_epochs in {report.training_s:.0f} s")
        return predictor

    return fit


def _bar() -> Progress:
    from rich.progress import BarColumn, TextColumn

    text = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[losses]}", markup=False)
    return progress(text[0], BarColumn(), text[1])


def _document(result: Result) -> dict[str, Any]:
    return {
        "traces": result.traces,
        "folds": result.folds,
        "mean_skill": result.table.mean_skill,
        "rows": [asdict(row) for row in result.table.rows],
        "skill_by_lead": _by_lead(result.table),
        "reset_mean_skill": result.reset.mean_skill,
        "reset_rows": [asdict(row) for row in result.reset.rows],
        "reset_skill_by_lead": _by_lead(result.reset),
    }


def _by_lead(table: Table) -> list[dict[str, float]]:
    return [{"lead": lead, "skill": skill} for lead, skill in enumerate(table.skill_by_lead, start=1)]


def _print(told: Mapping[str, Any]) -> None:
    best = _best_published(told["published"])
    reset = {(row["kpi"], row["group"]): row["skill"] for row in told["reset_rows"]}
    rows = []
    for row in told["rows"]:
        at = row["kpi"], row["group"]
        model, mae = best.get(at, ("", float("nan")))
        figures = [f"{row[name]:.4f}" for name in ("mae", "rmse", "naive_mae")]
        rows.append([*at, *figures, f"{row['skill']:.1%}", f"{reset[at]:.1%}", f"{mae:.4f}", model])
    title = (
        f"{told['predictor']} on {told['dataset']}, published protocol: "
        f"{told['traces']} traces, {told['folds']} of {FOLDS} folds\n"
        f"mean skill {told['mean_skill']:.2%} against the causal naive forecast, "
        f"{told['reset_mean_skill']:.2%} with the state set back 50 samples before each issue"
    )
    columns = ["kpi", "group", "mae", "rmse", "naive_mae", "skill", "skill, set back", "best published mae", "by"]
    print_table(title, columns, rows)
    leads = [[f"{lead['lead']} s", f"{lead['skill']:.1%}"] for lead in told["skill_by_lead"]]
    print_table("Mean skill by lead time", ["lead", "skill"], leads)


def _best_published(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, float]]:
    best: dict[tuple[str, str], tuple[str, float]] = {}
    for row in rows:
        at = row["kpi"], row["group"]
        if at not in best or row["mae"] < best[at][1]:
            best[at] = row["model"], row["mae"]
    return best

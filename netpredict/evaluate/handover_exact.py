"""The handover hook where the RSRP of every radio cell is known, and so what becomes of a choice: on ns3-uma.

``handover_simulated`` gives it scenes of ``netpredict simulate`` instead.

Everything is chosen on seed 1: the plain settings, the weights (all UEs, also walked backwards), the price at which
they are taught, and the prices that are acted on (on forecasts of one half of the UEs by weights of the other half).
Seed 2 is scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from netpredict import plugins
from netpredict.errors import DataError
from netpredict.evaluate.handover_compare import Change, Front, Point, least_failures, point
from netpredict.evaluate.handover_labels import World, backwards, world_of
from netpredict.evaluate.handover_model import Counts, PlainA3, walk
from netpredict.evaluate.handover_policy import (
    PIECE_STEPS,
    CostRule,
    Fit,
    Prices,
    first_guess,
    forecasts,
    improved,
    training_set,
)
from netpredict.evaluate.handover_result import Choice, Result, Scene
from netpredict.evaluate.handover_wish import SceneSource, Table, Tell, Wish
from netpredict.forecast.predictor import Predictor, Trainable
from netpredict.traces import ns3_uma
from netpredict.types import FloatArray, IntArray, TrainingSet

FILTER_KS = (0, 1, 2, 3, 4, 6, 8)
OFFSETS_DB = tuple(half / 2 for half in range(17))
TTTS_MS = (0, 40, 80, 160, 256, 320, 480, 640)
PING_PONGS = 0.5
"""Per UE-minute, at most: what plain A3 and ours are chosen within."""
HANDOVER_PRICES = (
    0.02,
    0.03,
    0.04,
    0.05,
    0.06,
    0.07,
    0.08,
    0.09,
    0.1,
    0.11,
    0.12,
    0.13,
    0.14,
    0.16,
    0.18,
    0.2,
    0.24,
    0.3,
)
BACK_PRICES = (0.0, 0.05, 0.1, 0.2)
PRICES = [Prices(handover, back) for back in BACK_PRICES for handover in HANDOVER_PRICES]
TAUGHT_PRICE = (0.05, 0.15)
"""Bounds of what a handover costs in the targets; between them it is what plain A3 pays for one failure less."""
ROUNDS = 3
PREDICTOR = "gru"
RECIPE: dict[str, Any] = {
    "loss": "mse",
    "inputs": "history",
    "calendar": False,
    "lags": 2,
    "mean_half_lives": (2.0, 6.0),
    "move_half_lives": (4.0,),
    "units": 48,
    "head_units": 32,
    "schedule": "cosine",
    "final_rate_ratio": 0.05,
    "learning_rate": 0.004,
    "train_epochs": 6,
    "patience": 10_000,
    "minibatch_size": 96,
    "bptt_steps": PIECE_STEPS,
}


def run(folder: Path, wish: Wish, tell: Tell) -> Result:
    """Train and choose on seed 1, score on seed 2."""
    return run_on(ns3_uma, folder, wish, tell)


def run_on(source: SceneSource, folder: Path, wish: Wish, tell: Tell) -> Result:
    """The same on scenes of another source."""
    names = wish.scenes or source.SCENES
    if unknown := [name for name in names if name not in source.SCENES]:
        raise DataError(f"there is no scene {', '.join(unknown)}: take {', '.join(source.SCENES)}")
    if wish.decision_delay_ms % ns3_uma.PERIOD_MS:
        raise DataError(f"decision_delay_ms = {wish.decision_delay_ms} is not a multiple of {ns3_uma.PERIOD_MS}")
    recipe = RECIPE | ({} if wish.train_epochs is None else {"train_epochs": wish.train_epochs})
    read = partial(source.read, folder)
    scenes = [_scene(read, name, wish, _fitting(recipe, name, tell), tell) for name in names]
    return Result(
        dataset=source.NAME,
        predictor=PREDICTOR,
        options=recipe,
        rounds=ROUNDS,
        plain_settings=len(_plain_names()),
        scenes=scenes,
    )


def _fitting(recipe: dict[str, Any], scene: str, tell: Tell) -> Fit:
    """Builds and trains the predictor as the daemon does."""
    plugin = plugins.load("predictors", PREDICTOR)
    decoded = plugins.options_of(plugin, recipe, f"options of {PREDICTOR}")

    def fit(dataset: TrainingSet, name: str) -> Predictor:
        predictor: Trainable = plugin.build(decoded, dataset.features, dataset.output)
        report = predictor.fit(dataset, None)
        told = f"{report.train_epochs} train_epochs in {report.training_s:.0f} s, loss {report.loss[-1]:.4f}"
        tell(f"{scene}, {name}: {len(dataset.values)} pieces, {told}")
        return predictor

    return fit


def _scene(read: Callable[[str, int], ns3_uma.Scene], name: str, wish: Wish, fit: Fit, tell: Tell) -> Scene:
    learnt, scored = (world_of(read(name, seed).first(wish.limit_traces)) for seed in (1, 2))
    plain, plain_scored = _plain(learnt), _plain(scored)
    tell(f"{name}: plain A3 walked in {len(_plain_names())} settings")
    price = taught_price(plain)
    periods_late = wish.decision_delay_ms // ns3_uma.PERIOD_MS
    worlds = [learnt, world_of(backwards(learnt.scene))]
    predictor, lesson = improved(worlds, fit, price, ROUNDS, 1 + periods_late)
    ues = np.arange(learnt.radio.ues)
    first, second = np.array_split(ues, 2)
    tuned = learnt.of(second)
    halved = fit(training_set(lesson.of(first), 1 + periods_late), "half of the UEs, to tune by")
    by_half, by_all = forecasts(halved, tuned), forecasts(predictor, scored)
    fronts = {which: Front(_plain_names(), plain, plain_scored, which) for which in ("ping_pongs", "handovers")}
    counts = {late: _walked(scored, by_all, late) for late in sorted({0, periods_late})}
    choices = []
    for late, ours in counts.items():
        inner = _walked(tuned, by_half, late)
        for aim, ping_pongs, handovers in _aims(plain, second):
            best = least_failures(inner, ping_pongs, handovers)
            choices.append(_choice(aim, late, ours, best, fronts))
    return Scene(
        name=name,
        speed_kmh=scored.scene.speed_kmh,
        ue_minutes=plain_scored.minutes * len(ues),
        taught_price=price,
        plain=point(_plain_names()[at := least_failures(plain, PING_PONGS)], plain_scored, at),
        choices=choices,
        front_by_ping_pongs=_points(fronts["ping_pongs"], plain_scored),
        front_by_handovers=_points(fronts["handovers"], plain_scored),
        curve=[point(_named(each), counts[0], index) for index, each in enumerate(PRICES)],
    )


def _plain(world: World) -> Counts:
    return walk(world.radio, PlainA3(world.measured_dbm, FILTER_KS, OFFSETS_DB, TTTS_MS))


def _plain_names() -> list[str]:
    return [f"k {k}, {offset:g} dB, {ttt} ms" for k in FILTER_KS for offset in OFFSETS_DB for ttt in TTTS_MS]


def _aims(plain: Counts, ues: IntArray) -> Iterator[tuple[str, float, float]]:
    """What our prices are chosen for: limits of ping-pongs and of handovers, those of the best plain setting."""
    at = least_failures(plain, PING_PONGS)
    handovers = float(plain.handovers[at, ues].mean() / plain.minutes)
    yield "few ping-pongs", PING_PONGS, np.inf
    yield "few handovers", np.inf, handovers
    yield "few of both", PING_PONGS, handovers


def taught_price(plain: Counts) -> float:
    """What plain A3 pays in handovers for a failure less, around the limit of ping-pongs, within ``TAUGHT_PRICE``."""
    few, many = (least_failures(plain, share * PING_PONGS) for share in (0.5, 1.5))
    handovers, failures = (each.mean(axis=1) for each in (plain.handovers, plain.failures))
    more = handovers[many] - handovers[few]
    slope = (failures[few] - failures[many]) / more if more > 0 else 0.0
    return float(np.clip(slope, *TAUGHT_PRICE))


def _walked(world: World, known: FloatArray, late: int) -> Counts:
    """Decisions ``late`` periods after the measurement, by what was forecast for then."""
    timely = known[: len(known) - late, :, :, late]
    waited = [first_guess(world)[:1]] * late
    return walk(world.radio, CostRule(np.concatenate([*waited, timely]), world.best, PRICES))


def _choice(aim: str, late: int, ours: Counts, index: int, fronts: dict[str, Front]) -> Choice:
    return Choice(
        aim=aim,
        decision_delay_ms=late * ns3_uma.PERIOD_MS,
        ours=point(_named(PRICES[index]), ours, index),
        at_equal_ping_pongs=fronts["ping_pongs"].change(ours, index),
        at_equal_handovers=fronts["handovers"].change(ours, index),
    )


def _named(prices: Prices) -> str:
    return f"handover {prices.handover:g}, back {prices.back:g}"


def _points(front: Front, scored: Counts) -> list[Point]:
    return [point(_plain_names()[row], scored, row) for row in front.rows]


COLUMNS: tuple[str, ...] = ("scene", "delay", "aim", "prices", "failures", "handovers", "ping-pongs")
COLUMNS += ("plain at equal ping-pongs", "change", "95 %", "plain at equal handovers", "change", "95 %")


def tables(result: Result) -> Iterator[Table]:
    """Ours beside plain A3, then the best plain settings."""
    rows = [_cells(scene, choice) for scene in result.scenes for choice in scene.choices]
    yield Table(f"handover hook on {result.dataset}, failures per UE-minute", COLUMNS, rows)
    best = [
        [scene.name, each.setting, *(f"{x:.2f}" for x in (each.failures, each.handovers, each.ping_pongs))]
        for scene in result.scenes
        for each in [scene.plain]
    ]
    title = f"plain A3 with the least failures within {PING_PONGS} ping-pongs per UE-minute, chosen on seed 1"
    yield Table(title, ("scene", "setting", "failures", "handovers", "ping-pongs"), best)


def _cells(scene: Scene, choice: Choice) -> list[object]:
    ours = choice.ours
    figures = [f"{each:.2f}" for each in (ours.failures, ours.handovers, ours.ping_pongs)]
    beside = [cell for each in (choice.at_equal_ping_pongs, choice.at_equal_handovers) for cell in _beside(each)]
    return [scene.name, f"+{choice.decision_delay_ms} ms", choice.aim, ours.setting, *figures, *beside]


def _beside(change: Change) -> list[str]:
    if change.plain_failures is None:
        return ["none so cheap", "–", "–"]
    if change.change is None or change.low is None or change.high is None:
        return [f"{change.plain_failures:.2f}", "–", "–"]
    return [f"{change.plain_failures:.2f}", f"{change.change:+.0%}", f"{change.low:+.0%} … {change.high:+.0%}"]


def write_report(result: Result) -> str:
    """See ``handover_report``; imported here because it brings plotly with it."""
    from netpredict.evaluate import handover_report

    return handover_report.write_report(result)

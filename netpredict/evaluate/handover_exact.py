"""The handover hook where the RSRP of every radio cell is known, and so what becomes of a choice: on ns3-uma.

``handover_simulated`` gives it scenes of ``netpredict simulate`` instead.

Weights are taught on drives along the paths of seed 1 under shadowing drawn anew (``traces.redrawn``): the recording of
a path is one draw, and a network learns it by heart. On the recorded drives of seed 1, which the network has not seen,
the plain settings are chosen, the price at which is taught, the prices that are acted on, and whether to act on
forecasts at all: where they do not win there, ours is plain A3. Nothing is taught where plain A3 has no failure there.
Seed 2 is scored once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from netpredict import plugins
from netpredict.errors import DataError
from netpredict.evaluate.handover_compare import Change, Front, Judged, Point, beside, judged, least_failures, point
from netpredict.evaluate.handover_labels import World, world_of
from netpredict.evaluate.handover_model import Counts, PlainA3, walk
from netpredict.evaluate.handover_policy import PIECE_STEPS, CostRule, Fit, Prices, first_guess, forecasts, improved
from netpredict.evaluate.handover_result import Choice, Result, Scene
from netpredict.evaluate.handover_wish import SceneSource, Served, Table, Tell, Wish
from netpredict.forecast.predictor import Predictor, Trainable
from netpredict.traces import ns3_uma
from netpredict.traces.redrawn import Redrawn
from netpredict.types import FloatArray, TrainingSet

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
DRAWS = (2, 2, 6)
"""Of all paths in each round of policy iteration, every other one backwards; only the last round's network is used."""
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
    "train_epochs": 4,
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
    served = wish.served
    scenes = [_scene(source, folder, name, wish, _fitting(recipe, name, tell), tell) for name in names]
    return Result(
        dataset=source.NAME,
        predictor=PREDICTOR if served is None else served.label,
        options=recipe if served is None else served.options,
        rounds=len(DRAWS) if served is None else 0,
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


def _scene(source: SceneSource, folder: Path, name: str, wish: Wish, fit: Fit, tell: Tell) -> Scene:
    (learnt_scene, places), (scored_scene, _) = (source.with_places(folder, name, seed) for seed in (1, 2))
    learnt, scored = (world_of(each.first(wish.limit_traces)) for each in (learnt_scene, scored_scene))
    plain, plain_scored = _plain(learnt), _plain(scored)
    tell(f"{name}: plain A3 walked in {len(_plain_names())} settings")
    price, best = taught_price(plain), least_failures(plain, PING_PONGS)
    fronts = _Fronts(plain, plain_scored)
    lates = sorted({0, wish.decision_delay_ms // ns3_uma.PERIOD_MS})
    known: list[FloatArray] = []
    if not plain.failures[best].any():
        tell(f"{name}: plain A3 has no failure on seed 1, so nothing is taught")
    elif wish.served is not None:
        price, lates = wish.served.taught_price, [late for late in lates if late < wish.served.leads]
        known = [_served(wish.served, world, 1 + lates[-1]) for world in (learnt, scored)]
    else:
        redrawn = Redrawn(learnt.scene, places.first(wish.limit_traces), name in source.LINE_OF_SIGHT)
        predictor = improved(partial(_drawn, redrawn), fit, price, len(DRAWS), 1 + lates[-1])
        known = [forecasts(predictor, world) for world in (learnt, scored)]
    counts = {late: (_walked(learnt, known[0], late), _walked(scored, known[1], late)) for late in lates if known}
    curve = [point(_named(each), counts[0][1], index) for index, each in enumerate(PRICES)] if counts else []
    return Scene(
        name=name,
        speed_kmh=scored.scene.speed_kmh,
        ue_minutes=plain_scored.minutes * scored.radio.ues,
        taught_price=price,
        plain=point(_plain_names()[best], plain_scored, best),
        choices=[fronts.choice(aim, late, counts.get(late)) for late in lates for aim in _aims(plain)],
        front_by_ping_pongs=_points(fronts.scored[0], plain_scored),
        front_by_handovers=_points(fronts.scored[1], plain_scored),
        curve=curve,
    )


def _drawn(redrawn: Redrawn, number: int) -> Iterator[World]:
    """The worlds of one round, one at a time: each takes several hundred megabytes."""
    for index in range(DRAWS[number]):
        yield world_of(redrawn.scene(max(DRAWS) * number + index, backwards=index % 2 == 1))


def _plain(world: World) -> Counts:
    return walk(world.radio, PlainA3(world.measured_dbm, FILTER_KS, OFFSETS_DB, TTTS_MS))


def _plain_names() -> list[str]:
    return [f"k {k}, {offset:g} dB, {ttt} ms" for k in FILTER_KS for offset in OFFSETS_DB for ttt in TTTS_MS]


class _Aim(NamedTuple):
    """What is chosen for: the least failures within limits of ping-pongs and of handovers per UE-minute."""

    name: str
    ping_pongs: float
    handovers: float


def _aims(plain: Counts) -> Iterator[_Aim]:
    """The limits are ``PING_PONGS`` and the handovers of the best plain setting within it."""
    handovers = float(plain.handovers[least_failures(plain, PING_PONGS)].mean() / plain.minutes)
    yield _Aim("few ping-pongs", PING_PONGS, np.inf)
    yield _Aim("few handovers", np.inf, handovers)
    yield _Aim("few of both", PING_PONGS, handovers)


class _Fronts:
    """Plain A3 on both seeds, by ping-pongs and by handovers, and what is chosen beside it."""

    def __init__(self, plain: Counts, plain_scored: Counts) -> None:
        self._plain, self._plain_scored, names = plain, plain_scored, _plain_names()
        self.tuned, self.scored = (
            tuple(Front(names, plain, counts, price) for price in ("ping_pongs", "handovers"))
            for counts in (plain, plain_scored)
        )

    def choice(self, aim: _Aim, late: int, ours: tuple[Counts, Counts] | None) -> Choice:
        """Chosen by the first of ours, on seed 1; told by the second, on seed 2."""
        row = least_failures(self._plain, aim.ping_pongs, aim.handovers)
        name, scored = _plain_names()[row], self._plain_scored
        plain = judged(name, scored, row, *self.scored)
        taken, counts, place, tuned, cost = plain, scored, row, None, None
        if ours is not None:
            index = least_failures(ours[0], aim.ping_pongs, aim.handovers)
            prices = _named(PRICES[index])
            tuned, cost = judged(prices, ours[0], index, *self.tuned), judged(prices, ours[1], index, *self.scored)
            if tuned.at_equal_ping_pongs.is_less and tuned.at_equal_handovers.is_less:
                taken, counts, place = cost, ours[1], index
        return Choice(
            aim=aim.name,
            decision_delay_ms=late * ns3_uma.PERIOD_MS,
            rule="a3" if taken is plain else "cost",
            ours=taken.point,
            at_equal_ping_pongs=taken.at_equal_ping_pongs,
            at_equal_handovers=taken.at_equal_handovers,
            plain=plain.point,
            beside_plain=beside(name, counts, place, scored, row),
            cost=cost,
            tuned=tuned,
        )


def taught_price(plain: Counts) -> float:
    """What plain A3 pays in handovers for a failure less, around the limit of ping-pongs, within ``TAUGHT_PRICE``."""
    few, many = (least_failures(plain, share * PING_PONGS) for share in (0.5, 1.5))
    handovers, failures = (each.mean(axis=1) for each in (plain.handovers, plain.failures))
    more = handovers[many] - handovers[few]
    slope = (failures[few] - failures[many]) / more if more > 0 else 0.0
    return float(np.clip(slope, *TAUGHT_PRICE))


def _served(served: Served, world: World, leads: int) -> FloatArray:
    """As ``forecasts``, by a version that serves."""
    each = [served.forecasts(world.scene, world.measured_dbm, lead) for lead in range(1, leads + 1)]
    return np.stack(each, axis=3)


def _walked(world: World, known: FloatArray, late: int) -> Counts:
    """Decisions ``late`` periods after the measurement, by what was forecast for then."""
    timely = known[: len(known) - late, :, :, late]
    waited = [first_guess(world)[:1]] * late
    return walk(world.radio, CostRule(np.concatenate([*waited, timely]), world.best, PRICES))


def _named(prices: Prices) -> str:
    return f"handover {prices.handover:g}, back {prices.back:g}"


def _points(front: Front, scored: Counts) -> list[Point]:
    return [point(_plain_names()[row], scored, row) for row in front.rows]


COLUMNS: tuple[str, ...] = ("scene", "delay", "aim", "rule", "setting", "failures", "handovers", "ping-pongs")
COLUMNS += ("at equal ping-pongs", "at equal handovers", "beside the plain setting of the same aim")


def tables(result: Result) -> Iterator[Table]:
    """Ours beside plain A3, then what it was chosen by, then the best plain settings."""
    rows = [_cells(scene, choice) for scene in result.scenes for choice in scene.choices]
    yield Table(f"handover hook on {result.dataset}, failures per UE-minute", COLUMNS, rows)
    learnt = [
        [scene.name, f"+{choice.decision_delay_ms} ms", choice.aim, seed, *_cost_cells(each)]
        for scene in result.scenes
        for choice in scene.choices
        for seed, each in ((1, choice.tuned), (2, choice.cost))
        if each is not None
    ]
    columns = ("scene", "delay", "aim", "seed", "prices", "failures", "at equal ping-pongs", "at equal handovers")
    yield Table("the rule on forecasts alone: on seed 1, where it was chosen, and on seed 2", columns, learnt)
    best = [
        [scene.name, each.setting, *(f"{x:.2f}" for x in (each.failures, each.handovers, each.ping_pongs))]
        for scene in result.scenes
        for each in [scene.plain]
    ]
    title = f"plain A3 with the least failures within {PING_PONGS} ping-pongs per UE-minute, chosen on seed 1"
    yield Table(title, ("scene", "setting", "failures", "handovers", "ping-pongs"), best)


def _cells(scene: Scene, choice: Choice) -> list[object]:
    ours = choice.ours
    figures = [f"{each:.3f}" for each in (ours.failures, ours.handovers, ours.ping_pongs)]
    beside_plain = [
        _told(each) for each in (choice.at_equal_ping_pongs, choice.at_equal_handovers, choice.beside_plain)
    ]
    delay = f"+{choice.decision_delay_ms} ms"
    return [scene.name, delay, choice.aim, choice.rule, ours.setting, *figures, *beside_plain]


def _cost_cells(each: Judged) -> list[object]:
    beside_plain = [_told(change) for change in (each.at_equal_ping_pongs, each.at_equal_handovers)]
    return [each.point.setting, f"{each.point.failures:.3f}", *beside_plain]


def _told(change: Change) -> str:
    """Plain failures, the change and the difference, with intervals."""
    if change.plain_failures is None:
        return "none so cheap"
    apart = f"{change.difference:+.3f} ({change.difference_low:+.3f} … {change.difference_high:+.3f})"
    if change.change is None:
        return f"{change.plain_failures:.3f}: {apart}"
    return f"{change.plain_failures:.3f}: {change.change:+.0%} ({change.low:+.0%} … {change.high:+.0%}), {apart}"


def write_report(result: Result) -> str:
    """See ``handover_report``; imported here because it brings plotly with it."""
    from netpredict.evaluate import handover_report

    return handover_report.write_report(result)

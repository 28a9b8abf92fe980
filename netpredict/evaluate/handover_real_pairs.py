"""Forecasts of the level difference of two linked radio cells with their uncertainty, and what a handover promises.

A series is a pair of radio cells of a stretch while both are alive; the network forecasts how far the first will be
above the second, 1 to 5 s ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from netpredict.evaluate.datasets import Period
from netpredict.evaluate.forecasting import walk
from netpredict.evaluate.handover_real_field import Field
from netpredict.forecast.predictor import Predictor
from netpredict.types import AnyArray, BoolArray, FeatureSpec, FloatArray, IntArray, OutputSpec, TrainingSet

HORIZON_S = 5
QUANTILES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
COLUMNS = (
    *("difference_db", "near_db", "slow_db", "slower_db", "third_db", "first_dbm", "second_dbm"),
    *("first_measured", "second_measured", "first_seen", "second_seen", "first_age", "second_age", "missing"),
)
_TURNED = (0, 1, 2, 3, 4, 6, 5, 8, 7, 10, 9, 12, 11, 13)
_SIGNED = 4  # of the first columns turn their sign with the pair
NEAR_DB = 12.0
PACES = (0.5, 0.2)
FEATURES = FeatureSpec(COLUMNS, 1_000_000)
OUTPUT = OutputSpec(("difference_db",), HORIZON_S, QUANTILES)
SEGMENT_S = 80
LEAST_S = 8


@dataclass(frozen=True, slots=True)
class Pairs:
    """R pairs: stretch, first and second slot, and the seconds ``first`` … ``stop`` in which both are alive, each (R,).

    ``values`` holds for each its (seconds, columns) by ``COLUMNS``, NaN in a skipped second.
    """

    stretch: IntArray
    slots: IntArray
    first: IntArray
    stop: IntArray
    values: Sequence[FloatArray]

    def only(self, chosen: IntArray) -> Pairs:
        """Some of them."""
        values = [self.values[row] for row in chosen.tolist()]
        return Pairs(self.stretch[chosen], self.slots[chosen], self.first[chosen], self.stop[chosen], values)

    @staticmethod
    def joined(parts: Sequence[Pairs]) -> Pairs:
        """All of them."""
        stretch, slots, first, stop = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("stretch", "slots", "first", "stop")
        )
        return Pairs(stretch, slots, first, stop, [each for part in parts for each in part.values])


def pairs_of(field: Field) -> Pairs:
    """Every pair of radio cells that are alive in the same second."""
    found, values = [], []
    for n in range(len(field.steps)):
        owner = field.owner[n, : field.steps[n]]
        spans = [(slot, *span) for slot in range(owner.shape[1]) for span in _spans(owner[:, slot])]
        for place, (one, begin, end) in enumerate(spans):
            for other, from_, until in spans[place + 1 :]:
                first, stop = max(begin, from_), min(end, until)
                if one != other and stop - first >= 2:
                    ages = (first - begin, first - from_)
                    found.append((n, one, other, first, stop))
                    values.append(_columns(field, n, one, other, range(first, stop), ages))
    laid = np.array(found, np.int64).reshape(-1, 5)
    return Pairs(laid[:, 0], laid[:, 1:3], laid[:, 3], laid[:, 4], values)


def _spans(owner: IntArray) -> list[tuple[int, int]]:
    """Where a slot holds one radio cell: (first, stop) each."""
    edges = np.flatnonzero(np.diff(owner, prepend=-2, append=-2))
    return [(int(a), int(b)) for a, b in pairwise(edges) if owner[a] >= 0]


def _columns(field: Field, n: int, one: int, other: int, seconds: range, ages: tuple[int, int]) -> FloatArray:
    part = slice(seconds.start, seconds.stop)
    levels, measured = field.levels[n, part], field.measured[n, part]
    pair = levels[:, [one, other]].astype(np.float64)
    rest = np.delete(levels, [one, other], axis=1)
    third = np.clip(rest.max(axis=1, initial=-np.inf) - pair.max(axis=1), -NEAR_DB, NEAR_DB)
    age = np.log1p(np.arange(len(pair))[:, None] + np.array(ages))
    difference, both = pair[:, 0] - pair[:, 1], measured[:, [one, other]].astype(np.float64)
    near = np.clip(difference, -NEAR_DB, NEAR_DB)
    means = [smoothed(near[:, None], pace) for pace in PACES]
    rows = np.column_stack([difference, near, *means, third, pair, both, smoothed(both, PACES[1]), age])
    skipped = field.skipped[n, part, None]
    told = np.where(skipped, np.nan, rows)
    return np.concatenate([told, skipped], axis=1).astype(np.float32)


def training_set(pairs: Pairs, seed: int = 5) -> TrainingSet:
    """Their pieces as series, every other one turned round, so that neither place means anything."""
    turned = np.random.default_rng(seed).random(len(pairs.values)) < 0.5
    pieces = []
    for values, turn in zip(pairs.values, turned.tolist(), strict=True):
        whole = turned_round(values) if turn else values
        for start in range(0, len(whole), SEGMENT_S):
            part = whole[start : start + SEGMENT_S]
            if len(part) >= LEAST_S:
                piece = np.full((SEGMENT_S, part.shape[1]), np.nan, np.float32)
                piece[: len(part)] = part
                pieces.append(piece)
    first_slot = np.zeros(len(pieces), np.int64)
    return TrainingSet(FEATURES, OUTPUT, np.stack(pieces), first_slot, SEGMENT_S)


def turned_round(values: FloatArray) -> FloatArray:
    """The pair with first and second exchanged."""
    answer = values[:, _TURNED].copy()
    answer[:, :_SIGNED] *= -1
    return answer


def smoothed(values: AnyArray, pace: float) -> AnyArray:
    """Running mean along (T, k) that takes ``pace`` of what is new."""
    answer = values.astype(np.float64)
    for step in range(1, len(answer)):
        answer[step] = (1 - pace) * answer[step - 1] + pace * answer[step]
    return answer


def quantiles(predictor: Predictor, pairs: Pairs) -> list[FloatArray]:
    """Of the difference, (seconds, leads, levels) for each pair, stepped as by the daemon, from cold."""
    found: list[FloatArray | None] = [None] * len(pairs.values)
    order = np.argsort([len(each) for each in pairs.values], kind="stable")
    for rows in np.array_split(order, max(1, len(order) // 2_000)):
        steps = max(len(pairs.values[row]) for row in rows.tolist()) + 1
        values = np.full((len(rows), steps, len(COLUMNS)), np.nan, np.float32)
        for place, row in enumerate(rows.tolist()):
            values[place, : len(pairs.values[row])] = pairs.values[row]
        first_slot = np.zeros(len(rows), np.int64)
        training = TrainingSet(FEATURES, OUTPUT, values[:0], first_slot[:0], 0)
        answers = walk(predictor, FEATURES, Period("pairs", training, values[:0], values, first_slot, 0, steps, 0), 0)
        for place, row in enumerate(rows.tolist()):
            found[row] = answers[: len(pairs.values[row]), place, 0]
    return [each for each in found if each is not None]


def below(answers: FloatArray, bar_db: float) -> FloatArray:
    """P(difference < bar_db) of quantiles (…, levels), between two by their straight line, beyond the ends likewise."""
    levels = np.array([0.0, *QUANTILES, 1.0], np.float32)
    ends = [2 * answers[..., :1] - answers[..., 1:2], answers, 2 * answers[..., -1:] - answers[..., -2:-1]]
    ends[0] = np.minimum(ends[0], answers[..., :1] - 1e-3)
    ends[2] = np.maximum(ends[2], answers[..., -1:] + 1e-3)
    grid = np.maximum.accumulate(np.concatenate(ends, axis=-1), axis=-1)
    place = (grid[..., 1:-1] < bar_db).sum(axis=-1)
    low, high = (np.take_along_axis(grid, place[..., None] + step, axis=-1)[..., 0] for step in (0, 1))
    share = np.clip((bar_db - low) / np.maximum(high - low, 1e-6), 0.0, 1.0)
    chance: FloatArray = (levels[place] + share * (levels[place + 1] - levels[place])).astype(np.float32)
    return chance


def promises(
    field: Field, pairs: Pairs, answers: Sequence[FloatArray], bar_db: float, leads: Sequence[int]
) -> list[AnyArray]:
    """P(serving is more than ``bar_db`` below target), the mean over so many leads: float16 (N, T, from, to) each."""
    slots = field.levels.shape[2]
    found = [np.zeros((*field.levels.shape[:2], slots, slots), np.float16) for _ in leads]
    for row, each in enumerate(answers):
        n, (one, other) = int(pairs.stretch[row]), pairs.slots[row].tolist()
        part = slice(int(pairs.first[row]), int(pairs.stop[row]))
        there, back = below(each, -bar_db), 1.0 - below(each, bar_db)
        for into, until in zip(found, leads, strict=True):
            into[n, part, one, other] = np.nan_to_num(there[:, :until].mean(axis=1))
            into[n, part, other, one] = np.nan_to_num(back[:, :until].mean(axis=1))
    return found


class Promised:
    """Goes where the promise is greatest, if it passes the setting's bar: c_over / (c_under + c_over)."""

    def __init__(self, promises: AnyArray, bars: Sequence[float]) -> None:
        self.settings, self._promises = len(bars), promises
        self._bars = np.array(bars, np.float16)

    def target(self, step: int, rows: int, slot: IntArray, moved: BoolArray) -> IntArray:
        """See ``Rule``."""
        row = np.take_along_axis(self._promises[:rows, step], slot[:, :, None], axis=1)
        best: IntArray = row.argmax(axis=2)
        return np.where(row.max(axis=2) > self._bars, best, slot)

"""The handover hook on ns3-uma, where the RSRP of every radio cell is known, and so what becomes of a choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from netpredict.errors import DataError
from netpredict.evaluate.handover_model import Counts, PlainA3, Radio, radio_of, walk
from netpredict.evaluate.handover_wish import Table, Tell, Wish
from netpredict.traces import ns3_uma
from netpredict.types import FloatArray

FILTER_KS = (0, 1, 2, 3, 4, 6, 8)
OFFSETS_DB = tuple(half / 2 for half in range(17))
TTTS_MS = (0, 40, 80, 160, 256, 320, 480, 640)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A setting and what happened with it, per UE-minute."""

    setting: str
    failures: float
    handovers: float
    ping_pongs: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """By scene: the plain settings that no other beats on the training seed, as they did on the scored one."""

    plain: dict[str, list[Point]]


def run(folder: Path, wish: Wish, tell: Tell) -> Result:
    """Tune on seed 1, score on seed 2."""
    scenes = wish.scenes or ns3_uma.SCENES
    if unknown := [name for name in scenes if name not in ns3_uma.SCENES]:
        raise DataError(f"there is no scene {', '.join(unknown)}: take {', '.join(ns3_uma.SCENES)}")
    return Result(plain={name: _plain(folder, name, wish, tell) for name in scenes})


def _plain(folder: Path, name: str, wish: Wish, tell: Tell) -> list[Point]:
    tuned, scored = (
        _plain_counts(*_world(ns3_uma.read(folder, name, seed).first(wish.limit_traces))) for seed in (1, 2)
    )
    tell(f"{name}: plain A3 walked {len(tuned.handovers)} settings")
    return [_point(scored, index) for index in front(_mean(tuned.handovers), _mean(tuned.failures))]


def _world(scene: ns3_uma.Scene) -> tuple[Radio, FloatArray]:
    return radio_of(scene), ns3_uma.measure(scene)


def _plain_counts(radio: Radio, measured_dbm: FloatArray) -> Counts:
    return walk(radio, PlainA3(measured_dbm, FILTER_KS, OFFSETS_DB, TTTS_MS))


def front(price: Sequence[float], failures: Sequence[float]) -> list[int]:
    """Those that none of lower price beats, by rising price."""
    chosen: list[int] = []
    for index in np.lexsort((failures, price)).tolist():
        if not chosen or failures[index] < failures[chosen[-1]]:
            chosen.append(index)
    return chosen


def _mean(counts: object) -> list[float]:
    means: list[float] = np.asarray(counts).mean(axis=1).tolist()
    return means


def _point(counts: Counts, index: int) -> Point:
    k, offset, ttt = np.unravel_index(index, (len(FILTER_KS), len(OFFSETS_DB), len(TTTS_MS)))
    each = (counts.failures, counts.handovers, counts.ping_pongs)
    failures, handovers, ping_pongs = (float(count[index].mean() / counts.minutes) for count in each)
    setting = f"k {FILTER_KS[k]}, {OFFSETS_DB[offset]:g} dB, {TTTS_MS[ttt]} ms"
    return Point(setting=setting, failures=failures, handovers=handovers, ping_pongs=ping_pongs)


def tables(result: Result) -> Iterator[Table]:
    """One by scene."""
    for name, points in result.plain.items():
        rows = [[each.setting, each.failures, each.handovers, each.ping_pongs] for each in points]
        yield Table(f"{name}, plain A3, per UE-minute", ("setting", "failures", "handovers", "ping-pongs"), rows)


def write_report(result: Result) -> str:
    """Nothing yet."""
    raise DataError("the report of ns3-uma is not made yet: leave --report out")

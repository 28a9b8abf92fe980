"""The radio of ``netpredict simulate`` beside that of ns3-uma, speed by speed, by ``scene_statistics``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from netpredict.evaluate.handover_wish import Tell
from netpredict.evaluate.scene_statistics import STATISTICS, statistics
from netpredict.traces import ns3_uma, simulated_scenes

RECORDED_SEEDS = (1, 2)


class Likeness(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic of one speed. ``allowed``: how far both may lie apart; None where there is no recording."""

    scene: str
    statistic: str
    unit: str
    simulated: float
    recorded: float | None = None
    allowed: float | None = None
    within: bool | None = None


def likeness(folder: Path | None, scenes: Sequence[str], seeds: int, tell: Tell) -> Iterator[Likeness]:
    """Simulated scenes of so many seeds beside the recorded ones in ``folder``, or alone without a folder."""
    for name in scenes:
        own = [simulated_scenes.with_places(Path(), name, seed) for seed in range(1, seeds + 1)]
        simulated = statistics(own)
        tell(f"{name}: simulated {seeds} times")
        recorded = None
        if folder is not None:
            recorded = statistics([ns3_uma.with_places(folder, name, seed) for seed in RECORDED_SEEDS])
        for place, statistic in enumerate(STATISTICS):
            told = Likeness(
                scene=name, statistic=statistic.name, unit=statistic.unit, simulated=round(simulated[place], 3)
            )
            if recorded is not None:
                allowed = statistic.allowed(recorded[place], own[0][0].speed_kmh)
                told = msgspec.structs.replace(
                    told,
                    recorded=round(recorded[place], 3),
                    allowed=round(allowed, 3),
                    within=abs(simulated[place] - recorded[place]) <= allowed,
                )
            yield told

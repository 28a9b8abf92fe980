"""The handover hook on scenes of ``netpredict simulate``: seed 1 to learn from, seed 2 to be scored on, by speed.

No data set is needed. How much these scenes are like those of ns3-uma tells ``netpredict evaluate radio``.
"""

from __future__ import annotations

from pathlib import Path

from netpredict.evaluate.handover_exact import run_on, tables, write_report
from netpredict.evaluate.handover_result import Result
from netpredict.evaluate.handover_wish import Tell, Wish
from netpredict.traces import simulated_scenes

__all__ = ["run", "tables", "write_report"]


def run(folder: Path, wish: Wish, tell: Tell) -> Result:
    """Train and choose on seed 1, score on seed 2; nothing is read from the folder."""
    return run_on(simulated_scenes, folder, wish, tell)

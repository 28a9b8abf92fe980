"""``netpredict evaluate radio``: how much the simulated radio is like a recording of ns-3; table and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netpredict.cli.options import AsJson
from netpredict.cli.terminal import print_json, print_table, say
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.evaluate.radio_likeness import Likeness

COLUMNS = ("scene", "statistic", "unit", "simulate", "ns3-uma", "may differ by", "verdict")


def radio(
    scenes: Annotated[
        list[str] | None, typer.Option("--scene", help="Only this speed: v003, v030, v060, v120; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Simulate it so many times.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Statistics of the simulated radio by which handovers are won or lost, beside those of ns3-uma.

    Levels, shadowing along the way, changes of the best radio cell, and what plain A3 makes of them by the failures of
    TR 36.839. Without $NETPREDICT_DATA the simulated ones stand alone.
    """
    from netpredict.evaluate.radio_likeness import likeness
    from netpredict.traces import ns3_uma, simulated_scenes
    from netpredict.traces.datasets import data_folder

    names = scenes or simulated_scenes.SCENES
    if unknown := [name for name in names if name not in simulated_scenes.SCENES]:
        raise DataError(f"there is no scene {', '.join(unknown)}: take {', '.join(simulated_scenes.SCENES)}")
    try:
        folder = data_folder() / ns3_uma.NAME
    except DataError as missing:
        say(str(missing))
        folder = None
    rows = list(likeness(folder, names, seeds, say))
    if as_json:
        print_json({"seeds": seeds, "statistics": rows})
    else:
        print_table("the radio of netpredict simulate", COLUMNS, [_cells(row) for row in rows])


def _cells(row: Likeness) -> list[object]:
    if row.recorded is None or row.allowed is None:
        return [row.scene, row.statistic, row.unit, f"{row.simulated:.2f}", "", "", ""]
    figures = [f"{value:.2f}" for value in (row.simulated, row.recorded, row.allowed)]
    return [row.scene, row.statistic, row.unit, *figures, "like it" if row.within else "unlike"]

"""``netpredict actions effect``: what actions did to the KPIs, beside radio cells that never get any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netpredict.cli.options import AsJson, ConfigPath, StoreUrl, history
from netpredict.cli.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from netpredict.evaluate.action_effect import Effect, Observed
    from netpredict.store.history import History

COLUMNS = ("hook", "attribute", "kpi", "side", "radio cells", "actions", "before", "after", "effect", "95 %", "verdict")
READ_MAX = 100_000


def effect(
    hook: Annotated[str | None, typer.Option("--hook", help="Of this hook only.")] = None,
    kpi: Annotated[list[str] | None, typer.Option("--kpi", help="Of this KPI only; may be given again.")] = None,
    window_s: Annotated[
        float | None,
        typer.Option("--window-s", min=0.001, help="Compare so long before and behind [default: what effect_s says]."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Most actions, the newest.")] = 10_000,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what actions did to the KPIs.

    By how much each KPI changed behind an action, less its change in radio cells held out (holdout_ratio of the hook)
    behind actions that were withheld there, with the interval of a bootstrap over radio cells. Without radio cells held
    out it is before and after only, which may have come anyway.
    """
    from netpredict.evaluate.action_effect import acted_of, effects

    store = history(config, url)
    acted = acted_of(store.acted(hook, limit=limit))
    window_us = None if window_s is None else round(window_s * 1e6)
    found = effects(acted, lambda *place: _observed(store, *place), window_us, kpi or ())
    if as_json:
        print_json({"actions": len(acted), "effects": [each.row() for each in found]})
        return
    if not found:
        say("too little data: no action was applied or withheld whose KPIs are stored on either side of it")
        return
    print_table("", COLUMNS, [line for each in found for line in _lines(each)])
    for why in sorted({f"{each.hook}: {each.judged()[1]}" for each in found if each.judged()[1]}):
        say(why)


def _observed(store: History, stream: str, series: str, from_us: int, to_us: int) -> Observed:
    import numpy as np

    from netpredict.evaluate.action_effect import Observed
    from netpredict.types import Quality

    rows = store.recent_observations(stream, series, from_us, to_us, limit=READ_MAX)
    sound = [row for row in reversed(rows) if not row["flags"] & Quality.SUSPECT]
    columns = sorted({column for row in sound for column in row["values"]})
    values = np.array([[row["values"].get(column) for column in columns] for row in sound], float)
    return Observed(np.array([row["slot_time_us"] for row in sound]), columns, values.reshape(-1, len(columns)))


def _lines(each: Effect) -> list[list[object]]:
    """Two lines: what was acted on with the estimate, and what was held out."""
    row = each.row()
    interval = "" if row["low"] is None else f"{row['low']:+.3g} .. {row['high']:+.3g}"
    estimate = "" if row["effect"] is None else f"{row['effect']:+.3g}"
    sides = [
        [*(row[side][name] for name in ("radio_cells", "firings", "before", "after"))] for side in ("acted", "held_out")
    ]
    return [
        [row["hook"], row["attribute"], row["kpi"], "acted on", *sides[0], estimate, interval, row["verdict"]],
        ["", "", "", "held out", *sides[1], "", "", ""],
    ]

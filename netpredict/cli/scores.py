"""``netpredict scores``: how good the forecasts were, against naive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from netpredict.cli.options import AsJson, ConfigPath, OfPredictor, OfStream, StoreUrl, history
from netpredict.cli.terminal import print_json, print_table

COLUMNS = ("stream", "predictor", "source", "kpi", "lead_steps", "n", "mae", "naive_mae", "skill")


def scores(
    stream: OfStream = None,
    predictor: OfPredictor = None,
    kpi: Annotated[str | None, typer.Option("--kpi", help="Of this KPI only.")] = None,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print the skill against naive by lead time.

    By stream, predictor and KPI too. 1 is perfect, 0 as good as naive, below 0 worse.
    """
    rows = [
        row
        for row in history(config, url, stream).skill(stream)
        if predictor in (None, row["predictor"]) and kpi in (None, row["kpi"])
    ]
    print_skill(rows, as_json)


def print_skill(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows of ``History.skill`` as a table or a document."""
    if as_json:
        print_json({"scores": list(rows)})
        return
    shown = [[*(row[name] for name in COLUMNS), _coverage(row["coverage"]), row["pinball"]] for row in rows]
    print_table("", (*COLUMNS, "coverage", "pinball"), shown, by=4)


def _coverage(coverage: dict[str, float]) -> str:
    return ", ".join(f"{levels}: {share:.0%}" for levels, share in coverage.items())

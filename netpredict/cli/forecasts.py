"""``netpredict forecasts``: the newest forecasts of series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import AsJson, ConfigPath, Limit, OfPredictor, OfStream, StoreUrl, history
from netpredict.cli.terminal import print_json, print_table, printable, say, utc
from netpredict.types import Quality

if TYPE_CHECKING:
    from netpredict.store.history import History

Row = dict[str, Any]


def forecasts(
    stream: OfStream = None,
    series: Annotated[
        str | None, typer.Option("--series", help="Key of a series (fields joined by |), or a shell pattern of keys.")
    ] = None,
    predictor: OfPredictor = None,
    limit: Limit = 5,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print forecasts, newest first.

    Those of one series, or the newest one of each of several.
    """
    rows = _newest(history(config, url, stream), stream, series, predictor, limit)
    if as_json:
        print_json({"forecasts": rows})
        return
    for row in rows:
        _show(row)
    if not rows:
        say("no forecast of such a series is stored")


def _newest(store: History, stream: str | None, series: str | None, predictor: str | None, limit: int) -> list[Row]:
    found = [row for row in store.series(stream, series, limit=limit) if row["last_slot"] is not None]
    each = limit if len(found) == 1 else 1
    rows = [
        row for one in found for row in store.forecasts(one["stream"], one["series"], predictor=predictor, limit=each)
    ]
    return rows[:limit]


def _show(row: Row) -> None:
    quality = "|".join(flag.name.lower() for flag in Quality(row["quality"]) if flag.name) or "good"
    for kpi, leads in row["values"].items():
        title = (
            f"{printable(row['series'])}  {row['stream']}  {kpi}  {row['predictor']}@{row['version']}\n"
            f"issued {utc(row['slot_time_us'])}, last value {row['observed'][kpi]}, "
            f"source {row['sources'][kpi]}, quality {quality}"
        )
        columns = ("lead", "target time", *(f"q{level:g}" for level in row["levels"]))
        print_table(title, columns, [_lead(row, lead, values) for lead, values in enumerate(leads, start=1)])


def _lead(row: Row, lead: int, values: list[float | None]) -> list[object]:
    ahead_us = lead * row["period_us"]
    return [f"+{ahead_us / 1e6:g} s", utc(row["slot_time_us"] + ahead_us), *values]

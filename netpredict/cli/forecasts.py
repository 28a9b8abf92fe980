"""``netpredict forecasts``: the newest forecasts of series."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import AsJson, ConfigPath, Limit, OfPredictor, OfStream, StoreUrl, history
from netpredict.cli.terminal import print_json, print_table, say, utc
from netpredict.printing import printable
from netpredict.types import Quality, base_name

if TYPE_CHECKING:
    from netpredict.store.history import History

Row = dict[str, Any]


def forecasts(
    stream: OfStream = None,
    series: Annotated[
        str | None, typer.Option("--series", help="Key of a series (fields joined by |), or a shell pattern of keys.")
    ] = None,
    predictor: OfPredictor = None,
    kpi: Annotated[
        str | None, typer.Option("--kpi", help="Of this KPI only; on a grid also of one place: activity_count[3,7].")
    ] = None,
    limit: Limit = 5,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print forecasts, newest first.

    Those of one series, or the newest one of each of several. A grid of radio cells is summed up over its places; name
    one by --kpi to see it alone.
    """
    rows = [_of_kpi(row, kpi) for row in _newest(history(config, url, stream), stream, series, predictor, limit)]
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


def _of_kpi(row: Row, kpi: str | None) -> Row:
    parts = ("values", "observed", "sources")
    wanted = [column for column in row["values"] if kpi in (None, column, base_name(column))]
    return row | {part: {column: row[part][column] for column in wanted} for part in parts}


def _show(row: Row) -> None:
    by_kpi: dict[str, list[str]] = {}
    for column in row["values"]:
        by_kpi.setdefault(base_name(column), []).append(column)
    for kpi, columns in by_kpi.items():
        if len(columns) == 1:
            _show_column(row, columns[0])
        else:
            _show_grid(row, kpi, columns)


def _show_column(row: Row, column: str) -> None:
    about = f"last value {row['observed'][column]}, source {row['sources'][column]}"
    columns = ("lead", "target time", *(f"q{level:g}" for level in row["levels"]))
    leads = enumerate(row["values"][column], start=1)
    print_table(_title(row, column, about), columns, [[*_lead(row, lead), *values] for lead, values in leads])


def _show_grid(row: Row, kpi: str, places: list[str]) -> None:
    """The point forecast over all places by lead; of the quantiles there is no such sum."""
    known = [place for place in places if row["sources"][place] != "none"]
    sources = Counter(row["sources"][place] for place in places)
    about = f"{len(places)} places, source " + ", ".join(f"{source} {n}" for source, n in sorted(sources.items()))
    middle = min(range(len(row["levels"])), key=lambda index: abs(row["levels"][index] - 0.5))
    shown = []
    for lead in range(1, row["horizon_steps"] + 1 if known else 1):
        points = {place: row["values"][place][lead - 1][middle] for place in known}
        least, most = min(known, key=points.__getitem__), max(known, key=points.__getitem__)
        mean = sum(points.values()) / len(points)
        ends = [f"{points[place]:g} at {place.removeprefix(kpi)}" for place in (least, most)]
        shown.append([*_lead(row, lead), f"{mean:.6g}", *ends])
    print_table(_title(row, kpi, about), ("lead", "target time", "mean over places", "least", "most"), shown)


def _title(row: Row, kpi: str, about: str) -> str:
    quality = "|".join(flag.name.lower() for flag in Quality(row["quality"]) if flag.name) or "good"
    return (
        f"{printable(row['series'])}  {row['stream']}  {kpi}  {row['predictor']}@{row['version']}\n"
        f"issued {utc(row['slot_time_us'])}, {about}, quality {quality}"
    )


def _lead(row: Row, lead: int) -> list[object]:
    ahead_us = lead * row["period_us"]
    return [f"+{ahead_us / 1e6:g} s", utc(row["slot_time_us"] + ahead_us)]

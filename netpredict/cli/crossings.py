"""``netpredict crossings``: which radio cells pass a level next, the soonest first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import AsJson, ConfigPath, Limit, StoreUrl, history
from netpredict.cli.terminal import print_json, print_table, say, utc
from netpredict.types import base_name

if TYPE_CHECKING:
    from netpredict.store.history import History

Row = dict[str, Any]

FRESH_STEPS = 3
COLUMNS = ("series", "column", "last value", "in", "earliest", "latest", "at", "predictor", "source")


def crossings(
    above: Annotated[float, typer.Option("--above", help="The level, in the KPI's unit.")],
    kpi: Annotated[str, typer.Option("--kpi", help="The KPI.")] = "prb_use_dl_percent",
    stream: Annotated[str | None, typer.Option("--stream", help="Of this stream only.")] = None,
    limit: Limit = 20,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Rank radio cells by the time until a KPI passes a level.

    By the newest forecast of each: when its median passes, and as an interval when its highest and its lowest quantile
    do. Radio cells of which not even the highest quantile passes within the horizon are left out, and those without a
    forecast in the last three periods.
    """
    store = history(config, url, stream)
    names = [stream] if stream is not None else sorted({row["stream"] for row in store.streams()})
    found = (row for name in names for row in _passing(store, name, kpi, above))
    numbered = ((row.pop("rank"), number, row) for number, row in zip(count(), found, strict=False))
    rows = [row for _, _, row in heapq.nsmallest(limit, numbered)]
    if as_json:
        print_json({"kpi": kpi, "above": above, "crossings": rows})
        return
    if rows:
        print_table(f"{kpi} above {above:g}", COLUMNS, [_shown(row) for row in rows])
    else:
        say(f"no forecast of {kpi} passes {above:g} within its horizon")


def _passing(store: History, stream: str, kpi: str, above: float) -> Iterator[Row]:
    from netpredict.forecast.crossing import crossing

    for row in store.fresh_forecasts(stream, FRESH_STEPS):
        for column, values in row["values"].items():
            if base_name(column) != kpi or row["sources"][column] == "none":
                continue
            last = row["observed"][column]
            if (passes := crossing(values, row["levels"], last, above)) is not None:
                yield {
                    "stream": stream,
                    "series": row["series"],
                    "column": column,
                    "issued": utc(row["slot_time_us"]),
                    "last_value": last,
                    "earliest_s": _seconds(row, passes.earliest),
                    "middle_s": _seconds(row, passes.middle),
                    "latest_s": _seconds(row, passes.latest),
                    "horizon_s": row["horizon_steps"] * row["period_us"] / 1e6,
                    "interval_levels": [row["levels"][0], row["levels"][-1]],
                    "predictor": f"{row['predictor']}@{row['version']}",
                    "source": row["sources"][column],
                    "rank": tuple(lead * row["period_us"] for lead in passes.rank),
                }


def _seconds(row: Row, lead: int | None) -> float | None:
    return None if lead is None else lead * row["period_us"] / 1e6


def _shown(row: Row) -> list[object]:
    beyond = f"> {row['horizon_s']:g} s"
    times = [beyond if row[name] is None else f"{row[name]:g} s" for name in ("middle_s", "earliest_s", "latest_s")]
    return [row["series"], row["column"], row["last_value"], *times, row["issued"], row["predictor"], row["source"]]

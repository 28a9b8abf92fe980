"""Milan grid squares: hourly activity counts of 62 days from 2013-11-01, local time.

A square stands for a radio cell (``milan-<square id>``). The count has no physical unit; it is mapped to
``connected_ues`` as a stand-in measure of activity, for that is the only count on the wire (``activity_count`` in the
frame). The daemon refuses stamps before 2015: publish ``trace.shifted(weeks)``. The series that hold fewer
than 1,488 hours are taken to begin with the others and to be cut short at the end (``noted``: ``missing_hours``); a
series equal to an earlier one is kept and noted as ``exact_copy``.

``frames`` gives the same hours as frames of one grid. Square id = 100 * row + column + 1 on the real grid of 100 x 100
squares (ids run row by row from the south-west). Of the 147 distinct full squares 128 lie in the rows 10 and 11, so the
real box would hold a square in 1.5 % of its places; ``places`` says how they are laid out densely.
"""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from netpredict.errors import DataError
from netpredict.ingest.messages import Grid
from netpredict.traces.archive import readable
from netpredict.traces.message import SCHEMA_OF, TraceMessage, grid_message
from netpredict.traces.trace import Cleaner, Trace
from netpredict.traces.wire import traffic_messages

FILE = "matrixTS.csv.gz"
LABELS = "ID_labels.csv"
TIME_ZONE = "Europe/Rome"
FIRST_HOUR = "2013-11-01 00:00"
PERIOD_S = 3600.0
HOURS = 62 * 24
PREFIX = "milan-"
SIDE = 100
"""Squares along one side of the real grid."""


def read(folder: Path, limit_traces: int | None = None) -> Iterator[Trace]:
    """Read the squares in the order of the file."""
    with readable(folder / FILE), gzip.open(folder / FILE, "rt", encoding="utf-8-sig") as file:
        lines = file.read().splitlines()
    with readable(folder / LABELS):
        squares = [_square(label) for label in (folder / LABELS).read_text("utf-8-sig").split()]
    if len(squares) != len(lines):
        raise DataError(f"{folder}: {len(lines)} series in {FILE} but {len(squares)} ids in {LABELS}")
    seen: set[str] = set()
    for square, line in islice(zip(squares, lines, strict=True), limit_traces):
        series = line.rstrip(", ")
        yield _trace(f"{PREFIX}{square}", series.split(","), is_copy=series in seen)
        seen.add(series)


def messages(trace: Trace) -> Iterator[TraceMessage]:
    """One traffic row an hour, the count as ``connected_ues``."""
    return traffic_messages(trace.frame)


def frames(traces: Iterable[Trace]) -> Iterator[TraceMessage]:
    """One message an hour with the counts of the distinct full squares, at their ``places``; the grid ``milan``."""
    full = {int(trace.name.removeprefix(PREFIX)): trace.frame for trace in traces if not trace.noted}
    if not full:
        return
    place_of = places(list(full))
    shape = (max(row for row, _ in place_of.values()) + 1, max(column for _, column in place_of.values()) + 1)
    hours = next(iter(full.values()))["event_time_us"].tolist()
    planes = np.full((len(hours), *shape), np.nan)
    for square, (row, column) in place_of.items():
        planes[:, row, column] = full[square]["activity_count"].to_numpy()
    for event_time_us, plane in zip(hours, planes, strict=True):
        rows = [[None if value != value else value for value in row] for row in plane.tolist()]
        yield grid_message(Grid(SCHEMA_OF["grid"], "milan", event_time_us, activity_count=rows))


def places(squares: Sequence[int]) -> dict[int, tuple[int, int]]:
    """(row, column) of each square on a dense grid of two rows.

    The rows of the real grid are taken in pairs (0 and 1, 2 and 3 …), columns of a pair that hold no square are left
    out, and the pairs stand side by side: neighbours stay neighbours, except across what is left out. The 147 distinct
    full squares take 2 x 96 places, of which 45 are empty.
    """
    at = {square: divmod(square - 1, SIDE) for square in squares}
    strip = sorted({(row // 2, column) for row, column in at.values()})
    column_of = {pair: column for column, pair in enumerate(strip)}
    return {square: (row % 2, column_of[row // 2, column]) for square, (row, column) in at.items()}


def _square(label: str) -> int:
    try:
        return int(float(label))  # written as 1.249000000000000000e+03
    except (ValueError, OverflowError) as error:
        raise DataError(f"{LABELS}: {label!r} is no square id") from error


def _trace(radio_cell_id: str, counts: list[str], *, is_copy: bool) -> Trace:
    cleaner = Cleaner()
    first_us = int(pd.Timestamp(FIRST_HOUR, tz=TIME_ZONE).timestamp()) * 1_000_000
    frame = pd.DataFrame(
        {
            "event_time_us": first_us + np.arange(len(counts), dtype=np.int64) * 3_600_000_000,
            "radio_cell_id": radio_cell_id,
            "activity_count": cleaner.numbers(pd.Series(counts, name="count", dtype="str")),
        }
    )
    frame["connected_ues"] = frame["activity_count"]
    trace = Trace(radio_cell_id, frame, cleaner.repairs)
    trace.note("missing_hours", HOURS - len(counts))
    trace.note("exact_copy", is_copy)
    return trace

"""Transplants: the state of a series comes from another one, at an offset that the control journal names.

A payload holds the state itself, so that the journal alone says what became of the series: the other one may live on a
topic partition of another instance, and goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from netpredict.errors import DataError
from netpredict.forecast.series import fits, unpacked
from netpredict.lane import Lane
from netpredict.store.commit import SERIES_PER_LANE, ControlRequest, JournalRow, SeriesState
from netpredict.stream import Stream
from netpredict.types import NO_SLOT, AnyArray

TRANSPLANT, MOVE = "transplant", "move"
"""Kinds of journal rows: hidden states of a neighbour; hidden states and hook states of the same series elsewhere."""

MOVED = "moved"
"""Kind of the journal row of a new series whose key lives on another topic partition."""


class Origin(msgspec.Struct, frozen=True):
    """Whose state it was, and at which slot."""

    topic_partition: str
    series: str
    slot: int


class Transplant(msgspec.Struct, frozen=True, rename={"origin": "from"}):
    """Payload of both kinds; ``number`` tells the series from an earlier one of its key, ``layout`` reads ``state``."""

    series: str
    number: int
    origin: Origin
    layout: str
    state: bytes


def payload(kind: str, source: SeriesState, target: SeriesState) -> dict[str, object]:
    """What to ask for, from two stored states. DataError when the target's predictors are not all in the source."""
    given, mine = _columns(source), _columns(target)
    lacking = [name for name in mine if not _is_hooks(name) and (name not in given or not _alike(given, mine, name))]
    if lacking:
        raise DataError(
            f"the state of {source.key} on {source.topic_partition} has another layout than that of {target.key} on"
            f" {target.topic_partition}: it lacks {', '.join(lacking)}; try again once both were seen by the same"
            " model versions"
        )
    names = [name for name in given if kind == MOVE or not _is_hooks(name)]
    fields = [(name, given[name].dtype, given[name].shape[1:]) for name in names]
    packed = np.empty(1, fields)
    for name in names:
        packed[name] = given[name]
    layout = msgspec.json.encode([[name, dtype.str, list(shape)] for name, dtype, shape in fields]).decode()
    origin = Origin(str(source.topic_partition), source.key, source.slot)
    number = target.series_id % SERIES_PER_LANE
    plain: dict[str, object] = msgspec.to_builtins(Transplant(target.key, number, origin, layout, packed.tobytes()))
    return plain


def enter(stream: Stream, lane: Lane, request: ControlRequest) -> None:
    """Let a request take effect before the lane's next record. Journaled, also a refusal."""
    asked = msgspec.convert(request.payload, Transplant)
    why = _refusal(stream, lane, asked)
    if why:
        refused = {"request": request.kind, "series": asked.series, "why": why}
        lane.journal.append(JournalRow(lane.next_offset, "refused", refused))
    else:
        _implant(stream, lane, asked, whole=request.kind == MOVE)
        lane.journal.append(JournalRow(lane.next_offset, request.kind, request.payload))


def flag_moved(stream: Stream, lane: Lane, journal: Iterable[JournalRow]) -> None:
    """Flag the series of a lane that its journal calls moved and that got no state since."""
    for entry in journal:
        if entry.kind in (MOVED, MOVE):
            row = _row(stream, lane, entry.payload["series"], entry.payload["number"])
            if row is not None:
                stream.table.moved[row] = entry.kind == MOVED


def _row(stream: Stream, lane: Lane, key: str, number: int) -> int | None:
    row = lane.rows.get(key)
    if row is None or stream.table.series_id[row] % SERIES_PER_LANE != number:
        return None
    return row


def _refusal(stream: Stream, lane: Lane, asked: Transplant) -> str:
    """Why this state may not become the series', empty when it may."""
    row = _row(stream, lane, asked.series, asked.number)
    if row is None or stream.table.last_slot[row] == NO_SLOT:
        return f"the series is not alive on {lane.topic_partition}"
    if stream.predictors_of(asked.series) != stream.predictors_of(asked.origin.series):
        return f"{asked.origin.series} is routed to other predictors"
    given = unpacked(asked.layout, asked.state)
    needed = stream.hidden_columns(lane)
    lacking = [name for name, spec in needed.items() if name not in given or not fits(given[name], spec)]
    return f"another layout: the state lacks {', '.join(lacking)}" if lacking else ""


def _implant(stream: Stream, lane: Lane, asked: Transplant, whole: bool) -> None:
    """Only columns that this lane packs: what other lanes keep in memory must not be seen."""
    specs = stream.hidden_columns(lane)
    if whole:
        specs |= {name: spec for bound in stream.hooks for name, spec in bound.columns().items()}
    given = unpacked(asked.layout, asked.state)
    rows = np.array([lane.rows[asked.series]])
    taken = {name: given[name] for name, spec in specs.items() if name in given and fits(given[name], spec)}
    stream.table.scatter("", rows, taken)
    stream.table.touched[rows] = True
    if whole:
        stream.table.moved[rows] = False


def _columns(stored: SeriesState) -> dict[str, AnyArray]:
    if stored.layout is None or stored.state is None:
        raise DataError(f"{stored.key} on {stored.topic_partition} has no stored state: it starts cold")
    return unpacked(stored.layout, stored.state)


def _alike(one: dict[str, AnyArray], two: dict[str, AnyArray], name: str) -> bool:
    return (one[name].dtype, one[name].shape) == (two[name].dtype, two[name].shape)


def _is_hooks(name: str) -> bool:
    return name.startswith("hook.")

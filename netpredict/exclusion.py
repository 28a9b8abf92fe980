"""Exclusions: what own actions have changed is no truth to score or to train by.

They enter by the control journal, at an offset that it names, so that a replay leaves out the same slots. The intervals
of a radio cell become one, from the first to the last: between two actions it is rather left out than believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from netpredict.lane import Lane
from netpredict.store.commit import EXCLUDE, ControlRequest, JournalRow
from netpredict.stream import Stream


class Exclusion(msgspec.Struct, frozen=True):
    """Payload: slots of these radio cells after ``from_us``, up to ``until_us``, because of an action."""

    action: str
    radio_cells: Sequence[str]
    from_us: int
    until_us: int


def enter(stream: Stream, lane: Lane, request: ControlRequest) -> None:
    """Let a request take effect before the lane's next record. Journaled."""
    _exclude(stream, lane, msgspec.convert(request.payload, Exclusion))
    lane.journal.append(JournalRow(lane.next_offset, EXCLUDE, request.payload))


def restore(stream: Stream, lane: Lane, journal: Iterable[JournalRow]) -> None:
    """What the journal of a lane says, before its series are loaded."""
    for entry in journal:
        if entry.kind == EXCLUDE:
            _exclude(stream, lane, msgspec.convert(entry.payload, Exclusion))


def _exclude(stream: Stream, lane: Lane, asked: Exclusion) -> None:
    first = (asked.from_us - stream.phase_us) // stream.period_us + 1
    last = (asked.until_us - stream.phase_us) // stream.period_us
    stream.exclude(lane, asked.radio_cells, first, last)

"""What a trace or the simulator puts on the wire: encoded messages, and their merge by event time."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

import msgspec

from netpredict.ingest.messages import ChannelState, Grid, Rsrp, Traffic

SCHEMA_OF = {
    "traffic": "netpredict.traffic/1",
    "rsrp": "netpredict.rsrp/1",
    "channel-state": "netpredict.channel-state/1",
    "grid": "netpredict.grid/1",
}

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class TraceMessage:
    """One record to publish: ``key`` is the UE where there is one, else the radio cell or grid; ``value`` is JSON."""

    stream: str
    event_time_us: int
    key: bytes
    value: bytes


def traffic_message(row: Traffic) -> TraceMessage:
    """Encode the load of one radio cell."""
    return TraceMessage("traffic", row.event_time_us, row.radio_cell_id.encode(), _encode(row))


def grid_message(frame: Grid) -> TraceMessage:
    """Encode one frame of a grid of radio cells."""
    return TraceMessage("grid", frame.event_time_us, frame.grid_id.encode(), _encode(frame))


def ue_message(stream: str, row: Rsrp | ChannelState) -> TraceMessage:
    """Encode a report or channel state; keyed by the UE, or by the radio cell when the row is a cell's mean."""
    return TraceMessage(stream, row.event_time_us, (row.ue_id or row.radio_cell_id).encode(), _encode(row))


def merge(traces: Iterable[Iterable[TraceMessage]]) -> Iterator[TraceMessage]:
    """Yield the messages of many traces by event time; equal times keep the order in which the traces are given.

    A trace's own order is never changed: a stamp that goes back inside a trace comes out where it was published,
    so that it is late on the wire as it was on the air.
    """
    ranked = (_by_latest_event_time(messages) for messages in traces)
    for _, message in heapq.merge(*ranked, key=itemgetter(0)):
        yield message


def _by_latest_event_time(messages: Iterable[TraceMessage]) -> Iterator[tuple[int, TraceMessage]]:
    latest_us = -(2**63)
    for message in messages:
        latest_us = max(latest_us, message.event_time_us)
        yield latest_us, message

"""Recorded or simulated messages as a training set, read as the daemon would read them: decoder, firewall, grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from netpredict.config import Config
from netpredict.errors import DataError
from netpredict.ingest.align import slots_of
from netpredict.ingest.source import MemoryRecord
from netpredict.learn.dataset import build, newest
from netpredict.store.history import evenly, whole_ues
from netpredict.stream import Stream
from netpredict.traces.message import TraceMessage
from netpredict.types import FloatArray, IntArray, Quality, TrainingSet, ue_of

DECODED_AT_ONCE = 20_000


class Rows(NamedTuple):
    """Keys of series; by row the index of its key (n,), its slot (n,) and its values (n, columns)."""

    keys: list[str]
    series: IntArray
    slots: IntArray
    values: FloatArray


def training_set(stream: Stream, messages: Iterable[TraceMessage], config: Config) -> TrainingSet:
    """Messages as the daemon would read them: decoder, firewall, grid; then the newest steps of each series."""
    keys, series, slots, values = rows_of(stream, messages)
    if not len(slots):
        raise DataError(f"no message is of schema {stream.config.schema}, or none of them could be used")
    most, together = config.learn.series_max, stream.hindsight is not None
    chosen = whole_ues(keys, most) if together else evenly(len(keys), most)
    place = np.full(len(keys), -1)
    place[chosen] = np.arange(len(chosen))
    mine = np.flatnonzero(place[series] >= 0)
    names, steps = [keys[index] for index in chosen], config.learn.history_steps
    group = numbered_ues(names) if together else None
    first_slot, grid = newest(place[series[mine]], slots[mine], values[mine], len(chosen), steps, group)
    return build(
        stream.features,
        stream.output,
        series_names=names,
        first_slot=first_slot,
        values=grid,
        columns=stream.columns,
        validation_ratio=config.learn.validation_ratio,
        hindsight=stream.hindsight,
    )


def numbered_ues(keys: Sequence[str]) -> list[int]:
    """The number of the UE of each link."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(ue_of(key), len(numbers)) for key in keys]


def rows_of(stream: Stream, messages: Iterable[TraceMessage]) -> Rows:
    """What of the messages is believed: without what the firewall or the sender doubts."""
    index: dict[str, int] = {}
    series, slots, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], []
    wanted = (message for message in messages if message.stream == stream.config.schema)
    while chunk := list(islice(wanted, DECODED_AT_ONCE)):
        records = [MemoryRecord(0, message.event_time_us // 1000, message.key, message.value) for message in chunk]
        decoded = stream.decoder.decode(records)
        ingest = np.array([record.timestamp for record in records], np.int64)[decoded.record] * 1000 + stream.period_us
        refused = np.zeros(len(decoded.keys), bool)
        for mask in stream.firewall.inspect(decoded, ingest).refused.values():
            refused |= mask
        refused |= (decoded.flags & np.uint8(Quality.SUSPECT)) != 0
        kept = np.flatnonzero(~refused)
        series.append(np.array([index.setdefault(decoded.keys[row], len(index)) for row in kept.tolist()], np.int64))
        slots.append(slots_of(decoded.event_time_us[kept], stream.period_us, stream.phase_us))
        values.append(decoded.values[kept])
    width = len(stream.columns)
    every = np.concatenate([np.empty((0, width), np.float32), *values])
    return Rows(list(index), np.concatenate(series), np.concatenate(slots), every)

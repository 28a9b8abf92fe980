"""Forecasts and firings as Kafka messages: CloudEvents in binary mode around the JSON of ``ingest.messages``.

A commit brings a hundred thousand forecasts, so the JSON is put together from texts that are made once: of a series, of
a layout, of each distinct value. Ids are functions of what a message is about; a repeated message is the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from netpredict.config import StreamConfig
from netpredict.ingest.cloudevents import (
    ACTION_TYPE,
    FORECAST_TYPE,
    Headers,
    action_json,
    identity,
    origin,
    record_key,
)
from netpredict.ingest.messages import FORECAST_SCHEMA
from netpredict.operate.sink import Message
from netpredict.store.commit import ForecastLayout, ForecastRows
from netpredict.store.schema import SOURCE_NAMES
from netpredict.types import MISSING_TICKS, Firing, Int32Array, Quality, TopicPartition

ROWS_PER_CHUNK = 1024
HEADS_MAX = 200_000
"""Series whose texts are kept, a few hundred bytes each."""

_encode = msgspec.json.Encoder().encode


class Directory(Protocol):
    """Names by the store's ids."""

    def series_keys(self, series_ids: Sequence[int]) -> dict[int, str]:
        """Keys of series."""
        ...

    def model(self, model_id: int) -> tuple[str, str]:
        """Predictor and version."""
        ...


class _Head(NamedTuple):
    """What all messages of one series and model version begin with."""

    key: bytes
    id: str
    text: str


class _Frame(NamedTuple):
    """What all messages of one layout have in common: the text behind the head, how each KPI begins by source."""

    grid: str
    openings: tuple[tuple[str, ...], ...]
    headers: Headers


class Envelope:
    """Makes messages. Not to be shared between threads."""

    def __init__(
        self, group: str, streams: Mapping[str, StreamConfig], directory: Directory, *, shadows: bool = False
    ) -> None:
        self._group = group
        self._streams = streams
        self._directory = directory
        self._shadows = shadows
        self._hidden = Quality.GOOD if shadows else Quality.CHALLENGER
        self._heads: dict[int, dict[int, _Head | None]] = {}
        self._kept = 0
        self._frames: dict[ForecastLayout, _Frame] = {}

    def forecasts(self, place: TopicPartition, rows: ForecastRows) -> Iterator[list[Message]]:
        """One message a row, a chunk at a time; those of shadows and challengers only where they are wanted."""
        for start in range(0, len(rows.slot_time_us), ROWS_PER_CHUNK):
            yield self._chunk(place, rows, slice(start, start + ROWS_PER_CHUNK))

    def action(self, firing: Firing) -> Message:
        """The message of a firing."""
        headers = [*origin(ACTION_TYPE, self._group, firing.stream), *identity(firing.firing_id, firing.slot_time_us)]
        return Message(record_key(firing.object_id), action_json(firing), headers)

    def _chunk(self, place: TopicPartition, rows: ForecastRows, part: slice) -> list[Message]:
        layout, ids = rows.layout, rows.series_id[part].tolist()
        heads = self._heads_of(place, layout, rows.model_id, ids)
        times, reservations = rows.slot_time_us[part].tolist(), rows.quality[part].tolist()
        frame = self._frame(layout)
        width = layout.horizon_steps * len(layout.levels)
        texts = []
        for kpi, decimals in enumerate(layout.decimals):
            values = _value_texts(rows.ticks[part, kpi * width : (kpi + 1) * width], decimals, len(layout.levels))
            openings = frame.openings[kpi]
            sources = rows.sources[part, kpi].tolist()
            texts.append([openings[source] + text for source, text in zip(sources, values, strict=True)])
        kpis = texts[0] if len(texts) == 1 else [*map(",".join, zip(*texts, strict=True))]
        messages = []
        for head, time_us, flags, text in zip(heads, times, reservations, kpis, strict=True):
            if head is not None and not flags & self._hidden:
                message_id = f"{head.id}-{time_us}"
                value = (
                    f'{{"schema":"{FORECAST_SCHEMA}","id":"{message_id}",{head.text},"issued_at_us":{time_us},'
                    f'{frame.grid},"quality":{_quality_text(flags)},"kpis":{{{text}}}}}'
                )
                headers = [*frame.headers, *identity(message_id, time_us)]
                messages.append(Message(head.key, value.encode(), headers))
        return messages

    def _heads_of(
        self, place: TopicPartition, layout: ForecastLayout, model_id: int, ids: Sequence[int]
    ) -> list[_Head | None]:
        known = self._heads.setdefault(model_id, {})
        unknown = {series_id for series_id in ids if series_id not in known}
        if unknown:
            if self._kept + len(unknown) > HEADS_MAX:
                self._heads = {model_id: (known := {})}
                self._kept, unknown = 0, set(ids)
            predictor, version = self._directory.model(model_id)
            for series_id, key in self._directory.series_keys(sorted(unknown)).items():
                known[series_id] = self._head(place, layout, key, predictor, version)
            self._kept += len(unknown)
        return [known.get(series_id) for series_id in ids]

    def _head(
        self, place: TopicPartition, layout: ForecastLayout, key: str, predictor: str, version: str
    ) -> _Head | None:
        stream = self._streams.get(layout.stream)
        if stream is not None and not self._shadows and _active(stream, key) != predictor:
            return None
        natural = "\x1f".join((str(place), layout.stream, key, predictor, version))
        fields = key.split("|")
        names = list(stream.series_by) if stream is not None else []
        if len(names) != len(fields):  # left behind by an older config
            names = [f"field_{number}" for number in range(len(fields))]
        start = {
            "stream": layout.stream,
            "series": key,
            "key": dict(zip(names, fields, strict=True)),
            "predictor": predictor,
            "version": version,
        }
        digest = hashlib.blake2b(natural.encode(), digest_size=12).hexdigest()
        return _Head(record_key(key), digest, _encode(start).decode()[1:-1])

    def _frame(self, layout: ForecastLayout) -> _Frame:
        if layout not in self._frames:
            grid = {"period_us": layout.period_us, "horizon_steps": layout.horizon_steps, "levels": layout.levels}
            openings = tuple(
                tuple(f'{_encode(kpi).decode()}:{{"source":"{source}","values":[[' for source in SOURCE_NAMES)
                for kpi in layout.kpis
            )
            headers = origin(FORECAST_TYPE, self._group, layout.stream)
            self._frames[layout] = _Frame(_encode(grid).decode()[1:-1], openings, headers)
        return self._frames[layout]


def _value_texts(ticks: Int32Array, decimals: int, levels: int) -> list[str]:
    """Each row of ticks as the JSON of its values behind the first ``[[``, with what closes the KPI.

    Each distinct value is printed once; words padded with zeros are put side by side, then the zeros are deleted.
    """
    distinct, index = np.unique(ticks, return_inverse=True)
    values = np.where(distinct == MISSING_TICKS, np.nan, distinct / 10**decimals)  # msgspec prints NaN as null
    words = np.array(_encode(values.tolist())[1:-1].split(b","))
    endings = [np.strings.add(words, end) for end in (b",", b"],[", b"]]}\n")]
    kind = np.zeros(ticks.shape[1], np.int64)
    kind[levels - 1 :: levels] = 1
    kind[-1] = 2
    table = np.concatenate(endings)[index.reshape(ticks.shape) + kind * len(words)]
    texts: list[str] = table.tobytes().translate(None, b"\0").decode("ascii").split("\n")
    return texts[:-1]


def _active(stream: StreamConfig, key: str) -> str | None:
    for route in stream.routes:
        if route.match == "*" or fnmatchcase(key, route.match):
            return route.active
    return None


@lru_cache(maxsize=256)
def _quality_text(flags: int) -> str:
    return _encode([str(flag.name).lower() for flag in Quality if flag & flags]).decode()

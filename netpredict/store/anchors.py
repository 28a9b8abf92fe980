"""What a replay begins with and is compared with: anchors, marks, observations and forecasts of a few series."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from netpredict.store.commit import SERIES_PER_LANE, ColumnLayout, ForecastRows, MarkRow
from netpredict.store.database import NO_PARAMETERS, Parameters, Row, database_of
from netpredict.store.encode import column_layout_id, forecast_layout_id, sources_texts, ticks_rows, ticks_texts
from netpredict.types import Int32Array, TopicPartition


@dataclass(frozen=True, slots=True)
class StoredLane:
    """A topic partition of a stream; ``state`` is its JSON as of the last commit."""

    lane_id: int
    topic_partition: TopicPartition
    state: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The state of a series behind the slot at ``slot_time_us``; None when it fails its checksum."""

    series_id: int
    key: str
    slot_time_us: int
    layout: str
    state: bytes | None


class Observed(NamedTuple):
    """One stored observation; ``ticks`` int32 (columns)."""

    slot_time_us: int
    series_id: int
    event_time_us: int
    flags: int
    ticks: Int32Array


class StoredForecast(NamedTuple):
    """One forecast as its row stands in the store: what a replay must give to the letter."""

    layout_id: int
    sources: str
    quality: int
    ticks: str
    observed: str
    seasonal: str | None


ForecastKey = tuple[int, int, int]
"""Slot time in µs, series id, model id."""


class Anchors:
    """Reads a store in short transactions, beside whoever writes it."""

    def __init__(self, url: str) -> None:
        self._database = database_of(url)

    def lanes(self, stream: str) -> list[StoredLane]:
        """Topic partitions of a stream that were ever committed, of every group."""
        rows = self._read(
            "SELECT lane_id, topic, partition, state FROM topic_progress WHERE stream = :stream AND state <> ''"
            " ORDER BY topic, partition, lane_id",
            {"stream": stream},
        )
        return [StoredLane(lane, TopicPartition(topic, partition), state) for lane, topic, partition, state in rows]

    def anchors(self, lane_id: int) -> list[Anchor]:
        """Kept states of series of a lane, oldest first."""
        rows = self._read(
            "SELECT a.series_id, s.key, a.slot_time_us, l.layout, a.checksum, a.state FROM state_anchor AS a"
            " JOIN series AS s ON s.series_id = a.series_id JOIN state_layout AS l ON l.layout_id = a.layout_id"
            " WHERE a.series_id >= :from_id AND a.series_id < :to_id ORDER BY a.slot_time_us, a.series_id",
            {"from_id": lane_id * SERIES_PER_LANE, "to_id": (lane_id + 1) * SERIES_PER_LANE},
        )
        return [
            Anchor(series_id, key, time_us, layout, state if zlib.crc32(state) == checksum else None)
            for series_id, key, time_us, layout, checksum, state in rows
        ]

    def marks(self, lane_id: int) -> list[MarkRow]:
        """What held on a lane from which bucket on, oldest first."""
        rows = self._read(
            "SELECT begins_us, mark FROM bucket_mark WHERE lane_id = :lane_id ORDER BY begins_us", {"lane_id": lane_id}
        )
        return [MarkRow(*row) for row in rows]

    def implanted(self, lane_id: int) -> set[tuple[str, int]]:
        """(key, number) of series whose state came from elsewhere at some time."""
        rows = self._read(
            "SELECT payload FROM control_journal WHERE lane_id = :lane_id AND kind IN ('transplant', 'move')",
            {"lane_id": lane_id},
        )
        payloads = (msgspec.json.decode(payload) for (payload,) in rows)
        return {(payload.get("series"), payload.get("number")) for payload in payloads}

    def oldest_forecast_us(self) -> int | None:
        """Slot time before which forecasts are pruned."""
        ((oldest,),) = self._read("SELECT min(slot_time_us) FROM forecast")
        return None if oldest is None else int(oldest)

    def observations(
        self, series: Sequence[int], after_us: int, until_us: int, columns: ColumnLayout
    ) -> list[Observed]:
        """Observations of these series after one time and up to another, by slot; without those of other columns."""
        rows = self._read(
            _OBSERVED,
            {
                "series": list(series),
                "after_us": after_us,
                "until_us": until_us,
                "layout_id": column_layout_id(columns),
            },
        )
        ticks = ticks_rows([row[-1] for row in rows], len(columns.columns))
        return [
            Observed(time_us, series_id, event_us, flags, ticks[number])
            for number, (time_us, series_id, event_us, flags, _) in enumerate(rows)
        ]

    def forecasts(self, series: Sequence[int], after_us: int, until_us: int) -> dict[ForecastKey, StoredForecast]:
        """Forecasts of these series, as observations."""
        rows = self._read(_FORECAST, {"series": list(series), "after_us": after_us, "until_us": until_us})
        return {(time_us, series_id, model): StoredForecast(*rest) for time_us, series_id, model, *rest in rows}

    def _read(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> list[Row]:
        with self._database.reader() as connection:
            return connection.execute(sql, parameters).fetchall()


def as_stored(rows: ForecastRows) -> dict[ForecastKey, StoredForecast]:
    """Forecasts as a commit would store them."""
    layout = forecast_layout_id(rows.layout)
    count = len(rows.slot_time_us)
    seasonal = [None] * count if rows.seasonal is None else ticks_texts(rows.seasonal)
    texts = zip(
        sources_texts(rows.sources),
        rows.quality.tolist(),
        ticks_texts(rows.ticks),
        ticks_texts(rows.observed),
        seasonal,
        strict=True,
    )
    keys = zip(rows.slot_time_us.tolist(), rows.series_id.tolist(), [rows.model_id] * count, strict=True)
    return {key: StoredForecast(layout, *stored) for key, stored in zip(keys, texts, strict=True)}


# Both tables are time-first: the times are walked, and at each the few series are looked up.
_TIMES = """
WITH RECURSIVE slots(slot_time_us) AS (
  SELECT min(slot_time_us) FROM {table} WHERE slot_time_us > :after_us
  UNION ALL
  SELECT (SELECT min(x.slot_time_us) FROM {table} AS x WHERE x.slot_time_us > slots.slot_time_us)
  FROM slots WHERE slots.slot_time_us <= :until_us
)
"""
_OBSERVED = (
    _TIMES.format(table="observation")
    + "SELECT o.slot_time_us, o.series_id, o.event_time_us, o.flags, o.ticks FROM slots"
    " CROSS JOIN each_number(:series) AS i CROSS JOIN observation AS o"
    " WHERE o.slot_time_us = slots.slot_time_us AND o.series_id = i.value"
    " AND slots.slot_time_us <= :until_us AND o.layout_id = :layout_id ORDER BY o.slot_time_us, o.series_id"
)
_FORECAST = (
    _TIMES.format(table="forecast")
    + "SELECT f.slot_time_us, f.series_id, f.model_id, f.layout_id, f.sources, f.quality, f.ticks, f.observed,"
    " f.seasonal FROM slots CROSS JOIN each_number(:series) AS i"
    " CROSS JOIN forecast AS f WHERE f.slot_time_us = slots.slot_time_us AND f.series_id = i.value"
    " AND slots.slot_time_us <= :until_us"
)

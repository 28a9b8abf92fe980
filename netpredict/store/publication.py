"""What is still to be published: the windows that commits left, read back from forecasts and firings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from netpredict.store.commit import SERIES_PER_LANE, ForecastLayout, ForecastRows
from netpredict.store.encode import columns_of, sources_rows, ticks_rows
from netpredict.store.outbox import FIRING_COLUMNS, firing_of
from netpredict.store.sql import SqlStore, policy_window
from netpredict.types import Firing, TopicPartition

ROWS_PER_READ = 4096


@dataclass(frozen=True, slots=True)
class Window:
    """Slot times, both ends included, of the forecasts and firings that one commit brought for one lane.

    Where ``next_offset`` is no offset (``policy_window``) no commit did, but a policy: it brought firings only.
    """

    lane_id: int
    topic_partition: TopicPartition
    next_offset: int
    from_time_us: int
    until_time_us: int

    @property
    def key(self) -> tuple[int, int]:
        """Names the commit of the lane."""
        return self.lane_id, self.next_offset


class SqlPublications:
    """The publisher's view of a store; its one kind of write goes through the store's one connection.

    Where several instances share the store, ``owner`` sees the windows of the topic partitions that it owns.
    """

    def __init__(self, store: SqlStore, group: str, owner: str = "") -> None:
        self._owner = owner if store.database.shared and owner else None
        self._store = store
        self._group = group
        self._layouts: dict[int, ForecastLayout] = {}

    def unpublished(self, limit: int) -> list[Window]:
        """Windows that were never marked as published, oldest slot times first."""
        with self._store.database.reader() as connection:
            rows = connection.execute(
                "SELECT w.lane_id, p.topic, p.partition, w.next_offset, w.from_time_us, w.until_time_us"
                " FROM publication AS w JOIN topic_progress AS p ON p.lane_id = w.lane_id WHERE p.group_name = :group"
                " AND (:owner IS NULL OR p.owner = :owner)"
                " ORDER BY w.from_time_us, w.lane_id, w.next_offset LIMIT :most",
                {"group": self._group, "owner": self._owner, "most": limit},
            ).fetchall()
        return [Window(lane, TopicPartition(topic, partition), *rest) for lane, topic, partition, *rest in rows]

    def count(self) -> int:
        """Number of windows that are not published, of all groups."""
        with self._store.database.reader() as connection:
            (count,) = connection.execute("SELECT count(*) FROM publication").fetchone()
        return int(count)

    def mark_published(self, windows: Iterable[Window]) -> None:
        """Forget windows that are in Kafka, durable on return."""
        with self._store.database.transaction() as connection:
            connection.execute_many(
                "DELETE FROM publication WHERE lane_id = :lane_id AND next_offset = :next_offset",
                [{"lane_id": window.lane_id, "next_offset": window.next_offset} for window in windows],
            )

    def forecasts(self, window: Window) -> Iterator[ForecastRows]:
        """The stored forecasts of a lane in its window, a read transaction a chunk. ``observed`` stays empty."""
        if window.next_offset < 0:
            return
        first, last = window.lane_id * SERIES_PER_LANE, (window.lane_id + 1) * SERIES_PER_LANE - 1
        slot_time_us: int | None = window.from_time_us
        while slot_time_us is not None and slot_time_us <= window.until_time_us:
            after = (first, -1)
            while rows := self._read_forecasts(slot_time_us, after, last):
                yield from self._grouped(slot_time_us, rows)
                after = rows[-1][:2]
                if len(rows) < ROWS_PER_READ:
                    break
            slot_time_us = self._next_slot_time_us(slot_time_us)

    def firings(self, window: Window) -> list[Firing]:
        """The stored firings of a lane in its window."""
        with self._store.database.reader() as connection:
            rows = connection.execute(
                f"SELECT {FIRING_COLUMNS} FROM firing AS f WHERE f.slot_time_us BETWEEN :from_us AND :until_us"
                " AND f.lane_id = :lane_id ORDER BY f.slot_time_us, f.firing_id",
                {"from_us": window.from_time_us, "until_us": window.until_time_us, "lane_id": window.lane_id},
            ).fetchall()
        found = [firing_of(row) for row in rows]
        if window.next_offset >= 0:
            return found
        hooks = {firing.hook for firing in found if policy_window(firing.firing_id) == window.next_offset}
        return [firing for firing in found if firing.hook in hooks]

    def firings_of(self, window: Window, firing_ids: Sequence[str]) -> list[Firing]:
        """Those of these firings that the lane stored: the same id from another lane may have been there before."""
        with self._store.database.reader() as connection:
            rows = connection.execute(
                f"SELECT {FIRING_COLUMNS} FROM each_text(:ids) AS i JOIN firing AS f ON f.firing_id = i.value"
                " WHERE f.lane_id = :lane_id",
                {"ids": list(firing_ids), "lane_id": window.lane_id},
            ).fetchall()
        found = {row[0]: firing_of(row) for row in rows}
        return [found[firing_id] for firing_id in firing_ids if firing_id in found]

    def series_keys(self, series_ids: Sequence[int]) -> dict[int, str]:
        """Keys of series by their ids."""
        with self._store.database.reader() as connection:
            rows = connection.execute(
                "SELECT s.series_id, s.key FROM each_number(:ids) AS i CROSS JOIN series AS s"
                " WHERE s.series_id = i.value",
                {"ids": list(series_ids)},
            )
            return dict(rows.fetchall())

    def model(self, model_id: int) -> tuple[str, str]:
        """Predictor and version of a model id."""
        with self._store.database.reader() as connection:
            row = connection.execute(
                "SELECT predictor, version FROM model_version WHERE model_id = :model_id", {"model_id": model_id}
            ).fetchone()
        return ("unknown", "-") if row is None else (row[0], row[1])

    def _read_forecasts(self, slot_time_us: int, after: tuple[int, int], last: int) -> list[tuple[Any, ...]]:
        with self._store.database.reader() as connection:
            return connection.execute(
                "SELECT series_id, model_id, layout_id, sources, quality, ticks FROM forecast"
                " WHERE slot_time_us = :slot_time_us AND (series_id, model_id) > (:series_id, :model_id)"
                " AND series_id <= :last ORDER BY series_id, model_id LIMIT :most",
                {
                    "slot_time_us": slot_time_us,
                    "series_id": after[0],
                    "model_id": after[1],
                    "last": last,
                    "most": ROWS_PER_READ,
                },
            ).fetchall()

    def _next_slot_time_us(self, slot_time_us: int) -> int | None:
        with self._store.database.reader() as connection:
            (found,) = connection.execute(
                "SELECT min(slot_time_us) FROM forecast WHERE slot_time_us > :slot_time_us",
                {"slot_time_us": slot_time_us},
            ).fetchone()
        return None if found is None else int(found)

    def _grouped(self, slot_time_us: int, rows: list[tuple[Any, ...]]) -> Iterator[ForecastRows]:
        kind = lambda row: row[1:3]  # noqa: E731
        for (model_id, layout_id), some in groupby(sorted(rows, key=kind), kind):
            layout = self._layout(layout_id)
            series, _, _, sources, quality, ticks = columns_of(some)
            kpis = len(layout.kpis)
            yield ForecastRows(
                model_id,
                layout,
                np.full(len(series), slot_time_us, np.int64),
                np.array(series, np.int64),
                sources_rows(sources, kpis),
                np.array(quality, np.uint16),
                ticks_rows(ticks, kpis * layout.horizon_steps * len(layout.levels)),
                np.empty((len(series), 0), np.int32),
            )

    def _layout(self, layout_id: int) -> ForecastLayout:
        if layout_id not in self._layouts:
            with self._store.database.reader() as connection:
                stream, kpis, decimals, levels, horizon_steps, period_us = connection.execute(
                    "SELECT stream, kpis, decimals, levels, horizon_steps, period_us FROM forecast_layout"
                    " WHERE layout_id = :layout_id",
                    {"layout_id": layout_id},
                ).fetchone()
            self._layouts[layout_id] = ForecastLayout(
                stream,
                msgspec.json.decode(kpis, type=tuple[str, ...]),
                msgspec.json.decode(decimals, type=tuple[int, ...]),
                msgspec.json.decode(levels, type=tuple[float, ...]),
                horizon_steps,
                period_us,
            )
        return self._layouts[layout_id]

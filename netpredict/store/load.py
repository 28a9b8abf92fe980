"""Reads a lane as the store holds it: its series and their states, journal, scores in progress, pending forecasts."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from netpredict.store.commit import (
    SERIES_PER_LANE,
    ForecastLayout,
    JournalRow,
    PendingForecasts,
    ScoreRow,
    SeriesState,
)
from netpredict.store.database import Connection, Row
from netpredict.store.encode import bucket_of, columns_of, forecast_layout_id, sources_rows, ticks_rows
from netpredict.types import NO_SLOT, TopicPartition

SeriesRow = tuple[int, str, int, bool, str | None, bytes | None]


def live_series(connection: Connection, lane_id: int) -> tuple[list[SeriesRow], list[str]]:
    """The series of a lane, and the keys of those whose state fails its checksum: they come without a state."""
    layouts: dict[int, str] = dict(connection.execute("SELECT layout_id, layout FROM state_layout").fetchall())
    rows = connection.stream(
        "SELECT s.series_id, s.key, t.slot, s.scored, t.layout_id, t.checksum, t.state FROM series AS s"
        " LEFT JOIN series_state AS t ON t.series_id = s.series_id"
        " WHERE s.series_id >= :from_id AND s.series_id < :to_id AND s.retired_us IS NULL ORDER BY s.series_id",
        _range(lane_id),
    )
    crc32 = zlib.crc32
    found: list[SeriesRow] = []
    damaged: list[str] = []
    for series_id, key, slot, scored, layout, checksum, state in rows:
        if state is None:
            found.append((series_id, key, NO_SLOT, bool(scored), None, None))
        elif crc32(state) == checksum and layout in layouts:
            found.append((series_id, key, slot, bool(scored), layouts[layout], state))
        else:
            damaged.append(key)
            found.append((series_id, key, slot, bool(scored), None, None))
    return found, damaged


def _range(lane_id: int) -> dict[str, int]:
    return {"from_id": lane_id * SERIES_PER_LANE, "to_id": (lane_id + 1) * SERIES_PER_LANE}


def series_states(connection: Connection, stream: str, key: str) -> list[SeriesState]:
    """The live series of this key, at most one a topic partition; a state that fails its checksum is left out."""
    rows = connection.execute(
        "SELECT p.topic, p.partition, p.lane_id, s.series_id, s.key, t.slot, l.layout, t.checksum, t.state"
        " FROM topic_progress AS p CROSS JOIN series AS s"
        " LEFT JOIN series_state AS t ON t.series_id = s.series_id"
        " LEFT JOIN state_layout AS l ON l.layout_id = t.layout_id"
        " WHERE p.stream = :stream AND s.lane_id = p.lane_id AND s.key = :key AND s.retired_us IS NULL"
        " ORDER BY p.topic, p.partition",
        {"stream": stream, "key": key},
    ).fetchall()
    found = []
    for topic, partition, lane_id, series_id, name, slot, layout, checksum, state in rows:
        whole = state is not None and zlib.crc32(state) == checksum
        stored = (slot, layout, state) if whole else (NO_SLOT, None, None)
        found.append(SeriesState(TopicPartition(topic, partition), lane_id, series_id, name, *stored))
    return found


def moved(connection: Connection, stream: str | None) -> list[tuple[str, str, str, int, int, int, int, bool]]:
    """Series that live on two topic partitions and did not get their state from the earlier one.

    (stream, key, topic, earlier partition, partition, earlier last slot, last slot, whether their move is asked for).
    """
    rows = connection.execute(_TWINS, {"stream": stream}).fetchall()
    if not rows:
        return []
    asked, done = (_moves(connection, table) for table in ("control_request", "control_journal"))
    places = [(row[:7], (row[7], row[8] % SERIES_PER_LANE)) for row in rows]
    return [(*row, place in asked) for row, place in places if place not in done]


def _moves(connection: Connection, table: str) -> set[tuple[int, int]]:
    """(lane, number of the series) of the moves in the journal, or of those asked for."""
    rows = connection.execute(f"SELECT lane_id, payload FROM {table} WHERE kind = 'move'").fetchall()
    return {(lane_id, msgspec.json.decode(payload)["number"]) for lane_id, payload in rows}


def pending_forecasts(connection: Connection, lane_id: int, model_id: int, layout: ForecastLayout) -> PendingForecasts:
    """Of each scored series: forecasts issued at its last slot or less than a horizon before it, by slot and series."""
    kpis, width = len(layout.kpis), len(layout.kpis) * layout.horizon_steps * len(layout.levels)
    known = {
        **_range(lane_id),
        "model_id": model_id,
        "layout_id": forecast_layout_id(layout),
        "horizon": layout.horizon_steps,
        "period_us": layout.period_us,
    }
    known["phase_us"] = _phase_us(connection, known)
    rows = _pending_rows(connection, known)
    slots, series, sources, ticks, observed, seasonal = columns_of(rows) if rows else ((),) * 6
    unknown = "[" + ",".join(["null"] * (kpis * layout.horizon_steps)) + "]"
    pending = PendingForecasts(
        np.array(slots, dtype=np.int64),
        np.array(series, dtype=np.int64),
        sources_rows(sources, kpis),
        ticks_rows(ticks, width),
        ticks_rows(observed, kpis),
        ticks_rows([known or unknown for known in seasonal], kpis * layout.horizon_steps),
    )
    order = np.lexsort((pending.series_id, pending.slot))
    return PendingForecasts(
        pending.slot[order],
        pending.series_id[order],
        pending.sources[order],
        pending.ticks[order],
        pending.observed[order],
        pending.seasonal[order],
    )


def journal(connection: Connection, lane_id: int) -> list[JournalRow]:
    """What entered the lane from outside the log, in order."""
    rows = connection.execute(
        "SELECT effective_offset, kind, payload FROM control_journal WHERE lane_id = :lane_id"
        " ORDER BY effective_offset, number",
        {"lane_id": lane_id},
    ).fetchall()
    return [JournalRow(offset, kind, msgspec.json.decode(payload)) for offset, kind, payload in rows]


def scores_in_progress(connection: Connection, lane_id: int, state: str) -> list[ScoreRow]:
    """Sums of the bucket that the lane's state names; under another ``bucket_s`` it need not be the highest."""
    bucket = bucket_of(state)
    rows = connection.execute(
        f"SELECT {', '.join(_SCORE_COLUMNS)} FROM score"
        " WHERE lane_id = :lane_id"
        " AND bucket = coalesce(:bucket, (SELECT max(bucket) FROM score WHERE lane_id = :lane_id))",
        {"lane_id": lane_id, "bucket": bucket},
    ).fetchall()
    found = [_score_row(dict(zip(_SCORE_COLUMNS, row, strict=True))) for row in rows]
    # here, for a server may sort texts by the rules of a language
    return sorted(found, key=lambda row: (row.model_id, row.source, row.kpi, row.lead_steps))


_SCORE_COLUMNS = tuple(field.name for field in dataclasses.fields(ScoreRow))


def _score_row(row: dict[str, Any]) -> ScoreRow:
    lists = {name: msgspec.json.decode(row[name], type=tuple[int, ...]) for name in ("below", "pinball")}
    return ScoreRow(**row | lists | {"square_ticks": int(row["square_ticks"])})


_TWINS = """
WITH twin AS (
  SELECT p.group_name, p.stream, s.key FROM topic_progress AS p CROSS JOIN series AS s
  WHERE s.lane_id = p.lane_id AND s.retired_us IS NULL AND (:stream IS NULL OR p.stream = :stream)
  GROUP BY p.group_name, p.stream, s.key HAVING count(*) > 1
), place AS (
  SELECT p.group_name, p.stream, p.lane_id, p.topic, p.partition, s.series_id, s.key, t.slot
  FROM twin CROSS JOIN topic_progress AS p CROSS JOIN series AS s CROSS JOIN series_state AS t
  WHERE p.group_name = twin.group_name AND p.stream = twin.stream
    AND s.lane_id = p.lane_id AND s.key = twin.key AND s.retired_us IS NULL AND t.series_id = s.series_id
)
SELECT new.stream, new.key, new.topic, old.partition, new.partition, old.slot, new.slot, new.lane_id, new.series_id
FROM place AS new JOIN place AS old ON old.group_name = new.group_name AND old.stream = new.stream AND old.key = new.key
WHERE (old.slot, old.lane_id) < (new.slot, new.lane_id)
ORDER BY new.stream, new.key, old.slot
"""

IN_STEP = 256
"""So many series of a lane that ended at one slot are read slot by slot, the others series by series."""

IDS_AT_ONCE = 2000


def _pending_rows(connection: Connection, known: Mapping[str, int]) -> list[Row]:
    """Slot, series, sources, ticks, observed, seasonal.

    Both ways are look-ups in the primary key, in an order that leaves a server no cheaper plan: asked for all at once,
    PostgreSQL would read the whole table.
    """
    ended = np.array(connection.execute(_ENDED, known).fetchall(), np.int64).reshape(-1, 2)
    slots, group, sizes = np.unique(ended[:, 1], return_inverse=True, return_counts=True)
    in_step = sizes[group] >= IN_STEP
    ahead = slots[sizes >= IN_STEP][:, None] - np.arange(known["horizon"])
    alone = set(ended[~in_step, 0].tolist())
    rows: list[Row] = []
    for slot in np.unique(ahead).tolist():
        at = {**known, "slot": slot, "slot_time_us": slot * known["period_us"] + known["phase_us"]}
        rows += [row for row in connection.execute(_AT_SLOT, at).fetchall() if row[1] not in alone]
    ids = sorted(alone)
    for start in range(0, len(ids), IDS_AT_ONCE):
        rows += connection.execute(_OF_SERIES, {**known, "ids": ids[start : start + IDS_AT_ONCE]}).fetchall()
    return rows


_ENDED = """
SELECT s.series_id, t.slot FROM series AS s JOIN series_state AS t ON t.series_id = s.series_id
WHERE s.series_id >= :from_id AND s.series_id < :to_id AND s.scored AND s.retired_us IS NULL
"""

_AT_SLOT = """
SELECT :slot, f.series_id, f.sources, f.ticks, f.observed, f.seasonal
FROM forecast AS f CROSS JOIN series AS s CROSS JOIN series_state AS t
WHERE f.slot_time_us = :slot_time_us AND f.series_id >= :from_id AND f.series_id < :to_id
  AND f.model_id = :model_id AND f.layout_id = :layout_id
  AND s.series_id = f.series_id AND s.scored AND s.retired_us IS NULL
  AND t.series_id = f.series_id AND t.slot >= :slot AND t.slot < :slot + :horizon
"""

_OF_SERIES = """
WITH RECURSIVE lead(steps) AS (SELECT 0 UNION ALL SELECT steps + 1 FROM lead WHERE steps + 1 < :horizon)
SELECT t.slot - lead.steps, t.series_id, f.sources, f.ticks, f.observed, f.seasonal
FROM each_number(:ids) AS i CROSS JOIN series_state AS t CROSS JOIN lead CROSS JOIN forecast AS f
WHERE t.series_id = i.value
  AND f.slot_time_us = (t.slot - lead.steps) * :period_us + :phase_us AND f.series_id = t.series_id
  AND f.model_id = :model_id AND f.layout_id = :layout_id
"""


def _phase_us(connection: Connection, parameters: Mapping[str, int]) -> int:
    row = connection.execute(
        "SELECT slot_time_us % :period_us FROM forecast WHERE layout_id = :layout_id"
        " AND slot_time_us >= (SELECT (min(slot) - :horizon) * :period_us FROM series_state"
        "   WHERE series_id >= :from_id AND series_id < :to_id)"
        " AND slot_time_us < (SELECT (max(slot) + 1) * :period_us FROM series_state"
        "   WHERE series_id >= :from_id AND series_id < :to_id)"
        " ORDER BY slot_time_us DESC LIMIT 1",
        parameters,
    ).fetchone()
    return int(row[0]) if row else 0

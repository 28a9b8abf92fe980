"""Are two stores equal? By natural keys, after draining to equal offsets (DESIGN §2).

Left out: epochs, owners, surrogate ids, wall times, outcomes, audit, training runs and where artefacts lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from netpredict.store.database import database_of

Dump = dict[str, list[tuple[Any, ...]]]

_LANE = "p.group_name, p.topic, p.partition, p.stream"
_OF_SERIES = " JOIN series AS s ON s.series_id = x.series_id JOIN topic_progress AS p ON p.lane_id = s.lane_id"
_OF_LANE = " JOIN topic_progress AS p ON p.lane_id = x.lane_id"
_OF_MODEL = " LEFT JOIN model_version AS m ON m.model_id = x.model_id"

# Layout ids are hashes of what they stand for, hence natural.
_QUERIES = {
    "topic_progress": f"SELECT {_LANE}, topic_id, next_offset, accepted, duplicate, late, dead, control, state"
    " FROM topic_progress AS p",
    "series": f"SELECT {_LANE}, x.key, x.first_slot, x.scored, x.retired_us IS NOT NULL FROM series AS x{_OF_LANE}",
    "series_state": f"SELECT {_LANE}, s.key, s.first_slot, x.slot, x.layout_id, x.checksum, x.state"
    f" FROM series_state AS x{_OF_SERIES}",
    "forecast": f"SELECT {_LANE}, x.slot_time_us, s.key, s.first_slot, m.predictor, m.version, x.layout_id,"
    f" x.sources, x.quality, x.ticks, x.observed, x.seasonal FROM forecast AS x{_OF_SERIES}{_OF_MODEL}",
    "observation": f"SELECT {_LANE}, x.slot_time_us, s.key, s.first_slot, x.layout_id, x.event_time_us,"
    f" x.flags, x.ticks FROM observation AS x{_OF_SERIES}",
    "score": f"SELECT {_LANE}, m.predictor, m.version, x.source, x.kpi, x.lead_steps, x.bucket, x.n, x.flat,"
    " x.abs_ticks, x.square_ticks, x.truth_abs_ticks, x.naive_abs_ticks, x.seasonal_abs_ticks, x.below, x.pinball"
    f" FROM score AS x{_OF_LANE}{_OF_MODEL}",
    "state_anchor": f"SELECT {_LANE}, x.slot_time_us, s.key, s.first_slot, x.layout_id, x.checksum, x.state"
    f" FROM state_anchor AS x{_OF_SERIES}",
    "bucket_mark": f"SELECT {_LANE}, x.begins_us, x.mark FROM bucket_mark AS x{_OF_LANE}",
    "control_journal": f"SELECT {_LANE}, x.effective_offset, x.number, x.kind, x.payload"
    f" FROM control_journal AS x{_OF_LANE}",
    "firing": f"SELECT {_LANE}, x.firing_id, x.hook, x.object_id, x.attribute, x.value, x.why, x.mode, x.slot_time_us,"
    f" x.expires_at_us, x.effect_until_us, x.series, x.group_name FROM firing AS x{_OF_LANE}",
    "outbox": "SELECT firing_id, actuator FROM outbox",
    "dead_letter": 'SELECT topic, partition, "offset", reason, detail, ingest_time_us, "key", value, value_bytes'
    " FROM dead_letter",
    "dead_letter_range": f"SELECT {_LANE}, x.begins_offset, x.reason, x.first_offset, x.last_offset, x.letters,"
    f" x.first_ingest_us, x.last_ingest_us FROM dead_letter_range AS x{_OF_LANE}",
    "gap": f"SELECT {_LANE}, x.from_offset, x.to_offset, x.reason FROM gap AS x{_OF_LANE}",
    "state_layout": "SELECT layout_id, layout FROM state_layout",
    "forecast_layout": "SELECT layout_id, stream, kpis, decimals, levels, horizon_steps, period_us"
    " FROM forecast_layout",
    "column_layout": "SELECT layout_id, stream, columns, decimals FROM column_layout",
    "model_version": "SELECT stream, predictor, version, plugin FROM model_version",
}

TABLES = tuple(_QUERIES)
"""What can be compared."""


def dump(url: str, tables: Iterable[str] = TABLES) -> Dump:
    """The rows of a whole store by table, sorted, with natural keys in place of ids."""
    with database_of(url).reader() as connection:  # one read transaction: one state of the store
        return {table: sorted(connection.execute(_QUERIES[table]).fetchall(), key=_sortable) for table in tables}


def difference(a: Dump, b: Dump, most: int = 5) -> list[str]:
    """Nothing when equal; else, by table, how many rows are in one store only and the first of them."""
    lines = []
    for table in sorted(a.keys() | b.keys()):
        left, right = a.get(table, []), b.get(table, [])
        if left == right:
            continue
        counted_left, counted_right = Counter(left), Counter(right)
        only_left = sorted((counted_left - counted_right).elements(), key=_sortable)
        only_right = sorted((counted_right - counted_left).elements(), key=_sortable)
        lines.append(
            f"{table}: {len(left)} rows against {len(right)}; {len(only_left)} only in a, {len(only_right)} only in b"
        )
        lines += [f"  only in a: {_shown(row)}" for row in only_left[:most]]
        lines += [f"  only in b: {_shown(row)}" for row in only_right[:most]]
    return lines


def _sortable(row: Sequence[Any]) -> tuple[tuple[bool, Any], ...]:
    return tuple((value is not None, value) for value in row)


def _shown(row: Sequence[Any]) -> str:
    values = (f"<{len(value)} bytes {value[:16].hex()}…>" if isinstance(value, bytes) else repr(value) for value in row)
    return ", ".join(value if len(value) <= 160 else value[:157] + "…" for value in values)

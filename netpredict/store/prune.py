"""What is older than the retention goes, in chunks that a commit does not notice."""

from __future__ import annotations

import orjson

from netpredict.store.commit import EXCLUDE
from netpredict.store.database import Connection

_AGING = {
    "dead_letter": ('topic, partition, "offset", reason', "request_id IS NULL"),
    "dead_letter_range": ("lane_id, begins_offset, reason", "1 = 1"),
    "gap": ("lane_id, from_offset, reason", "1 = 1"),
}
"""Tables whose rows age from when they were stored: their primary key, and which rows may go."""

_ORDER = {"forecast": ("slot_time_us", "series_id", "model_id"), "observation": ("slot_time_us", "series_id")}


def prune_history(connection: Connection, table: str, before_us: int, rows: int) -> int:
    """Delete the oldest forecasts or observations before this slot time, at most ``rows``; gives how many."""
    names = _ORDER[table]
    key = ", ".join(names)
    beyond = connection.execute(
        f"SELECT {key} FROM {table} WHERE slot_time_us < :before_us ORDER BY {key} LIMIT 1 OFFSET :rows",
        {"before_us": before_us, "rows": rows},
    ).fetchone()
    if beyond is None:
        done = connection.execute(f"DELETE FROM {table} WHERE slot_time_us < :before_us", {"before_us": before_us})
        return done.rowcount
    places = ", ".join(f":{name}" for name in names)
    done = connection.execute(f"DELETE FROM {table} WHERE ({key}) < ({places})", dict(zip(names, beyond, strict=True)))
    return done.rowcount


def prune_anchors(connection: Connection, before_us: int) -> None:
    """Anchors and marks, which are few, go with the forecasts that they explain."""
    (oldest,) = connection.execute("SELECT min(slot_time_us) FROM forecast").fetchone()
    before = {"before_us": before_us if oldest is None else min(before_us, int(oldest))}
    connection.execute("DELETE FROM state_anchor WHERE slot_time_us < :before_us", before)
    connection.execute("DELETE FROM bucket_mark WHERE begins_us < :before_us", before)


def prune_firings(connection: Connection, before_us: int, rows: int) -> int:
    """Delete at most ``rows`` of the oldest firings with their outcomes, but none that waits; gives how many."""
    found = connection.execute(
        "SELECT f.firing_id FROM firing AS f WHERE f.slot_time_us < :before_us AND NOT EXISTS"
        " (SELECT 1 FROM outbox AS o WHERE o.firing_id = f.firing_id AND o.kind IS NULL)"
        " ORDER BY f.slot_time_us LIMIT :rows",
        {"before_us": before_us, "rows": rows},
    ).fetchall()
    if found:
        ids = {"ids": [firing_id for (firing_id,) in found]}
        for table in ("outbox", "approval", "effect", "reversal", "lease"):
            connection.execute(f"DELETE FROM {table} WHERE firing_id IN (SELECT value FROM each_text(:ids) AS i)", ids)
        connection.execute("DELETE FROM firing WHERE firing_id IN (SELECT value FROM each_text(:ids) AS i)", ids)
    return len(found)


def prune_scores(connection: Connection, lane_id: int, before_bucket: int, rows: int) -> int:
    """Delete at most ``rows`` scores of a lane's buckets before this one; gives how many."""
    key = "lane_id, bucket, model_id, source, kpi, lead_steps"
    return connection.execute(
        f"DELETE FROM score WHERE ({key}) IN (SELECT {key} FROM score WHERE lane_id = :lane_id AND bucket < :bucket"
        f" ORDER BY {key} LIMIT :rows)",
        {"lane_id": lane_id, "bucket": before_bucket, "rows": rows},
    ).rowcount


def prune_exclusions(connection: Connection, lane_id: int, before_us: int, rows: int) -> int:
    """Delete at most ``rows`` of a lane's oldest exclusions that ended before this slot time; gives how many.

    Nothing else of the control journal goes: it says which versions have served.
    """
    found = connection.execute(
        "SELECT effective_offset, number, payload FROM control_journal WHERE lane_id = :lane_id AND kind = :kind"
        " ORDER BY effective_offset, number LIMIT :rows",
        {"lane_id": lane_id, "kind": EXCLUDE, "rows": rows},
    ).fetchall()
    over = [row[:2] for row in found if orjson.loads(row[2])["until_us"] < before_us]
    connection.execute_many(
        "DELETE FROM control_journal WHERE lane_id = :lane_id AND effective_offset = :offset AND number = :number",
        [{"lane_id": lane_id, "offset": offset, "number": number} for offset, number in over],
    )
    return len(over)


def prune_aged(connection: Connection, before_us: int, rows: int) -> int:
    """Delete dead letters, ranges of them and gaps that were stored before this time, at most ``rows`` of each."""
    return sum(
        connection.execute(
            f"DELETE FROM {table} WHERE ({key}) IN"
            f" (SELECT {key} FROM {table} WHERE at_us < :before_us AND {free} ORDER BY at_us LIMIT :rows)",
            {"before_us": before_us, "rows": rows},
        ).rowcount
        for table, (key, free) in _AGING.items()
    )

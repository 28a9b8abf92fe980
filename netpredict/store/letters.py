"""Dead letters in the store: ranges beyond the rate, and how all of them age."""

from __future__ import annotations

from collections.abc import Sequence

from netpredict.store.commit import LaneCommit
from netpredict.store.database import Connection

_ADD_RANGE = (
    "INSERT INTO dead_letter_range(lane_id, begins_offset, reason, first_offset, last_offset, letters,"
    " first_ingest_us, last_ingest_us, at_us)"
    " VALUES (:lane_id, :begins_offset, :reason, :first_offset, :last_offset, :letters, :first_us, :last_us, :at_us)"
    " ON CONFLICT (lane_id, begins_offset, reason) DO UPDATE SET"
    " first_offset = CASE WHEN excluded.first_offset < dead_letter_range.first_offset"
    " THEN excluded.first_offset ELSE dead_letter_range.first_offset END,"
    " last_offset = CASE WHEN excluded.last_offset > dead_letter_range.last_offset"
    " THEN excluded.last_offset ELSE dead_letter_range.last_offset END,"
    " letters = dead_letter_range.letters + excluded.letters,"
    " first_ingest_us = CASE WHEN excluded.first_ingest_us < dead_letter_range.first_ingest_us"
    " THEN excluded.first_ingest_us ELSE dead_letter_range.first_ingest_us END,"
    " last_ingest_us = CASE WHEN excluded.last_ingest_us > dead_letter_range.last_ingest_us"
    " THEN excluded.last_ingest_us ELSE dead_letter_range.last_ingest_us END,"
    " at_us = excluded.at_us"
)


def add_ranges(connection: Connection, lanes: Sequence[LaneCommit], now_us: int) -> None:
    """Add the letters of these commits that are not kept whole to what the store counts of their stretches."""
    for lane in lanes:
        for found in lane.dead_ranges:
            connection.execute(
                _ADD_RANGE,
                {
                    "lane_id": lane.lane_id,
                    "begins_offset": found.begins_offset,
                    "reason": found.reason,
                    "first_offset": found.first_offset,
                    "last_offset": found.last_offset,
                    "letters": found.letters,
                    "first_us": found.first_ingest_us,
                    "last_us": found.last_ingest_us,
                    "at_us": now_us,
                },
            )

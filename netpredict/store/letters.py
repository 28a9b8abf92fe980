"""Dead letters in the store: ranges beyond the rate, and those that are to enter again or to be dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from netpredict.errors import DataError
from netpredict.store.commit import REPLAYED, LaneCommit, Letter
from netpredict.store.database import Connection
from netpredict.store.encode import text

VALUE_BYTES_MAX = 65_536
"""Bytes of a dead letter's key and value that are kept."""

REPLAYS_WAITING_MAX = 1000
REPLAY_BYTES_MAX = 16 * 1024 * 1024
"""Most replays that wait, and bytes of those asked for at once: the pipeline reads all that wait."""

DROPPED_AT_ONCE = 5000

Where = tuple[str, Mapping[str, Any]]
Lanes = Mapping[tuple[str, int], Mapping[str, int]]

_PLACE = 'topic = :topic AND partition = :partition AND "offset" = :offset AND reason = :reason'
_CUT = 'value_bytes > :bytes_max OR coalesce(length("key"), 0) >= :bytes_max'  # a key's own length is not kept

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


def end_replays(connection: Connection, lanes: Sequence[LaneCommit]) -> None:
    """A letter that entered leaves; one that was refused again stays, and may be tried again."""
    for lane in lanes:
        for offset, reason, entered in lane.replayed:
            done = "DELETE FROM dead_letter" if entered else "UPDATE dead_letter SET request_id = NULL"
            connection.execute(
                f"{done} WHERE {_PLACE}",
                {**lane.topic_partition._asdict(), "offset": offset, "reason": reason},
            )


def chosen(
    topic: str | None,
    partition: int | None,
    reason: str | None,
    from_offset: int,
    to_offset: int | None,
    first: str = '"offset"',
    last: str = '"offset"',
) -> Where:
    """A condition on dead letters, or on ranges of them, and its parameters. Both offsets are included."""
    given = {"topic": topic, "partition": partition, "reason": reason, "to_offset": to_offset}
    parts = {"topic": "topic = :topic", "partition": "partition = :partition", "reason": "reason = :reason"}
    parts["to_offset"] = f"{last} <= :to_offset"
    known = {name: value for name, value in given.items() if value is not None}
    return " AND ".join([f"{first} >= :from_offset", *(parts[name] for name in known)]), {
        "from_offset": from_offset,
        **known,
    }


def ask_replays(
    connection: Connection, where: Where, of_ranges: Where, group: str | None, limit: int
) -> dict[str, int]:
    """Ask for letters to enter again, oldest offsets first; see ``SqlStore.request_replay``."""
    condition, parameters = where
    parameters = {**parameters, "bytes_max": VALUE_BYTES_MAX}
    total, waiting, cut = connection.execute(
        "SELECT count(*), coalesce(sum(CASE WHEN request_id IS NULL THEN 0 ELSE 1 END), 0),"
        f" coalesce(sum(CASE WHEN {_CUT} THEN 1 ELSE 0 END), 0) FROM dead_letter WHERE {condition}",
        parameters,
    ).fetchone()
    if not total:
        _tell_of_ranges(connection, of_ranges)
    if total and cut == total:
        raise DataError(
            f"of these dead letters only the first {VALUE_BYTES_MAX} bytes were kept, so that they cannot enter again:"
            " produce them anew"
        )
    (all_waiting,) = connection.execute("SELECT count(*) FROM control_request").fetchone()
    lanes, asked, held_bytes = _lanes(connection), 0, 0
    places = connection.execute(
        f'SELECT topic, partition, "offset", reason, value_bytes FROM dead_letter WHERE {condition}'
        f' AND request_id IS NULL AND NOT ({_CUT}) ORDER BY topic, partition, "offset", reason LIMIT :room',
        {**parameters, "room": max(0, min(limit, REPLAYS_WAITING_MAX - all_waiting))},
    ).fetchall()
    for *place, value_bytes in places:
        if held_bytes > REPLAY_BYTES_MAX:
            break
        held_bytes += value_bytes
        _ask(connection, lanes, group, dict(zip(("topic", "partition", "offset", "reason"), place, strict=True)))
        asked += 1
    return {"asked": asked, "waiting": waiting, "cut": cut, "left": total - asked - waiting - cut}


def _tell_of_ranges(connection: Connection, of_ranges: Where) -> None:
    """DataError when the letters that are meant were only counted."""
    condition, parameters = of_ranges
    (counted,) = connection.execute(
        "SELECT CAST(coalesce(sum(letters), 0) AS BIGINT) FROM dead_letter_range AS r"
        " JOIN topic_progress AS p ON p.lane_id = r.lane_id"
        f" WHERE {condition}",
        parameters,
    ).fetchone()
    if counted:
        raise DataError(
            f"there were {counted} dead letters, but beyond dead_letters_max of the stream they are only counted, so"
            " that they cannot enter again: produce them anew"
        )


def _lanes(connection: Connection) -> Lanes:
    lanes: dict[tuple[str, int], dict[str, int]] = {}
    rows = connection.execute("SELECT lane_id, group_name, topic, partition FROM topic_progress").fetchall()
    for lane_id, group, topic, partition in rows:
        lanes.setdefault((topic, partition), {})[group] = lane_id
    return lanes


def _lane_of(lanes: Lanes, group: str | None, topic: str, partition: int) -> int:
    """The lane that reads the topic partition, or of several that of the group; DataError when there is none."""
    mine = lanes.get((topic, partition), {})
    if len(mine) == 1:
        return next(iter(mine.values()))
    if group is not None and group in mine:
        return mine[group]
    raise DataError(f"{topic}/{partition} is read by {', '.join(sorted(mine)) or 'no group'}: say which group is meant")


def _ask(connection: Connection, lanes: Lanes, group: str | None, place: Mapping[str, Any]) -> None:
    ingest_time_us, key, value = connection.execute(
        f'SELECT ingest_time_us, "key", value FROM dead_letter WHERE {_PLACE}', place
    ).fetchone()
    letter = Letter(**place, timestamp_ms=ingest_time_us // 1000, key=key, value=value)
    (request_id,) = connection.execute(
        "INSERT INTO control_request(lane_id, kind, payload) VALUES (:lane_id, :kind, :payload) RETURNING request_id",
        {
            "lane_id": _lane_of(lanes, group, letter.topic, letter.partition),
            "kind": REPLAYED,
            "payload": text(msgspec.to_builtins(letter)),
        },
    ).fetchone()
    connection.execute(
        f"UPDATE dead_letter SET request_id = :request_id WHERE {_PLACE}", {**place, "request_id": request_id}
    )


def drop_letters(connection: Connection, where: Where) -> int:
    """Delete some of the letters that are chosen and wait for no replay; gives how many."""
    condition, parameters = where
    return connection.execute(
        'DELETE FROM dead_letter WHERE (topic, partition, "offset", reason) IN (SELECT topic, partition, "offset",'
        f" reason FROM dead_letter WHERE request_id IS NULL AND {condition} LIMIT :most)",
        {**parameters, "most": DROPPED_AT_ONCE},
    ).rowcount


def drop_ranges(connection: Connection, where: Where) -> int:
    """Delete the ranges that are chosen; gives how many."""
    condition, parameters = where
    return connection.execute(
        "DELETE FROM dead_letter_range WHERE (lane_id, begins_offset, reason) IN (SELECT r.lane_id, r.begins_offset,"
        " r.reason FROM dead_letter_range AS r JOIN topic_progress AS p ON p.lane_id = r.lane_id"
        f" WHERE {condition})",
        parameters,
    ).rowcount

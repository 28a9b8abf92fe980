"""What a mobility policy reads: which radio cell served each UE, how far topic partitions have come, what is set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.store.database import database_of
from netpredict.store.encode import bucket_of, ticks_rows
from netpredict.store.outbox import FIRING_COLUMNS, firing_of
from netpredict.types import MISSING_TICKS, Firing, LastSet, OutcomeKind, Quality, Served

COLUMNS = ("rsrp_dbm", "serving")
SLOTS_PER_READ, ROWS_PER_READ = 64, 10_000
"""Readers are short: each transaction sees so many slots, the memory so many rows."""


class MobilityHistory:
    """Reads a store in short transactions."""

    def __init__(self, url: str) -> None:
        self._database = database_of(url)

    def buckets(self, stream: str) -> list[int]:
        """The bucket that each topic partition of a stream is in; those before their first are left out."""
        with self._database.reader() as connection:
            rows = connection.execute(
                "SELECT state FROM topic_progress WHERE stream = :stream AND state <> ''", {"stream": stream}
            ).fetchall()
        return sorted(bucket for (state,) in rows if (bucket := bucket_of(state)) is not None)

    def served(self, stream: str, period_us: int, from_us: int, until_us: int) -> Iterator[Served]:
        """Rows of serving radio cells by slot time, then series; without suspect ones and guessed identities.

        The series of the stream are (UE, radio cell), with the columns ``COLUMNS``; else ConfigError.
        """
        layouts = self._layouts(stream)
        read_us = SLOTS_PER_READ * period_us
        for start_us in range(from_us, until_us, read_us):
            known = {
                "from_us": start_us,
                "until_us": min(start_us + read_us, until_us),
                "layouts": sorted(layouts),
                "doubtful": int(Quality.SUSPECT | Quality.APPROXIMATE),
            }
            found: list[Served] = []
            with self._database.reader() as connection:
                rows = connection.stream(_ROWS, known)
                while some := list(islice(rows, ROWS_PER_READ)):
                    found += _serving(some, layouts)
            yield from found

    def last_set(self, object_id: str, attribute: str, at_us: int) -> LastSet | None:
        """The newest applied action on an attribute, with the value that stands; None when none was ever applied.

        The value is that of the newest that was not taken back and is not over, {} when there is none.
        """
        known = {"object_id": object_id, "attribute": attribute}
        with self._database.reader() as connection:
            newest = connection.execute(_NEWEST, known).fetchone()
            stands = connection.execute(_STANDS, known).fetchone()
        if newest is None:
            return None
        lasts = stands is not None and stands[1] > at_us
        return LastSet(msgspec.json.decode(stands[0]) if lasts else {}, newest[0])

    def ending(self, hook: str, from_us: int, until_us: int) -> list[tuple[Firing, str]]:
        """Applied actions of a hook that hold and end within these times, with the id of what set their values."""
        with self._database.reader() as connection:
            rows = connection.execute(_ENDING, {"hook": hook, "from_us": from_us, "until_us": until_us}).fetchall()
        return [(firing_of(row[1:]), row[0] or row[1]) for row in rows]

    def _layouts(self, stream: str) -> dict[int, tuple[int, int, float, int]]:
        """By layout: place of level and of ``serving``, ticks of a dB, width."""
        with self._database.reader() as connection:
            rows = connection.execute(
                "SELECT layout_id, columns, decimals FROM column_layout WHERE stream = :stream", {"stream": stream}
            ).fetchall()
        found = {}
        for layout_id, columns, decimals in rows:
            names, places = msgspec.json.decode(columns), msgspec.json.decode(decimals)
            if not set(COLUMNS) <= set(names):
                raise ConfigError(f"streams.{stream} has stored no {' and '.join(COLUMNS)}: a policy needs both")
            level, serving = (names.index(name) for name in COLUMNS)
            found[layout_id] = (level, serving, 10.0 ** places[level], len(names))
        return found


def _serving(
    rows: list[tuple[int, str, int, str]], layouts: dict[int, tuple[int, int, float, int]]
) -> Iterator[Served]:
    chosen = []
    for layout_id, (level, serving, scale, width) in layouts.items():
        numbers = [number for number, row in enumerate(rows) if row[2] == layout_id]
        ticks = ticks_rows([rows[number][3] for number in numbers], width)
        for place in np.flatnonzero((ticks[:, serving] != MISSING_TICKS) & (ticks[:, serving] != 0)).tolist():
            tick = int(ticks[place, level])
            chosen.append((numbers[place], None if tick == MISSING_TICKS else tick / scale))
    for number, rsrp_dbm in sorted(chosen, key=lambda one: one[0]):
        slot_time_us, key, *_ = rows[number]
        ue_id, _, radio_cell_id = key.partition("|")
        if radio_cell_id:
            yield Served(slot_time_us, ue_id, radio_cell_id, rsrp_dbm)


_ROWS = """
SELECT o.slot_time_us, s.key, o.layout_id, o.ticks FROM observation AS o JOIN series AS s ON s.series_id = o.series_id
WHERE o.slot_time_us >= :from_us AND o.slot_time_us < :until_us AND (o.flags & :doubtful) = 0
  AND o.layout_id IN (SELECT value FROM each_number(:layouts) AS l)
ORDER BY o.slot_time_us, o.series_id
"""
_NEWEST = f"""
SELECT coalesce(s.slot_time_us, f.slot_time_us)
FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id LEFT JOIN firing AS s ON s.firing_id = o.refreshes
WHERE o.kind = '{OutcomeKind.APPLIED}' AND o.object_id = :object_id AND o.attribute = :attribute
ORDER BY o.at_us DESC, o.number DESC LIMIT 1
"""
# A value is taken back by its last refresh.
_STANDS = f"""
SELECT f.value, f.effect_until_us FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id
WHERE o.kind = '{OutcomeKind.APPLIED}' AND o.object_id = :object_id AND o.attribute = :attribute AND NOT EXISTS (
  SELECT 1 FROM outbox AS q JOIN reversal AS r ON r.firing_id = q.firing_id AND r.kind = '{OutcomeKind.APPLIED}'
  WHERE q.kind = '{OutcomeKind.APPLIED}' AND q.object_id = :object_id AND q.attribute = :attribute
    AND coalesce(nullif(q.refreshes, ''), q.firing_id) = coalesce(nullif(o.refreshes, ''), o.firing_id))
ORDER BY o.at_us DESC, o.number DESC LIMIT 1
"""
_ENDING = f"""
SELECT max(o.refreshes), {FIRING_COLUMNS} FROM lease AS e JOIN firing AS f ON f.firing_id = e.firing_id
JOIN outbox AS o ON o.firing_id = e.firing_id AND o.kind = '{OutcomeKind.APPLIED}'
WHERE e.hook = :hook AND f.hook = :hook AND f.effect_until_us > :from_us AND f.effect_until_us <= :until_us
GROUP BY f.firing_id ORDER BY f.firing_id
"""

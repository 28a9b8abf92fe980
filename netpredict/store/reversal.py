"""Taking applied firings back: begun and ended in the store, so that two never revert the same thing at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netpredict.errors import DataError
from netpredict.store.approval import the_id
from netpredict.store.database import Connection
from netpredict.store.encode import text
from netpredict.store.outbox import CLAIM_US, FIRING_COLUMNS, MAY_STAND, firing_of
from netpredict.store.sql import SqlStore
from netpredict.types import Firing, Outcome, OutcomeKind


def begin(connection: Connection, firing_id: str, cause: str, who: str, now_us: int) -> list[tuple[Firing, str]]:
    """Note that a firing is being taken back; see ``SqlStore.begin_reversal``."""
    whole = the_id(connection, firing_id)
    known = {"firing_id": whole, "cause": cause, "who": who, "now_us": now_us, "dead_us": now_us - CLAIM_US}
    applied = connection.execute(_STANDS, known).fetchone()
    if applied is None:
        raise DataError(f"action {whole} was not applied: there is nothing to revert")
    known |= {"origin": applied[0] or whole}
    younger = connection.execute(_YOUNGER, known).fetchone()
    if younger:
        raise DataError(f"action {whole} does not hold any more: {younger[0]} was applied behind it")
    held = {row[0]: firing_of(row[1:]) for row in connection.execute(_HELD, known).fetchall()}
    begun = [
        (firing, actuator)
        for actuator, firing in held.items()
        if connection.execute(_BEGIN, {**known, "firing_id": firing.firing_id, "actuator": actuator}).rowcount
    ]
    if not begun:
        raise DataError(f"action {whole} was reverted before, or is being reverted: netpredict why {whole}")
    connection.execute(
        "INSERT INTO audit(at_us, who, what, detail) VALUES (:now_us, :who, :what, :detail)",
        {**known, "what": "action_revert", "detail": text({"firing_id": whole, "cause": cause})},
    )
    return begun


def end(connection: Connection, firing_id: str, actuator: str, outcome: Mapping[str, Any], now_us: int) -> None:
    """Store what came of it at one actuator; what was taken back everywhere holds its attribute no longer."""
    known = {"firing_id": firing_id, "actuator": actuator, "at_us": now_us, **outcome}
    connection.execute(
        "UPDATE reversal SET kind = :kind, reason = :reason, detail = :detail, at_us = :at_us"
        " WHERE firing_id = :firing_id AND actuator = :actuator",
        known,
    )
    connection.execute(_LET_GO, known)


class SqlFollowUps:
    """What is to be looked at behind applied firings, as the action runner sees it."""

    def __init__(self, store: SqlStore, owner: str = "") -> None:
        self._store = store
        self._owner = owner if store.database.shared and owner else None

    def due(self, hook: str, from_us: int, until_us: int, limit: int) -> list[tuple[Firing, int]]:
        """Firings of a hook applied within these times, and when, whose KPI was not compared yet; oldest first."""
        known = {"hook": hook, "from_us": from_us, "until_us": until_us, "most": limit, "owner": self._owner}
        with self._store.database.reader() as connection:
            rows = connection.execute(_DUE, known).fetchall()
        return [(firing_of(row[1:]), row[0]) for row in rows]

    def put(self, firing: Firing, kpi: str, means: Sequence[float | None], verdict: str, at_us: int) -> None:
        """Store what a KPI did behind a firing, durable on return; the first word stands."""
        before, after = means
        with self._store.database.transaction() as connection:
            connection.execute(
                "INSERT INTO effect(firing_id, kpi, before_mean, after_mean, verdict, at_us)"
                " VALUES (:firing_id, :kpi, :before, :after, :verdict, :at_us) ON CONFLICT (firing_id) DO NOTHING",
                {
                    "firing_id": firing.firing_id,
                    "kpi": kpi,
                    "before": before,
                    "after": after,
                    "verdict": verdict,
                    "at_us": at_us,
                },
            )

    def begin_reversal(self, firing_id: str, cause: str, who: str) -> list[tuple[Firing, str]]:
        """See ``SqlStore``."""
        return self._store.begin_reversal(firing_id, cause, who)

    def end_reversal(self, firing_id: str, actuator: str, outcome: Outcome) -> None:
        """See ``SqlStore``."""
        self._store.end_reversal(firing_id, actuator, outcome)


_STANDS = f"""
SELECT o.refreshes FROM outbox AS o WHERE o.firing_id = :firing_id AND {MAY_STAND} ORDER BY o.number LIMIT 1
"""
_YOUNGER = f"""
SELECT o.firing_id FROM outbox AS m CROSS JOIN outbox AS o
WHERE m.firing_id = :firing_id AND m.kind = '{OutcomeKind.APPLIED}' AND o.kind = '{OutcomeKind.APPLIED}'
  AND o.object_id = m.object_id AND o.attribute = m.attribute AND o.firing_id <> :origin AND o.refreshes <> :origin
  AND o.at_us > m.at_us AND o.at_us > (SELECT max(n.at_us) FROM outbox AS n WHERE n.firing_id = :firing_id)
ORDER BY o.at_us LIMIT 1
"""
# By actuator the last one applied, for a receiver knows what it was told last.
_HELD = f"""
SELECT o.actuator, {FIRING_COLUMNS} FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id
WHERE (o.kind = '{OutcomeKind.APPLIED}' AND (o.firing_id = :origin OR o.refreshes = :origin))
  OR (o.firing_id = :firing_id AND {MAY_STAND})
ORDER BY coalesce(o.at_us, :now_us), o.number
"""
_BEGIN = f"""
INSERT INTO reversal(firing_id, actuator, cause, who, begun_us)
VALUES (:firing_id, :actuator, :cause, :who, :now_us)
ON CONFLICT (firing_id, actuator) DO UPDATE SET cause = excluded.cause, who = excluded.who,
  begun_us = excluded.begun_us, kind = NULL, reason = NULL, detail = NULL, at_us = NULL
WHERE reversal.kind = '{OutcomeKind.FAILED}' OR (reversal.kind IS NULL AND reversal.begun_us <= :dead_us)
"""
_LET_GO = f"""
DELETE FROM lease WHERE firing_id = :firing_id AND NOT EXISTS (
  SELECT 1 FROM outbox AS o LEFT JOIN reversal AS r ON r.firing_id = o.firing_id AND r.actuator = o.actuator
    AND r.kind = '{OutcomeKind.APPLIED}'
  WHERE o.firing_id = :firing_id AND o.kind = '{OutcomeKind.APPLIED}' AND r.firing_id IS NULL)
  AND NOT EXISTS (SELECT 1 FROM reversal AS r WHERE r.firing_id = :firing_id
    AND coalesce(r.kind, '') <> '{OutcomeKind.APPLIED}')
"""
_DUE = f"""
SELECT o.at_us, {FIRING_COLUMNS} FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id
WHERE o.kind = '{OutcomeKind.APPLIED}' AND o.hook = :hook AND o.at_us > :from_us AND o.at_us <= :until_us
  AND o.refreshes = ''
  AND NOT EXISTS (SELECT 1 FROM effect AS e WHERE e.firing_id = o.firing_id)
  AND (:owner IS NULL OR EXISTS (SELECT 1 FROM topic_progress AS p WHERE p.lane_id = f.lane_id AND p.owner = :owner))
ORDER BY o.at_us LIMIT :most
"""

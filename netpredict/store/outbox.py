"""The outbox: firings that wait for their actuators, and what came of them. Outside the function of log and journal."""

from __future__ import annotations

import msgspec

from netpredict.store.database import Row
from netpredict.store.sql import SqlStore
from netpredict.types import Firing, LastApplied, Mode, Outcome, OutcomeKind, PendingFiring

FIRING_COLUMNS = (
    "f.firing_id, f.hook, f.stream, f.object_id, f.attribute, f.value, f.why, f.mode, f.slot_time_us,"
    " f.expires_at_us, f.effect_until_us"
)


CLAIM_US = 120_000_000
"""A claim ends by itself after this time, when its owner died: longer than an attempt and its verification take."""


class SqlOutbox:
    """The stored firings as the action runner sees them; its writes go through the store's one connection.

    Where several instances share the store, ``owner`` sees the firings of the topic partitions that it owns, so that
    the firings of an object keep their order. A topic partition that moves while its old owner is still applying
    something is covered by the claim on the row.
    """

    def __init__(self, store: SqlStore, owner: str = "") -> None:
        self._store = store
        self._owner = owner if store.database.shared and owner else None

    def claim(self, firing: Firing, actuator_name: str, now_us: int) -> bool:
        """Whether this instance may apply the firing now; nobody else may until the claim ends."""
        if self._owner is None:
            return True
        with self._store.database.transaction() as connection:
            done = connection.execute(
                _CLAIM,
                {
                    "firing_id": firing.firing_id,
                    "actuator": actuator_name,
                    "owner": self._owner,
                    "now_us": now_us,
                    "until_us": now_us + CLAIM_US,
                },
            )
        return done.rowcount > 0

    def pending(self, limit: int) -> list[PendingFiring]:
        """Firings without an outcome of one of their actuators, in the order of commit, ``limit`` per actuator."""
        with self._store.database.reader() as connection:
            actuators = connection.execute(_WAITING).fetchall()
            rows = [
                row
                for (actuator,) in actuators
                for row in connection.execute(
                    _PENDING, {"actuator": actuator, "owner": self._owner, "most": limit}
                ).fetchall()
            ]
        return [PendingFiring(firing_of(row[2:]), row[1]) for row in sorted(rows)]

    def record(self, firing: Firing, actuator_name: str, outcome: Outcome, at_us: int) -> None:
        """Store what came of the firing at this actuator, durable on return. The first outcome stands."""
        with self._store.database.transaction() as connection:
            connection.execute(
                "UPDATE outbox SET kind = :kind, reason = :reason, detail = :detail, attempts = :attempts,"
                " at_us = :at_us WHERE firing_id = :firing_id AND actuator = :actuator AND kind IS NULL",
                {
                    "kind": str(outcome.kind),
                    "reason": outcome.reason,
                    "detail": outcome.detail,
                    "attempts": outcome.attempts,
                    "at_us": at_us,
                    "firing_id": firing.firing_id,
                    "actuator": actuator_name,
                },
            )

    def last_applied(self, object_id: str, attribute: str) -> LastApplied | None:
        """The firing applied last to this attribute of this object, by any actuator."""
        with self._store.database.reader() as connection:
            row = connection.execute(
                "SELECT o.firing_id, f.slot_time_us, o.at_us FROM outbox AS o JOIN firing AS f USING (firing_id)"
                f" WHERE o.kind = '{OutcomeKind.APPLIED}' AND o.object_id = :object_id"
                " AND o.attribute = :attribute ORDER BY o.at_us DESC LIMIT 1",
                {"object_id": object_id, "attribute": attribute},
            ).fetchone()
        return None if row is None else LastApplied(*row)

    def applied_since(self, hook: str, since_us: int) -> int:
        """Number of distinct firings of a hook with an APPLIED outcome at or after ``since_us``."""
        with self._store.database.reader() as connection:
            (count,) = connection.execute(
                f"SELECT count(DISTINCT firing_id) FROM outbox WHERE kind = '{OutcomeKind.APPLIED}'"
                " AND hook = :hook AND at_us >= :since_us",
                {"hook": hook, "since_us": since_us},
            ).fetchone()
        return int(count)


# Actuators are found by hopping through the partial index, so that a long queue of one costs the others nothing.
_WAITING = """
WITH RECURSIVE waiting(actuator) AS (
  SELECT min(actuator) FROM outbox WHERE kind IS NULL
  UNION ALL
  SELECT (SELECT min(o.actuator) FROM outbox AS o WHERE o.kind IS NULL AND o.actuator > waiting.actuator)
  FROM waiting WHERE waiting.actuator IS NOT NULL
)
SELECT actuator FROM waiting WHERE actuator IS NOT NULL
"""
_PENDING = f"""
SELECT o.number, o.actuator, {FIRING_COLUMNS} FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id
WHERE o.kind IS NULL AND o.actuator = :actuator AND (:owner IS NULL OR EXISTS (
  SELECT 1 FROM topic_progress AS p WHERE p.lane_id = f.lane_id AND p.owner = :owner))
ORDER BY o.number LIMIT :most
"""

# The later of two that claim the same row waits for the earlier, then looks at the row again.
_CLAIM = """
UPDATE outbox SET claimed_by = :owner, claimed_until_us = :until_us
WHERE firing_id = :firing_id AND actuator = :actuator AND kind IS NULL
  AND (claimed_by IS NULL OR claimed_by = :owner OR claimed_until_us <= :now_us)
"""


def firing_of(row: Row) -> Firing:
    """The firing of a row of ``FIRING_COLUMNS``."""
    firing_id, hook, stream, object_id, attribute, value, why, mode, slot_time_us, expires_at_us, effect_until_us = row
    return Firing(
        firing_id=firing_id,
        hook=hook,
        stream=stream,
        object_id=object_id,
        attribute=attribute,
        value=msgspec.json.decode(value),
        why=msgspec.json.decode(why),
        mode=Mode(mode),
        slot_time_us=slot_time_us,
        expires_at_us=expires_at_us,
        effect_until_us=effect_until_us,
    )

"""The outbox: firings that wait for their actuators, and what came of them. Outside the function of log and journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from netpredict.store.commit import EXCLUDE
from netpredict.store.database import Connection, Row
from netpredict.store.encode import text
from netpredict.store.sql import SqlStore
from netpredict.types import (
    ArmState,
    Firing,
    LastApplied,
    Lease,
    Mode,
    OutcomeKind,
    PendingFiring,
    Settled,
    Since,
    Standing,
    Taken,
    radio_cell_of,
)

FIRING_COLUMNS = (
    "f.firing_id, f.hook, f.stream, f.object_id, f.attribute, f.value, f.why, f.mode, f.slot_time_us,"
    " f.expires_at_us, f.effect_until_us, f.series, f.group_name"
)

CLAIM_US = 120_000_000
"""A claim ends by itself after this time, when its owner died: longer than an attempt and its verification take."""

RADIO_CELLS_US = 300_000_000
"""The radio cells of a stream are counted anew at most this often."""


class SqlOutbox:
    """The stored firings as the action runner sees them; its writes go through the store's one connection.

    Where several instances share the store, ``owner`` sees the firings of the topic partitions that it owns, so that
    the firings of an object keep their order. A topic partition that moves while its old owner is still applying
    something is covered by the claim on the row. ``exclusions`` are the hooks whose actions change what is observed,
    with the neighbours of each radio cell.
    """

    def __init__(
        self, store: SqlStore, owner: str = "", exclusions: Mapping[str, Mapping[str, Sequence[str]]] | None = None
    ) -> None:
        self.exclusions = exclusions or {}
        self._store = store
        self._owner = owner if store.database.shared and owner else None
        self._radio_cells: dict[str, tuple[int, int]] = {}  # by stream: when they were counted, how many

    def expire(self, now_us: int, rows: int) -> int:
        """Settle at most ``rows`` of what has expired, in one statement; gives how many. What is claimed is left."""
        with self._store.database.reader() as connection:
            (first,) = connection.execute(_FIRST_EXPIRY).fetchone()
        if first is None or first > now_us:
            return 0  # most of the time: without waiting for a commit
        with self._store.database.transaction() as connection:
            if not connection.try_lock("expire"):  # another instance is at it
                return 0
            known = {"now_us": now_us, "rows": rows, "checks": text(_NOBODY_CAME)}
            for actuator, *row in connection.execute(_UNDER_WAY, known).fetchall():
                firing = firing_of(tuple(row))
                if firing.hook in self.exclusions:
                    self._exclude(connection, firing, actuator)
            return connection.execute(_EXPIRE, known).rowcount

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
        return [PendingFiring(firing_of(row[2:]), row[1]) for row in sorted(rows, key=lambda row: row[:2])]

    def standing(self, items: Sequence[PendingFiring], since: Since, blasting: Sequence[str]) -> Standing:
        """What the guards must know of the past to judge these firings; see ``Standing``.

        Radio cells are counted only where a hook is named in ``blasting``, those that any of these hooks has changed.
        """
        attributes = {(item.firing.object_id, item.firing.attribute): item.firing.firing_id for item in items}
        streams = {item.firing.stream for item in items} if blasting else set()
        found = Standing()
        with self._store.database.reader() as connection:
            ids = {"ids": sorted(set(attributes.values()))}
            for object_id, attribute, *last in connection.execute(_LAST, ids).fetchall():
                found.last[object_id, attribute] = _last_applied(last)
            for object_id, attribute, *lease in connection.execute(_LEASES, ids).fetchall():
                found.leases[object_id, attribute] = Lease(*lease)
            for hook, group, said in connection.execute(_DISARMED).fetchall():
                found.disarmed[hook, group] = said
            all_ids = {"ids": sorted({item.firing.firing_id for item in items})}
            found.younger = dict(connection.execute(_YOUNGER, all_ids).fetchall())
            for hook in {item.firing.hook for item in items}:
                found.applied_last_minute[hook] = _applied_since(connection, hook, since.rate_us)
            for stream in sorted(streams):
                known = {"stream": stream, "from_us": since.blast_us, "hooks": sorted(blasting)}
                found.changed[stream] = {cell for (cell,) in connection.execute(_CHANGED, known).fetchall()}
                found.radio_cells[stream] = self._count_radio_cells(connection, stream, since.now_us)
        return found

    def _count_radio_cells(self, connection: Connection, stream: str, now_us: int) -> int:
        at_us, count = self._radio_cells.get(stream, (None, 0))
        if at_us is None or not 0 <= now_us - at_us < RADIO_CELLS_US:
            keys = connection.stream(_LIVE_KEYS, {"stream": stream})
            count = len({radio_cell_of(key) for (key,) in keys})
            self._radio_cells[stream] = (now_us, count)
        return count

    def take(
        self, item: PendingFiring, lease: Lease, last: LastApplied | None, now_us: int, seen: Lease | None = None
    ) -> Taken:
        """Claim a firing and the lease on its attribute, durable on return, or neither.

        BUSY: another instance applies it, or has applied something else to the attribute since ``last``, or taken it
        for something else since ``seen``; LEASED: another hook holds the attribute; DISARMED: its hook was disarmed
        meanwhile.
        """
        firing, known = item.firing, {"object_id": item.firing.object_id, "attribute": item.firing.attribute}
        with self._store.database.transaction() as connection:
            if (firing.hook, firing.group) in {row[:2] for row in connection.execute(_DISARMED).fetchall()}:
                return Taken.DISARMED
            row = connection.execute(_LAST_OF, known).fetchone()
            if (None if row is None else _last_applied(row)) != last:
                return Taken.BUSY
            if self._owner is not None and not self._claim(connection, firing.firing_id, item.actuator_name, now_us):
                return Taken.BUSY
            judged = {"seen": seen.firing_id if seen else None, "seen_us": seen.taken_us if seen else None}
            wanted = {**known, **lease._asdict(), "now_us": now_us}
            if connection.execute(_TAKE_LEASE, wanted | judged).rowcount:
                return Taken.YES
            held = connection.execute(_HELD_BY_ANOTHER, wanted).fetchone()
        return Taken.LEASED if held else Taken.BUSY

    def _claim(self, connection: Connection, firing_id: str, actuator_name: str, now_us: int) -> bool:
        known = {"firing_id": firing_id, "actuator": actuator_name, "owner": self._owner}
        return connection.execute(_CLAIM, known | {"now_us": now_us, "until_us": now_us + CLAIM_US}).rowcount > 0

    def record(self, done: Sequence[Settled]) -> None:
        """Store what came of firings, all or none, durable on return. The first outcome of an actuator stands."""
        with self._store.database.transaction() as connection:
            for settled in done:
                if _has_set(settled) and settled.firing.hook in self.exclusions:
                    self._exclude(connection, settled.firing, settled.actuator_name)
            connection.execute_many(_RECORD, [self._outcome_row(settled) for settled in done])
            for settled in done:
                if settled.outcome.kind is OutcomeKind.FAILED:
                    _end_lease(connection, settled)

    def _exclude(self, connection: Connection, firing: Firing, actuator_name: str) -> None:
        """Ask every lane of the stream to leave out what this changes; once for all actuators of a firing."""
        beside = self.exclusions.get(firing.hook, {}).get(firing.radio_cell_id, ())  # a reload may have dropped it
        payload = {
            "action": firing.firing_id,
            "radio_cells": [firing.radio_cell_id, *beside],
            "from_us": firing.slot_time_us,
            "until_us": firing.effect_until_us,
        }
        known = {"firing_id": firing.firing_id, "kind": EXCLUDE, "payload": text(payload)}
        connection.execute(_EXCLUDE, {**known, "actuator": actuator_name})

    def _outcome_row(self, settled: Settled) -> dict[str, Any]:
        outcome = settled.outcome
        return {
            "kind": str(outcome.kind),
            "reason": outcome.reason,
            "detail": outcome.detail,
            "attempts": outcome.attempts,
            "at_us": settled.at_us,
            "checks": text(settled.checks),
            "reply": settled.reply,
            # of what was applied what it was, of the rest what the hook said
            "refreshes": settled.refreshes if outcome.kind is OutcomeKind.APPLIED else settled.firing.refreshes,
            "changed": int(_has_set(settled) and not settled.refreshes),
            "firing_id": settled.firing.firing_id,
            "actuator": settled.actuator_name,
            # what another instance is applying is its to record, whatever the guards say here by now
            "owner": (self._owner or "") if outcome.kind is OutcomeKind.SKIPPED else None,
        }

    def last_applied(self, object_id: str, attribute: str) -> LastApplied | None:
        """The firing applied last to this attribute of this object, by any actuator."""
        with self._store.database.reader() as connection:
            row = connection.execute(_LAST_OF, {"object_id": object_id, "attribute": attribute}).fetchone()
        return None if row is None else _last_applied(row)

    def applied_since(self, hook: str, since_us: int) -> int:
        """Number of distinct firings of a hook that have changed something, or may have, at or after ``since_us``."""
        with self._store.database.reader() as connection:
            return _applied_since(connection, hook, since_us)


def _last_applied(row: Sequence[Any]) -> LastApplied:
    """Of a row of ``_LAST_COLUMNS``."""
    firing_id, slot_time_us, at_us, hook, value, effect_until_us, refreshes, taken_back, changed_us = row
    told = (hook, msgspec.json.decode(value), effect_until_us, refreshes, bool(taken_back), changed_us)
    return LastApplied(firing_id, slot_time_us, at_us, *told)


def _has_set(settled: Settled) -> bool:
    return settled.outcome.kind is OutcomeKind.APPLIED or settled.maybe_set


def _end_lease(connection: Connection, failed: Settled) -> None:
    """What failed everywhere holds its attribute no longer: what it was to replace, or only to repeat, still does."""
    known = {"firing_id": failed.firing.firing_id, "at_us": failed.at_us}
    if failed.maybe_set and not failed.refreshes:
        connection.execute(_CUT_SHORT, known)
    elif failed.stands is None:
        connection.execute(_LET_GO, known)
    else:
        stands = {f"stands_{name}": value for name, value in failed.stands._asdict().items()}
        connection.execute(_GIVE_BACK, known | stands)


def _applied_since(connection: Connection, hook: str, since_us: int) -> int:
    (count,) = connection.execute(
        "SELECT count(DISTINCT firing_id) FROM outbox WHERE changed = 1 AND hook = :hook AND at_us >= :since_us",
        {"hook": hook, "since_us": since_us},
    ).fetchone()
    return int(count)


MAY_STAND = f"""(o.kind = '{OutcomeKind.APPLIED}' OR (
  (o.changed = 1 OR (o.kind IS NULL AND o.expires_at_us <= :now_us))
  AND EXISTS (SELECT 1 FROM lease AS e WHERE e.object_id = o.object_id AND e.attribute = o.attribute
    AND e.firing_id = o.firing_id)))"""
"""Of an outbox row ``o``: whether its actuator may have set the value.

It was applied; or it failed on the way; or a runner took it, died, and now it is too late for another to try again.
"""

_TAKEN = """EXISTS (SELECT 1 FROM lease AS e WHERE e.object_id = outbox.object_id
    AND e.attribute = outbox.attribute AND e.firing_id = outbox.firing_id)"""
"""Of a pending row: some runner, perhaps one that died, was about to apply it."""
_MAYBE = "it was under way: it may have been applied"
_NOBODY_CAME = {"passed": [], "refused": "expired", "said": "its time was over before anybody came to it"}
_FIRST_EXPIRY = "SELECT min(expires_at_us) FROM outbox WHERE kind IS NULL"
_EXPIRE = f"""
UPDATE outbox SET kind = '{OutcomeKind.SKIPPED}', reason = 'expired', attempts = 0, at_us = :now_us, checks = :checks,
  detail = CASE WHEN {_TAKEN} THEN '{_MAYBE}' ELSE '' END, changed = CASE WHEN {_TAKEN} THEN 1 ELSE 0 END
WHERE kind IS NULL AND number IN (
  SELECT number FROM outbox WHERE kind IS NULL AND expires_at_us <= :now_us
    AND (claimed_until_us IS NULL OR claimed_until_us <= :now_us)
  ORDER BY expires_at_us LIMIT :rows)
"""
_UNDER_WAY = f"""
SELECT o.actuator, {FIRING_COLUMNS} FROM (
  SELECT * FROM outbox WHERE kind IS NULL AND expires_at_us <= :now_us
    AND (claimed_until_us IS NULL OR claimed_until_us <= :now_us)
  ORDER BY expires_at_us LIMIT :rows) AS o
JOIN lease AS e ON e.object_id = o.object_id AND e.attribute = o.attribute AND e.firing_id = o.firing_id
JOIN firing AS f ON f.firing_id = o.firing_id
"""

# Actuators are found by hopping through the partial index, so that a long queue of one costs the others nothing.
_WAITING = """
WITH RECURSIVE waiting(actuator) AS (
  SELECT min(actuator) FROM outbox WHERE kind IS NULL AND held = 0
  UNION ALL
  SELECT (SELECT min(o.actuator) FROM outbox AS o
          WHERE o.kind IS NULL AND o.held = 0 AND o.actuator > waiting.actuator)
  FROM waiting WHERE waiting.actuator IS NOT NULL
)
SELECT actuator FROM waiting WHERE actuator IS NOT NULL
"""
_PENDING = f"""
SELECT o.number, o.actuator, {FIRING_COLUMNS} FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id
WHERE o.kind IS NULL AND o.held = 0 AND o.actuator = :actuator AND (:owner IS NULL OR EXISTS (
  SELECT 1 FROM topic_progress AS p WHERE p.lane_id = f.lane_id AND p.owner = :owner))
ORDER BY o.number LIMIT :most
"""

_DISARMED = f"SELECT hook, group_name, said FROM breaker WHERE state = '{ArmState.NOT_MEET}'"

# What ended by itself was taken back only to say so: the next action sets it again. A value is taken back by its last
# refresh; one that was under way then is of the same value.
_ORIGIN = "coalesce(nullif({of}.refreshes, ''), {of}.firing_id)"
_TAKEN_BACK = f"""EXISTS (SELECT 1 FROM reversal AS r WHERE r.cause <> 'expired' AND coalesce(r.kind, '') <> 'failed'
    AND r.firing_id IN (SELECT t.firing_id FROM outbox AS t WHERE t.kind = '{OutcomeKind.APPLIED}'
      AND (t.firing_id = {_ORIGIN} OR (t.refreshes <> '' AND t.refreshes = {_ORIGIN}))))"""
_LAST_COLUMNS = (
    "{o}.firing_id, {f}.slot_time_us, {o}.at_us, {f}.hook, {f}.value, {f}.effect_until_us, {o}.refreshes,"
    f" {_TAKEN_BACK.format(of='{o}')},"
    f" coalesce((SELECT max(c.at_us) FROM outbox AS c WHERE c.firing_id = {{o}}.refreshes"
    f" AND c.kind = '{OutcomeKind.APPLIED}'), {{o}}.at_us)"
)
_LAST_OF = f"""
SELECT {_LAST_COLUMNS.format(o="o", f="f")} FROM outbox AS o JOIN firing AS f ON f.firing_id = o.firing_id
WHERE o.kind = '{OutcomeKind.APPLIED}' AND o.object_id = :object_id AND o.attribute = :attribute
ORDER BY o.at_us DESC, o.number DESC LIMIT 1
"""
_LAST = f"""
SELECT f.object_id, f.attribute, {_LAST_COLUMNS.format(o="o", f="g")}
FROM each_text(:ids) AS i CROSS JOIN firing AS f CROSS JOIN outbox AS o CROSS JOIN firing AS g
WHERE f.firing_id = i.value AND o.number = (
  SELECT a.number FROM outbox AS a WHERE a.kind = '{OutcomeKind.APPLIED}' AND a.object_id = f.object_id
    AND a.attribute = f.attribute ORDER BY a.at_us DESC, a.number DESC LIMIT 1)
  AND g.firing_id = o.firing_id
"""
_LEASES = """
SELECT e.object_id, e.attribute, e.hook, e.firing_id, e.priority, e.until_us, e.taken_us
FROM each_text(:ids) AS i CROSS JOIN firing AS f CROSS JOIN lease AS e
WHERE f.firing_id = i.value AND e.object_id = f.object_id AND e.attribute = f.attribute
"""
# what waits for a person does not supersede: it may never be approved
_YOUNGER = """
SELECT i.value, max(o.firing_id)
FROM each_text(:ids) AS i CROSS JOIN firing AS f CROSS JOIN outbox AS o CROSS JOIN firing AS g
WHERE f.firing_id = i.value AND o.kind IS NULL AND o.hook = f.hook AND o.object_id = f.object_id
  AND o.attribute = f.attribute AND o.held = 0 AND g.firing_id = o.firing_id AND g.slot_time_us > f.slot_time_us
GROUP BY i.value
"""
_CHANGED = """
SELECT DISTINCT o.radio_cell_id FROM each_text(:hooks) AS h CROSS JOIN outbox AS o CROSS JOIN firing AS f
WHERE o.changed = 1 AND o.hook = h.value AND o.at_us >= :from_us
  AND f.firing_id = o.firing_id AND f.stream = :stream
"""
_LIVE_KEYS = (
    "SELECT s.key FROM topic_progress AS p CROSS JOIN series AS s"
    " WHERE p.stream = :stream AND s.lane_id = p.lane_id AND s.retired_us IS NULL"
)

# The later of two that claim the same row waits for the earlier, then looks at the row again.
_CLAIM = """
UPDATE outbox SET claimed_by = :owner, claimed_until_us = :until_us
WHERE firing_id = :firing_id AND actuator = :actuator AND kind IS NULL
  AND (claimed_by IS NULL OR claimed_by = :owner OR claimed_until_us <= :now_us)
"""
_FREE = "(lease.hook = {new}hook OR lease.until_us <= :now_us OR lease.priority < {new}priority)"
_HELD_BY_ANOTHER = f"""
SELECT 1 FROM lease WHERE object_id = :object_id AND attribute = :attribute AND NOT {_FREE.format(new=":")}
"""
_TAKE_LEASE = f"""
INSERT INTO lease(object_id, attribute, hook, firing_id, priority, until_us, taken_us)
VALUES (:object_id, :attribute, :hook, :firing_id, :priority, :until_us, :now_us)
ON CONFLICT (object_id, attribute) DO UPDATE SET hook = excluded.hook, firing_id = excluded.firing_id,
  priority = excluded.priority, until_us = excluded.until_us, taken_us = excluded.taken_us
WHERE {_FREE.format(new="excluded.")}
  AND (lease.firing_id = excluded.firing_id OR (lease.firing_id = :seen AND lease.taken_us = :seen_us))
"""
# a guard may refuse what a runner that died has applied already
_UNEXPLAINED = f"""(:kind = '{OutcomeKind.SKIPPED}' AND {_TAKEN} AND NOT EXISTS (SELECT 1 FROM outbox AS x
    WHERE x.firing_id = outbox.firing_id AND x.kind IN ('{OutcomeKind.APPLIED}', '{OutcomeKind.FAILED}')))"""
_RECORD = f"""
UPDATE outbox SET kind = :kind, reason = :reason, attempts = :attempts, at_us = :at_us, checks = :checks,
  reply = :reply, refreshes = :refreshes, detail = CASE WHEN {_UNEXPLAINED} THEN '{_MAYBE}' ELSE :detail END,
  changed = CASE WHEN {_UNEXPLAINED} THEN 1 ELSE :changed END
WHERE firing_id = :firing_id AND actuator = :actuator AND kind IS NULL
  AND (:owner IS NULL OR claimed_by IS NULL OR claimed_by = :owner OR claimed_until_us <= :at_us)
"""
_EXCLUDE = f"""
INSERT INTO control_request(lane_id, kind, payload)
SELECT p.lane_id, :kind, :payload FROM firing AS f CROSS JOIN topic_progress AS own CROSS JOIN topic_progress AS p
WHERE f.firing_id = :firing_id AND own.lane_id = f.lane_id AND p.group_name = own.group_name
  AND p.stream = own.stream AND p.owner <> ''
  AND EXISTS (SELECT 1 FROM outbox AS o WHERE o.firing_id = :firing_id AND o.actuator = :actuator AND o.kind IS NULL)
  AND NOT EXISTS (
    SELECT 1 FROM outbox AS o WHERE o.firing_id = :firing_id AND (o.kind = '{OutcomeKind.APPLIED}' OR o.changed = 1))
"""
_FAILED_EVERYWHERE = f"""
firing_id = :firing_id AND NOT EXISTS (
  SELECT 1 FROM outbox AS o WHERE o.firing_id = :firing_id AND (o.kind IS NULL OR o.kind = '{OutcomeKind.APPLIED}'))
"""
_LET_GO = f"DELETE FROM lease WHERE {_FAILED_EVERYWHERE}"
_GIVE_BACK = f"""
UPDATE lease SET hook = :stands_hook, firing_id = :stands_firing_id, priority = :stands_priority,
  until_us = :stands_until_us, taken_us = :stands_taken_us WHERE {_FAILED_EVERYWHERE}
"""
# others may have the attribute, but only after the cooldown from when this one was taken
_CUT_SHORT = f"UPDATE lease SET until_us = :at_us WHERE until_us > :at_us AND {_FAILED_EVERYWHERE}"


def firing_of(row: Row) -> Firing:
    """The firing of a row of ``FIRING_COLUMNS``."""
    firing_id, hook, stream, object_id, attribute, value, why, mode, slot_us, expires_us, effect_us, *place = row
    what = (msgspec.json.decode(value), msgspec.json.decode(why), Mode(mode))
    return Firing(firing_id, hook, stream, object_id, attribute, *what, slot_us, expires_us, effect_us, *place)

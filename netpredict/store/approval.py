"""What people say to firings in mode assist: approved they are applied like others, rejected never."""

from __future__ import annotations

from netpredict.errors import DataError
from netpredict.store.database import Connection
from netpredict.store.encode import text
from netpredict.types import OutcomeKind

APPROVE, REJECT = "approve", "reject"


def decide(connection: Connection, firing_id: str, verdict: str, who: str, now_us: int) -> str:
    """Store a verdict with its audit, and let the firing go to its actuators or end; see ``SqlStore``."""
    if verdict not in (APPROVE, REJECT):
        raise DataError(f"verdict {verdict!r}: say {APPROVE} or {REJECT}")
    whole = the_id(connection, firing_id)
    mode, expires_at_us = connection.execute(
        "SELECT mode, expires_at_us FROM firing WHERE firing_id = :firing_id", {"firing_id": whole}
    ).fetchone()
    if mode != "assist":
        raise DataError(f"action {whole} is in mode {mode}: only those in mode assist wait for a person")
    if expires_at_us <= now_us:
        raise DataError(f"action {whole} has expired: it is too late to {verdict} it")
    done = connection.execute(
        "INSERT INTO approval(firing_id, verdict, who, at_us) VALUES (:firing_id, :verdict, :who, :at_us)"
        " ON CONFLICT (firing_id) DO NOTHING",
        {"firing_id": whole, "verdict": verdict, "who": who, "at_us": now_us},
    )
    if not done.rowcount:
        raise DataError(f"action {whole} was decided before: netpredict actions show {whole}")
    if verdict == APPROVE:
        changed = "held = 0"
    else:
        changed = (
            f"kind = '{OutcomeKind.SKIPPED}', reason = 'rejected', detail = '', attempts = 0, at_us = {now_us:d},"
            " checks = :checks"
        )
    connection.execute(
        f"UPDATE outbox SET {changed} WHERE firing_id = :firing_id AND kind IS NULL AND held = 1",
        {"firing_id": whole, "checks": text({"passed": [], "refused": "rejected", "said": f"{who} said no"})},
    )
    connection.execute(
        "INSERT INTO audit(at_us, who, what, detail) VALUES (:at_us, :who, :what, :detail)",
        {"at_us": now_us, "who": who, "what": f"action_{verdict}", "detail": text({"firing_id": whole})},
    )
    return whole


def the_id(connection: Connection, firing_id: str) -> str:
    """The one id that is or begins so, DataError when there is none; ids are hexadecimal, so this is a range."""
    found = connection.execute(
        "SELECT firing_id FROM firing WHERE firing_id >= :begin AND firing_id < :end ORDER BY firing_id LIMIT 2",
        {"begin": firing_id, "end": firing_id + "~"},
    ).fetchall()
    ids = [whole for (whole,) in found]
    if firing_id in ids:
        return firing_id
    if len(ids) != 1:
        raise DataError(f"{'several' if ids else 'no'} actions have an id that begins with {firing_id}")
    return str(ids[0])

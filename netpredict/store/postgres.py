"""PostgreSQL as a database that several processes share: row locks fence, COPY carries the bulk.

Transactions are READ COMMITTED: the conditional update of an offset waits for whoever holds the row and then looks
again. A session ends by itself when its process hangs, sooner than Kafka's group gives its topic partitions away.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import pq
from psycopg.adapt import Buffer, Dumper
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumperUnknown
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from netpredict.errors import NetpredictError, StoreError, StoreUnavailable
from netpredict.store.database import NO_PARAMETERS, Glob, Parameters, Row
from netpredict.store.login import Login, login_of

COPY_FROM_ROWS = 64
"""As many rows go by COPY; fewer by one INSERT, which needs one round trip."""

ROWS_PER_CHUNK = 2048
"""Rows that become text in one go: the GIL is held for so long."""

IDLE_READERS = 4
MIGRATION_WAIT_S = 120

_RETRIABLE_CLASSES = ("08", "40", "53", "57", "58")
"""Connection, rolled back by the server, out of resources, operator's intervention, system error."""

READ_ONLY = "25006"
_RETRIABLE = frozenset(
    {
        READ_ONLY,
        "25P03",  # idle in transaction for too long: this process hung
        "25P04",  # transaction timeout
        "55P03",  # lock not available within lock_timeout
    }
)


class PostgresConnection:
    """A connection of ours, which speaks the store's SQL."""

    def __init__(self, raw: psycopg.Connection[Row]) -> None:
        self._raw = raw

    def execute(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> PostgresRows:
        """Run one statement."""
        query, nullable = _own(sql)
        return PostgresRows(self._cursor().execute(query, _bound(parameters, nullable)))

    def execute_many(self, sql: str, rows: Sequence[Parameters]) -> None:
        """Run one statement for each row of parameters, in one round trip."""
        query, nullable = _own(sql)
        self._cursor().executemany(query, [_bound(row, nullable) for row in rows])

    def stream(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> Iterator[Row]:
        """The rows of a query as they arrive."""
        query, nullable = _own(sql)
        yield from self._cursor().stream(query, _bound(parameters, nullable), size=1000)

    def insert_rows(self, into: str, columns: Sequence[Sequence[Any]], conflict: str = "") -> None:
        """COPY, where keys may be there already into a temporary table first; a few rows by INSERT."""
        if not columns or not columns[0]:
            return
        if len(columns[0]) < COPY_FROM_ROWS:
            self._insert_few(into, columns, conflict)
        elif not conflict:
            self._copy(into, columns)
        else:
            table, _, names = into.partition("(")
            names = names.removesuffix(")")
            staged = f"staged_{table}"
            # emptied by the server at the end of each transaction
            self._run(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged} ON COMMIT DELETE ROWS AS SELECT {names} FROM {table}"
                " WITH NO DATA"
            )
            self._copy(f"{staged}({names})", columns)
            self._run(f"INSERT INTO {into} SELECT {names} FROM {staged} {conflict}")
            self._run(f"TRUNCATE {staged}")

    def _insert_few(self, into: str, columns: Sequence[Sequence[Any]], conflict: str) -> None:
        row = "(" + ",".join(["%s"] * len(columns)) + ")"
        values = ",".join([row] * len(columns[0]))
        flat = [value for row_values in zip(*columns, strict=True) for value in row_values]
        self._run(f"INSERT INTO {into} VALUES {values} {conflict}", flat)

    def _copy(self, into: str, columns: Sequence[Sequence[Any]]) -> None:
        with self._raw.cursor() as cursor, cursor.copy(_query(f"COPY {into} FROM STDIN")) as copy:
            lines = map("\t".join, zip(*map(_fields, columns), strict=True))
            while chunk := [*islice(lines, ROWS_PER_CHUNK)]:
                copy.write("\n".join(chunk) + "\n")

    def used_bytes(self) -> int:
        """An estimate from the server's statistics: files do not shrink when rows are deleted.

        Live rows by their mean width, and indexes in proportion; the size of the files where nothing is known yet.
        """
        found = self.execute(_USED_BYTES).fetchone()
        return int(found[0]) if found else 0

    def try_lock(self, name: str) -> bool:
        """Whether no other session holds the advisory lock of this name."""
        return self.is_true("SELECT pg_try_advisory_xact_lock(:key)", {"key": lock_key(name)})

    def is_true(self, sql: str, parameters: Parameters) -> bool:
        """What a query of one yes or no says."""
        return self.execute(sql, parameters).fetchall() == [(True,)]

    def _cursor(self) -> psycopg.Cursor[Row]:
        return self._raw.cursor(binary=True)

    def _run(self, sql: str, parameters: Sequence[Any] | None = None) -> None:
        self._raw.execute(_query(sql), parameters)


class PostgresRows:
    """A cursor that names its columns."""

    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self.rowcount = cursor.rowcount
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall
        self._cursor = cursor

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self._cursor.description or ()]


class PostgresDatabase:
    """A database on a server; see ``Database``. Connections that break are made anew at their next use."""

    shared = True

    def __init__(self, url: URL) -> None:
        self._login = login_of(url)
        self.name = self._login.name
        self._mutex = threading.Lock()
        self._connection: psycopg.Connection[Row] | None = None
        self._open = False
        self._idle: list[psycopg.Connection[Row]] = []

    def start(self) -> None:
        """Connect."""
        with self._mutex:
            self._connection = connect(self._login)
            self._open = True

    def close(self) -> None:
        """Wait for the transaction in flight, then disconnect."""
        with self._mutex:
            self._open = False
            self._drop()
            while self._idle:
                self._idle.pop().close()

    def announce(self, control: Path) -> None:
        """Every process writes for itself."""

    def control(self) -> Path | None:
        """Every process writes for itself."""
        return None

    @contextmanager
    def transaction(self) -> Iterator[PostgresConnection]:
        """BEGIN … COMMIT, durable on return; anything raised inside rolls all of it back."""
        with self._mutex:
            if not self._open:
                raise StoreError(f"{self.name}: the store is not open")
            try:
                self._connection = connection = self._begun()
                yield PostgresConnection(connection)
                done = connection.execute("COMMIT")
                if done.statusmessage != "COMMIT":
                    raise StoreError(f"{self.name}: the transaction was rolled back, as a statement had failed")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, psycopg.Error):
                    if error.sqlstate == READ_ONLY:  # a standby now: whoever took over is found by connecting anew
                        self._drop()
                    raise translated(error, self._login) from error
                raise

    def _begun(self) -> psycopg.Connection[Row]:
        if self._connection is not None:
            with suppress(psycopg.OperationalError):  # it was cut while it waited: nothing is lost
                self._connection.execute("BEGIN")
                return self._connection
            self._drop()
        connection = connect(self._login)
        connection.execute("BEGIN")
        return connection

    def _roll_back(self) -> None:
        if self._connection is not None and not _rolled_back(self._connection):
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def reader(self) -> Iterator[PostgresConnection]:
        """A read-only transaction of one snapshot. Between ``start`` and ``close`` its connection is kept."""
        try:
            connection = self._begun_reader()
            try:
                yield PostgresConnection(connection)
            finally:
                self._put_back(connection)
        except psycopg.Error as error:
            raise translated(error, self._login) from error

    def _begun_reader(self) -> psycopg.Connection[Row]:
        # it holds no row that anybody waits for, and what it read may take a while to work through
        begin = (
            b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 300000"
        )
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = connect(self._login)
                connection.execute(begin)
                return connection
            with suppress(psycopg.OperationalError):  # it was cut while it waited
                connection.execute(begin)
                return connection
            connection.close()

    def _put_back(self, connection: psycopg.Connection[Row]) -> None:
        if _rolled_back(connection) and self._open and len(self._idle) < IDLE_READERS:
            self._idle.append(connection)
        else:
            connection.close()

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Whether this session got the advisory lock of this name; the server takes it back when the session ends."""
        connection = connect(self._login)
        try:
            key = {"key": lock_key(name)}
            yield PostgresConnection(connection).is_true("SELECT pg_try_advisory_lock(:key)", key)
        except psycopg.Error as error:
            raise translated(error, self._login) from error
        finally:
            connection.close()

    def exists(self) -> bool:
        """It is there, or connecting fails."""
        return True

    def check_pages(self) -> None:
        """The server checks its own pages, where it was made with checksums; pg_amcheck looks at the rest."""

    @contextmanager
    def inspecting(self) -> Iterator[sa.Connection]:
        """SQLAlchemy on a connection of its own, to look at the schema."""
        engine = sa.create_engine(
            "postgresql+psycopg://", creator=lambda: connect(self._login, autocommit=False), poolclass=NullPool
        )
        try:
            with engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise translated(error.orig, self._login) from error
            raise
        finally:
            engine.dispose()

    @contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        """A transaction that waits until no other one changes the schema."""
        with self.inspecting() as connection, connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_WAIT_S}s'")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock_key('migration')})")
            yield connection


def connect(login: Login, *, autocommit: bool = True) -> psycopg.Connection[Row]:
    """A session with our settings and types; without prepared statements, which poolers between would mix up."""
    try:
        connection = psycopg.connect(**login.parameters(), autocommit=autocommit, prepare_threshold=None)
    except psycopg.Error as error:
        raise translated(error, login) from error
    for kind, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
    return connection


def translated(error: psycopg.Error, login: Login) -> NetpredictError:
    """The error of ours that says whether the same work may be tried again."""
    state = error.sqlstate
    text = login.redacted(" ".join(str(error).split()))
    if state is None:  # the driver's own word: it cannot connect, or lost the connection
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return (StoreUnavailable if lost else StoreError)(f"{login.name}: {text}")
    if state[:2] in _RETRIABLE_CLASSES or state in _RETRIABLE:
        return StoreUnavailable(f"{login.name}: {text} ({state})")
    hint = ": run `netpredict db upgrade`" if state == "42P01" else ""  # no such table
    return StoreError(f"{login.name}: {text} ({state}){hint}")


def lock_key(name: str) -> int:
    """The number of an advisory lock, 64 bits with a sign."""
    return int.from_bytes(hashlib.sha256(f"netpredict {name}".encode()).digest()[:8], signed=True)


def _rolled_back(connection: psycopg.Connection[Row]) -> bool:
    """Whether the connection can be used again."""
    status = connection.info.transaction_status
    if status == pq.TransactionStatus.IDLE:
        return True
    if status not in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
        return False  # broken, or in the middle of something
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        return False
    return True


# -- the store's SQL as PostgreSQL has it ---------------------------------------------------------------------------

_TOKEN = re.compile(
    r"'[^']*'|\"[^\"]*\"|\beach_(?P<kind>number|text)\(:(?P<list>\w+)\)"
    r"|:(?P<name>\w+)(?P<null>\s+IS\s+NULL\b)?|%|\bGLOB\b"
)
_ITEM_TYPES = {"number": "bigint", "text": "text"}


@cache
def _own(sql: str) -> tuple[bytes, frozenset[str]]:
    """The text for psycopg, and the parameters that it compares with NULL.

    These say so by a parameter of their own: ``$1 IS NULL`` gives the server no type to take ``$1`` for.
    """
    nullable = frozenset(found["name"] for found in _TOKEN.finditer(sql) if found["null"])
    return _query(_TOKEN.sub(_replaced, sql)), nullable


def _bound(parameters: Parameters, nullable: frozenset[str]) -> Parameters:
    return {**parameters, **{f"{name} is null": parameters[name] is None for name in nullable}}


def _replaced(found: re.Match[str]) -> str:
    if found["name"]:
        return f"%({found['name']} is null)s" if found["null"] else f"%({found['name']})s"
    if found["kind"]:
        array = f"CAST(%({found['list']})s AS {_ITEM_TYPES[found['kind']]}[])"
        return f"(SELECT value FROM unnest({array}) AS item(value))"
    return "~" if found[0] == "GLOB" else found[0].replace("%", "%%")


def _query(sql: str) -> bytes:
    return sql.encode()


class _Text(StrDumperUnknown):
    """Text without NUL, which PostgreSQL cannot hold."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\ufffd"))


class _Pattern(StrDumperUnknown):
    """A shell pattern as a regular expression."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(regular_expression(obj).replace("\0", "\ufffd"))


_DUMPERS: Mapping[type, type[Dumper]] = {
    int: Int8Dumper,  # as wide as the columns, whatever the value
    str: _Text,
    Glob: _Pattern,
}


def regular_expression(pattern: str) -> str:
    """The regular expression of PostgreSQL that matches what SQLite's GLOB does."""
    parts, place = [], 0
    while place < len(pattern):
        letter = pattern[place]
        end = pattern.find("]", place + 2 + pattern.startswith("^", place + 1)) if letter == "[" else -1
        if end > 0:
            negated = pattern.startswith("^", place + 1)
            inside = pattern[place + 1 + negated : end]
            parts.append(f"[{'^' * negated}{inside.replace(chr(92), chr(92) * 2)}]")
            place = end + 1
            continue
        parts.append({"*": ".*", "?": "."}.get(letter) or re.sub(r"(\W)", r"\\\1", letter))
        place += 1
    return f"^(?:{''.join(parts)})$"


# -- COPY -----------------------------------------------------------------------------------------------------------

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\ufffd"})


def _fields(column: Sequence[Any]) -> Sequence[str]:
    """The values of a column as COPY's text format has them; whole columns at once, by their type."""
    kinds = set(map(type, column))
    if kinds == {str}:
        return _escaped(column)
    if type(None) in kinds:
        known = iter(_fields([value for value in column if value is not None]))
        return ["\\N" if value is None else next(known) for value in column]
    if kinds == {bytes}:
        return ["\\\\x" + value.hex() for value in column]
    return [*map(str, column)]


def _escaped(texts: Sequence[str]) -> Sequence[str]:
    whole = "".join(texts)
    if any(letter in whole for letter in "\\\t\n\r\0"):
        return [text.translate(_ESCAPES) for text in texts]
    return texts


_USED_BYTES = """
SELECT CAST(coalesce(sum(
  least(files, coalesce(n_live_tup * (28 + width) * (1 + indexes / greatest(heap, 1.0)), files))
), 0) AS BIGINT)
FROM (
  SELECT t.n_live_tup, pg_total_relation_size(t.relid) AS files, pg_relation_size(t.relid) AS heap,
    CAST(pg_indexes_size(t.relid) AS double precision) AS indexes,
    (SELECT sum(s.avg_width) FROM pg_stats AS s WHERE s.schemaname = t.schemaname AND s.tablename = t.relname) AS width
  FROM pg_stat_user_tables AS t
) AS tables
"""

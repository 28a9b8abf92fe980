"""SQLite as an embedded store: one writing connection of one process, short readers beside it.

The writer holds a lock file next to the database, because an SQLite before 3.51.3 may damage a WAL that two processes
write. Bulk inserts are multi-row statements: each step of a statement hands the GIL to whoever waits for it, so
a step a row would cost up to 5 ms a row beside a busy thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from netpredict.errors import AlreadyRunning, ConfigError, NetpredictError, StoreError, StoreUnavailable

BUSY_TIMEOUT_MS = 5000
ROWS_PER_STATEMENT = (8192, 1024)
"""Sizes that recur, so that their statements stay prepared; what is left over goes in one of its own size."""

CACHED_STATEMENTS = 24  # one of 8192 rows keeps some MB

_RETRIABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_READONLY,  # a file system that was remounted read-only may come back
    }
)


def path_of(url: str) -> Path:
    """The database file of a store URL. ConfigError when the URL names no SQLite file."""
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(f"store.url: {url!r} is not a database URL; use sqlite:///FILE") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        shown = parsed.render_as_string(hide_password=True)
        raise ConfigError(f"store.url: this store needs a file of its own, sqlite:///FILE, got {shown!r}")
    return Path(parsed.database)


def connect(path: Path, *, writing: bool, create: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode with our settings; PRAGMAs hold for one connection only."""
    if not create and not path.exists():
        raise StoreError(f"no store at {path}: run `netpredict db upgrade`")
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
    except sqlite3.Error as error:
        raise translated(error, path) from error
    try:
        for pragma in _pragmas(writing):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        connection.close()
        raise translated(error, path) from error
    return connection


def _pragmas(writing: bool) -> tuple[str, ...]:
    common = ("foreign_keys = ON", "temp_store = MEMORY")
    if not writing:
        return (*common, "query_only = ON")
    return (
        *common,
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit carries offsets: it must survive a power cut
        "cache_size = -131072",  # KiB
        "wal_autocheckpoint = 8192",
        "journal_size_limit = 268435456",
        "secure_delete = OFF",  # Debian builds it in: pruning would write zeros over every deleted row
    )


def translated(error: sqlite3.Error, path: Path) -> NetpredictError:
    """The error of ours that says whether the same work may be tried again."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", "")
    if code is not None and code & 0xFF in _RETRIABLE:
        return StoreUnavailable(f"{path}: {error} ({name})")
    hint = ": run `netpredict db upgrade`" if "no such table" in str(error) else ""
    return StoreError(f"{path}: {error} ({name}){hint}")


def engine(url: str, *, writing: bool = False, create: bool = False) -> sa.Engine:
    """A SQLAlchemy engine over short-lived connections, for migrations and queries that are not hot."""
    path = path_of(url)
    built = sa.create_engine(
        "sqlite://", creator=lambda: connect(path, writing=writing, create=create), poolclass=NullPool
    )

    @sa.event.listens_for(built, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return built


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A read transaction on a connection of its own. Keep it short: the WAL cannot shrink beneath it."""
    connection = connect(path, writing=False)
    try:
        connection.execute("BEGIN")
        yield connection
    except sqlite3.Error as error:
        raise translated(error, path) from error
    finally:
        connection.close()


class LockFile:
    """Held by the one process that writes a database; let go by the kernel when the process dies."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock or raise AlreadyRunning, which names the holder's process id."""
        try:
            file = open(self.path, "a+", encoding="ascii")  # noqa: SIM115 - stays open as long as the lock is held
        except OSError as error:
            raise StoreUnavailable(f"cannot open the lock file {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            file.close()
            raise AlreadyRunning(
                f"{self.path} is held by process {holder}: stop it, or let it do this for you"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let go; the file stays, for removing it would race with the next holder."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Writer:
    """The one writing connection. All writes of this process go through ``transaction``, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_file = LockFile(path)
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._open = False

    def open(self) -> None:
        """Take the lock file and connect."""
        self._lock_file.acquire()
        try:
            self._connection = connect(self.path, writing=True)
        except NetpredictError:
            self._lock_file.release()
            raise
        self._open = True

    def close(self) -> None:
        """Wait for the transaction in flight, then disconnect and let go of the lock file."""
        with self._mutex:
            self._open = False
            self._drop()
            self._lock_file.release()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE … COMMIT, durable on return; anything raised inside rolls all of it back."""
        with self._mutex:
            if not self._open:
                raise StoreError(f"{self.path}: the store is not open")
            if self._connection is None:
                self._connection = connect(self.path, writing=True)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, sqlite3.Error):
                    raise translated(error, self.path) from error
                raise

    def _roll_back(self) -> None:
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()  # the next transaction connects anew, and SQLite recovers

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def insert_rows(connection: sqlite3.Connection, into: str, columns: Sequence[Sequence[Any]], tail: str = "") -> None:
    """``into`` VALUES (…),(…) ``tail`` for rows given as columns, in as few statements as SQLite allows."""
    if not columns or not columns[0]:
        return
    width, count = len(columns), len(columns[0])
    flat: list[Any] = [None] * (count * width)
    for number, column in enumerate(columns):
        flat[number::width] = column
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // width
    done = 0
    while done < count:
        left = min(count - done, most)
        rows = next((size for size in ROWS_PER_STATEMENT if size <= left), left)
        sql = f"{into} VALUES {_places(width, rows)} {tail}"
        connection.execute(sql, flat[done * width : (done + rows) * width])
        done += rows


def _places(width: int, rows: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return _full(row, rows) if rows in ROWS_PER_STATEMENT else ",".join([row] * rows)


@cache
def _full(row: str, rows: int) -> str:
    return ",".join([row] * rows)

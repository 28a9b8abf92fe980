"""SQLite as an embedded database: one writing connection of one process, short readers beside it.

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
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from netpredict.errors import AlreadyRunning, ConfigError, NetpredictError, StoreDamaged, StoreError, StoreUnavailable
from netpredict.store.database import NO_PARAMETERS, Parameters, Row, parsed_url

BUSY_TIMEOUT_MS = 5000
ROWS_PER_STATEMENT = (8192, 1024)
"""Sizes that recur, so that their statements stay prepared; what is left over goes in one of its own size."""

LOCK_TEXT_MAX = 8192
VERSION = sqlite3.sqlite_version_info

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
    parsed = parsed_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        shown = parsed.render_as_string(hide_password=True)
        raise ConfigError(f"store.url: an SQLite store needs a file of its own, sqlite:///FILE, got {shown!r}")
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


_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def translated(error: sqlite3.Error, path: Path) -> NetpredictError:
    """The error of ours that says whether the same work may be tried again."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", "")
    if code is not None and code & 0xFF in _RETRIABLE:
        return StoreUnavailable(f"{path}: {error} ({name})")
    if code is not None and code & 0xFF in _DAMAGED:
        return _damaged(path, f"{error} ({name})")
    hint = ": run `netpredict db upgrade`" if "no such table" in str(error) else ""
    return StoreError(f"{path}: {error} ({name}){hint}")


def _damaged(path: Path, found: str) -> StoreDamaged:
    return StoreDamaged(
        f"{path}: the database file is damaged: {found}: keep a copy, let `netpredict db check --pages` say how far it"
        " goes, and restore a backup or begin with a new store, into which Kafka's records are read again"
    )


class LockFile:
    """Held by the one process that writes a database; let go by the kernel when the process dies."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock or raise AlreadyRunning, which names the holder's process id."""
        try:
            file = open(self.path, "a+", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - stays open as long as the lock is held
        except OSError as error:
            raise StoreUnavailable(f"cannot open the lock file {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            holder, _ = self.holder()
            raise AlreadyRunning(
                f"{self.path} is held by process {holder or 'unknown'}: this needs the store for itself, stop it first"
            ) from error
        self._file = file
        try:
            self.announce(None)
        except StoreUnavailable:
            self._file = None
            with suppress(OSError):  # it would flush again
                file.close()
            raise

    def announce(self, control: Path | None) -> None:
        """Write down who holds the lock, and the control socket through which it may be asked to write."""
        if self._file is None:
            return
        try:
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n" + (f"{control}\n" if control else ""))
            self._file.flush()
        except OSError as error:
            raise StoreUnavailable(f"cannot write the lock file {self.path}: {error.strerror}") from error

    def holder(self) -> tuple[str, Path | None]:
        """Process id and control socket of whoever wrote the file last; nothing says that it still lives."""
        try:
            lines = self.path.read_bytes()[:LOCK_TEXT_MAX].decode("utf-8", "surrogateescape").splitlines()
        except OSError:
            return "", None
        return lines[0][:20] if lines else "", Path(lines[1]) if len(lines) > 1 and lines[1] else None

    def release(self) -> None:
        """Let go; the file stays, for removing it would race with the next holder."""
        if self._file is not None:
            self._file.close()
            self._file = None


class SqliteConnection:
    """A connection of ours, which speaks the store's SQL."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> SqliteRows:
        """Run one statement."""
        return SqliteRows(self.raw.execute(_own(sql), _bound(parameters)))

    def execute_many(self, sql: str, rows: Sequence[Parameters]) -> None:
        """Run one statement for each row of parameters."""
        self.raw.executemany(sql, rows)

    def stream(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> Iterator[Row]:
        """The rows of a query as they are found."""
        cursor = self.raw.execute(_own(sql), _bound(parameters))
        while rows := cursor.fetchmany(10_000):
            yield from rows

    def insert_rows(self, into: str, columns: Sequence[Sequence[Any]], conflict: str = "") -> None:
        """Statements of many rows; see ``Connection``."""
        if not columns or not columns[0]:
            return
        width, count = len(columns), len(columns[0])
        flat: list[Any] = [None] * (count * width)
        for number, column in enumerate(columns):
            flat[number::width] = column
        most = self.raw.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // width
        done = 0
        while done < count:
            left = min(count - done, most)
            rows = next((size for size in ROWS_PER_STATEMENT if size <= left), left)
            sql = f"INSERT INTO {into} VALUES {_places(width, rows)} {conflict}"
            self.raw.execute(sql, flat[done * width : (done + rows) * width])
            done += rows

    def used_bytes(self) -> int:
        """All pages but the free ones."""
        pages = ("page_count", "freelist_count", "page_size")
        count, free, size = (self.raw.execute(f"PRAGMA {name}").fetchone()[0] for name in pages)
        return int((count - free) * size)

    def try_lock(self, name: str) -> bool:
        """No other process writes."""
        return True


class SqliteRows:
    """A cursor that names its columns."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.rowcount = cursor.rowcount
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall
        self._cursor = cursor

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column[0] for column in self._cursor.description]


class SqliteDatabase:
    """A file, written by this process alone; see ``Database``."""

    shared = False

    def __init__(self, url: str) -> None:
        self.path = path_of(url)
        self.name = str(self.path)
        self._lock_file = LockFile(self.path)
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._open = False

    def start(self) -> None:
        """Take the lock file and connect."""
        self._lock_file.acquire()
        try:
            self._connection = connect(self.path, writing=True)
        except NetpredictError:
            self._lock_file.release()
            raise
        self._open = True

    def announce(self, control: Path) -> None:
        """Name the control socket in the lock file."""
        self._lock_file.announce(control)

    def control(self) -> Path | None:
        """What the holder of the lock file wrote into it."""
        return self._lock_file.holder()[1]

    def close(self) -> None:
        """Wait for the transaction in flight, then disconnect and let go of the lock file."""
        with self._mutex:
            self._open = False
            self._drop()
            self._lock_file.release()

    @contextmanager
    def transaction(self) -> Iterator[SqliteConnection]:
        """BEGIN IMMEDIATE … COMMIT, durable on return; anything raised inside rolls all of it back."""
        with self._mutex:
            if not self._open:
                raise StoreError(f"{self.path}: the store is not open")
            if self._connection is None:
                self._connection = connect(self.path, writing=True)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield SqliteConnection(self._connection)
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

    @contextmanager
    def reader(self) -> Iterator[SqliteConnection]:
        """A read transaction on a connection of its own. Keep it short: the WAL cannot shrink beneath it."""
        connection = connect(self.path, writing=False)
        try:
            connection.execute("BEGIN")
            yield SqliteConnection(connection)
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        finally:
            connection.close()

    def alone(self, name: str) -> nullcontext[bool]:
        """No other process writes."""
        return nullcontext(True)

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def check_pages(self) -> None:
        """PRAGMA quick_check: each page is where it should be and can be read."""
        with self.reader() as connection:
            found = [str(line) for (line,) in connection.execute("PRAGMA quick_check(10)").fetchall()]
        if found != ["ok"]:
            raise _damaged(self.path, "; ".join(" ".join(line.split()) for line in found))

    @contextmanager
    def inspecting(self) -> Iterator[sa.Connection]:
        """SQLAlchemy on a connection of its own, to look at the schema."""
        with self._sqlalchemy(writing=False) as connection:
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        """A transaction that may create the file, under the lock file.

        StoreError when its folder does not exist: a mistyped path shall not become a new, empty store.
        """
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreError(f"there is no folder {folder} for the store {self.path.name}: create it, or mend the path")
        lock = LockFile(self.path)
        lock.acquire()
        try:
            with self._sqlalchemy(writing=True) as connection, connection.begin():
                yield connection
        finally:
            lock.release()

    @contextmanager
    def _sqlalchemy(self, writing: bool) -> Iterator[sa.Connection]:
        engine = sa.create_engine(
            "sqlite://", creator=lambda: connect(self.path, writing=writing, create=writing), poolclass=NullPool
        )

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

        try:
            with engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            if isinstance(error.orig, sqlite3.Error):
                raise translated(error.orig, self.path) from error
            raise
        finally:
            engine.dispose()


def _own(sql: str) -> str:
    return sql.replace("each_number(", "json_each(").replace("each_text(", "json_each(")


def _bound(parameters: Parameters) -> Parameters:
    if any(type(value) is list for value in parameters.values()):
        return {
            name: msgspec.json.encode(value).decode() if type(value) is list else value
            for name, value in parameters.items()
        }
    return parameters


def _places(width: int, rows: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return _full(row, rows) if rows in ROWS_PER_STATEMENT else ",".join([row] * rows)


@cache
def _full(row: str, rows: int) -> str:
    return ",".join([row] * rows)

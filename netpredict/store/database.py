"""The port to a database: transactions, readers and bulk inserts. Which one it is, the URL says.

The SQL text of the store is written once, in what SQLite and PostgreSQL have in common:

- Parameters are named, ``:name``; a text that is written by hand holds no colon elsewhere.
- A list is a parameter too: ``each_number(:ids)`` and ``each_text(:keys)`` are tables of its items, column
  ``value``; each has an alias.
- ``GLOB`` compares with a shell pattern, which is a parameter of the type ``Glob``.
- Loops that SQLite must not turn round are CROSS JOINs with their conditions behind WHERE.
- What is JSON inside is taken apart in Python; sums are cast to BIGINT; scalar min and max are CASE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from netpredict.errors import ConfigError

Parameters = Mapping[str, Any]
Row = tuple[Any, ...]
NO_PARAMETERS: Parameters = {}


class Glob(str):
    """A shell pattern, as SQLite's GLOB has it."""

    __slots__ = ()


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        ...

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        ...

    def fetchone(self) -> Any:
        """The next row, None behind the last."""
        ...

    def fetchall(self) -> list[Row]:
        """All rows that are left."""
        ...


class Connection(Protocol):
    """A connection inside a transaction. Errors of the driver leave the transaction as errors of ours."""

    def execute(self, sql: str, parameters: Parameters = ...) -> Rows:
        """Run one statement."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Parameters]) -> None:
        """Run one statement for each row of parameters."""
        ...

    def stream(self, sql: str, parameters: Parameters = ...) -> Iterator[Row]:
        """The rows of a query that has more than memory should hold twice."""
        ...

    def insert_rows(self, into: str, columns: Sequence[Sequence[Any]], conflict: str = "") -> None:
        """INSERT INTO ``into``, "table(column, …)", rows given as columns, in as few steps as the database allows.

        ``conflict`` is an ON CONFLICT clause; with DO UPDATE each key comes once. Sort the keys, so that two writers
        lock them in one order.
        """
        ...

    def used_bytes(self) -> int:
        """Bytes that rows and indexes take up now, without what may be used again."""
        ...

    def try_lock(self, name: str) -> bool:
        """Whether no other process holds the lock of this name; it is ours until the transaction ends."""
        ...


class Database(Protocol):
    """One store's database. ``name`` is for messages and holds no secret; ``shared``: several processes may write it.

    Writes of this process go through ``transaction``, one at a time, between ``start`` and ``close``; ``reader`` needs
    neither. StoreUnavailable: the same again may work; StoreError: it never will.
    """

    name: str
    shared: bool

    def start(self) -> None:
        """Connect, and take the lock file where one process only may write."""
        ...

    def close(self) -> None:
        """Wait for the transaction in flight, then disconnect."""
        ...

    def announce(self, control: Path) -> None:
        """Tell other processes where to ask for what only this one may write; nothing where they write themselves."""
        ...

    def control(self) -> Path | None:
        """Where to ask, as the process that may write told it."""
        ...

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction, durable when the block ends; anything raised inside rolls all of it back."""
        ...

    def reader(self) -> AbstractContextManager[Connection]:
        """A read-only view of one moment. Keep it short."""
        ...

    def alone(self, name: str) -> AbstractContextManager[bool]:
        """Whether this process is the only one inside a block of this name, as long as the block lasts."""
        ...

    def exists(self) -> bool:
        """Whether there is something to read; what cannot be reached raises."""
        ...

    def check_pages(self) -> None:
        """Read the whole database; StoreDamaged when its structure is broken. Takes as long as reading it."""
        ...

    def inspecting(self) -> AbstractContextManager[sa.Connection]:
        """SQLAlchemy on a connection of its own, to look at the schema."""
        ...

    def migrating(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that changes the schema, with no other one beside it; creates the database where it can."""
        ...


def database_of(url: str) -> Database:
    """The database of a store URL, not connected yet. ConfigError when the URL is of none that we know."""
    parsed = parsed_url(url)
    if parsed.get_backend_name() == "sqlite":
        from netpredict.store.sqlite import SqliteDatabase

        return SqliteDatabase(url)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        try:
            from netpredict.store.postgres import PostgresDatabase
        except ImportError as error:
            raise ConfigError("store.url: PostgreSQL needs psycopg: install netpredict[postgres]") from error
        return PostgresDatabase(parsed)
    raise ConfigError(f"store.url: use sqlite:///FILE or postgresql://USER@HOST/DATABASE, got {parsed.drivername}://…")


def parsed_url(url: str) -> URL:
    """A store URL taken apart. ConfigError, without the URL, which may hold a password, when it is none."""
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigError("store.url: not a database URL; use sqlite:///FILE or postgresql://USER@HOST/DATABASE") from (
            error
        )

"""Brings the schema of a store to the head of this release, and refuses one that is not there."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from alembic import command
from netpredict.errors import StoreError
from netpredict.store import sqlite


def scripts_folder() -> Path:
    """The migrations: inside the package when installed from a wheel, ``alembic/`` beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "migrations", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise StoreError(f"the migrations are missing beside {package}: install netpredict again")


def upgrade(url: str, revision: str = "head") -> None:
    """Create or upgrade the schema in one transaction. AlreadyRunning while a daemon writes the store.

    StoreError when the folder of the file does not exist: a mistyped path shall not become a new, empty store.
    """
    path = sqlite.path_of(url)
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {path.parent} for the store {path.name}: create it, or mend the path")
    lock = sqlite.LockFile(path)
    lock.acquire()
    engine = sqlite.engine(url, writing=True, create=True)
    try:
        with engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except CommandError as error:
        raise StoreError(f"{path}: {error}: this release knows schema {head()}; install a newer one") from error
    except sa.exc.OperationalError as error:
        raise StoreError(f"{path}: cannot upgrade the schema: {error.orig}") from error
    finally:
        engine.dispose()
        lock.release()


def current(url: str) -> str | None:
    """The revision of a store, None when it has no schema."""
    if not sqlite.path_of(url).exists():
        return None
    engine = sqlite.engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except sa.exc.DatabaseError as error:
        raise StoreError(f"{sqlite.path_of(url)}: cannot read the schema revision: {error.orig}") from error
    finally:
        engine.dispose()


def head() -> str:
    """The revision this release works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def check(url: str) -> None:
    """StoreError unless the schema of the store is exactly the one of this release."""
    found = current(url)
    if found == head():
        return
    path = sqlite.path_of(url)
    if found is None:
        raise StoreError(f"{path} has no schema: run `netpredict db upgrade`")
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found in known:
        raise StoreError(f"{path} has schema {found}, this release needs {head()}: run `netpredict db upgrade`")
    raise StoreError(
        f"{path} has schema {found}, unknown to this release, which needs {head()}: install the release that wrote it, "
        "or restore a backup and run `netpredict db upgrade`"
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    return config

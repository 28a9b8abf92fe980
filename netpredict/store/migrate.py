"""Brings the schema of a store to the head of this release, and refuses one that is not there."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from alembic import command
from netpredict.errors import SchemaError, StoreError
from netpredict.store.database import database_of


def scripts_folder() -> Path:
    """The migrations: inside the package when installed from a wheel, ``alembic/`` beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "migrations", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise StoreError(f"the migrations are missing beside {package}: install netpredict again")


def upgrade(url: str, revision: str = "head") -> None:
    """Create or upgrade the schema in one transaction; two at the same time come one after the other.

    AlreadyRunning while a daemon writes an SQLite store.
    """
    database = database_of(url)
    try:
        with database.migrating() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except CommandError as error:
        raise SchemaError(
            f"{database.name}: {error}: this release knows schema {head()}; install a newer one"
        ) from error


def current(url: str) -> str | None:
    """The revision of a store, None when it has no schema."""
    database = database_of(url)
    if not database.exists():
        return None
    with database.inspecting() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The revision this release works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def check(url: str) -> None:
    """SchemaError unless the schema of the store is exactly the one of this release."""
    found = current(url)
    if found == head():
        return
    path = database_of(url).name
    if found is None:
        raise SchemaError(f"{path} has no schema: run `netpredict db upgrade`")
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found in known:
        raise SchemaError(f"{path} has schema {found}, this release needs {head()}: run `netpredict db upgrade`")
    raise SchemaError(
        f"{path} has schema {found}, unknown to this release, which needs {head()}: install the release that wrote it, "
        "or restore a backup and run `netpredict db upgrade`"
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    return config

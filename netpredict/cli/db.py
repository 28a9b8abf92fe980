"""``netpredict db``: the schema of the store."""

from __future__ import annotations

from typing import Annotated

import typer

from netpredict.cli.options import AsJson, ConfigPath, StoreUrl, store_url
from netpredict.cli.terminal import print_json

app = typer.Typer(help="Create, upgrade and check the schema of the store.", no_args_is_help=True)


@app.command()
def upgrade(config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Create the store, or upgrade its schema.

    The daemon must be stopped: no socket does this. It also upgrades the store itself when it starts.
    """
    from netpredict.store import migrate

    where = store_url(config, url)
    before = migrate.current(where)
    migrate.upgrade(where)
    after = migrate.current(where)
    if as_json:
        print_json({"before": before, "current": after})
    else:
        print(f"already at {after}" if before == after else f"upgraded from {before or 'nothing'} to {after}")


@app.command()
def current(config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Print the revision of the store."""
    from netpredict.store import migrate

    found, needed = migrate.current(store_url(config, url)), migrate.head()
    if as_json:
        print_json({"current": found, "head": needed})
    else:
        print(f"{found or 'no schema'} (this release needs {needed})")


@app.command()
def check(
    config: ConfigPath = None,
    url: StoreUrl = None,
    pages: Annotated[bool, typer.Option(help="Read the whole file too: 74 when it is damaged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Exit with 1 unless the schema is the head."""
    from netpredict.errors import NetpredictError
    from netpredict.store import migrate
    from netpredict.store.database import database_of

    try:
        migrate.check(store_url(config, url))
        if pages:
            database_of(store_url(config, url)).check_pages()
    except NetpredictError as error:
        if as_json:
            print_json({"ok": False, "error": str(error)})
        raise
    if as_json:
        print_json({"ok": True, "error": None})
    else:
        print(f"the schema is {migrate.head()}, as it should be")

"""``netpredict models``: versions of predictors, and which of them serves."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

import typer

from netpredict.cli.options import AsJson, ConfigPath, OfPredictor, OfStream, StoreUrl, history, store_url
from netpredict.cli.terminal import print_fields, print_json, print_table, utc
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.store.sql import SqlStore

PROMOTED, ROLLED_BACK = "model_promoted", "model_rolled_back"

app = typer.Typer(help="Model versions: list them, choose the one that serves.", no_args_is_help=True)

Row = dict[str, Any]


@app.command("list")
def list_models(
    stream: OfStream = None,
    predictor: OfPredictor = None,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List model versions, newest first. Version "-" stands for a predictor without weights."""
    rows = history(config, url).models(stream, predictor)
    if as_json:
        print_json({"models": rows})
        return
    names = ("stream", "predictor", "version", "stage", "plugin")
    shown = [[*(row[name] for name in names), utc(row["created_us"]), row["scores"].get("skill")] for row in rows]
    print_table("", (*names, "created", "skill"), shown, by=2)


@app.command()
def show(
    stream: str,
    predictor: str,
    version: str,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one model version; the beginning of its version is enough."""
    row = _the(history(config, url).models(stream, predictor), stream, predictor, version)
    if as_json:
        print_json(row)
        return
    names = ("stream", "predictor", "version", "stage", "plugin", "folder")
    print_fields([*((name, row[name]) for name in names), ("created", utc(row["created_us"]))])
    print_table("scores", ("score", "value"), sorted(row["scores"].items()))


@app.command()
def promote(
    stream: str, predictor: str, version: str, config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Let a version serve. The one before is retired and its artefact kept. The daemon must be stopped."""
    where = store_url(config, url)
    row = _the(history(config, where).models(stream, predictor), stream, predictor, version)
    _activate(where, row, PROMOTED, as_json)


@app.command()
def rollback(
    stream: str, predictor: str, config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Let the version serve that did so before the active one. The daemon must be stopped."""
    where = store_url(config, url)
    rows = [row for row in history(config, where).models(stream, predictor) if row["folder"]]
    active = next((row for row in rows if row["stage"] == "active"), None)
    retired = [row for row in rows if row["stage"] == "retired"]
    if active is None or not retired:
        raise DataError(f"{predictor} on stream {stream} has no earlier version to go back to")
    before = _previous(config, where, active)
    row = next((row for row in retired if row["version"] == before), None) or _older(retired, active)
    _activate(where, row, ROLLED_BACK, as_json)


def _the(rows: list[Row], stream: str, predictor: str, version: str) -> Row:
    found = [row for row in rows if row["version"].startswith(version)]
    exact = [row for row in found if row["version"] == version]
    if len(exact or found) != 1:
        raise DataError(f"{len(found) or 'no'} versions of {predictor} on stream {stream} begin with {version}")
    return (exact or found)[0]


def _previous(config: ConfigPath, url: str, active: Row) -> str | None:
    """The version that served before the active one was promoted by hand, as the audit tells."""
    for entry in history(config, url).audit(limit=1000):
        detail = entry["detail"]
        if entry["what"] == PROMOTED and detail.get("model_id") == active["model_id"]:
            previous: str | None = detail.get("previous")
            return previous
    return None


def _older(retired: list[Row], active: Row) -> Row:
    """The newest of the versions older than the active one, else the newest at all."""
    older = [row for row in retired if row["model_id"] < active["model_id"]]
    return max(older or retired, key=lambda row: int(row["model_id"]))


def _activate(url: str, row: Row, what: str, as_json: bool) -> None:
    from netpredict.store.sql import SqlStore

    if not row["folder"]:
        raise DataError(f"{row['predictor']} has no weights: it always serves as it is")
    with SqlStore(url) as store:
        previous = activate(store, row["stream"], row["predictor"], row["model_id"], row["version"], what)
    if as_json:
        print_json({"stream": row["stream"], "predictor": row["predictor"], "active": row["version"], "was": previous})
    else:
        print(f"{row['predictor']} on stream {row['stream']}: {row['version']} serves, before: {previous or 'none'}")


def activate(store: SqlStore, stream: str, predictor: str, model_id: int, version: str, what: str) -> str | None:
    """Make a version the active one and note who did it; gives the version that was active before."""
    from netpredict.learn.retrain import incumbent
    from netpredict.learn.retrain import promote as make_active

    old = incumbent(store, stream, predictor)
    previous = old.version if old and old.model_id != model_id else None
    make_active(store, stream, predictor, model_id)
    detail = {"stream": stream, "predictor": predictor, "version": version, "model_id": model_id, "previous": previous}
    store.record_audit(_who(), what, detail)
    return previous


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"

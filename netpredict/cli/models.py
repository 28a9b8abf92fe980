"""``netpredict models``: versions of predictors, which of them serves, and whether what is stored can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import (
    AsJson,
    ConfigPath,
    OfPredictor,
    OfStream,
    StoreUrl,
    history,
    read_config,
    read_config_of_streams,
    store_url,
    who,
)
from netpredict.cli.terminal import print_fields, print_json, print_table, say, utc
from netpredict.cli.writing import opened_store
from netpredict.errors import ArtefactError, DataError, StoreError

if TYPE_CHECKING:
    from netpredict.learn.verify import Difference
    from netpredict.store.verbs import StoreVerbs

PROMOTED, ROLLED_BACK = "model_promoted", "model_rolled_back"

app = typer.Typer(help="Model versions: list and check them, choose the one that serves.", no_args_is_help=True)

Row = dict[str, Any]
Why = Annotated[str, typer.Option("--why", help="Reason that is recorded with it.")]


@app.command("list")
def list_models(
    stream: OfStream = None,
    predictor: OfPredictor = None,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List model versions, newest first, and whether their artefacts are whole.

    Version "-" stands for a predictor without weights. ``decided`` is what was last decided about a version.
    """
    store = history(config, url)
    decided = {run["model_id"]: run for run in reversed(store.retrain_runs(stream, predictor, limit=1000))}
    rows = [
        row | {"artefact": _artefact(row), "decided": _decision(decided.get(row["model_id"]))}
        for row in store.models(stream, predictor)
    ]
    if as_json:
        print_json({"models": rows})
        return
    names = ("stream", "predictor", "version", "stage", "plugin", "created", "skill", "artefact", "decided")
    for row in rows:
        row |= {"created": utc(row["created_us"]), "skill": row["scores"].get("skill")}
        row["artefact"] = row["artefact"].partition(":")[0]
    print_table("", names, [[row[name] for name in names] for row in rows], by=2)


@app.command()
def show(
    stream: str,
    predictor: str,
    version: str,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one model version and every decision about it; the beginning of its version is enough."""
    store = history(config, url)
    row = _the(store.models(stream, predictor), stream, predictor, version)
    runs = store.retrain_runs(model_id=row["model_id"])
    changes = [entry for entry in store.audit(limit=1000) if entry["detail"].get("model_id") == row["model_id"]]
    if as_json:
        print_json(row | {"artefact": _artefact(row), "decisions": runs, "changes": changes})
        return
    names = ("stream", "predictor", "version", "stage", "plugin", "folder")
    print_fields(
        [
            *((name, row[name]) for name in names),
            ("created", utc(row["created_us"])),
            ("artefact", _artefact(row)),
            *((f"{run['result']} {utc(run['ended_us'])}", run["detail"].get("why", "")) for run in runs),
            *(
                (f"{each['what']} {utc(each['at_us'])} by {each['who']}", each["detail"].get("why", ""))
                for each in changes
            ),
        ]
    )
    print_table("scores", ("score", "value"), sorted(row["scores"].items()))


@app.command()
def check(
    what: Annotated[str, typer.Argument(help="A version (its beginning is enough), or the folder of an artefact.")],
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether an artefact loads under this release; exit 1 with the reason when not.

    Manifest, hashes, tensors, plugin, options, weights, one answer, and for a version whether it fits its stream.
    """
    from netpredict.learn.check import check_artefact

    folder, row = (Path(what), None) if Path(what).is_dir() else _stored(what, config, url)
    artefact, warnings = check_artefact(folder, row["version"] if row else None)
    if row is not None:
        _check_fit(row, config, artefact.manifest.identity)
    if as_json:
        print_json({"version": artefact.version, "folder": str(folder), "loads": True, "warnings": warnings})
        return
    for warning in warnings:
        say(f"warning: {warning}")
    print(f"{artefact.version} in {folder} loads")


def _stored(version: str, config: ConfigPath, url: str | None) -> tuple[Path, Row]:
    rows = [row for row in history(config, url).models() if row["folder"] and row["version"].startswith(version)]
    if len({row["version"] for row in rows}) != 1:
        raise DataError(
            f"{len(rows) or 'no'} versions with an artefact begin with {version}, and no folder is so named"
        )
    return Path(rows[0]["folder"]), rows[0]


def _check_fit(row: Row, config: ConfigPath, identity: Any) -> None:
    """ArtefactError when the version answers for other columns, levels or horizon than its stream has now."""
    from netpredict.build import build_stream

    read = read_config(config)
    if row["stream"] not in read.streams:
        return
    stream = build_stream(row["stream"], read)
    if (identity.features, identity.output) != (stream.features, stream.output):
        raise ArtefactError(
            f"{row['predictor']}@{row['version']} loads, but was trained for other columns, levels or horizon than"
            f" stream {stream.name} has; train it again"
        )


@app.command()
def verify(
    stream: OfStream = None,
    days: Annotated[int, typer.Option("--days", min=1, help="Newest days of each topic partition.")] = 1,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Replay stored observations of sampled series and compare with the stored forecasts, bit for bit.

    It begins with states that the daemon keeps daily, and names the first difference, with exit 1. The daemon may run.
    """
    from netpredict.learn.verify import verify_all

    read = read_config_of_streams(config)
    if stream is not None and stream not in read.streams:
        raise DataError(f"no stream named {stream!r}; configured: {', '.join(read.streams)}")
    found = verify_all(read, [stream] if stream else list(read.streams), days)
    if as_json:
        print_json({"verified": [asdict(each) for each in found]})
    else:
        shown = [[each.stream, each.series, each.forecasts, _reasons(each.skipped)] for each in found]
        print_table("", ("stream", "series", "forecasts", "left out"), shown)
    if differences := [each.difference for each in found if each.difference is not None]:
        raise StoreError(_told(differences[0]))
    if not any(each.forecasts for each in found):
        raise DataError("nothing was verified: no day of a sampled series has ended yet, or all were left out")


def _reasons(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {n}" for reason, n in sorted(skipped.items()))


def _told(difference: Difference) -> str:
    return (
        f"the forecast of {difference.series} on stream {difference.stream} ({difference.topic_partition}) at"
        f" {utc(difference.slot_time_us)}, model id {difference.model_id}, is not what a replay gives:"
        f" {difference.field} is {difference.stored} in the store, {difference.replayed} replayed"
    )


@app.command()
def promote(
    stream: str,
    predictor: str,
    version: str,
    why: Why = "promoted by hand",
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a version serve. The one before is retired and its artefact kept. A running daemon follows in seconds."""
    where = store_url(config, url)
    row = _the(history(config, where).models(stream, predictor), stream, predictor, version)
    _move(where, row, PROMOTED, why, as_json)


@app.command()
def rollback(
    stream: str,
    predictor: str,
    why: Why = "rolled back by hand",
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let the version serve that did so before the active one. A running daemon follows in seconds."""
    where = store_url(config, url)
    rows = [row for row in history(config, where).models(stream, predictor) if row["folder"]]
    active = next((row for row in rows if row["stage"] == "active"), None)
    retired = [row for row in rows if row["stage"] == "retired"]
    if active is None or not retired:
        raise DataError(f"{predictor} on stream {stream} has no earlier version to go back to")
    before = _previous(config, where, active)
    row = next((row for row in retired if row["version"] == before), None) or _older(retired, active)
    _move(where, row, ROLLED_BACK, why, as_json)


def _artefact(row: Row) -> str:
    """whole, deleted, damaged with the reason, or nothing for a predictor without weights."""
    from netpredict.learn.check import damage

    if not row["folder"]:
        return ""
    if row["stage"] == "deleted":
        return "deleted"
    wrong = damage(Path(row["folder"]), row["version"])
    return f"damaged: {wrong}" if wrong else "whole"


def _decision(run: Row | None) -> str:
    return "" if run is None else f"{run['result']}: {run['detail'].get('why', '')}"


def _the(rows: list[Row], stream: str, predictor: str, version: str) -> Row:
    found = [row for row in rows if row["version"].startswith(version)]
    exact = [row for row in found if row["version"] == version]
    if len(exact or found) != 1:
        raise DataError(f"{len(found) or 'no'} versions of {predictor} on stream {stream} begin with {version}")
    return (exact or found)[0]


def _previous(config: ConfigPath, url: str, active: Row) -> str | None:
    """The version that served before the active one was promoted, as the audit tells."""
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


def _move(url: str, row: Row, what: str, why: str, as_json: bool) -> None:
    from netpredict.learn.check import damage

    if not row["folder"]:
        raise DataError(f"{row['predictor']} has no weights: it always serves as it is")
    if wrong := damage(Path(row["folder"]), row["version"]):
        raise ArtefactError(f"{row['predictor']}@{row['version']} is damaged, nothing was changed: {wrong}")
    with opened_store(url) as store:
        previous = move(store, row["model_id"], what, why)
    if as_json:
        print_json({"stream": row["stream"], "predictor": row["predictor"], "active": row["version"], "was": previous})
    else:
        print(f"{row['predictor']} on stream {row['stream']}: {row['version']} serves, before: {previous or 'none'}")


def move(store: StoreVerbs, model_id: int, what: str, why: str) -> str | None:
    """Make a version the active one and note who did it and why; gives the version that was active before."""
    return store.move_model(model_id, "active", who(), what, {"why": why})

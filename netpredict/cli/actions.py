"""``netpredict actions``: what hooks decided, why, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import typer

from netpredict.cli.options import AsJson, ConfigPath, Limit, StoreUrl, history, store_url, who
from netpredict.cli.terminal import print_fields, print_json, print_table, utc
from netpredict.cli.writing import opened_store
from netpredict.errors import DataError

FiringId: TypeAlias = Annotated[str, typer.Argument(help="Id of a firing, or the beginning of one.")]

app = typer.Typer(help="Firings of the hooks and what came of them.", no_args_is_help=True)


@app.command("list")
def list_actions(
    hook: Annotated[str | None, typer.Option("--hook", help="Of this hook only.")] = None,
    object_id: Annotated[str | None, typer.Option("--object", help="On this object only.")] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Only those still without an outcome.")] = False,
    limit: Limit = 20,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List firings, newest first."""
    rows = history(config, url).firings(hook=hook, object_id=object_id, pending=pending, limit=limit)
    if as_json:
        print_json({"actions": rows})
        return
    columns = ("id", "slot time", "hook", "mode", "object", "attribute", "value", "outcomes")
    print_table("", columns, [_line(row) for row in rows])


@app.command()
def show(
    firing_id: FiringId,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one firing: what it set, why, and what came of it at each actuator."""
    row = the_action(config, url, firing_id)
    if as_json:
        print_json(row)
    else:
        _show(row)


def the_action(config: Path | None, url: str | None, firing_id: str) -> dict[str, Any]:
    """The one firing whose id is or begins so."""
    found = history(config, url).firings(firing_id=firing_id, limit=2)
    exact = [row for row in found if row["firing_id"] == firing_id]
    if len(exact or found) != 1:
        raise DataError(f"{'several' if found else 'no'} firings have an id that begins with {firing_id}")
    return (exact or found)[0]


@app.command()
def approve(firing_id: FiringId, config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Let a firing in mode assist go to its actuators.

    The guards still judge it. It expires like any other.
    """
    _decide(firing_id, "approve", config, url, as_json)


@app.command()
def reject(firing_id: FiringId, config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Let a firing in mode assist never be applied."""
    _decide(firing_id, "reject", config, url, as_json)


def _decide(firing_id: str, verdict: str, config: Path | None, url: str | None, as_json: bool) -> None:
    with opened_store(store_url(config, url)) as store:
        whole = store.decide_action(firing_id, verdict, who())
    if as_json:
        print_json({"firing_id": whole, "verdict": verdict})
    else:
        print(f"{whole}: {verdict}")


def _line(row: dict[str, Any]) -> list[object]:
    outcomes = ", ".join(f"{outcome['actuator']}: {outcome['kind'] or 'pending'}" for outcome in row["outcomes"])
    return [
        row["firing_id"],
        utc(row["slot_time_us"]),
        row["hook"],
        row["mode"],
        row["object_id"],
        row["attribute"],
        _plain(row["value"]),
        outcomes,
    ]


def _show(row: dict[str, Any]) -> None:
    fields = [(name, row[name]) for name in ("firing_id", "hook", "stream", "mode", "object_id", "attribute")]
    times = [(name, utc(row[f"{name}_us"])) for name in ("slot_time", "expires_at", "effect_until")]
    print_fields([*fields, ("value", _plain(row["value"])), *times])
    print_table("why", ("what", "value"), [(name, _plain(value)) for name, value in row["why"].items()])
    columns = ("actuator", "kind", "reason", "detail", "attempts", "at")
    outcomes = [
        [row["actuator"], row["kind"] or "pending", row["reason"], row["detail"], row["attempts"], utc(row["at_us"])]
        for row in row["outcomes"]
    ]
    print_table("outcomes", columns, outcomes)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

"""``netpredict actions``: what hooks decided, why, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from netpredict.cli.options import AsJson, ConfigPath, Limit, StoreUrl, history
from netpredict.cli.terminal import print_fields, print_json, print_table, utc
from netpredict.errors import DataError

SEARCHED = 1_000_000

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
    firing_id: Annotated[str, typer.Argument(help="Id of a firing, or the beginning of one.")],
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one firing: what it set, why, and what came of it at each actuator."""
    rows = history(config, url).firings(limit=SEARCHED)
    found = [row for row in rows if row["firing_id"].startswith(firing_id)]
    if len(found) != 1:
        raise DataError(f"{len(found) or 'no'} firings have an id that begins with {firing_id}")
    if as_json:
        print_json(found[0])
    else:
        _show(found[0])


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

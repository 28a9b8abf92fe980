"""``netpredict actions``: what hooks decided, why, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import typer

from netpredict.cli import action_effect
from netpredict.cli.options import AsJson, ConfigPath, Limit, StoreUrl, history, read_config, store_url, who
from netpredict.cli.terminal import print_fields, print_json, print_table, say, utc
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


@app.command()
def revert(
    firing_id: Annotated[str | None, typer.Argument(help="Id of an applied firing, or the beginning of one.")] = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="All that hold beyond effect_until, as a timer does for a dead daemon.")
    ] = False,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take an applied action back at its actuators, or all whose time is over.

    The actuators of the config are asked by this command itself, so that it works without a daemon. What a younger
    action has replaced stays. The exit code is 1 when something could not be reverted.
    """
    if (firing_id is None) is not expired:
        raise typer.BadParameter("name an action, or give --expired")
    from netpredict.act.revert import revert as take_back
    from netpredict.build import build_actuators
    from netpredict.clock import SystemClock

    where = store_url(config, url)
    ids = [firing_id] if firing_id else history(config, url).expired_actions(SystemClock().now_us())
    actuators, rows = build_actuators(read_config(config)), []
    try:
        with opened_store(where) as store:
            for one in ids:
                try:
                    done = take_back(store, actuators, one, "asked" if firing_id else "expired", who())
                except DataError as error:
                    if firing_id:
                        raise
                    say(str(error))
                    continue
                rows += [[one, name, str(outcome.kind), outcome.reason, outcome.detail] for name, outcome in done]
    finally:
        for actuator in actuators.values():
            actuator.close()
    names = ("firing_id", "actuator", "kind", "reason", "detail")
    if as_json:
        print_json({"reverted": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        print_table("", names, rows)
    if any(row[2] != "applied" for row in rows):
        raise typer.Exit(1)


@app.command()
def review(config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Let the policies decide the newest complete window, as the daemon does each minute.

    What was decided before is not decided again. Guards and actuators come after, in the daemon.
    """
    from netpredict.build import build_streams
    from netpredict.operate.policy import PolicyJob
    from netpredict.store.mobility import MobilityHistory

    where, settings = store_url(config, url), read_config(config)
    streams = build_streams(settings)
    with opened_store(where) as store:
        fired = PolicyJob(streams, MobilityHistory(where), store, publish=settings.publish.enabled).turn()
    if as_json:
        print_json({"actions": [msgspec.to_builtins(firing) for firing in fired]})
        return
    columns = ("id", "hook", "mode", "object", "attribute", "value")
    rows = [
        [one.firing_id, one.hook, str(one.mode), one.object_id, one.attribute, str(dict(one.value))] for one in fired
    ]
    print_table("", columns, rows)


app.command("effect")(action_effect.effect)


def why(
    firing_id: FiringId,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell the whole story of one action.

    What it was decided from, the forecast with its interval, rule and costs, the word of every guard, what the
    actuators replied and read back, what a KPI did behind it, and whether it was taken back.
    """
    row = the_action(config, url, firing_id)
    if as_json:
        print_json(row)
        return
    _show_head(row)
    basis = row["why"].get("basis", {})
    from netpredict.act.guards import quality_names

    quality = quality_names(basis.get("quality", 0)) or "good"
    fields = {"series": row["series"], "group": row["group_name"] or "-", "model": basis.get("model") or "none"}
    print_fields([*fields.items(), ("source", basis.get("source")), ("quality", quality)])
    print_table("observed", ("column", "value"), sorted(basis.get("observed", {}).items()))
    leads = [[kpi, lead, *levels] for kpi, by in basis.get("forecast", {}).items() for lead, levels in enumerate(by, 1)]
    print_table("forecast", ("kpi", "lead", *(f"{level:g}" for level in basis.get("levels", ()))), leads)
    rule = [(name, _plain(value)) for name, value in row["why"].items() if name != "basis"]
    print_table("rule and costs", ("what", "value"), rule)
    if row["approval"]:
        print_fields([(name, row["approval"][name]) for name in ("verdict", "who")])
    print_table("guards", ("actuator", "passed", "refused", "said"), [_guarded(outcome) for outcome in row["outcomes"]])
    _show_outcomes(row)
    if effect := row["effect"]:
        names = ("kpi", "before_mean", "after_mean", "verdict")
        print_table("effect", names, [[effect[name] for name in names]])
    columns = ("actuator", "cause", "who", "kind", "reason", "detail")
    print_table("reverted", columns, [[reversal[name] for name in columns] for reversal in row["reversals"]])


def _guarded(outcome: dict[str, Any]) -> list[object]:
    checks = outcome["checks"] or {}
    passed = ", ".join(checks.get("passed", ()))
    return [outcome["actuator"], passed, checks.get("refused"), checks.get("said")]


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
    _show_head(row)
    print_table("why", ("what", "value"), [(name, _plain(value)) for name, value in row["why"].items()])
    _show_outcomes(row)


def _show_head(row: dict[str, Any]) -> None:
    fields = [(name, row[name]) for name in ("firing_id", "hook", "stream", "mode", "object_id", "attribute")]
    times = [(name, utc(row[f"{name}_us"])) for name in ("slot_time", "expires_at", "effect_until")]
    print_fields([*fields, ("value", _plain(row["value"])), *times])


def _show_outcomes(row: dict[str, Any]) -> None:
    columns = ("actuator", "kind", "reason", "detail", "reply", "refreshes", "attempts", "at")
    names = ("reason", "detail", "reply", "refreshes", "attempts")
    outcomes = [
        [found["actuator"], found["kind"] or "pending", *(found[name] for name in names), utc(found["at_us"])]
        for found in row["outcomes"]
    ]
    print_table("outcomes", columns, outcomes)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

"""``netpredict plugins``: what is installed."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import typer

from netpredict.cli.options import AsJson
from netpredict.cli.terminal import print_json, print_table


def plugins(as_json: AsJson = False) -> None:
    """List the installed plugins by kind.

    Each is imported to see whether it can be; exit code 1 when one cannot.
    """
    from netpredict.plugins import KINDS, installed

    rows = [_described(kind, point) for kind in KINDS for point in installed(kind)]
    if as_json:
        print_json({"plugins": rows})
    else:
        shown = [
            (row["kind"], row["name"], f"{row['package']} {row['version']}", row["module"], row["problem"] or "ok")
            for row in rows
        ]
        print_table("", ("kind", "name", "package", "module", "import"), shown, by=1)
    if any(row["problem"] for row in rows):
        raise typer.Exit(1)


def _described(kind: str, point: EntryPoint) -> dict[str, Any]:
    from netpredict.errors import PluginError
    from netpredict.plugins import load

    problem, trainable = None, None
    try:
        trainable = load(kind, point.name).trainable
    except PluginError as error:
        problem = str(error)
    return {
        "kind": kind,
        "name": point.name,
        "module": point.module,
        "package": point.dist.name if point.dist else None,
        "version": point.dist.version if point.dist else None,
        "importable": problem is None,
        "trainable": trainable if kind == "predictors" else None,
        "problem": problem,
    }

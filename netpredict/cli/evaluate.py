"""``netpredict evaluate``: the verbs of one hook each are in modules of their own, and are listed here."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="What a hook would have done on real traces, beside what the plain rules did.", no_args_is_help=True
)

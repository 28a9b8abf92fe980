"""``netpredict evaluate``: the verbs of one hook each are in modules of their own, and are listed here."""

from __future__ import annotations

import typer

from netpredict.cli import evaluate_bandwidth, evaluate_handover, evaluate_mcs, evaluate_radio

app = typer.Typer(
    help="What a hook would have done on real traces, beside what the plain rules did.", no_args_is_help=True
)
app.command("bandwidth")(evaluate_bandwidth.bandwidth)
app.command("handover")(evaluate_handover.handover)
app.command("mcs")(evaluate_mcs.mcs)
app.command("radio")(evaluate_radio.radio)

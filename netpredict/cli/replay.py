"""``netpredict replay``: real traces as telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netpredict.cli.options import AsJson, ConfigPath, read_config
from netpredict.cli.simulate import Bootstrap, Speed, To, pace
from netpredict.cli.telemetry import Telemetry, of_dataset, of_table, open_sink, recorded, send, tell, topics_of
from netpredict.cli.terminal import print_json


def replay(
    dataset: Annotated[
        str,
        typer.Argument(
            help="ucc5g, wmnlab, tractor, nist-prosas or milan (in $NETPREDICT_DATA), a CSV or Parquet file with "
            "--mapping, or a .jsonl[.gz] file that simulate or replay wrote."
        ),
    ],
    to: To,
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", help="TOML file that says what the columns of a CSV or Parquet file are."),
    ] = None,
    limit_traces: Annotated[int | None, typer.Option("--limit-traces", min=1, help="Only the first traces.")] = None,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay", help="Let all traces begin when the first does, as if they had been measured at once."
        ),
    ] = False,
    speed: Speed = None,
    bootstrap: Bootstrap = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Send real traces as telemetry.

    Messages come in the documented schemas, merged by event time. Local stamps are converted from the time zone of the
    traces, which is told at the end. Milan, of 2013, is moved by 620 weeks: the daemon refuses stamps before 2015, and
    hours and weekdays stay.
    """
    telemetry = of_source(dataset, mapping, limit_traces, overlay)
    read = read_config(config)
    sent = send(telemetry, open_sink(to, read, bootstrap), topics_of(read), pace(speed, to))
    if as_json:
        print_json({"sent": sent, "to": to, **telemetry.described()})
    else:
        tell(telemetry, sent, to)


def of_source(source: str, mapping: Path | None, limit_traces: int | None, overlay: bool = False) -> Telemetry:
    """A data set by name, a table with its mapping, or a recorded file."""
    if mapping is not None:
        return of_table(Path(source), mapping, limit_traces, overlay)
    if source.endswith((".jsonl", ".jsonl.gz")):
        return recorded(Path(source))
    if Path(source).suffix in (".csv", ".gz", ".parquet", ".tsv"):
        raise typer.BadParameter(f"{source} is a table: say what its columns are with --mapping", param_hint="DATASET")
    return of_dataset(source, limit_traces, overlay)

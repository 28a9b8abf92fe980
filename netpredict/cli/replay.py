"""``netpredict replay``: real traces as telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netpredict.cli.options import AsJson, ConfigPath, MappingFile, MappingPairs, Table, read_config
from netpredict.cli.simulate import Bootstrap, Speed, To, pace
from netpredict.cli.telemetry import Telemetry, of_dataset, of_table, open_sink, recorded, send, tell, topics_of
from netpredict.cli.terminal import print_json

RECORDED = (".jsonl", ".jsonl.gz")
TABLES = (".csv", ".gz", ".parquet", ".tsv")


def replay(
    to: To,
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="ucc5g, wmnlab, tractor, nist-prosas, milan or ns3-uma (in $NETPREDICT_DATA), or a .jsonl[.gz] file "
            "that simulate or replay wrote; a CSV or Parquet file too."
        ),
    ] = None,
    table: Table = None,
    mapping: MappingFile = None,
    pairs: MappingPairs = None,
    limit_traces: Annotated[int | None, typer.Option("--limit-traces", min=1, help="Only the first traces.")] = None,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay", help="Let all traces begin when the first does, as if they had been measured at once."
        ),
    ] = False,
    grid: Annotated[
        bool,
        typer.Option("--grid", help="Send frames of one grid (milan: the distinct full squares, 2 x 96 places)."),
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
    if (dataset is None) == (table is None):
        raise typer.BadParameter("give one of DATASET and --table", param_hint="DATASET")
    if table is None and Path(str(dataset)).suffix in TABLES and not str(dataset).endswith(RECORDED):
        table = Path(str(dataset))
    if grid and (table is not None or str(dataset).endswith(RECORDED)):
        raise typer.BadParameter("only a data set can be sent as a grid", param_hint="--grid")
    if table is not None:
        telemetry = of_table(table, mapping, pairs, limit_traces=limit_traces, overlay=overlay)
    else:
        telemetry = of_source(str(dataset), limit_traces, overlay, grid)
    read = read_config(config)
    sent = send(telemetry, open_sink(to, read, bootstrap), topics_of(read), pace(speed, to))
    if as_json:
        print_json({"sent": sent, "to": to, **telemetry.described()})
    else:
        tell(telemetry, sent, to)


def of_source(source: str, limit_traces: int | None, overlay: bool = False, grid: bool = False) -> Telemetry:
    """A data set by name, or a recorded file."""
    if source.endswith(RECORDED):
        return recorded(Path(source))
    return of_dataset(source, limit_traces, overlay, grid)

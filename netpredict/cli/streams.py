"""``netpredict streams``: what came in, by stream and topic partition."""

from __future__ import annotations

from typing import Annotated

import typer

from netpredict.cli.options import AsJson, ConfigPath, OfStream, StoreUrl, history
from netpredict.cli.terminal import print_json, print_table

COUNTS = ("accepted", "duplicate", "late", "dead")


def streams(
    stream: OfStream = None,
    partitions: Annotated[bool, typer.Option("--partitions", help="By topic partition, with offsets.")] = False,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the streams of the store.

    With topic partitions, live series and what became of the records.
    """
    store = history(config, url, stream)
    rows = store.progress() if partitions else store.streams()
    rows = [row for row in rows if stream in (None, row["stream"])]
    if as_json:
        print_json({"topic_partitions" if partitions else "streams": rows})
        return
    names = (
        ("stream", "topic", "partition", "next_offset", *COUNTS, "control", "epoch", "owner")
        if partitions
        else ("stream", "topic", "topic_partitions", "series", *COUNTS)
    )
    print_table("", names, [[row[name] for name in names] for row in rows], by=2)

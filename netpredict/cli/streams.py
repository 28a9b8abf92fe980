"""``netpredict streams``: what came in, by stream and topic partition; states that go from one series to another."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import AsJson, ConfigPath, OfStream, StoreUrl, history, store_url, who
from netpredict.cli.terminal import print_json, print_table
from netpredict.cli.writing import opened_store
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.store.commit import SeriesState

COUNTS = ("accepted", "duplicate", "late", "dead")

app = typer.Typer(help="Streams: what came in; hand the state of a series to another one.")

Row = dict[str, Any]


@app.callback(invoke_without_command=True)
def streams(
    context: typer.Context,
    stream: OfStream = None,
    partitions: Annotated[bool, typer.Option("--partitions", help="By topic partition, with offsets.")] = False,
    moved: Annotated[
        bool, typer.Option("--moved", help="Series that began cold on another topic partition, and how to move them.")
    ] = False,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the streams of the store.

    With topic partitions, live series and what became of the records.
    """
    if context.invoked_subcommand:
        return
    store = history(config, url, stream)
    if moved:
        _print_moved(store.moved(stream), as_json)
        return
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


@app.command()
def transplant(
    stream: str,
    from_key: str,
    to_key: str,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a series the hidden states and scaler of a neighbour.

    Its own place in time and the state of its hooks stay. The daemon does it before the next record of the topic
    partition; it may run.
    """
    where = store_url(config, url)
    read = history(config, where, stream)
    source, target = (_the(read.series_states(stream, key), stream, key) for key in (from_key, to_key))
    if source.series_id == target.series_id:
        raise DataError(f"{from_key} is the series itself: name a neighbour")
    _ask(where, "transplant", stream, source, target, as_json)


@app.command()
def move(
    stream: str,
    key: str,
    origin: Annotated[str, typer.Option("--from", help="Where it lived, TOPIC/PARTITION.")],
    to: Annotated[str, typer.Option("--to", help="Where it lives now, TOPIC/PARTITION.")],
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a series that moved to another topic partition its state of before.

    All of its state but its place in time. The daemon does it before the next record of the topic partition; it may
    run.
    """
    where = store_url(config, url)
    found = history(config, where, stream).series_states(stream, key)
    source, target = (_the(found, stream, key, place) for place in (origin, to))
    if source.series_id == target.series_id:
        raise DataError(f"--from and --to are both {to}")
    _ask(where, "move", stream, source, target, as_json)


def _the(found: Sequence[SeriesState], stream: str, key: str, place: str | None = None) -> SeriesState:
    """The one live series meant; DataError says where there are others."""
    here = [state for state in found if place in (None, str(state.topic_partition))]
    if len(here) == 1:
        return here[0]
    lives = ", ".join(str(state.topic_partition) for state in found)
    if here:
        raise DataError(f"{key} of stream {stream} lives on {lives}: first netpredict streams --moved")
    where = f" on {place}; it lives on {lives}" if lives and place else f" on {place}" if place else ""
    raise DataError(f"no series {key} of stream {stream} is alive{where}")


def _ask(url: str, kind: str, stream: str, source: SeriesState, target: SeriesState, as_json: bool) -> None:
    from netpredict.transplant import payload

    asked = payload(kind, source, target)
    place = {"stream": stream, "series": target.key, "topic_partition": str(target.topic_partition)}
    origin = {"from_series": source.key, "from_topic_partition": str(source.topic_partition)}
    with opened_store(url) as store:
        request_id = store.request(target.lane_id, kind, asked)
        store.record_audit(who(), f"series_{kind}", place | origin)
    if as_json:
        print_json({"request_id": request_id, "kind": kind, **place, **origin})
    else:
        print(
            f"{target.key} on {target.topic_partition} takes the state of {source.key} on {source.topic_partition}"
            " before the next record there"
        )


def _print_moved(rows: Sequence[Row], as_json: bool) -> None:
    """Each with the command that moves its state."""
    shown = [_moved(row) for row in rows]
    if as_json:
        print_json({"moved": shown})
        return
    names = ("stream", "series", "from", "to", "slots_between", "do")
    print_table("", names, [[row[name] for name in names] for row in shown], by=2)


def _moved(row: Row) -> Row:
    places = {"from": f"{row['topic']}/{row['from_partition']}", "to": f"{row['topic']}/{row['partition']}"}
    words = ["netpredict", "streams", "move", row["stream"], row["series"]]
    command = shlex.join([*words, "--from", places["from"], "--to", places["to"]])
    return {
        "stream": row["stream"],
        "series": row["series"],
        **places,
        "slots_between": row["slot"] - row["from_slot"],
        "asked": row["asked"],
        "do": "start the daemon" if row["asked"] else command,
    }

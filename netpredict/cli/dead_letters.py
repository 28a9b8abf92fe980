"""``netpredict dead-letters``: records that could not be used, and what becomes of them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from netpredict.cli.options import (
    OFFSET_MAX,
    PARTITION_MAX,
    AsJson,
    ConfigPath,
    Limit,
    StoreUrl,
    history,
    read_config,
    store_url,
    who,
)
from netpredict.cli.terminal import print_fields, print_json, print_table, utc
from netpredict.cli.writing import opened_store
from netpredict.errors import DataError
from netpredict.ingest.reasons import REASONS

SHOWN_CHARACTERS = 60

app = typer.Typer(
    help="Records that could not be used: where they are, their bytes and why; let them enter again, or drop them.",
    no_args_is_help=True,
)

OfTopic = Annotated[str | None, typer.Option("--topic", help="Of this topic only.")]
OfPartition = Annotated[int | None, typer.Option("--partition", min=0, max=PARTITION_MAX, help="Of this one only.")]
OfReason = Annotated[
    str | None, typer.Option("--reason", help="With this reason only; `dead-letters reasons` tells them.")
]
FromOffset = Annotated[int, typer.Option("--from-offset", min=0, max=OFFSET_MAX, help="From this offset on.")]
ToOffset = Annotated[
    int | None, typer.Option("--to-offset", min=0, max=OFFSET_MAX, help="Up to this offset, which is included.")
]


@app.command("list")
def list_dead_letters(
    topic: OfTopic = None,
    partition: OfPartition = None,
    reason: OfReason = None,
    from_offset: FromOffset = 0,
    to_offset: ToOffset = None,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="Instead, where letters were only counted, for there were too many.")
    ] = False,
    limit: Limit = 20,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters by topic partition and offset."""
    store, chosen = history(config, url), (topic, partition, reason, from_offset, limit, to_offset)
    if ranges:
        _print_ranges(store.dead_letter_ranges(*chosen), as_json)
        return
    rows = store.dead_letters(*chosen)
    if as_json:
        print_json({"dead_letters": rows})
        return
    names = ("topic", "partition", "offset", "reason", "detail")
    shown = [[*(row[name] for name in names), _short(row["key"]), _short(row["value"])] for row in rows]
    print_table("", (*names, "key", "value"), shown, by=2)


def _print_ranges(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"ranges": rows})
        return
    names = ("topic", "partition", "reason", "first_offset", "last_offset", "letters")
    print_table("", names, [[row[name] for name in names] for row in rows], by=2)


@app.command()
def show(
    topic: str,
    partition: Annotated[int, typer.Argument(min=0, max=PARTITION_MAX)],
    offset: Annotated[int, typer.Argument(min=0, max=OFFSET_MAX)],
    raw: Annotated[bool, typer.Option("--raw", help="Write only the bytes of the record, as they came.")] = False,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter in full."""
    store = history(config, url)
    if raw:
        sys.stdout.buffer.write(store.dead_letter_value(topic, partition, offset)[1] or b"")
        return
    rows = store.dead_letters(topic, partition, from_offset=offset, to_offset=offset)
    if not rows:
        raise DataError(f"no dead letter at {topic}/{partition} offset {offset}")
    if as_json:
        print_json({"dead_letters": rows})
        return
    for row in rows:
        times = row | {"ingest_time": utc(row["ingest_time_us"])}
        names = ("topic", "partition", "offset", "reason", "detail", "ingest_time", "key", "value_bytes", "value")
        print_fields((name, times[name]) for name in (*names, "waiting"))


@app.command()
def count(config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Count the dead letters by topic and reason: kept whole, only counted, and both."""
    rows = history(config, url).dead_letter_reasons()
    if as_json:
        print_json({"total": sum(row["dead_letters"] for row in rows), "reasons": rows})
        return
    names = ("topic", "reason", "kept", "counted", "dead_letters", "last_offset")
    print_table("", names, [[row[name] for name in names] for row in rows])


@app.command()
def reasons(as_json: AsJson = False) -> None:
    """Tell every reason for which telemetry is not taken as it came, and what becomes of it."""
    rows = [{"reason": name, **reason._asdict()} for name, reason in REASONS.items()]
    if as_json:
        print_json({"reasons": rows})
        return
    names = ("reason", "effect", "meaning")
    print_table("", names, [[row[name] for name in names] for row in rows])


@app.command()
def replay(
    topic: OfTopic = None,
    partition: OfPartition = None,
    reason: OfReason = None,
    from_offset: FromOffset = 0,
    to_offset: ToOffset = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them, without any of the filters.")] = False,
    limit: Limit = 1000,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let dead letters enter again, each once, before the next record of their topic partition.

    The decoder and the firewall of now judge them. What is too late only joins the observations; what is still bad
    stays a dead letter, and the control journal says why. A stopped daemon does it when it starts.
    """
    chosen = _chosen(everything, topic, partition, reason, from_offset, to_offset)
    with opened_store(store_url(config, url)) as store:
        found = store.request_replay(who(), **chosen, group=read_config(config).kafka.group, limit=limit)
    if as_json:
        print_json(found)
        return
    print_fields(found.items())
    if not found["asked"]:
        print("nothing to do: no such letter that is whole and does not wait already")
    elif found["left"]:
        print("ask again for those that are left, once these have entered")


@app.command()
def drop(
    topic: OfTopic = None,
    partition: OfPartition = None,
    reason: OfReason = None,
    from_offset: FromOffset = 0,
    to_offset: ToOffset = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them, without any of the filters.")] = False,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good; the audit says who did. What waits for a replay stays."""
    chosen = _chosen(everything, topic, partition, reason, from_offset, to_offset)
    with opened_store(store_url(config, url)) as store:
        dropped = store.drop_dead_letters(who(), **chosen)
    if as_json:
        print_json({"dropped": dropped})
    else:
        print_fields(dropped.items())


def _chosen(
    everything: bool,
    topic: str | None,
    partition: int | None,
    reason: str | None,
    from_offset: int,
    to_offset: int | None,
) -> dict[str, Any]:
    """The filters; BadParameter when none was given, for that is more often a slip than meant."""
    filters = {"topic": topic, "partition": partition, "reason": reason, "to_offset": to_offset}
    given = from_offset > 0 or any(value is not None for value in filters.values())
    if given == everything:
        raise typer.BadParameter("say which: give filters such as --topic or --reason, or else --all")
    return {**filters, "from_offset": from_offset}


def _short(text: str | None) -> str | None:
    if text is None or len(text) <= SHOWN_CHARACTERS:
        return text
    return text[: SHOWN_CHARACTERS - 1] + "…"

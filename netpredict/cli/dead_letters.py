"""``netpredict dead-letters``: records that could not be used."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from netpredict.cli.options import OFFSET_MAX, PARTITION_MAX, AsJson, ConfigPath, Limit, StoreUrl, history
from netpredict.cli.terminal import print_fields, print_json, print_table, utc
from netpredict.errors import DataError
from netpredict.ingest.reasons import REASONS

SHOWN_CHARACTERS = 60

app = typer.Typer(help="Records that could not be used: where they are, their bytes and why.", no_args_is_help=True)

OfTopic = Annotated[str | None, typer.Option("--topic", help="Of this topic only.")]
OfReason = Annotated[
    str | None, typer.Option("--reason", help="With this reason only; `dead-letters reasons` tells them.")
]


@app.command("list")
def list_dead_letters(
    topic: OfTopic = None,
    partition: Annotated[
        int | None, typer.Option("--partition", min=0, max=PARTITION_MAX, help="Of this one only.")
    ] = None,
    reason: OfReason = None,
    from_offset: Annotated[int, typer.Option("--from-offset", min=0, max=OFFSET_MAX, help="From this offset on.")] = 0,
    limit: Limit = 20,
    config: ConfigPath = None,
    url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters by topic partition and offset."""
    rows = history(config, url).dead_letters(topic, partition, reason, from_offset, limit)
    if as_json:
        print_json({"dead_letters": rows})
        return
    names = ("topic", "partition", "offset", "reason", "detail")
    shown = [[*(row[name] for name in names), _short(row["key"]), _short(row["value"])] for row in rows]
    print_table("", (*names, "key", "value"), shown, by=2)


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
    rows = store.dead_letters(topic, partition, from_offset=offset, limit=10)
    rows = [row for row in rows if row["offset"] == offset]
    if not rows:
        raise DataError(f"no dead letter at {topic}/{partition} offset {offset}")
    if as_json:
        print_json({"dead_letters": rows})
        return
    for row in rows:
        times = row | {"ingest_time": utc(row["ingest_time_us"])}
        names = ("topic", "partition", "offset", "reason", "detail", "ingest_time", "key", "value_bytes", "value")
        print_fields((name, times[name]) for name in names)


@app.command()
def count(config: ConfigPath = None, url: StoreUrl = None, as_json: AsJson = False) -> None:
    """Count the dead letters by topic and reason."""
    rows = history(config, url).dead_letter_reasons()
    if as_json:
        print_json({"total": sum(row["dead_letters"] for row in rows), "reasons": rows})
        return
    names = ("topic", "reason", "dead_letters", "last_offset")
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


def _short(text: str | None) -> str | None:
    if text is None or len(text) <= SHOWN_CHARACTERS:
        return text
    return text[: SHOWN_CHARACTERS - 1] + "…"

"""``netpredict schemas``: the wire messages as JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netpredict.cli.terminal import print_json
from netpredict.errors import DataError


def schemas(
    output: Annotated[
        Path | None, typer.Option("--output", help="Write one file a schema into this folder instead.")
    ] = None,
) -> None:
    """Print the JSON Schemas of the messages.

    By the name that stands in the field schema of a message.
    """
    if output is None:
        print_json(message_schemas())
    else:
        write_schemas(output)


def message_schemas() -> dict[str, Any]:
    """JSON Schema of each wire message by its name."""
    import msgspec

    from netpredict.ingest.messages import PUBLISHED, SCHEMAS

    dialect = "https://json-schema.org/draft/2020-12/schema"
    messages = SCHEMAS | PUBLISHED
    return {name: {"$schema": dialect, **msgspec.json.schema(message)} for name, message in messages.items()}


def schema_file(name: str) -> str:
    """Name of the file of a schema."""
    return f"{name.replace('/', '-')}.json"


def write_schemas(folder: Path) -> None:
    """Write one file a schema."""
    import msgspec

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, schema in message_schemas().items():
            text = msgspec.json.format(msgspec.json.encode(schema), indent=2)
            (folder / schema_file(name)).write_bytes(text + b"\n")
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}") from error

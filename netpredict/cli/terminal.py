"""What the CLI puts on the screen: data on stdout, everything else on stderr, and no control character of either.

Tables are for people; ``print_json`` writes the one JSON document of ``--json``, whose keys are stable.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PIPE_WIDTH = 1000
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# JSON escapes the first 32 itself; these may stand in it as they are, and some terminals obey them
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def printable(value: object) -> str:
    """The text of a value with control and formatting characters written out; nothing for None."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_json(document: Any) -> None:
    """One document on stdout, indented; a number that is not finite becomes null."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    print(_UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout below its title lines; numbers stand to the right, nothing is taken for markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    filled = [list(row) for row in rows]
    for line in title.splitlines():
        print(printable(line))
    table = Table(box=SIMPLE_HEAD)
    for index, name in enumerate(columns):
        values = [row[index] for row in filled if row[index] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(Text(printable(name)), justify="right" if numeric else "left", overflow="fold")
    for row in filled:
        table.add_row(*(Text(cell(value)) for value in row))
    console(stderr=False).print(table)


def cell(value: object) -> str:
    """A value as it stands in a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(value)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values below each other on stdout."""
    pairs = list(fields)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"{printable(name)}:{' ' * (width - len(name))} {cell(value)}")


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(printable(text), file=sys.stderr)


def console(*, stderr: bool) -> Console:
    """A rich console that takes no markup; a pipe gets lines as long as they are. It heeds NO_COLOR."""
    from rich.console import Console

    class QuietConsole(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return QuietConsole(file=stream, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


def progress(*columns: Any) -> Progress:
    """A progress display on stderr; it stays silent when that is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = columns or (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    return Progress(*shown, console=console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def utc(time_us: int | None) -> str:
    """A time as text, UTC, in seconds where it has no fraction."""
    if time_us is None:
        return ""
    try:
        moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_us} µs"
    fraction = f".{time_us % 1_000_000:06d}".rstrip("0") if time_us % 1_000_000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"

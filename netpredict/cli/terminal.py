"""What the CLI puts on the screen: data on stdout, everything else on stderr, and no control character of either.

Tables are for people; ``print_json`` writes the one JSON document of ``--json``, whose keys are stable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from netpredict.printing import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PIPE_WIDTH = 1000
FOLDED_WORD = 24  # a longer word may be folded in a column


def print_json(document: Any) -> None:
    """One document on stdout, indented; a number that is not finite becomes null."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    print(printable_json(text))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], by: int = 0) -> None:
    """A table on stdout below its title lines; numbers stand to the right, nothing is taken for markup.

    Where the screen is too narrow the first ``by`` columns become headings above the rows that share them; where that
    does not do either, each row stands as fields below each other.
    """
    filled = [list(row) for row in rows]
    screen = console(stderr=False)
    for line in title.splitlines():
        print(printable(line))
    if widths := _widths(columns, filled, screen.width):
        _print_columns(screen, columns, filled, widths)
    elif by and _widths(columns[by:], [row[by:] for row in filled], screen.width):
        for shared, group in groupby(filled, key=lambda row: row[:by]):
            rest = [row[by:] for row in group]
            print(f"\n{'  '.join(cell(value) for value in shared)}")
            _print_columns(screen, columns[by:], rest, _widths(columns[by:], rest, screen.width))
    else:
        for row in filled:
            print()
            print_fields(zip(columns, row, strict=True))


def _widths(columns: Sequence[str], rows: Sequence[Sequence[object]], screen_width: int) -> list[int]:
    """Characters of each column, its longest word at least; [] when the screen is too narrow for that."""
    texts = [[_head(name), *(cell(row[index]) for row in rows)] for index, name in enumerate(columns)]
    widest = [max(len(text) for text in column) for column in texts]
    least = [min(max((len(w) for text in column for w in text.split()), default=1), FOLDED_WORD) for column in texts]
    spare = screen_width - 3 * len(columns) - 1 - sum(least)
    if spare < 0:
        return []
    widths = list(least)
    for index in sorted(range(len(columns)), key=lambda index: widest[index] - least[index]):
        widths[index] += min(spare, widest[index] - least[index])
        spare -= widths[index] - least[index]
    return widths


def _head(name: str) -> str:
    """A name as it heads a column: it may be broken between its words."""
    return printable(name).replace("_", " ")


def _print_columns(
    screen: Console, columns: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for index, (name, width) in enumerate(zip(columns, widths, strict=True)):
        values = [row[index] for row in rows if row[index] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(Text(_head(name)), justify="right" if numeric else "left", overflow="fold", width=width)
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    screen.print(table)


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

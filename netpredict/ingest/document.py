"""For decoders of other people's JSON: a record's bytes within bounds, and lenient readers that never raise.

What is not of the type that is looked for reads as if it were absent: a document must not be able to raise.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from netpredict.ingest.decode import Decoded, Reject
from netpredict.radio.measurement import Column
from netpredict.types import LogRecord, Quality

GZIP = b"\x1f\x8b"
NOT_A_TIME = -1
"""A stamp that the firewall refuses by its unit."""


class DocumentError(Exception):
    """A record that is no message of a decoder; ``reason`` is one of ``netpredict.ingest.reasons``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Counters(NamedTuple):
    """What one object counted in one period, by name, and whether its sender doubts it."""

    found: Mapping[str, float]
    suspect: bool


Rows = Mapping[tuple[str, int], Counters]
"""(key of the series, begin of the period in µs) -> what it counted."""


def decoded(records: Sequence[LogRecord], rows_of: Callable[[LogRecord], Rows], columns: Sequence[Column]) -> Decoded:
    """All records as columns; one for which ``rows_of`` raises DocumentError is a reject."""
    keys: list[str] = []
    where: list[int] = []
    times: list[int] = []
    values: list[list[float]] = []
    flags: list[int] = []
    rejects: list[Reject] = []
    for position, record in enumerate(records):
        try:
            rows = rows_of(record)
        except DocumentError as refused:
            rejects.append(Reject(position, refused.reason, str(refused)))
            continue
        for (key, time_us), counters in rows.items():
            keys.append(key)
            where.append(position)
            times.append(time_us)
            values.append([column.value(counters.found) for column in columns])
            flags.append(int(Quality.SUSPECT) if counters.suspect else 0)
    with np.errstate(over="ignore"):  # infinite is outside every range
        matrix = np.array(values, np.float64).reshape(len(keys), len(columns)).astype(np.float32)
    index, begins = np.array(where, np.int32), np.array(times, np.int64)
    return Decoded(keys, index, begins, matrix, np.array(flags, np.uint8), rejects)


def body_of(record: LogRecord, max_bytes: int, max_inflated_bytes: int) -> bytes:
    """The JSON text of a record; DocumentError for none, too much, or a broken gzip."""
    value = record.value
    if value is None:
        raise DocumentError("tombstone", "no value")
    if len(value) > max_bytes:
        raise DocumentError("oversize", f"{len(value)} bytes, at most {max_bytes}")
    if value[:2] == GZIP or _says_gzip(record.headers):
        return _inflated(value, max_inflated_bytes)
    return value


def _says_gzip(headers: Sequence[tuple[str, bytes]]) -> bool:
    said = next((value for name, value in headers if name == "gzip"), b"")
    return bytes(said or b"").strip().lower() in (b"true", b"1", b"gzip")


def _inflated(value: bytes, most: int) -> bytes:
    """All members of a gzip, within a bound: a bomb is refused before it is unpacked."""
    body = b""
    while value:
        inflater = zlib.decompressobj(wbits=31)
        try:
            body += inflater.decompress(value, most + 1 - len(body))
        except zlib.error as error:
            raise DocumentError("undecodable", f"not gzip: {error}") from error
        if len(body) > most:
            raise DocumentError("oversize", f"more than {most} bytes when inflated")
        if not inflater.eof:
            raise DocumentError("undecodable", "the gzip is cut short")
        value = inflater.unused_data
    return body


def json_of(body: bytes) -> Any:
    """The document; DocumentError when it is none, or nested too deep."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError("undecodable", str(error)) from error


def table_of(of: Any, name: str) -> Mapping[str, Any]:
    """The object under a name, empty for none."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else {}


def list_of(value: Any) -> list[Any]:
    """The list, empty for none."""
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """The text, empty for none."""
    return value if isinstance(value, str) else ""


def number_of(raw: Any) -> float | None:
    """The finite number that a value or a text is; booleans are none."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def whole_of(value: Any) -> int | None:
    """The whole number that a value or a text is, kept within 63 bits; one below 0 is ``NOT_A_TIME``."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return min(max(value, NOT_A_TIME), 2**62)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None

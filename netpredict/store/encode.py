"""Columns to texts and blobs of SQL rows, and back: whole arrays at once, for a commit carries 100,000 rows."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from netpredict.store.commit import ColumnLayout, ForecastLayout
from netpredict.store.schema import SOURCE_LETTERS
from netpredict.types import MISSING_TICKS, AnyArray, Int32Array

_LETTER_OF = bytes.maketrans(bytes(range(len(SOURCE_LETTERS))), SOURCE_LETTERS.encode())
_NUMBER_OF = np.zeros(128, dtype=np.uint8)
_NUMBER_OF[[ord(letter) for letter in SOURCE_LETTERS]] = range(len(SOURCE_LETTERS))
_ROWS = msgspec.json.Decoder(list[list[int]])


def text(value: Any) -> str:
    """Plain values as JSON text."""
    return msgspec.json.encode(value).decode()


def bucket_of(state: str) -> int | None:
    """The score bucket that a lane is in, by its stored state; None before its first."""
    bucket = msgspec.json.decode(state).get("bucket") if state else None
    return None if bucket is None else int(bucket)


def ticks_texts(ticks: Int32Array) -> list[str]:
    """Each row of (n, m) ticks as a JSON array, null where MISSING_TICKS stands."""
    if not ticks.size:
        return ["[]"] * len(ticks)
    # orjson prints straight from the array: a sixth of the time of a list of lists, all of which would hold the GIL
    whole = orjson.dumps(np.ascontiguousarray(ticks), option=orjson.OPT_SERIALIZE_NUMPY).decode("ascii")[1:-1]
    if ticks.min() == MISSING_TICKS:
        whole = whole.replace(str(MISSING_TICKS), "null")
    return whole.replace("],[", "]\n[").split("\n")


def ticks_rows(texts: Sequence[str], width: int) -> Int32Array:
    """The inverse of ``ticks_texts``: int32 (n, width)."""
    if not texts:
        return np.empty((0, width), dtype=np.int32)
    whole = "[" + ",".join(texts).replace("null", str(MISSING_TICKS)) + "]"
    return np.array(_ROWS.decode(whole), dtype=np.int32).reshape(len(texts), width)


def sources_texts(sources: npt.NDArray[np.uint8]) -> list[str]:
    """Each row of (n, kpis) sources as one letter a KPI."""
    if not sources.size:
        return [""] * len(sources)
    width = sources.shape[1]
    letters = sources.tobytes().translate(_LETTER_OF).decode("ascii")
    return [letters[start : start + width] for start in range(0, len(letters), width)]


def sources_rows(texts: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
    """The inverse of ``sources_texts``: uint8 (n, width)."""
    letters = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    return _NUMBER_OF[letters].reshape(len(texts), width)


def blob_rows(blob: npt.NDArray[np.uint8]) -> tuple[list[int], list[bytes]]:
    """Checksums and bytes of each row of (n, itemsize)."""
    raw, size = blob.tobytes(), blob.shape[1]
    blobs = [raw[start : start + size] for start in range(0, len(raw), size)] if size else [b""] * len(blob)
    return [*map(zlib.crc32, blobs)], blobs


def time_order(slot_time_us: AnyArray, series_id: AnyArray) -> list[int] | None:
    """By slot time and series, as the B-tree has them; None when they stand so. No more numpy than needed:

    each call on a long array lets go of the GIL, and a busy thread gives it back after 5 ms.
    """
    order: list[int] = np.lexsort((series_id, slot_time_us)).tolist()
    return None if order == [*range(len(order))] else order


def ordered(columns: Sequence[Sequence[Any]], order: Sequence[int] | None) -> Sequence[Sequence[Any]]:
    """The columns with their rows in this order; None: as they stand."""
    if order is None:
        return columns
    if len(order) < 2:  # itemgetter of one item gives no tuple
        return [[column[number] for number in order] for column in columns]
    pick = itemgetter(*order)
    return [pick(column) for column in columns]


def merged(groups: Sequence[Sequence[Sequence[Any]]]) -> Sequence[Sequence[Any]]:
    """Sorted groups of columns as one."""
    if len(groups) < 2:
        return groups[0] if groups else []
    columns = [[*chain.from_iterable(parts)] for parts in zip(*groups, strict=True)]
    return ordered(columns, time_order(np.array(columns[0]), np.array(columns[1])))


def columns_of(rows: Iterable[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    """Rows turned into columns."""
    return [*zip(*rows, strict=True)]


def layout_id(natural: str) -> int:
    """A stable 48-bit number of a layout's text: equal layouts have equal ids in every store."""
    return int.from_bytes(hashlib.sha256(natural.encode()).digest()[:6])


def forecast_layout_id(layout: ForecastLayout) -> int:
    """The id of a forecast layout."""
    fields = (layout.stream, layout.kpis, layout.decimals, layout.levels, layout.horizon_steps, layout.period_us)
    return layout_id(text(fields))


def column_layout_id(layout: ColumnLayout) -> int:
    """The id of an observation layout."""
    return layout_id(text((layout.stream, layout.columns, layout.decimals)))

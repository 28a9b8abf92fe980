"""Columns to texts and blobs of SQL rows, and back: whole arrays at once, for a commit carries 100,000 rows."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from netpredict.store.commit import ColumnLayout, ForecastLayout
from netpredict.store.schema import SOURCE_LETTERS
from netpredict.types import MISSING_TICKS, AnyArray, Int32Array

_LETTERS = np.array(list(SOURCE_LETTERS))
_NUMBER_OF = np.zeros(128, dtype=np.uint8)
_NUMBER_OF[[ord(letter) for letter in SOURCE_LETTERS]] = range(len(SOURCE_LETTERS))
_ROWS = msgspec.json.Decoder(list[list[int]])


def text(value: Any) -> str:
    """Plain values as JSON text."""
    return msgspec.json.encode(value).decode()


def ticks_texts(ticks: Int32Array) -> list[str]:
    """Each row of (n, m) ticks as a JSON array, null where MISSING_TICKS stands."""
    if not ticks.size:
        return ["[]"] * len(ticks)
    missing = ticks == MISSING_TICKS
    low = int(ticks.min(where=~missing, initial=2**31 - 1))
    high = int(ticks.max(where=~missing, initial=MISSING_TICKS))
    if (high - low) * 8 > ticks.size:
        return _printed(ticks)
    words = np.append(np.arange(low, high + 1).astype("S"), b"null")
    return _looked_up(words, np.where(missing, len(words) - 1, ticks.astype(np.int64) - low))


def _printed(ticks: Int32Array) -> list[str]:
    whole = msgspec.json.encode(ticks.tolist()).decode("ascii")[1:-1].replace(str(MISSING_TICKS), "null")
    return whole.replace("],[", "]\n[").split("\n")


def _looked_up(words: AnyArray, index: AnyArray) -> list[str]:
    """Half the time of printing, and most of it without the GIL: words padded with zeros, which are then deleted."""
    ends = np.strings.add(words, b"]\n")
    inner = np.strings.add(words, b",").astype(ends.dtype)
    count, width = index.shape
    table = np.empty((count, width + 1), dtype=ends.dtype)
    table[:, 0] = b"["
    table[:, 1:-1] = inner[index[:, :-1]]
    table[:, -1] = ends[index[:, -1]]
    texts = table.tobytes().translate(None, b"\0").decode("ascii").split("\n")
    del texts[-1]
    return texts


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
    letters = np.ascontiguousarray(_LETTERS[sources])
    texts: list[str] = letters.view(f"U{sources.shape[1]}").ravel().tolist()
    return texts


def sources_rows(texts: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
    """The inverse of ``sources_texts``: uint8 (n, width)."""
    letters = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    return _NUMBER_OF[letters].reshape(len(texts), width)


def blob_rows(blob: npt.NDArray[np.uint8]) -> tuple[list[int], list[bytes]]:
    """Checksums and bytes of each row of (n, itemsize)."""
    raw, size = blob.tobytes(), blob.shape[1]
    blobs = [raw[start : start + size] for start in range(0, len(raw), size)] if size else [b""] * len(blob)
    return [*map(zlib.crc32, blobs)], blobs


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

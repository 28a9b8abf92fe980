"""The contract of a decoder plugin: bytes to columns, or a reason. The only place with a Python loop over records.

An entry point of ``netpredict.decoders`` names a ``netpredict.plugins.Plugin`` whose ``build`` is called as
``build(options, schema, series_by, columns) -> Decoder``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from netpredict.types import FloatArray, Int32Array, IntArray, LogRecord


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is not a message of the stream: its index in the poll, a reason from a closed set, a detail."""

    record: int
    reason: str
    detail: str


@dataclass(slots=True)
class Decoded:
    """n rows: the key of the series (fields joined by |), the record it came from, and its columns.

    ``values`` float32 (n, k) in the decoder's units, NaN = not measured; ``flags`` uint8 of
    ``netpredict.types.Quality``; rows of one record stand together and records keep their order.
    """

    keys: list[str]
    record: Int32Array
    event_time_us: IntArray
    values: FloatArray
    flags: npt.NDArray[np.uint8]
    rejects: list[Reject]


class Decoder(Protocol):
    """Turns the records of one poll of one topic partition into rows. Never raises for a bad record."""

    api_version: int
    units: Mapping[str, str]
    """What senders declare of columns that are not in the KPI's unit (``netpredict.radio.units``); the firewall
    converts them."""

    def decode(self, records: Sequence[LogRecord]) -> Decoded:
        """Rows in log order; each record is either in ``record`` at least once or among the rejects."""
        ...


def encode_key(fields: Sequence[str]) -> str:
    """The text that names a series: its fields joined by |."""
    return "|".join(fields)

"""The SeriesTable: every per-series thing of a stream is a row of a numpy array that grows by doubling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netpredict.types import NO_SLOT, AnyArray, Hidden, StateArray

FREE = -1
"""Lane of a row that holds no series."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Which named columns make up the stored state of a series; ``layout`` is JSON text that says how to read it."""

    dtype: np.dtype[np.void]
    layout: str


class SeriesTable:
    """Dense rows of the series of one stream, over all its lanes.

    Fixed columns: ``lane`` int32, ``series_id``, ``last_slot`` int64, ``route`` int16, ``scored`` int32 (row in the
    pending rings, -1 = not scored), ``touched`` bool (its state is not packed yet), ``moved`` bool (its history is on
    another lane), ``anchored`` bool (its state is kept daily), ``excluded_from`` and ``excluded_until`` int64 (slots
    that an own action may have changed, both included). Named columns hold hidden states and hook states; a lane
    packs those that run on it.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._free = list(range(capacity - 1, -1, -1))
        self.capacity = capacity
        self.keys: list[str] = [""] * capacity
        self.lane = np.full(capacity, FREE, np.int32)
        self.series_id = np.zeros(capacity, np.int64)
        self.last_slot = np.full(capacity, NO_SLOT, np.int64)
        self.route = np.zeros(capacity, np.int16)
        self.scored = np.full(capacity, -1, np.int32)
        self.touched = np.zeros(capacity, bool)
        self.moved = np.zeros(capacity, bool)
        self.anchored = np.zeros(capacity, bool)
        self.excluded_from = np.full(capacity, NO_SLOT, np.int64)
        self.excluded_until = np.full(capacity, NO_SLOT, np.int64)
        self._columns: dict[str, AnyArray] = {}
        self._specs: dict[str, StateArray] = {}

    def __len__(self) -> int:
        return self.capacity - len(self._free)

    def add_columns(self, specs: Mapping[str, StateArray]) -> None:
        """Add named columns, filled with their first value; a name that is there already keeps its values."""
        for name, spec in specs.items():
            if name not in self._columns:
                self._specs[name] = spec
                self._columns[name] = np.full((self.capacity, *spec.shape), spec.fill, spec.dtype)

    def drop_columns(self, names: Iterable[str]) -> None:
        """Forget named columns."""
        for name in names:
            self._columns.pop(name, None)
            self._specs.pop(name, None)

    def packing(self, names: Iterable[str]) -> Packing:
        """How these named columns are packed."""
        fields = [(name, self._specs[name].dtype, self._specs[name].shape) for name in sorted(names)]
        layout = json.dumps([[name, dtype, list(shape)] for name, dtype, shape in fields])
        return Packing(np.dtype(fields), layout)

    def column(self, name: str) -> AnyArray:
        """The whole array of a named column (capacity, …); written through."""
        return self._columns[name]

    def allocate(self, lane: int, key: str, series_id: int) -> int:
        """A fresh row for a new series."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.keys[row] = key
        self.lane[row] = lane
        self.series_id[row] = series_id
        return row

    def free(self, rows: AnyArray) -> None:
        """Give rows back, reset to what a fresh row holds."""
        self.reset(rows)
        self.lane[rows] = FREE
        self.series_id[rows] = 0
        self.route[rows] = 0
        self.last_slot[rows] = NO_SLOT
        self.scored[rows] = -1
        self.touched[rows] = False
        self.moved[rows] = False
        self.anchored[rows] = False
        self.excluded_from[rows] = NO_SLOT
        self.excluded_until[rows] = NO_SLOT
        for row in rows.tolist():
            self.keys[row] = ""
            self._free.append(row)

    def reset(self, rows: AnyArray, names: Iterable[str] | None = None) -> None:
        """Set named columns (all when None) of these rows to their first values: a cold start."""
        for name in self._columns if names is None else names:
            self._columns[name][rows] = self._specs[name].fill

    def _grow(self) -> None:
        old, self.capacity = self.capacity, self.capacity * 2
        self._free.extend(range(self.capacity - 1, old - 1, -1))
        self.keys.extend([""] * old)
        for name, fill in (
            ("lane", FREE),
            ("series_id", 0),
            ("last_slot", NO_SLOT),
            ("route", 0),
            ("scored", -1),
            ("touched", False),
            ("moved", False),
            ("anchored", False),
            ("excluded_from", NO_SLOT),
            ("excluded_until", NO_SLOT),
        ):
            setattr(self, name, _doubled(getattr(self, name), fill))
        for name, column in self._columns.items():
            self._columns[name] = _doubled(column, self._specs[name].fill)

    def gather(self, prefix: str, names: Sequence[str], rows: AnyArray) -> dict[str, AnyArray]:
        """Copies of the columns ``prefix + name`` at these rows, by name."""
        return {name: self._columns[prefix + name].take(rows, axis=0) for name in names}

    def scatter(self, prefix: str, rows: AnyArray, values: Hidden) -> None:
        """Write arrays (n, …) back into the columns ``prefix + name``."""
        for name, array in values.items():
            self._columns[prefix + name][rows] = array

    def rows_of(self, lane: int) -> npt.NDArray[np.int64]:
        """Rows that hold a series of this lane."""
        return np.flatnonzero(self.lane == lane)

    def pack(self, rows: AnyArray, packing: Packing) -> npt.NDArray[np.uint8]:
        """Named columns of these rows as bytes, uint8 (n, itemsize)."""
        packed = np.empty(len(rows), packing.dtype)
        for name in packing.dtype.names or ():
            packed[name] = self._columns[name][rows]
        return np.frombuffer(packed.tobytes(), np.uint8).reshape(len(rows), packing.dtype.itemsize)

    def unpack(self, layout: str, rows: AnyArray, blob: bytes) -> None:
        """Take packed rows; columns that this table does not have are left out, new ones keep their first value."""
        for name, values in unpacked(layout, blob).items():
            spec = self._specs.get(name)
            if spec is not None and fits(values, spec):
                self._columns[name][rows] = values


def unpacked(layout: str, blob: bytes) -> dict[str, AnyArray]:
    """Packed rows as named columns (n, …)."""
    fields = [(name, dtype, tuple(shape)) for name, dtype, shape in json.loads(layout)]
    packed = np.frombuffer(blob, np.dtype(fields))
    return {name: packed[name] for name, _, _ in fields}


def fits(values: AnyArray, spec: StateArray) -> bool:
    """Whether (n, …) values are of this shape and dtype."""
    return values.shape[1:] == spec.shape and values.dtype == np.dtype(spec.dtype)


def _doubled(array: AnyArray, fill: float) -> AnyArray:
    grown = np.full((2 * len(array), *array.shape[1:]), fill, array.dtype)
    grown[: len(array)] = array
    return grown

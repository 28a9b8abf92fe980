"""Decoder of netpredict's own JSON messages (``netpredict.ingest.messages``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from netpredict.errors import ConfigError
from netpredict.ingest.decode import Decoded, Reject
from netpredict.ingest.messages import SCHEMAS
from netpredict.plugins import Plugin
from netpredict.radio import handover_cost
from netpredict.radio.quantities import KPIS
from netpredict.types import FloatArray, Int32Array, LogRecord, Quality, base_name, grid_of
from netpredict_plugins.decoders.json.neighbours import BY_SITE, NO_ROW, Others, site_function
from netpredict_plugins.decoders.json.neighbours import FIELDS as OF_NEIGHBOUR

IDENTITIES = ("ue_id", "radio_cell_id", "grid_id")
OF_REPORT = ("serving", "approximate", *handover_cost.KPIS)
PLACE_BYTES = 32
"""What a frame may be longer than other records, for each of its values."""


class JsonOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the json decoder."""

    max_bytes: int = 65_536
    """A longer record is refused, bytes; a frame of a grid may have 32 more for each of its values."""
    max_neighbours: int = 64
    """A report with more neighbours is refused."""
    units: dict[str, str] = {}
    """Fields that a sender writes in another unit than their name says, and in which."""
    site_pattern: str = ""
    """The id of a radio cell, a regular expression; its one group is the site. Columns by site need it."""
    reported_db: float = 0.0
    """A UE reports radio cells so far below the strongest one, dB: that level stands in the RSRP columns nbr1, nbr2,
    onsite and offsite where a report names none so strong. 0 = unknown: they are missing."""

    def __post_init__(self) -> None:
        if not 0 <= self.reported_db <= 60:
            raise ValueError(f"reported_db = {self.reported_db!r} is not allowed: use 0..60 dB")


class JsonDecoder:
    """Decodes one schema; columns are fields of its messages, and ``OF_REPORT``, ``OF_NEIGHBOUR`` of reports.

    A frame of schema ``grid`` is one row; its columns are the places of fields, ``name[row,column]``.
    """

    api_version = 1

    def __init__(self, options: JsonOptions, schema: str, series_by: Sequence[str], columns: Sequence[str]) -> None:
        name = f"netpredict.{schema}/1"
        if name not in SCHEMAS:
            known = ", ".join(sorted(text.split(".")[1].split("/")[0] for text in SCHEMAS))
            raise ConfigError(f"schema {schema!r} is unknown; the json decoder reads {known}")
        self._message: Any = SCHEMAS[name]
        self._reports = schema == "rsrp"
        fields = set(self._message.__struct_fields__) | ({*OF_REPORT, *OF_NEIGHBOUR} if self._reports else set())
        for field in series_by:
            if field not in IDENTITIES or field not in fields or list(series_by).count(field) > 1:
                known = ", ".join(name for name in IDENTITIES if name in fields)
                raise ConfigError(f"series_by names {field!r}; a series of schema {schema!r} is named by {known}, once")
        if self._reports and "radio_cell_id" not in series_by:
            raise ConfigError(f"series_by of schema {schema!r} needs radio_cell_id: by it the rows of a report differ")
        self._grid = grid_of(columns)
        if (schema == "grid") != (self._grid is not None):
            raise ConfigError(f"schema {schema!r}: a stream has the key grid if, and only if, its schema is grid")
        names = dict.fromkeys(map(base_name, columns))
        for column in names:
            if column not in fields:
                raise ConfigError(f"schema {schema!r} has no field {column!r}; it has {', '.join(sorted(fields))}")
        self.units = _declared(options.units, columns, fields)
        _check_thumb(names, options.units)
        self._max_bytes = options.max_bytes + (PLACE_BYTES * len(columns) if self._grid else 0)
        self._max_neighbours = options.max_neighbours
        self._reported_db = options.reported_db
        self._site_of = site_function(options.site_pattern) if options.site_pattern else None
        by_site = [column for column in names if column.partition("_")[0] in BY_SITE and column in OF_NEIGHBOUR]
        if by_site and self._site_of is None:
            raise ConfigError(
                f"{', '.join(by_site)} needs decoder_options.site_pattern: which radio cells share a site"
            )
        self._accepted = {name}
        self._name = re.compile(re.escape(name) + r"(\.[0-9]{1,4})?")
        self._decode: Callable[[bytes | None], Any] = msgspec.json.Decoder(self._message).decode  # type: ignore[assignment]
        self._series_by = tuple(series_by)
        self._columns = tuple(names)
        self._places = len(columns) // len(names)
        self._key_of = _key_function(self._series_by)

    def decode(self, records: Sequence[LogRecord]) -> Decoded:
        """See ``netpredict.ingest.decode.Decoder``."""
        rejects: list[Reject] = []
        decode = self._decode
        try:
            messages = [decode(record.value) for record in records]
            where = np.arange(len(messages), dtype=np.int32)
            if self._something_is_odd(records, messages):
                messages, where = self._one_by_one(records, rejects)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, RecursionError):
            messages, where = self._one_by_one(records, rejects)
        rows = self._report_rows if self._reports else self._plain_rows if self._grid is None else self._frame_rows
        return rows(messages, where, rejects)

    def _something_is_odd(self, records: Sequence[LogRecord], messages: Sequence[Any]) -> bool:
        return (
            not self._accepted.issuperset({message.schema for message in messages})
            or max(map(len, [record.value for record in records]), default=0) > self._max_bytes  # type: ignore[arg-type]
            or not all(map(self._key_of, messages))
            or (self._reports and any(len(m.neighbours) > self._max_neighbours for m in messages))
            or (self._grid is not None and any(map(self._misfit, messages)))
        )

    def _one_by_one(self, records: Sequence[LogRecord], rejects: list[Reject]) -> tuple[list[Any], Int32Array]:
        messages, index = [], []
        for position, record in enumerate(records):
            try:
                messages.append(self._checked(record.value))
                index.append(position)
            except _RefusedError as refused:
                rejects.append(Reject(position, *refused.args))
        return messages, np.asarray(index, np.int32)

    def _checked(self, value: bytes | None) -> Any:
        if value is None:
            raise _RefusedError("tombstone", "no value")
        if len(value) > self._max_bytes:
            raise _RefusedError("oversize", f"{len(value)} bytes, at most {self._max_bytes}")
        try:
            message = self._decode(value)
        except msgspec.ValidationError as error:
            raise _RefusedError("invalid", str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _RefusedError("undecodable", str(error)) from error
        if not self._name.fullmatch(message.schema):
            raise _RefusedError("schema", f"schema is {message.schema[:80]!r}")
        if self._reports and len(message.neighbours) > self._max_neighbours:
            raise _RefusedError("oversize", f"{len(message.neighbours)} neighbours")
        if not self._key_of(message):
            raise _RefusedError("invalid", f"one of {', '.join(self._series_by)} is absent")
        if misfit := self._misfit(message):
            raise _RefusedError("shape", misfit)
        if len(self._accepted) < 64:
            self._accepted.add(message.schema)
        return message

    def _misfit(self, message: Any) -> str:
        """How a frame differs from the grid of the stream, empty when it does not."""
        if self._grid is None:
            return ""
        rows, columns = self._grid
        for name in self._columns:
            plane = getattr(message, name)
            if plane is not None and list(map(len, plane)) != [columns] * rows:
                widths = " or ".join(map(str, sorted(set(map(len, plane))))) or "0"
                return (
                    f"{name} is {len(plane)} x {widths}, expected {rows} x {columns} as in the key grid of the stream"
                )
        return ""

    def _plain_rows(self, messages: list[Any], where: Any, rejects: list[Reject]) -> Decoded:
        values = np.empty((len(messages), len(self._columns)), np.float32)
        for column, name in enumerate(self._columns):
            values[:, column] = _floats(list(map(attrgetter(name), messages)))
        flags = np.array([message.suspect for message in messages], bool) * np.uint8(Quality.SUSPECT)
        return Decoded(list(map(self._key_of, messages)), where, _times(messages), values, flags, rejects)

    def _frame_rows(self, messages: list[Any], where: Any, rejects: list[Reject]) -> Decoded:
        planes = np.full((len(messages), len(self._columns), self._places), np.nan, np.float32)
        for row, message in enumerate(messages):
            for column, name in enumerate(self._columns):
                plane = getattr(message, name)
                if plane is not None:
                    planes[row, column] = _floats(list(chain.from_iterable(plane)))
        flags = np.array([message.suspect for message in messages], bool) * np.uint8(Quality.SUSPECT)
        values = planes.reshape(len(messages), len(self._columns) * self._places)
        return Decoded(list(map(self._key_of, messages)), where, _times(messages), values, flags, rejects)

    def _report_rows(self, messages: list[Any], where: Any, rejects: list[Reject]) -> Decoded:
        rows = list(chain.from_iterable((message, *message.neighbours) for message in messages))
        counts = np.fromiter((1 + len(message.neighbours) for message in messages), np.int64, len(messages))
        serving = np.zeros(len(rows), np.float32)
        serving[np.cumsum(counts) - counts] = 1.0
        approximate = np.array([getattr(row, "approximate", False) for row in rows], bool)
        values = np.empty((len(rows), len(self._columns)), np.float32)
        of_report = {"serving": serving, "approximate": approximate}
        others: Others | None = None
        if not set(handover_cost.KPIS).isdisjoint(self._columns):
            others = self._others(messages, rows, counts)
            of_report |= self._rules_of_thumb(rows, others)
        for column, name in enumerate(self._columns):
            if name in of_report:
                values[:, column] = of_report[name]
                continue
            values[:, column] = _floats(list(map(attrgetter(OF_NEIGHBOUR.get(name, name)), rows)))
            if name in OF_NEIGHBOUR:
                others = self._others(messages, rows, counts) if others is None else others
                values[:, column] = self._of_other(others, name, values[:, column])
        flags = np.repeat(np.array([message.suspect for message in messages], bool), counts) * np.uint8(Quality.SUSPECT)
        flags = flags | (approximate * np.uint8(Quality.APPROXIMATE))
        return Decoded(
            self._report_keys(messages),
            np.repeat(where, counts).astype(np.int32),
            np.repeat(_times(messages), counts),
            values,
            flags.astype(np.uint8),
            rejects,
        )

    def _rules_of_thumb(self, rows: Sequence[Any], others: Others) -> dict[str, FloatArray]:
        level, sinr = (_floats([getattr(row, name) for row in rows]) for name in ("rsrp_dbm", "sinr_db"))
        other = self._of_other(others, "nbr1_rsrp_dbm", level)
        told = handover_cost.rules_of_thumb(
            _plausible("rsrp_dbm", level), _plausible("sinr_db", sinr), _plausible("rsrp_dbm", other)
        )
        known = dict(zip(handover_cost.KPIS, told, strict=True))
        return {name: np.clip(values, KPIS[name].low, KPIS[name].high) for name, values in known.items()}

    def _others(self, messages: Sequence[Any], rows: Sequence[Any], counts: Any) -> Others:
        level = _floats([row.rsrp_dbm for row in rows])
        level[_repeated(messages, counts)] = np.nan
        sites = None if self._site_of is None else [self._site_of(row.radio_cell_id) for row in rows]
        return Others(counts, level, sites)

    def _of_other(self, others: Others, name: str, own: FloatArray) -> FloatArray:
        which = name.partition("_")[0]
        place = others.place(which)
        values: FloatArray = np.where(place == NO_ROW, np.nan, own[place]).astype(np.float32)
        if name.endswith("_sinr_db") or name.endswith("_rsrq_db") or not self._reported_db:
            return values
        filled: FloatArray = np.fmax(values, others.highest() - np.float32(self._reported_db))
        return filled

    def _report_keys(self, messages: list[Any]) -> list[str]:
        keys: list[str] = []
        ue_at = self._series_by.index("ue_id") if "ue_id" in self._series_by else -1
        for message in messages:
            keys.append(self._key_of(message))
            before = f"{message.ue_id}|" if ue_at == 0 else ""
            after = f"|{message.ue_id}" if ue_at == 1 else ""
            keys.extend([before + neighbour.radio_cell_id + after for neighbour in message.neighbours])
        return keys


def _repeated(messages: Sequence[Any], counts: Any) -> list[int]:
    """Rows of radio cells that stand twice in a report, but the first of each: some name the serving one once more."""
    found, start = list[int](), 0
    for message, count in zip(messages, counts.tolist(), strict=True):
        known = {message.radio_cell_id}
        known.update([neighbour.radio_cell_id for neighbour in message.neighbours])
        if len(known) < count:
            cells = [message.radio_cell_id, *(neighbour.radio_cell_id for neighbour in message.neighbours)]
            found += [start + row for row in range(count) if cells[row] in cells[:row]]
        start += count
    return found


def _plausible(name: str, values: FloatArray) -> FloatArray:
    """Without what the firewall will take for impossible: clipped, it would look like a cost."""
    within: FloatArray = np.where((values >= KPIS[name].low) & (values <= KPIS[name].high), values, np.float32(np.nan))
    return within


class _RefusedError(Exception):
    """(reason, detail) of a record that cannot be read."""


def _declared(units: Mapping[str, str], columns: Sequence[str], fields: set[str]) -> dict[str, str]:
    """Declared units by column: what is measured on a neighbour is in the unit of its field."""
    for field in units:
        if field not in fields or field in OF_NEIGHBOUR:
            raise ConfigError(f"decoder_options.units: the messages have no field {field!r}")
    field_of = {column: OF_NEIGHBOUR.get(base_name(column), base_name(column)) for column in columns}
    return {column: units[field] for column, field in field_of.items() if field in units}


def _check_thumb(columns: Iterable[str], units: Mapping[str, str]) -> None:
    """ConfigError where rules of thumb would be reckoned from codes: units are converted after the decoder."""
    wanted = [name for name in columns if name in handover_cost.KPIS]
    odd = [name for name in ("rsrp_dbm", "sinr_db") if units.get(name, KPIS[name].unit) != KPIS[name].unit]
    if wanted and odd:
        told = " and ".join(f"{name} in {units[name]}" for name in odd)
        raise ConfigError(f"decoder_options.units: {wanted[0]} needs reports in dBm and dB, not {told}")


def _key_function(series_by: Sequence[str]) -> Callable[[Any], str]:
    if len(series_by) == 1:
        return attrgetter(series_by[0])
    fields = attrgetter(*series_by)

    def key(message: Any) -> str:
        parts = fields(message)
        return "" if None in parts else "|".join(parts)

    return key


def _floats(column: list[float | None]) -> FloatArray:
    with np.errstate(over="ignore"):  # infinite is outside every range
        return np.array(column, np.float64).astype(np.float32)


def _times(messages: list[Any]) -> Any:
    try:
        return np.array([message.event_time_us for message in messages], np.int64)
    except OverflowError:
        return np.array([min(max(message.event_time_us, -1), 2**62) for message in messages], np.int64)


PLUGIN = Plugin("json", JsonOptions, JsonDecoder)

"""Decoder of VES ``perf3gpp`` events, as O-RAN collectors put performance files on Kafka (TS 28.532, VES 7.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from netpredict.errors import ConfigError
from netpredict.ingest.decode import Decoded
from netpredict.ingest.document import Counters, DocumentError, Rows, body_of, decoded
from netpredict.plugins import Plugin
from netpredict.radio.measurement import Measurement, columns_of
from netpredict.types import LogRecord
from netpredict_plugins.decoders.perf3gpp.event import Event, events_of

IDENTITY = "radio_cell_id"
SCHEMA = "perf3gpp"


class Perf3gppOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the perf3gpp decoder; sample.toml explains each."""

    measurements: list[Measurement] = []
    objects: list[str] = msgspec.field(default_factory=lambda: ["NRCellDU", "NRCellCU"])
    identity: list[str] = msgspec.field(default_factory=lambda: ["ManagedElement"])
    stamp: str = "both"
    max_bytes: int = 1_048_576
    max_inflated_bytes: int = 16_777_216
    max_rows: int = 4096


class Perf3gppDecoder:
    """One row for each radio cell of an event, over all its measInfos; what cannot be read as a number is missing.

    ``deviations`` counts what was tolerated, by kind: a value index out of range, a domain left empty and so on.
    """

    api_version = 1

    def __init__(self, options: Perf3gppOptions, schema: str, series_by: Sequence[str], columns: Sequence[str]) -> None:
        if schema != SCHEMA:
            raise ConfigError(f"the perf3gpp decoder reads schema {SCHEMA!r}, not {schema!r}")
        if list(series_by) != [IDENTITY]:
            raise ConfigError(f"a series of schema {SCHEMA!r} is named by {IDENTITY}, not by {list(series_by)}")
        if options.stamp not in ("both", "begin", "end"):
            raise ConfigError(f"decoder_options.stamp is {options.stamp!r}; use both, begin or end")
        if not options.objects:
            raise ConfigError("decoder_options.objects names no class of objects; use NRCellDU and the like")
        self._options = options
        self._columns = columns_of(options.measurements, columns)
        self.units = {column.name: column.unit for column in self._columns}
        self._wanted = {name for column in self._columns for name in column.names}
        self.deviations: Counter[str] = Counter()

    def decode(self, records: Sequence[LogRecord]) -> Decoded:
        """See ``netpredict.ingest.decode.Decoder``."""
        return decoded(records, self._rows_of, self._columns)

    def _rows_of(self, record: LogRecord) -> Rows:
        """(radio cell, begin of the period) -> counters by name and whether one of them is suspect; the first wins."""
        rows: dict[tuple[str, int], tuple[dict[str, float], bool]] = {}
        options = self._options
        for event in events_of(body_of(record, options.max_bytes, options.max_inflated_bytes), self.deviations):
            time_us = event.begin_us(options.stamp)
            for name, found, suspect in self._objects_of(event):
                known, was_suspect = rows.get((name, time_us), ({}, False))
                for counter, value in found.items():
                    if known.setdefault(counter, value) != value:
                        self.deviations["value_repeated_otherwise"] += 1
                rows[name, time_us] = (known, was_suspect or suspect)
                if len(rows) > options.max_rows:
                    raise DocumentError("oversize", f"more than {options.max_rows} radio cells and periods")
        if not rows:
            raise DocumentError("invalid", f"no object of {', '.join(options.objects)} has a configured counter")
        return {place: Counters(*counted) for place, counted in rows.items()}

    def _objects_of(self, event: Event) -> Iterator[tuple[str, dict[str, float], bool]]:
        for instance, found, suspect in event.values(self._wanted, self.deviations):
            name = self._radio_cell_of(f"{event.entity},{instance}")
            if name and found:
                yield name, found, suspect

    def _radio_cell_of(self, distinguished_name: str) -> str:
        """``gnb-0042/1``: the identity of the node and the value of the object's class; empty for other objects."""
        parts: Mapping[str, str] = dict(
            part.strip().split("=", 1) for part in distinguished_name.split(",") if "=" in part
        )
        cell = next((parts[name] for name in self._options.objects if parts.get(name)), "")
        above = [parts.get(name, "") for name in self._options.identity]
        return "/".join([*above, cell]) if cell and all(above) else ""


PLUGIN = Plugin(SCHEMA, Perf3gppOptions, Perf3gppDecoder)

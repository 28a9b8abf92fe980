"""Decoder of O-RAN E2SM-KPM indications as JSON, as xApps and collectors put them on Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from netpredict.errors import ConfigError
from netpredict.ingest.decode import Decoded, encode_key
from netpredict.ingest.document import Counters, DocumentError, Rows, body_of, decoded
from netpredict.plugins import Plugin
from netpredict.radio.measurement import Measurement, columns_of
from netpredict.types import LogRecord
from netpredict_plugins.decoders.e2sm_kpm.indication import STAMP_UNITS_US, Indication, Measured, indications_of

SCHEMA = "e2sm_kpm"
IDENTITIES = (["radio_cell_id"], ["ue_id"], ["ue_id", "radio_cell_id"])


class E2smKpmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the e2sm_kpm decoder; sample.toml explains each."""

    measurements: list[Measurement] = []
    node: list[str] = msgspec.field(default_factory=lambda: ["e2NodeId", "ranName", "senderName"])
    radio_cell: list[str] = msgspec.field(default_factory=lambda: ["cellObjectID", "cellGlobalID"])
    stamp: str = "begin"
    stamp_unit: str = "ntp"
    max_bytes: int = 1_048_576
    max_inflated_bytes: int = 16_777_216
    max_rows: int = 4096


class E2smKpmDecoder:
    """One row for each radio cell (format 1) or UE (formats 2 and 3) and granularity period of an indication.

    ``deviations`` counts what was tolerated, by kind: a record of another length than its list of measurements, a
    measurement without a name, a UE without an identity.
    """

    api_version = 1

    def __init__(self, options: E2smKpmOptions, schema: str, series_by: Sequence[str], columns: Sequence[str]) -> None:
        if schema != SCHEMA:
            raise ConfigError(f"the e2sm_kpm decoder reads schema {SCHEMA!r}, not {schema!r}")
        if list(series_by) not in IDENTITIES:
            known = " or ".join(str(names) for names in IDENTITIES)
            raise ConfigError(f"a series of schema {SCHEMA!r} is named by {known}, not by {list(series_by)}")
        if options.stamp not in ("begin", "end"):
            raise ConfigError(f"decoder_options.stamp is {options.stamp!r}; use begin or end")
        if options.stamp_unit not in ("ntp", *STAMP_UNITS_US):
            known = ", ".join(("ntp", *STAMP_UNITS_US))
            raise ConfigError(f"decoder_options.stamp_unit is {options.stamp_unit!r}; use one of {known}")
        self._options = options
        self._of_ues = "ue_id" in series_by
        self._with_cell = "radio_cell_id" in series_by
        self._columns = columns_of(options.measurements, columns)
        self.units = {column.name: column.unit for column in self._columns}
        self._wanted = {name for column in self._columns for name in column.names}
        self.deviations: Counter[str] = Counter()

    def decode(self, records: Sequence[LogRecord]) -> Decoded:
        """See ``netpredict.ingest.decode.Decoder``."""
        return decoded(records, self._rows_of, self._columns)

    def _rows_of(self, record: LogRecord) -> Rows:
        """(series, begin of the period) -> its values; the first of two wins."""
        rows: dict[tuple[str, int], Counters] = {}
        options = self._options
        for indication in indications_of(body_of(record, options.max_bytes, options.max_inflated_bytes)):
            for key, time_us, measured in self._series_of(indication):
                counters = Counters(measured.counters, measured.incomplete)
                if rows.setdefault((key, time_us), counters).found != measured.counters:
                    self.deviations["value_repeated_otherwise"] += 1
                if len(rows) > options.max_rows:
                    raise DocumentError("oversize", f"more than {options.max_rows} series and periods")
        if not rows:
            raise DocumentError("invalid", "no configured measurement of a series that can be named")
        return rows

    def _series_of(self, indication: Indication) -> Iterator[tuple[str, int, Measured]]:
        if (indication.kind != "1") != self._of_ues:
            of, expected = ("UEs", "radio cells") if indication.kind != "1" else ("radio cells", "UEs")
            raise DocumentError(
                "invalid", f"format {indication.kind} reports {of}, the series of the stream are {expected}"
            )
        node = indication.named(self._options.node)
        cell = indication.named(self._options.radio_cell)
        if not node or (self._with_cell and not cell):
            names = self._options.radio_cell if node else self._options.node
            raise DocumentError("invalid", f"none of {', '.join(names)} names its {'radio cell' if node else 'node'}")
        for granularity_us, measured in indication.reports(self.deviations):
            begins = self._begins_us(indication, granularity_us, measured)
            for part in measured:
                if self._wanted.intersection(part.counters):
                    identity = [f"{node}/{part.ue}"] if self._of_ues else []
                    key = encode_key([*identity, *([f"{node}/{cell}"] if self._with_cell else [])])
                    yield key, begins[part.period], part

    def _begins_us(self, indication: Indication, granularity_us: int | None, measured: Sequence[Measured]) -> list[int]:
        """Begin of each granularity period of a report, µs since 1970."""
        periods = 1 + max((part.period for part in measured), default=0)
        stamp = indication.begin_us(self._options.stamp_unit)
        if granularity_us is None and (periods > 1 or self._options.stamp == "end"):
            raise DocumentError("period", "no granulPeriod says where its periods begin")
        length = granularity_us or 0
        if stamp <= 0:  # no time at all: for the firewall to name
            return [stamp] * periods
        first = stamp - (periods * length if self._options.stamp == "end" else 0)
        return [first + number * length for number in range(periods)]


PLUGIN = Plugin(SCHEMA, E2smKpmOptions, E2smKpmDecoder)

"""An operator's own CSV or Parquet file as traces, by a small mapping of its columns."""

import csv
import gzip
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec
import pandas as pd

from netpredict.config import keyed
from netpredict.errors import DataError
from netpredict.traces.archive import readable, require_columns
from netpredict.traces.message import TraceMessage
from netpredict.traces.trace import MISSING_MARKS, Cleaner, Trace, microseconds
from netpredict.traces.wire import STREAM_KPIS, channel_state_messages, rsrp_messages, traffic_messages

UNIX_US = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}
UNITS = {
    "_kbps": {"kbps": 1.0, "bps": 1e-3, "Mbps": 1e3, "Gbps": 1e6},
    "_percent": {"percent": 1.0, "ratio": 100.0},
    "_ratio": {"ratio": 1.0, "percent": 0.01},
    "_dbm": {"dBm": 1.0},
    "_db": {"dB": 1.0},
}
COUNT = {"1": 1.0}
ZONE = r"(?:Z|[+-]\d\d:?\d\d|[T ]\d\d\S*[+-]\d\d)$"  # at the end of a stamp


@dataclass(frozen=True, slots=True)
class KpiColumn:
    """Where a KPI comes from: the column and the unit its numbers are in (see ``units_of``); without one, the KPI's."""

    column: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class TableMapping:
    """How to read a table.

    ``time_format``: ``unix_s``, ``unix_ms``, ``unix_us``, ``ISO8601`` or a strptime format; text without a zone is in
    ``time_zone``. ``radio_cell_column`` names the series of ``traffic``; the UE streams need ``ue_column`` too, unless
    the rows are means of a radio cell. ``missing`` are texts, ``sentinels`` numbers that mean "not measured".
    """

    stream: Literal["traffic", "rsrp", "channel-state"]
    time_column: str
    radio_cell_column: str
    kpis: Mapping[str, KpiColumn]
    ue_column: str | None = None
    time_format: str = "ISO8601"
    time_zone: str = "UTC"
    delimiter: str = ","
    missing: tuple[str, ...] = (*MISSING_MARKS, "NaN", "nan", "null", "None")
    sentinels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def columns(self) -> list[str]:
        """All columns that the file must have."""
        keys = [self.time_column, self.radio_cell_column, *([self.ue_column] if self.ue_column else [])]
        return [*keys, *(kpi.column for kpi in self.kpis.values())]


def read_mapping(file: Path | None, pairs: Sequence[str] = (), stream: str | None = None) -> TableMapping:
    """The mapping in a TOML file, overridden by ``KEY=VALUE`` pairs.

    A key is one of TableMapping's, ``kpis.KPI`` (its value is COLUMN or COLUMN:UNIT), or ``sentinels.COLUMN``. Lists
    are parted by commas. Where no stream is said it is ``stream``, else the one that has the KPIs. Raises DataError for
    what is no mapping.
    """
    source = str(file) if file else "--map"
    try:
        raw: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no TOML: {error}") from error
    for pair in pairs:
        _set(raw, pair)
    if unknown := set(raw) - {field.name for field in fields(TableMapping)}:
        known = ", ".join(field.name for field in fields(TableMapping))
        raise DataError(f"{source}: a mapping has no key {', '.join(sorted(unknown))}; it has {known}")
    if "stream" not in raw:
        raw["stream"] = stream or _stream_of(raw.get("kpis"), source)
    try:
        return msgspec.convert(raw, TableMapping, strict=False)
    except msgspec.ValidationError as error:
        raise DataError(f"{source}: {keyed('mapping', error)}") from error


def _stream_of(kpis: object, source: str) -> str:
    """The one stream that has all these KPIs."""
    found = [name for name, known in STREAM_KPIS.items() if isinstance(kpis, dict) and set(kpis) <= set(known)]
    if len(found) != 1:
        known = "; ".join(f"{name} has {', '.join(has)}" for name, has in STREAM_KPIS.items())
        raise DataError(f"{source}: say the stream, its KPIs do not tell: {known}")
    return found[0]


def _set(raw: dict[str, Any], pair: str) -> None:
    key, equals, value = pair.partition("=")
    table, dot, name = key.partition(".")
    if not equals or not value or bool(dot) != (table in ("kpis", "sentinels")):
        raise DataError(f"--map {pair}: write KEY=VALUE with a key such as time_column, kpis.KPI or sentinels.COLUMN")
    if table == "kpis":
        column, colon, unit = value.rpartition(":")
        raw.setdefault(table, {})[name] = {"column": column, "unit": unit} if colon else {"column": value}
    elif table == "sentinels":
        raw.setdefault(table, {})[name] = value.split(",")
    else:
        raw[key] = value.split(",") if key == "missing" else value


def units_of(kpi: str) -> Mapping[str, float]:
    """The units that a KPI can be given in, with the factor to its own; a count has the unit ``1``."""
    return next((units for suffix, units in UNITS.items() if kpi.endswith(suffix)), COUNT)


def header_of(path: Path, delimiter: str = ",") -> list[str]:
    """The names of the columns, for somebody who has to map them. DataError when the file cannot be read."""
    if path.suffix == ".parquet":
        return [str(name) for name in _parquet(path).columns]
    with readable(path), _opened(path) as lines:
        return [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]


def read_table(path: Path, mapping: TableMapping) -> Iterator[Trace]:
    """Yield one trace a series, in order of first appearance. Raises DataError for a wrong mapping or file."""
    _check(mapping)
    cleaner = Cleaner(mapping.missing)
    raw = _parquet(path) if path.suffix == ".parquet" else _text(path, cleaner, mapping.delimiter)
    require_columns(raw, mapping.columns(), path)
    frame = _clean(cleaner, raw, mapping, path)
    keys = ["radio_cell_id"] if mapping.ue_column is None else ["ue_id", "radio_cell_id"]
    repairs = cleaner.repairs
    for series, rows in frame.groupby(keys, sort=False):
        # The counts are the file's: a dropped row has no series. The first trace carries them.
        yield Trace("/".join(map(str, series)), rows.reset_index(drop=True), repairs)
        repairs = {}


def table_messages(trace: Trace, stream: str) -> Iterator[TraceMessage]:
    """The wire messages of one trace of ``read_table``."""
    encoders: dict[str, Callable[[pd.DataFrame], Iterator[TraceMessage]]] = {
        "traffic": traffic_messages,
        "rsrp": rsrp_messages,
        "channel-state": channel_state_messages,
    }
    return encoders[stream](trace.frame)


def _check(mapping: TableMapping) -> None:
    known = STREAM_KPIS[mapping.stream]
    for kpi, source in mapping.kpis.items():
        if kpi not in known:
            raise DataError(f"{mapping.stream} has no KPI {kpi!r}; it has {', '.join(known)}")
        if source.unit is not None and source.unit not in units_of(kpi):
            raise DataError(f"{kpi} cannot be given in {source.unit!r}; allowed: {', '.join(units_of(kpi))}")
    if not mapping.kpis:
        raise DataError(f"no KPI is mapped; {mapping.stream} has {', '.join(known)}")


def _text(path: Path, cleaner: Cleaner, delimiter: str) -> pd.DataFrame:
    with readable(path), _opened(path) as lines:
        return cleaner.table(lines, delimiter)


def _opened(path: Path) -> IO[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    return cast(IO[str], opener(path, "rt", encoding="utf-8-sig", newline=""))


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs pyarrow; install it with: pip install pyarrow") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def _clean(cleaner: Cleaner, raw: pd.DataFrame, mapping: TableMapping, path: Path) -> pd.DataFrame:
    times_us = _times_us(cleaner, raw[mapping.time_column], mapping)
    _require_one(times_us, raw[mapping.time_column], f"stamp of the format {mapping.time_format}", path)
    columns: dict[str, object] = {"event_time_us": times_us}
    if mapping.ue_column is not None:
        columns["ue_id"] = raw[mapping.ue_column].astype("str")
    columns["radio_cell_id"] = raw[mapping.radio_cell_column].astype("str")
    for kpi, source in mapping.kpis.items():
        numbers = cleaner.numbers(raw[source.column], mapping.sentinels.get(source.column, ()))
        _require_one(numbers, raw[source.column], "number", path)
        columns[kpi] = numbers * units_of(kpi).get(source.unit or "", 1.0)
    return cleaner.keep_stamped(pd.DataFrame(columns, index=raw.index))


def _require_one(read: pd.Series, column: pd.Series, what: str, path: Path) -> None:
    """DataError when nothing of a column could be read: then the mapping is wrong, not the data."""
    if len(column) and not read.notna().any():
        shown = ", ".join(repr(str(value)) for value in column.drop_duplicates().head(3))
        raise DataError(f"{path}, column {column.name}: no {what} in it; it has {shown}")


def _times_us(cleaner: Cleaner, column: pd.Series, mapping: TableMapping) -> pd.Series:
    if mapping.time_format in UNIX_US:
        return (cleaner.numbers(column) * UNIX_US[mapping.time_format]).round().astype("Int64")
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return microseconds(column.dt.tz_convert("UTC"))
    if pd.api.types.is_datetime64_dtype(column):
        return cleaner.local_times_us(column, mapping.time_format, mapping.time_zone)
    column = column.astype("str")
    has_zone = column.str.contains(ZONE)
    aware = pd.to_datetime(column.where(has_zone), format=mapping.time_format, errors="coerce", utc=True)
    local_us = cleaner.local_times_us(column.where(~has_zone), mapping.time_format, mapping.time_zone)
    return microseconds(pd.Series(aware)).where(has_zone, local_us)

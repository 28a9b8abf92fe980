"""A record's bytes to perf3gpp events: gunzipped within bounds, in any of the envelopes that collectors use."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from netpredict.types import LogRecord

GZIP = b"\x1f\x8b"
DOMAINS = ("perf3gpp", "stndDefined", "")
PERIOD_TOLERANCE = 0.01
"""Share by which last - start may differ from the granularity period (trap 12 of the radio reference)."""
_DURATION = re.compile(r"PT(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,8})S)?")
_NOT_A_TIME = -1
"""A stamp that the firewall refuses by its unit."""


class DocumentError(Exception):
    """A record that is no perf3gpp event; ``reason`` is from the closed set of dead letters."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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


def events_of(body: bytes, deviations: Counter[str]) -> Iterator[Event]:
    """The perf3gpp events of a document: one event, an array, an ``eventList``, or a ``stndDefinedFields`` envelope."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError("undecodable", str(error)) from error
    found = 0
    for event in _unfolded(document):
        header = _table(event, "commonEventHeader")
        fields = _table(event, "perf3gppFields") or _standard_fields(event)
        domain = header.get("domain", "")
        if not fields or domain not in DOMAINS:
            deviations["other_domain"] += 1
            continue
        if domain == "":
            deviations["domain_absent"] += 1
        found += 1
        yield Event(header, _table(fields, "measDataCollection"))
    if not found:
        raise DocumentError("schema", "no event with perf3gppFields")


def _unfolded(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, list):
        for part in document:
            yield from _unfolded(part) if not isinstance(part, list) else ()
    elif isinstance(document, dict):
        if isinstance(document.get("eventList"), list):
            yield from _unfolded(document["eventList"])
        else:
            event = document.get("event", document)
            if isinstance(event, dict):
                yield event
    else:
        raise DocumentError("invalid", f"expected an event, found {type(document).__name__}")


def _standard_fields(event: Mapping[str, Any]) -> Mapping[str, Any]:
    data = _table(_table(event, "stndDefinedFields"), "data")
    return _table(data, "perf3gppFields") or (data if "measDataCollection" in data else {})


def _table(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Event:
    """One perf3gpp event: its header and its ``measDataCollection``."""

    header: Mapping[str, Any]
    collection: Mapping[str, Any]

    @property
    def entity(self) -> str:
        """Distinguished name of the measured entity."""
        return _text(self.collection.get("measuredEntityDn"))

    def begin_us(self, stamp: str) -> int:
        """Begin of the granularity period, µs since the epoch, UTC; -1 when there is no usable stamp.

        ``stamp``: "both" wants last - start to be the period (1 %), "begin" and "end" trust one of the two.
        """
        start, last = (_whole(self.header.get(name)) for name in ("startEpochMicrosec", "lastEpochMicrosec"))
        period_us = self._period_us()
        if stamp == "begin":
            return _NOT_A_TIME if start is None else start
        if last is None or period_us is None:
            return _NOT_A_TIME
        if stamp == "both":
            if start is None:
                return _NOT_A_TIME
            if abs(last - start - period_us) > PERIOD_TOLERANCE * period_us:
                raise DocumentError(
                    "period",
                    f"last - start is {(last - start) / 1e6:g} s, granularityPeriod {period_us / 1e6:g} s: say with"
                    " decoder_options.stamp which stamp to trust",
                )
        return last - period_us

    def _period_us(self) -> int | None:
        period = self.collection.get("granularityPeriod")
        if isinstance(period, str) and (match := _DURATION.fullmatch(period)):
            hours, minutes, seconds = (int(part or 0) for part in match.groups())
            period = 3600 * hours + 60 * minutes + seconds
        whole = _whole(period)
        return whole * 1_000_000 if whole is not None and 0 < whole <= 86_400 else None

    def values(self, wanted: set[str], deviations: Counter[str]) -> Iterator[tuple[str, dict[str, float], bool]]:
        """(object instance, counters by name, suspect) for every object; only ``wanted`` counters."""
        for info in _list(self.collection.get("measInfoList")):
            if not isinstance(info, dict):
                continue
            names = _types_of(info)
            for block in _list(info.get("measValuesList")):
                if isinstance(block, dict):
                    found = dict(_results_of(block, names, wanted, deviations))
                    yield _text(block.get("measObjInstId")), found, _suspect(block.get("suspectFlag"))


def _types_of(info: Mapping[str, Any]) -> list[Any]:
    types = info.get("measTypes")
    if isinstance(types, dict):
        return _list(types.get("sMeasTypesList")) or _list(types.get("iMeasTypesList"))
    return _list(types)


def _results_of(
    block: Mapping[str, Any], names: Sequence[Any], wanted: set[str], deviations: Counter[str]
) -> Iterator[tuple[str, float]]:
    """Counters of one object; the first of a name wins."""
    seen: set[str] = set()
    for position, result in enumerate(_list(block.get("measResults")), start=1):
        if not isinstance(result, dict):
            continue
        index = _whole(result.get("p"))
        if index is None or index < 1:
            index = position
        if index > len(names):
            deviations["index_out_of_range"] += 1
            continue
        name = names[index - 1]
        if not isinstance(name, str) or name not in wanted or name in seen:
            continue
        value = _number(result)
        if value is not None:
            seen.add(name)
            yield name, value


def _number(result: Mapping[str, Any]) -> float | None:
    """Empty, not a number, NaN and infinite are missing, never 0."""
    if result.get("isNull") in (True, "true"):
        return None
    for name in ("sValue", "iValue", "rValue"):
        raw = result.get(name)
        if raw is None or isinstance(raw, bool) or not isinstance(raw, str | int | float):
            continue
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            return None
        return value if math.isfinite(value) else None
    return None


def _suspect(flag: Any) -> bool:
    """The flag is a string on the wire: "false" is not suspect."""
    return flag is True or (isinstance(flag, str) and flag.strip().lower() == "true")


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return min(max(value, _NOT_A_TIME), 2**62)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

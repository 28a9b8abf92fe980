"""A JSON text to perf3gpp events, in any of the envelopes that collectors use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netpredict.ingest.document import (
    NOT_A_TIME,
    DocumentError,
    json_of,
    list_of,
    number_of,
    table_of,
    text_of,
    whole_of,
)

DOMAINS = ("perf3gpp", "stndDefined", "")
PERIOD_TOLERANCE = 0.01
"""Share by which last - start may differ from the granularity period (trap 12 of the radio reference)."""
_DURATION = re.compile(r"PT(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,8})S)?")


def events_of(body: bytes, deviations: Counter[str]) -> Iterator[Event]:
    """The perf3gpp events of a document: one event, an array, an ``eventList``, or a ``stndDefinedFields`` envelope."""
    found = 0
    for event in _unfolded(json_of(body)):
        header = table_of(event, "commonEventHeader")
        fields = table_of(event, "perf3gppFields") or _standard_fields(event)
        domain = header.get("domain", "")
        if not fields or domain not in DOMAINS:
            deviations["other_domain"] += 1
            continue
        if domain == "":
            deviations["domain_absent"] += 1
        found += 1
        yield Event(header, table_of(fields, "measDataCollection"))
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
    data = table_of(table_of(event, "stndDefinedFields"), "data")
    return table_of(data, "perf3gppFields") or (data if "measDataCollection" in data else {})


@dataclass(frozen=True, slots=True)
class Event:
    """One perf3gpp event: its header and its ``measDataCollection``."""

    header: Mapping[str, Any]
    collection: Mapping[str, Any]

    @property
    def entity(self) -> str:
        """Distinguished name of the measured entity."""
        return text_of(self.collection.get("measuredEntityDn"))

    def begin_us(self, stamp: str) -> int:
        """Begin of the granularity period, µs since the epoch, UTC; -1 when there is no usable stamp.

        ``stamp``: "both" wants last - start to be the period (1 %), "begin" and "end" trust one of the two.
        """
        start, last = (whole_of(self.header.get(name)) for name in ("startEpochMicrosec", "lastEpochMicrosec"))
        period_us = self._period_us()
        if stamp == "begin":
            return NOT_A_TIME if start is None else start
        if last is None or period_us is None:
            return NOT_A_TIME
        if stamp == "both":
            if start is None:
                return NOT_A_TIME
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
        whole = whole_of(period)
        return whole * 1_000_000 if whole is not None and 0 < whole <= 86_400 else None

    def values(self, wanted: set[str], deviations: Counter[str]) -> Iterator[tuple[str, dict[str, float], bool]]:
        """(object instance, counters by name, suspect) for every object; only ``wanted`` counters."""
        for info in list_of(self.collection.get("measInfoList")):
            if not isinstance(info, dict):
                continue
            names = _types_of(info)
            for block in list_of(info.get("measValuesList")):
                if isinstance(block, dict):
                    found = dict(_results_of(block, names, wanted, deviations))
                    yield text_of(block.get("measObjInstId")), found, _suspect(block.get("suspectFlag"))


def _types_of(info: Mapping[str, Any]) -> list[Any]:
    types = info.get("measTypes")
    if isinstance(types, dict):
        return list_of(types.get("sMeasTypesList")) or list_of(types.get("iMeasTypesList"))
    return list_of(types)


def _results_of(
    block: Mapping[str, Any], names: Sequence[Any], wanted: set[str], deviations: Counter[str]
) -> Iterator[tuple[str, float]]:
    """Counters of one object; the first of a name wins."""
    seen: set[str] = set()
    for position, result in enumerate(list_of(block.get("measResults")), start=1):
        if not isinstance(result, dict):
            continue
        index = whole_of(result.get("p"))
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
    raws = (result.get(name) for name in ("sValue", "iValue", "rValue"))
    numbers = (raw for raw in raws if isinstance(raw, str | int | float) and not isinstance(raw, bool))
    return number_of(next(numbers, None))


def _suspect(flag: Any) -> bool:
    """The flag is a string on the wire: "false" is not suspect."""
    return flag is True or (isinstance(flag, str) and flag.strip().lower() == "true")

"""A JSON text to E2SM-KPM indications: header, report and its measurements, whatever way the encoder wrote a CHOICE.

Names are those of O-RAN E2SM-KPM: clause 8.2.1.3 (indication header), 8.2.1.4 (indication message formats 1 to 3).
"""

from __future__ import annotations

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

NTP_UNIX_S = 2_208_988_800
"""From 1900, where NTP begins to count, to 1970."""
NTP_ERA_S = 2**32
STAMP_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000}
UE_ID_FIELDS = (
    "amf-UE-NGAP-ID",
    "gNB-CU-UE-F1AP-ID",
    "gNB-CU-CP-UE-E1AP-ID",
    "mME-UE-S1AP-ID",
    "ran-UEID",
)
"""What names a UE at its node, in the order in which it is looked for."""
NO_UE = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one granularity period: ``period`` counts from 0, ``ue`` is empty in a report of a radio cell."""

    ue: str
    period: int
    counters: dict[str, float]
    incomplete: bool


@dataclass(frozen=True, slots=True)
class Indication:
    """One indication: the whole document, its header and its message."""

    document: Mapping[str, Any]
    header: Mapping[str, Any]
    kind: str
    message: Mapping[str, Any]

    def named(self, fields: Sequence[str]) -> str:
        """The first of these fields that the document, its header or its message has; empty for none."""
        for of in (self.document, self.header, self.message):
            for name in fields:
                if found := name_of(of.get(name)):
                    return found
        return ""

    def begin_us(self, unit: str) -> int:
        """``colletStartTime`` (the standard's spelling) in µs since 1970; 0 for an unset clock, -1 for none."""
        stamp = self.header.get("colletStartTime", self.header.get("collectStartTime"))
        if unit == "ntp":
            return _ntp_us(stamp)
        whole = whole_of(stamp)
        return NOT_A_TIME if whole is None else min(whole * STAMP_UNITS_US[unit], 2**62)

    def reports(self, deviations: Counter[str]) -> Iterator[tuple[int | None, list[Measured]]]:
        """(granularity period in µs, None when absent; values) of each report in the message."""
        if self.kind == "1":
            yield _granularity_us(self.message), list(_plain(NO_UE, self.message, deviations))
        elif self.kind == "2":
            yield _granularity_us(self.message), list(_by_condition(self.message, deviations))
        else:
            for report in list_of(self.message.get("ueMeasReportList")):
                inner = table_of(report, "measReport")
                if ue := ue_of(report):
                    yield _granularity_us(inner), list(_plain(ue, inner, deviations))
                else:
                    deviations["ue_unnamed"] += 1


def indications_of(body: bytes) -> list[Indication]:
    """The indications of a document: one, or a list. DocumentError when none can be read."""
    document = json_of(body)
    parts = document if isinstance(document, list) else [document]
    found = [made for part in parts if isinstance(part, dict) and (made := _indication(part))]
    if not found:
        raise DocumentError("schema", "no indicationHeader and indicationMessage of format 1, 2 or 3 in it")
    return found


def _indication(document: Mapping[str, Any]) -> Indication | None:
    _, header = choice_of(_inside(document.get("indicationHeader"), "indicationHeader-formats"))
    kind, message = choice_of(_inside(document.get("indicationMessage"), "indicationMessage-formats"))
    known = {f"indicationMessage-Format{number}": number for number in "123"}
    if not isinstance(header, dict) or not isinstance(message, dict) or kind not in known:
        return None
    return Indication(document, header, known[kind], message)


def _inside(value: Any, name: str) -> Any:
    return value.get(name, value) if isinstance(value, dict) else value


def choice_of(value: Any) -> tuple[str, Any]:
    """Which alternative of a CHOICE, and its value: ``{"name": value}`` and ``["name", value]`` are both seen."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        return name, inner
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        return value[0], value[1]
    return "", value


def ue_of(item: Any) -> str:
    """The name of a UE at its node: its first known identity, or a plain text or number."""
    identity = item.get("ueID") if isinstance(item, dict) else None
    _, fields = choice_of(identity)
    if isinstance(fields, dict):
        return next((found for name in UE_ID_FIELDS if (found := name_of(fields.get(name)))), "")
    return name_of(fields)


def name_of(value: Any) -> str:
    """A text, or a whole number as one; empty for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(value)


def _ntp_us(stamp: Any) -> int:
    """An OCTET STRING of 4 or 8 bytes as hexadecimal digits: seconds, and their 2**-32 parts (RFC 5905)."""
    digits = text_of(stamp).replace(" ", "").replace(":", "")
    if len(digits) not in (8, 16) or not digits.isascii():
        return NOT_A_TIME
    try:
        raw = int(digits, 16)
    except ValueError:
        return NOT_A_TIME
    seconds, parts = (raw, 0) if len(digits) == 8 else divmod(raw, 2**32)
    if not raw:
        return 0
    era = 0 if seconds >= 2**31 else NTP_ERA_S
    return (seconds + era - NTP_UNIX_S) * 1_000_000 + (parts * 1_000_000 >> 32)


def _granularity_us(message: Mapping[str, Any]) -> int | None:
    whole = whole_of(message.get("granulPeriod"))  # ms
    return whole * 1000 if whole is not None and 0 < whole <= 86_400_000 else None


def _plain(ue: str, message: Mapping[str, Any], deviations: Counter[str]) -> Iterator[Measured]:
    """Format 1: a record has one item for each label of each measurement, in their order."""
    names = [name for item in list_of(message.get("measInfoList")) for name in _names_of(item, deviations)]
    for period, items, incomplete in _records(message):
        yield Measured(ue, period, _paired(names, items, deviations), incomplete)


def _names_of(item: Any, deviations: Counter[str]) -> list[str]:
    """The name once for each label; empty where a label says that the value is of a part of the radio cell only."""
    kind, name = choice_of(item.get("measType") if isinstance(item, dict) else None)
    if kind != "measName" or not isinstance(name, str):
        deviations["unnamed_measurement"] += 1
        name = ""
    labels = list_of(item.get("labelInfoList")) if isinstance(item, dict) else []
    return [name if _is_whole(label) else "" for label in labels] or [name]


def _is_whole(label: Any) -> bool:
    inner = table_of(label, "measLabel")
    return not inner or set(inner) == {"noLabel"}


def _records(message: Mapping[str, Any]) -> Iterator[tuple[int, list[Any], bool]]:
    """(number of the granularity period, items, whether its values are called incomplete)."""
    for period, data in enumerate(list_of(message.get("measData"))):
        if isinstance(data, dict):
            yield period, list_of(data.get("measRecord")), data.get("incompleteFlag") in (True, "true")


def _paired(names: Sequence[str], items: Sequence[Any], deviations: Counter[str]) -> dict[str, float]:
    """Values by name, the first of a name; a record of another length is not guessed at."""
    if len(names) != len(items):
        deviations["record_length"] += 1
        return {}
    found: dict[str, float] = {}
    for name, item in zip(names, items, strict=True):
        value = value_of(item)
        if name and value is not None:
            found.setdefault(name, value)
    return found


def value_of(item: Any) -> float | None:
    """An item of a record: ``integer`` or ``real``; ``noValue``, not a number and infinite are missing, never 0."""
    kind, value = choice_of(item)
    return number_of(value) if kind in ("", "integer", "real") else None


def _by_condition(message: Mapping[str, Any], deviations: Counter[str]) -> Iterator[Measured]:
    """Format 2: a record has one item for each UE that meets the condition of each measurement, in their order."""
    conditions = [item for item in list_of(message.get("measCondUEidList")) if isinstance(item, dict)]
    for period, items, incomplete in _records(message):
        slots: list[tuple[str, str]] = []
        for condition in conditions:
            kind, name = choice_of(condition.get("measType"))
            counter = name if kind == "measName" and isinstance(name, str) else ""
            slots += [(counter, ue) for ue in _matching(condition, period)]
        if len(slots) != len(items):
            deviations["record_length"] += 1
            continue
        by_ue: dict[str, dict[str, float]] = {}
        for (counter, ue), item in zip(slots, items, strict=True):
            value = value_of(item)
            if counter and ue and value is not None:
                by_ue.setdefault(ue, {}).setdefault(counter, value)
        for ue, counters in by_ue.items():
            yield Measured(ue, period, counters, incomplete)


def _matching(condition: Mapping[str, Any], period: int) -> list[str]:
    """UEs of a condition, where they are given for each granularity period those of this one."""
    by_period = list_of(condition.get("matchingUEidPerGP"))
    if not by_period:
        return [ue_of(item) for item in list_of(condition.get("matchingUEidList"))]
    found = by_period[period] if period < len(by_period) else None
    kind, inner = choice_of(found.get("matchedPerGP") if isinstance(found, dict) else None)
    return [ue_of(item) for item in list_of(inner)] if kind == "oneOrMoreUEmatched" else []

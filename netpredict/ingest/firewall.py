"""What is plausible enters, the rest is counted by reason and kept out; judged against the ingest time, never now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netpredict.ingest.decode import Decoded
from netpredict.radio.quantities import kpi_of
from netpredict.types import BoolArray, FloatArray, IntArray

EARLIEST_US = 1_420_070_400_000_000
"""2015-01-01: an earlier stamp is no time in µs (trap 1 of the radio reference: ms or truncated numbers)."""

LATEST_US = 4_102_444_800_000_000
"""2100-01-01: a later stamp is no time in µs (ns, or rubbish), whatever the ingest time says."""

TIME_MAX_US = 2**62
"""What decoders give for a stamp that does not fit into 64 bits; for one far below zero they give -1."""

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "ns": 1e-3}

MAX_FIELD_CHARACTERS = 256
COLUMNS_TOLD = 16
"""A refusal tells the values of so many columns; a grid has thousands."""


@dataclass(slots=True)
class Verdict:
    """``refused`` maps a reason to a mask (n,) of rows; ``repaired`` counts values made missing, by KPI.

    ``detail`` says of a refused row what was found and what is allowed.
    """

    refused: dict[str, BoolArray]
    repaired: Mapping[str, int]
    detail: Callable[[str, int], str]


class Firewall:
    """Ranges by the KPI catalogue: a value outside becomes missing, a row without any KPI left is refused."""

    def __init__(self, columns: Sequence[str], kpis: Sequence[str], max_future_s: float) -> None:
        known = [kpi_of(column) for column in columns]
        self._columns = tuple(columns)
        self._names = [kpi.name for kpi in known]
        self._kpis = [columns.index(kpi) for kpi in kpis]
        self._low = np.array([kpi.low for kpi in known], np.float32)
        self._high = np.array([kpi.high for kpi in known], np.float32)
        self._max_future_us = round(max_future_s * 1_000_000)

    def inspect(self, decoded: Decoded, ingest_time_us: IntArray) -> Verdict:
        """Judge rows in place: implausible values of ``decoded.values`` become NaN."""
        values = decoded.values
        with np.errstate(invalid="ignore"):
            outside = (values < self._low) | (values > self._high)
        repaired: Counter[str] = Counter()
        found = values
        if outside.any():
            found = values.copy()
            values[outside] = np.nan
            for column in np.flatnonzero(outside.any(axis=0)).tolist():
                repaired[self._names[column]] += int(outside[:, column].sum())
        times = decoded.event_time_us
        refused: dict[str, BoolArray] = {
            "time_unit": (times < EARLIEST_US) | (times > LATEST_US),
            "future": times > ingest_time_us + self._max_future_us,
            "no_value": np.asarray(np.isnan(values[:, self._kpis]).all(axis=1), bool),
        }

        def detail(reason: str, row: int) -> str:
            if reason == "no_value":
                return self._values_found(found[row])
            return self._stamp_found(reason, int(times[row]), int(ingest_time_us[row]))

        return Verdict({reason: mask for reason, mask in refused.items() if mask.any()}, repaired, detail)

    def _values_found(self, values: FloatArray) -> str:
        told = self._kpis[:COLUMNS_TOLD]
        found = [f"{self._columns[column]} {self._value_found(column, values[column])}" for column in told]
        return "; ".join([*found, "and so on"] if len(self._kpis) > COLUMNS_TOLD else found)

    def _value_found(self, column: int, value: np.float32) -> str:
        if np.isnan(value):
            return "is absent"
        return f"{value:g} is not within {self._low[column]:g} to {self._high[column]:g}"

    def _stamp_found(self, reason: str, time_us: int, ingest_time_us: int) -> str:
        if reason == "future":
            ahead_s = (time_us - ingest_time_us) / 1e6
            return f"event_time_us is {ahead_s:.3f} s after Kafka's time; at most {self._max_future_us / 1e6:g} s"
        unit = next((unit for unit, factor in TIME_UNITS.items() if EARLIEST_US <= time_us * factor <= LATEST_US), None)
        guess = f", which looks like {unit}" if unit else ""
        shown = "negative" if time_us < 0 else "too large" if time_us >= TIME_MAX_US else str(time_us)
        return f"event_time_us is {shown}{guess}; allowed are µs since 1970 of the years 2015 to 2099"


def bad_key(key: str, fields: int) -> str | None:
    """Why a key cannot name a series, or None. Checked once, when the series is new."""
    parts = key.split("|")
    if len(parts) != fields or not all(parts):
        return "an identity is empty or contains |"
    if len(key) > MAX_FIELD_CHARACTERS * fields:
        return f"an identity is longer than {MAX_FIELD_CHARACTERS} characters"
    if not key.isprintable():
        return "an identity contains control or invisible characters"
    return None

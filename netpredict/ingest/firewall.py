"""What is plausible enters, the rest is counted by reason and kept out; judged against the ingest time, never now.

Here stands what one record tells by itself; ``watch`` has what takes the earlier ones of its series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netpredict.config import ChecksConfig
from netpredict.ingest.decode import Decoded
from netpredict.radio.quantities import Kpi, is_hindsight, kpi_of
from netpredict.radio.units import Conversion, conversion
from netpredict.types import BoolArray, FloatArray, IntArray

EARLIEST_US = 1_420_070_400_000_000
"""2015-01-01: an earlier stamp is no time in µs (trap 1 of the radio reference: ms or truncated numbers)."""

LATEST_US = 4_102_444_800_000_000
"""2100-01-01: a later stamp is no time in µs (ns, or rubbish), whatever the ingest time says."""

TIME_MAX_US = 2**62
"""What decoders give for a stamp that does not fit into 64 bits; for one far below zero they give -1."""

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "ns": 1e-3}

CODE_MAX = 127.0
"""Largest code that is ever reported; 127 is infinity for RSRP, and no measurement."""

MAX_FIELD_CHARACTERS = 256
COLUMNS_TOLD = 16
"""A refusal tells the values of so many columns; a grid has thousands."""

ABOVE = {
    "%": "count_for_percent",
    "ms": "delay_unit",
    "index": "bad_index",
    "layers": "bad_index",
    "ratio": "rate_for_share",
    "kbit/s": "above_peak",
    "kbit": "above_peak",
    "PRBs": "prb_above_carrier",
}
"""By unit of a KPI: the trap that a value above its range has fallen into."""
COUNTED = ("%", "ms", "ratio", "kbit/s", "kbit", "PRBs", "UEs", "count")
"""Units that begin at zero."""
OF_CARRIER = ("prb_used_dl", "prb_used_ul", "prb_avail_dl", "prb_avail_ul", "allocated_prbs")
USED_OF = {"prb_used_dl": "prb_avail_dl", "prb_used_ul": "prb_avail_ul"}
ZERO_MEANS = {
    "prb_use_dl_percent": ("prb_used_dl", "prb_avail_dl", 0.01),
    "prb_use_ul_percent": ("prb_used_ul", "prb_avail_ul", 0.01),
    "dl_throughput_kbps": ("dl_volume_kbit", "", 0.0),
    "ul_throughput_kbps": ("ul_volume_kbit", "", 0.0),
}
"""A column that is 0 although another one is above a share of a third (or above 0) is impossible (trap 7)."""


@dataclass(slots=True)
class Verdict:
    """``refused`` maps a reason to a mask (n,) of rows; ``detail`` says of a refused row what was found, and what is
    allowed."""

    refused: dict[str, BoolArray]
    detail: Callable[[str, int], str]


class _Missing(NamedTuple):
    """Values of one column that were taken out (n,), and why."""

    reason: str
    column: int
    mask: BoolArray


class Firewall:
    """Declared units are converted, impossible values become missing, rows without any KPI left are refused.

    ``units`` are what the decoder declares of columns that are not in the KPI's unit. ``found`` counts by (reason, KPI)
    the values made missing, records doubted and notices since the start.
    """

    def __init__(
        self,
        columns: Sequence[str],
        kpis: Sequence[str],
        max_future_s: float,
        checks: ChecksConfig | None = None,
        units: Mapping[str, str] | None = None,
        period_s: float = 0.0,
    ) -> None:
        self._checks = checks = checks or ChecksConfig()
        known = [kpi_of(column) for column in columns]
        self.found: Counter[tuple[str, str]] = Counter()
        self._columns = tuple(columns)
        self._known = known
        self._kpis = [columns.index(kpi) for kpi in kpis if not is_hindsight(kpi)]
        self._low = np.array([kpi.low for kpi in known], np.float32)
        self._high = np.array([_highest(kpi, checks, period_s) for kpi in known], np.float32)
        self._max_future_us = round(max_future_s * 1_000_000)
        self._max_latency_us = round(checks.max_latency_s * 1_000_000)
        self._period_us = round(period_s * 1_000_000) if checks.stamp == "begin" else 0
        self._converted = _conversions(columns, units or {})
        self._signed = [index for index, kpi in enumerate(known) if kpi.unit == "dBm"]
        self._pairs = [
            (columns.index(used), columns.index(available))
            for used, available in USED_OF.items()
            if used in columns and available in columns
        ]
        self._zeros = [
            (columns.index(zero), columns.index(shown), columns.index(whole) if whole else -1, share)
            for zero, (shown, whole, share) in ZERO_MEANS.items()
            if zero in columns and shown in columns and (not whole or whole in columns)
        ]

    def inspect(self, decoded: Decoded, ingest_time_us: IntArray, *, watched: bool = False) -> Verdict:
        """Judge rows in place: ``decoded.values`` get the units of the KPIs, impossible values become NaN.

        ``watched``: codes among dBm are left as positive numbers, for ``watch.Watch`` to make something of.
        """
        values = found = decoded.values
        missing: list[_Missing] = []
        if self._converted:
            found = values.copy()
            missing += self._convert(values, watched)
        with np.errstate(invalid="ignore"):
            outside = (values < self._low) | (values > self._high)
        if outside.any():
            found = found if self._converted else values.copy()
            missing += self._out_of_range(values, outside, watched)
        if self._pairs or self._zeros:
            found = values.copy() if found is values else found
            missing += self._beside_others(values)
        for taken in missing:
            self.found[taken.reason, self._known[taken.column].name] += int(taken.mask.sum())
        times = decoded.event_time_us
        refused = self._stamps(times, ingest_time_us)
        refused["no_value"] = np.asarray(np.isnan(values[:, self._kpis]).all(axis=1), bool)

        def detail(reason: str, row: int) -> str:
            if reason == "no_value":
                return self._values_found(found, row, missing)
            return self._stamp_found(reason, int(times[row]), int(ingest_time_us[row]))

        return Verdict({reason: mask for reason, mask in refused.items() if mask.any()}, detail)

    # -- values ------------------------------------------------------------------------------------------------

    def _convert(self, values: FloatArray, watched: bool) -> list[_Missing]:
        """Declared units to those of the KPIs. A dBm among codes becomes a positive number, as a code among dBm is."""
        missing = []
        for column, unit in self._converted:
            reported, kpi = values[:, column].copy(), self._known[column]
            values[:, column] = unit.of(reported)
            if unit.codes is None or not (lost := np.isnan(values[:, column]) & ~np.isnan(reported)).any():
                continue
            stray = lost & (reported >= kpi.low) & (reported < 0) & (kpi.unit == "dBm")
            open_below = lost & np.asarray(unit.codes.is_open_below(reported))
            if watched:
                values[stray, column] = np.minimum(-reported[stray], CODE_MAX)
                lost, stray = lost & ~stray, stray & False
            rest = lost & ~stray & ~open_below
            parts = (("code_for_dbm", stray), ("open_below", open_below), ("range", rest))
            missing += [_Missing(reason, column, mask) for reason, mask in parts if mask.any()]
        return missing

    def _out_of_range(self, values: FloatArray, outside: BoolArray, watched: bool) -> list[_Missing]:
        missing = []
        for column in np.flatnonzero(outside.any(axis=0)).tolist():
            kpi, here = self._known[column], values[:, column]
            for reason, mask in self._traps(kpi, here, outside[:, column]):
                if mask.any():
                    missing.append(_Missing(reason, column, mask))
            if watched and column in self._signed:
                outside[:, column] &= ~_is_code(here)
                missing = [taken for taken in missing if taken[:2] != ("code_for_dbm", column)]
        values[outside] = np.nan
        return missing

    def _traps(self, kpi: Kpi, here: FloatArray, outside: BoolArray) -> list[tuple[str, BoolArray]]:
        """Masks of the values outside, by the trap that they fell into; every one of them is in one."""
        below = outside & (here < 0)
        if kpi.unit == "dBm":
            code = outside & _is_code(here)
            return [("code_for_dbm", code), ("range", outside & ~code)]
        if kpi.unit == "dB":
            reason, here_too = ("half_db", (here >= 2 * kpi.low) & (here <= 2 * kpi.high))
            if not kpi.setting:
                reason, here_too = "code_for_db", _is_code(here)
            return [(reason, outside & here_too), ("range", outside & ~here_too)]
        above = ABOVE.get(kpi.unit, "range")
        return [("negative" if kpi.unit in COUNTED else "range", below), (above, outside & ~below)]

    def _beside_others(self, values: FloatArray) -> list[_Missing]:
        missing = []
        for used, available in self._pairs:
            missing.append(_Missing("prb_above_available", used, values[:, used] > values[:, available]))
        for zero, shown, whole, share in self._zeros:
            least = share * values[:, whole] if whole >= 0 else 0.0
            idle = values[:, shown] < least if share else values[:, shown] <= least
            known = ~np.isnan(values[:, shown] + least)
            missing.append(_Missing("impossible_zero", zero, (values[:, zero] == 0) & known & ~idle))
        missing = [taken for taken in missing if taken.mask.any()]
        for _, column, mask in missing:
            values[mask, column] = np.nan
        return missing

    def _values_found(self, found: FloatArray, row: int, missing: Sequence[_Missing]) -> str:
        why = {taken.column: taken.reason for taken in missing if taken.mask[row]}
        told = [
            f"{self._columns[column]} {self._value_found(column, found[row, column], why.get(column, ''))}"
            for column in self._kpis[:COLUMNS_TOLD]
        ]
        return "; ".join([*told, "and so on"] if len(self._kpis) > COLUMNS_TOLD else told)

    def _value_found(self, column: int, value: np.float32, reason: str) -> str:
        if not reason:
            return "is absent" if np.isnan(value) else "is in quarantine"
        if self._low[column] <= value <= self._high[column]:
            return f"{value:g} is impossible beside the other values ({reason})"
        return f"{value:g} is not within {self._low[column]:g} to {self._high[column]:g} ({reason})"

    # -- stamps ------------------------------------------------------------------------------------------------

    def _stamps(self, times: IntArray, ingest_time_us: IntArray) -> dict[str, BoolArray]:
        no_time = (times < EARLIEST_US) | (times > LATEST_US)
        refused: dict[str, BoolArray] = {"clock_unset": times == 0} if no_time.any() else {}
        refused |= {"time_unit": no_time, "future": times > ingest_time_us + self._max_future_us}
        if self._max_latency_us:
            refused["latency"] = times < ingest_time_us - self._max_latency_us
        if self._period_us:
            refused["end_for_begin"] = times + self._period_us > ingest_time_us + self._max_future_us
        return refused

    def _stamp_found(self, reason: str, time_us: int, ingest_time_us: int) -> str:
        behind_s = (ingest_time_us - time_us) / 1e6
        if reason == "clock_unset":
            return f"event_time_us is 0, {behind_s:.0f} s before Kafka's time: the sender's clock was not set"
        if reason == "future":
            return f"event_time_us is {-behind_s:.3f} s after Kafka's time; at most {self._max_future_us / 1e6:g} s"
        if reason == "latency":
            return f"event_time_us is {behind_s:.3f} s before Kafka's time; at most {self._max_latency_us / 1e6:g} s"
        if reason == "end_for_begin":
            return (
                f"event_time_us is {behind_s:.3f} s before Kafka's time; a period of {self._period_us / 1e6:g} s that"
                " begins there is not over: it may be stamped with its end"
            )
        unit = next((unit for unit, factor in TIME_UNITS.items() if EARLIEST_US <= time_us * factor <= LATEST_US), None)
        guess = f", which looks like {unit}" if unit else ""
        shown = "negative" if time_us < 0 else "too large" if time_us >= TIME_MAX_US else str(time_us)
        return f"event_time_us is {shown}{guess}; allowed are µs since 1970 of the years 2015 to 2099"


def _highest(kpi: Kpi, checks: ChecksConfig, period_s: float) -> float:
    """Upper end of the range, lowered by what is known of the radio cells."""
    known = {
        "kbit/s": checks.peak_kbps,
        "kbit": checks.peak_kbps * period_s,
        "PRBs": checks.n_rb if kpi.name in OF_CARRIER else 0,
    }.get(kpi.unit, 0)
    return min(kpi.high, known) if known else kpi.high


def _conversions(columns: Sequence[str], units: Mapping[str, str]) -> list[tuple[int, Conversion]]:
    found = [(columns.index(column), conversion(column, unit, "decoder_options")) for column, unit in units.items()]
    return [(column, unit) for column, unit in found if unit.codes or unit.factor != 1.0]


def _is_code(values: FloatArray) -> BoolArray:
    return np.asarray((values >= 0) & (values <= CODE_MAX), bool)


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

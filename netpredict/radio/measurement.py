"""Which counters make up a column, and in which unit the sender writes them. For every decoder of counters by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from netpredict.errors import ConfigError
from netpredict.radio.counters import CounterRatio, known_counter
from netpredict.radio.quantities import kpi_of
from netpredict.radio.units import conversion

WHERE = "decoder_options.measurements"
VOLUMES = ("kbit", "Mbit")
"""Units of a volume: E2SM-KPM counts kbit, TS 28.552 Mbit under the same name, so the unit is to be declared."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column: ``counter`` in ``unit``, or ``counter`` divided by the sum of ``over``, or a volume by ``per_s``."""

    column: str
    counter: str
    unit: str
    over: list[str] = []
    per_s: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is computed from the counters of one object and period. ``unit`` is what comes out."""

    name: str
    counter: str
    over: tuple[str, ...]
    per_s: float
    unit: str

    @property
    def names(self) -> tuple[str, ...]:
        """Counters that it needs."""
        return (self.counter, *self.over)

    def value(self, counters: Mapping[str, float]) -> float:
        """In ``unit``, for the firewall to convert; NaN when a counter is absent or a denominator is 0."""
        if self.over:
            share = CounterRatio(self.counter, self.over).of(counters)
            return math.nan if share is None else share
        found = counters.get(self.counter, math.nan)
        return found / self.per_s if self.per_s else found


def columns_of(measurements: Sequence[Measurement], columns: Sequence[str]) -> list[Column]:
    """The measurement of each column, in their order; ConfigError names what is missing, unknown or of another unit."""
    by_column = {measurement.column: measurement for measurement in measurements}
    if len(by_column) != len(measurements):
        raise ConfigError(f"{WHERE}: a column stands twice")
    if missing := [column for column in columns if column not in by_column]:
        raise ConfigError(f"{WHERE}: no counter is given for {', '.join(missing)}")
    return [_column(by_column[column]) for column in columns]


def _column(measurement: Measurement) -> Column:
    for name in (measurement.counter, *measurement.over):
        if known_counter(name) is None:
            raise ConfigError(f"{WHERE}: {name!r} is no counter of TS 28.552 or E2SM-KPM")
    kpi = kpi_of(measurement.column)
    unit = measurement.unit
    if measurement.over:
        if kpi.unit not in ("ratio", "%") or unit != "1":
            raise ConfigError(
                f"{WHERE}: {kpi.name} is in {kpi.unit}; a counter over others, both of unit 1, is a ratio or %"
            )
        unit = "ratio"
    elif measurement.per_s:
        if kpi.unit != "kbit/s" or unit not in VOLUMES:
            raise ConfigError(f"{WHERE}: per_s makes kbit/s of {' or '.join(VOLUMES)} only")
        unit = f"{unit}/s"
    conversion(measurement.column, unit, WHERE)
    return Column(measurement.column, measurement.counter, tuple(measurement.over), measurement.per_s, unit)

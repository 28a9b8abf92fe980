"""Which counters make up a column, and in which unit the sender writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from netpredict.errors import ConfigError
from netpredict.radio.counters import CounterRatio, known_counter
from netpredict.radio.quantities import KPIS

UNITS: Mapping[str, Mapping[str, float]] = {
    "%": {"%": 1.0, "ratio": 100.0},
    "ratio": {"ratio": 1.0, "%": 0.01, "1e-6": 1e-6},
    "kbit/s": {"kbit/s": 1.0, "Mbit/s": 1e3, "bit/s": 1e-3},
    "UEs": {"1": 1.0},
    "PRBs": {"1": 1.0},
    "count": {"1": 1.0},
    "index": {"1": 1.0},
    "layers": {"1": 1.0},
    "dBm": {"dBm": 1.0},
    "dB": {"dB": 1.0, "half dB": 0.5},
}
"""By unit of a KPI: what a sender may declare, and its factor."""
VOLUMES = {"kbit": 1.0, "Mbit": 1e3}
"""kbit of a volume: E2SM-KPM counts kbit, TS 28.552 Mbit under the same name, so the unit is to be declared."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column: ``counter`` in ``unit``, or ``counter`` divided by the sum of ``over``, or a volume by ``per_s``."""

    column: str
    counter: str
    unit: str
    over: list[str] = []
    per_s: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is computed from the counters of one radio cell and period."""

    counter: str
    over: tuple[str, ...]
    factor: float

    @property
    def names(self) -> tuple[str, ...]:
        """Counters that it needs."""
        return (self.counter, *self.over)

    def value(self, counters: Mapping[str, float]) -> float:
        """In the KPI's unit; NaN when a counter is absent or a denominator is 0."""
        if self.over:
            share = CounterRatio(self.counter, self.over).of(counters)
            return math.nan if share is None else share * self.factor
        found = counters.get(self.counter)
        return math.nan if found is None else found * self.factor


def columns_of(measurements: Sequence[Measurement], columns: Sequence[str]) -> list[Column]:
    """The measurement of each column, in their order; ConfigError names what is missing, unknown or of another unit."""
    by_column = {measurement.column: measurement for measurement in measurements}
    if len(by_column) != len(measurements):
        raise ConfigError("decoder_options.measurements: a column stands twice")
    if missing := [column for column in columns if column not in by_column]:
        raise ConfigError(f"decoder_options.measurements: no counter is given for {', '.join(missing)}")
    return [_column(by_column[column]) for column in columns]


def _column(measurement: Measurement) -> Column:
    for name in (measurement.counter, *measurement.over):
        if known_counter(name) is None:
            raise ConfigError(f"decoder_options.measurements: {name!r} is no counter of TS 28.552 or E2SM-KPM")
    kpi = KPIS[measurement.column]
    if measurement.over:
        factor = {"ratio": 1.0, "%": 100.0}.get(kpi.unit)
        if factor is None or measurement.unit != "1":
            raise ConfigError(
                f"decoder_options.measurements: {kpi.name} is in {kpi.unit}; a counter over others, both of unit 1,"
                " is a ratio or %"
            )
        return Column(measurement.counter, tuple(measurement.over), factor)
    if measurement.per_s:
        if kpi.unit != "kbit/s" or measurement.unit not in VOLUMES:
            raise ConfigError(f"decoder_options.measurements: per_s makes kbit/s of {' or '.join(VOLUMES)} only")
        return Column(measurement.counter, (), VOLUMES[measurement.unit] / measurement.per_s)
    known = UNITS.get(kpi.unit, {})
    if measurement.unit not in known:
        raise ConfigError(
            f"decoder_options.measurements: {kpi.name} is in {kpi.unit}; a sender may declare"
            f" {', '.join(known) or 'no other unit'}, not {measurement.unit!r}"
        )
    return Column(measurement.counter, (), known[measurement.unit])

"""What senders write and KPIs are kept in: one table of declared units for every decoder.

A unit is declared, never guessed. Most differ from the KPI's by a factor; a *code* stands for an interval and is
converted to its lower edge, an average of codes by the same formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netpredict.errors import ConfigError
from netpredict.radio.quantities import (
    LTE_RSRP,
    LTE_RSRQ,
    NR_L1_RSRP,
    NR_RSRP,
    NR_RSRQ,
    NR_SINR,
    Array,
    CodeMap,
    kpi_of,
)

FACTORS: Mapping[str, Mapping[str, float]] = {
    "%": {"%": 1.0, "ratio": 100.0},
    "ratio": {"ratio": 1.0, "%": 0.01, "1e-6": 1e-6},
    "kbit/s": {"kbit/s": 1.0, "Mbit/s": 1e3, "bit/s": 1e-3},
    "kbit": {"kbit": 1.0, "Mbit": 1e3, "bit": 1e-3, "byte": 8e-3},
    "ms": {"ms": 1.0, "0.1ms": 0.1, "us": 1e-3, "s": 1e3},
    "UEs": {"1": 1.0},
    "PRBs": {"1": 1.0},
    "count": {"1": 1.0},
    "index": {"1": 1.0},
    "layers": {"1": 1.0},
    "dBm": {"dBm": 1.0},
    "dB": {"dB": 1.0, "half dB": 0.5},
}
"""By unit of a KPI: what a sender may declare, and its factor."""
CODES: Mapping[str, Mapping[str, CodeMap]] = {
    "rsrp_dbm": {"NR code": NR_RSRP, "NR L1 code": NR_L1_RSRP, "LTE code": LTE_RSRP},
    "rsrq_db": {"NR code": NR_RSRQ, "LTE code": LTE_RSRQ},
    "sinr_db": {"NR code": NR_SINR},
}
"""By end of a KPI's name: what codes a sender may declare."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """From a declared unit to the KPI's: by a factor, or by a table of codes."""

    factor: float
    codes: CodeMap | None = None

    def of(self, values: Array) -> Array:
        """The same numbers in the KPI's unit, any shape; NaN for a code that stands for no value."""
        wide = np.asarray(values, np.float64)
        return wide * self.factor if self.codes is None else np.asarray(self.codes.lower_edge(wide))


def declarable(column: str) -> dict[str, Conversion]:
    """What a sender of this column may declare, by name; its own unit comes first."""
    kpi = kpi_of(column)
    known = {name: Conversion(factor) for name, factor in FACTORS.get(kpi.unit, {kpi.unit: 1.0}).items()}
    for end, codes in CODES.items():
        if kpi.name.endswith(end):
            known |= {name: Conversion(1.0, table) for name, table in codes.items()}
    return known


def conversion(column: str, unit: str, where: str) -> Conversion:
    """The conversion of a declared unit; ConfigError, naming ``where``, for one that the KPI cannot come from."""
    known = declarable(column)
    if unit not in known:
        kpi = kpi_of(column)
        raise ConfigError(
            f"{where}: {kpi.name} is in {kpi.unit}; a sender may declare {', '.join(known)}, not {unit!r}"
        )
    return known[unit]

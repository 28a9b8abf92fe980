"""Resource block, CQI and MCS tables of TS 38.104 and TS 38.214, as typed rows and as arrays to index.

Efficiencies are bit/s/Hz with four decimals, rounded half up as the standard prints them. Arrays are read-only
and shared between callers. The CQI table of a radio cell must be known: the same CQI 15 means 5.55, 7.41, 4.52 or 9.26.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Literal, NamedTuple, TypeVar, overload

import numpy as np

from netpredict.errors import ConfigError
from netpredict.radio.quantities import Array, FloatArray, IntArray

ArrayT = TypeVar("ArrayT", FloatArray, IntArray)

NO_MCS = -1  # "no MCS": CQI 0, or an efficiency below MCS 0
MAX_CQI = 15
MAX_MCS = 31  # highest index on the wire; the last ones are reserved for retransmissions in every table
EFFICIENCY_TOLERANCE = 1e-4  # bit/s/Hz; covers four decimals rounded half up or half even (2.4062 and 2.4063)


class Row(NamedTuple):
    """One table row: bits per symbol, code rate x 1024, and efficiency in bit/s/Hz."""

    qm: int
    rate_x1024: float
    efficiency: float


def efficiency(qm: int, rate_x1024: float) -> float:
    """Spectral efficiency qm * rate in bit/s/Hz, four decimals, half up (TS 38.214; ``round`` would go half even)."""
    exact = Decimal(qm) * Decimal(str(rate_x1024)) / 1024
    return float(exact.quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP))


def _rows(rates_by_qm: Mapping[int, str]) -> tuple[Row, ...]:
    return tuple(
        Row(qm, float(rate), efficiency(qm, float(rate)))
        for qm, rates_x1024 in rates_by_qm.items()
        for rate in rates_x1024.split()
    )


# Index 0 is out of range: nothing can be sent, which is a value and not a missing one.
_OUT_OF_RANGE = (Row(0, 0.0, 0.0),)

# TS 38.214 Tables 5.2.2.1-2 to 5.2.2.1-5, position = CQI 0..15, rates x 1024 by Qm.
CQI_TABLES: dict[int, tuple[Row, ...]] = {
    1: _OUT_OF_RANGE + _rows({2: "78 120 193 308 449 602", 4: "378 490 616", 6: "466 567 666 772 873 948"}),
    2: _OUT_OF_RANGE + _rows({2: "78 193 449", 4: "378 490 616", 6: "466 567 666 772 873", 8: "711 797 885 948"}),
    3: _OUT_OF_RANGE + _rows({2: "30 50 78 120 193 308 449 602", 4: "378 490 616", 6: "466 567 666 772"}),
    4: _OUT_OF_RANGE
    + _rows({2: "78 193 449", 4: "378 616", 6: "567 666 772 873", 8: "711 797 885 948", 10: "853 948"}),
}

CQI_BLER_TARGET_RATIO: dict[int, float] = {1: 0.1, 2: 0.1, 3: 1e-5, 4: 0.1}  # TS 38.214 5.2.2.1

# TS 38.214 Tables 5.1.3.1-1 to 5.1.3.1-4, position = MCS index; also PUSCH without transform precoding.
PDSCH_MCS_TABLES: dict[int, tuple[Row, ...]] = {
    1: _rows(
        {
            2: "120 157 193 251 308 379 449 526 602 679",
            4: "340 378 434 490 553 616 658",
            6: "438 466 517 567 616 666 719 772 822 873 910 948",
        }
    ),
    2: _rows(
        {
            2: "120 193 308 449 602",
            4: "378 434 490 553 616 658",
            6: "466 517 567 616 666 719 772 822 873",
            8: "682.5 711 754 797 841 885 916.5 948",
        }
    ),
    3: _rows(
        {
            2: "30 40 50 64 78 99 120 157 193 251 308 379 449 526 602",
            4: "340 378 434 490 553 616",
            6: "438 466 517 567 616 666 719 772",
        }
    ),
    4: _rows(
        {
            2: "120 193 449",
            4: "378 490 616",
            6: "466 517 567 616 666 719 772 822 873",
            8: "682.5 711 754 797 841 885 916.5 948",
            10: "805.5 853 900.5 948",
        }
    ),
}

# TS 38.214 Tables 6.1.4.1-1 and 6.1.4.1-2 (PUSCH with transform precoding), q = 2.
PUSCH_TP_MCS_TABLES: dict[int, tuple[Row, ...]] = {
    1: _rows(
        {
            2: "120 157 193 251 308 379 449 526 602 679",
            4: "340 378 434 490 553 616 658",
            6: "466 517 567 616 666 719 772 822 873 910 948",
        }
    ),
    2: _rows(
        {
            2: "30 40 50 64 78 99 120 157 193 251 308 379 449 526 602 679",
            4: "378 434 490 553 616 658 699 772",
            6: "567 616 666 772",
        }
    ),
}
_PUSCH_TP_ROWS_BY_Q = {1: 2, 2: 6}  # how many leading rows of each table depend on q


def cqi_rows(table: int) -> tuple[Row, ...]:
    """Rows of CQI table 1..4, position = CQI 0..15. Raises ConfigError for another table (TS 38.214 5.2.2.1)."""
    return _table(CQI_TABLES, table, "cqi_table")


def mcs_rows(table: int) -> tuple[Row, ...]:
    """Rows of PDSCH MCS table 1..4, position = MCS. Raises ConfigError for another table (TS 38.214 5.1.3.1).

    Also PUSCH without transform precoding. Reserved indices (retransmissions, Qm only) have no row.
    """
    return _table(PDSCH_MCS_TABLES, table, "mcs_table")


def pusch_tp_mcs_rows(table: int, q: int = 2) -> tuple[Row, ...]:
    """Rows of PUSCH MCS table 1..2 with transform precoding, position = MCS (TS 38.214 6.1.4.1).

    ``q`` is 1 with tp-pi2BPSK, else 2: at q = 1 the leading rows have Qm 1, twice the rate and the same efficiency.
    Raises ConfigError for another table or ``q``.
    """
    rows = _table(PUSCH_TP_MCS_TABLES, table, "pusch_tp_mcs_table")
    if q not in (1, 2):
        raise ConfigError(f"q = {q!r} is not allowed: use 1 (tp-pi2BPSK) or 2")
    count = _PUSCH_TP_ROWS_BY_Q[table] if q == 1 else 0
    return tuple(Row(1, 2 * row.rate_x1024, row.efficiency) for row in rows[:count]) + rows[count:]


@cache
def cqi_efficiency(table: int) -> FloatArray:
    """Efficiency in bit/s/Hz by CQI, shape (16,); CQI 0 (out of range) has 0. ConfigError for an unknown table."""
    return _frozen(np.array([row.efficiency for row in cqi_rows(table)]))


@cache
def mcs_efficiency(table: int) -> FloatArray:
    """Efficiency in bit/s/Hz by PDSCH MCS, shape (32,); NaN where reserved. ConfigError for an unknown table.

    ``NO_MCS`` (-1) reads index 31, reserved in every table, and so gives NaN too.
    """
    return _padded_efficiency(mcs_rows(table))


@cache
def pusch_tp_mcs_efficiency(table: int) -> FloatArray:
    """Like ``mcs_efficiency`` for PUSCH with transform precoding, shape (32,); ``q`` does not change it."""
    return _padded_efficiency(pusch_tp_mcs_rows(table))


@cache
def cqi_to_mcs(table: int) -> IntArray:
    """PDSCH MCS by CQI, both of the table of the same number 1..4, shape (16,); ``NO_MCS`` (-1) for CQI 0.

    The pair has the same Qm and rate. Only CQI 1 of tables 1, 2 and 4 lies below MCS 0, which is optimistic there.
    Raises ConfigError for an unknown table.
    """
    mcs_by_rate = {(row.qm, row.rate_x1024): mcs for mcs, row in enumerate(mcs_rows(table))}
    paired = [mcs_by_rate.get((row.qm, row.rate_x1024), 0) for row in cqi_rows(table)[1:]]
    return _frozen(np.array([NO_MCS, *paired], dtype=np.int64))


@overload
def highest_mcs_at_or_below(efficiency: float, table: int) -> int: ...
@overload
def highest_mcs_at_or_below(efficiency: Array, table: int) -> IntArray: ...
def highest_mcs_at_or_below(efficiency: float | Array, table: int) -> int | IntArray:
    """Highest PDSCH MCS index whose efficiency is at or below ``efficiency`` (bit/s/Hz, any shape).

    Every index is looked at, since table 1 is not monotone (MCS 16 > MCS 17). Rounded and exact efficiencies
    are both good: ``EFFICIENCY_TOLERANCE`` applies. ``NO_MCS`` (-1) below MCS 0 and for NaN. Raises ConfigError
    for an unknown table.
    """
    ladder = np.array([row.qm * row.rate_x1024 / 1024 for row in mcs_rows(table)])
    values = np.asarray(efficiency, dtype=np.float64)
    fits = ladder <= values[..., np.newaxis] + EFFICIENCY_TOLERANCE
    result = np.where(fits, np.arange(len(ladder)), NO_MCS).max(axis=-1)
    return result if isinstance(efficiency, np.ndarray) else int(result)


# TS 38.104 Tables 5.3.2-1 (FR1) and 5.3.2-2 (FR2): MHz -> resource blocks by subcarrier spacing, 0 = not defined.
FrequencyRange = Literal["FR1", "FR2"]
SCS_KHZ: dict[FrequencyRange, tuple[int, ...]] = {"FR1": (15, 30, 60), "FR2": (60, 120)}
N_RB: dict[FrequencyRange, dict[int, tuple[int, ...]]] = {
    "FR1": {
        5: (25, 11, 0),
        10: (52, 24, 11),
        15: (79, 38, 18),
        20: (106, 51, 24),
        25: (133, 65, 31),
        30: (160, 78, 38),
        35: (188, 92, 44),
        40: (216, 106, 51),
        45: (242, 119, 58),
        50: (270, 133, 65),
        60: (0, 162, 79),
        70: (0, 189, 93),
        80: (0, 217, 107),
        90: (0, 245, 121),
        100: (0, 273, 135),
    },
    "FR2": {50: (66, 32), 100: (132, 66), 200: (264, 132), 400: (0, 264)},
}


def n_rb(bandwidth_mhz: int, scs_khz: int, frequency_range: FrequencyRange = "FR1") -> int:
    """Resource blocks of a carrier (TS 38.104 5.3.2). Raises ConfigError, naming what is allowed, if not defined.

    The range matters: 50 MHz at 60 kHz has 65 blocks in FR1 and 66 in FR2.
    """
    if frequency_range not in SCS_KHZ or scs_khz not in SCS_KHZ[frequency_range]:
        raise ConfigError(f"scs_khz = {scs_khz!r} in {frequency_range} is not allowed: use one of {SCS_KHZ}")
    column = SCS_KHZ[frequency_range].index(scs_khz)
    by_mhz = {mhz: counts[column] for mhz, counts in N_RB[frequency_range].items() if counts[column] > 0}
    if bandwidth_mhz not in by_mhz:
        where = f"at {scs_khz} kHz in {frequency_range}"
        raise ConfigError(f"bandwidth_mhz = {bandwidth_mhz!r} {where} is not allowed: use one of {list(by_mhz)}")
    return by_mhz[bandwidth_mhz]


OVERHEAD_RATIO: dict[tuple[str, str], float] = {  # TS 38.306 4.1.2, by direction and frequency range
    ("dl", "FR1"): 0.14,
    ("dl", "FR2"): 0.18,
    ("ul", "FR1"): 0.08,
    ("ul", "FR2"): 0.10,
}


def peak_bps(n_rb: int, scs_khz: int, layers: int, qm: int, overhead_ratio: float) -> float:
    """Ceiling of one UE on one carrier in bit/s, scaling factor 1 (TS 38.306 4.1.2).

    For plausibility checks: with multi-user MIMO a radio cell can exceed it, so allow a factor.
    """
    symbols_per_s = 14 * (scs_khz / 15) * 1000
    return layers * qm * (948 / 1024) * n_rb * 12 * symbols_per_s * (1 - overhead_ratio)


def _table(tables: Mapping[int, tuple[Row, ...]], table: int, key: str) -> tuple[Row, ...]:
    if table not in tables:
        raise ConfigError(f"{key} = {table!r} is not allowed: use one of {', '.join(map(str, tables))}")
    return tables[table]


def _padded_efficiency(rows: tuple[Row, ...]) -> FloatArray:
    padded = np.full(MAX_MCS + 1, np.nan)
    padded[: len(rows)] = [row.efficiency for row in rows]
    return _frozen(padded)


def _frozen(array: ArrayT) -> ArrayT:
    array.setflags(write=False)
    return array

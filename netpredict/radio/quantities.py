"""Reported codes and their values, the values 3GPP allows for settings, and the catalogue of KPIs.

A reported code stands for an interval; its value here is the LOWER edge, the centre lies half a step higher.
Code 0 is open below and has no lower edge, so its value is NaN (missing), never an invented number.
Thresholds go by another rule (TS 38.331 6.3.2), which is why they have functions of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.types import base_name

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NO_CODE = -1  # code of a missing (NaN) value; no mapping of this file uses it


@dataclass(frozen=True)
class CodeMap:
    """One reported quantity: codes ``first..last``, value = (code - zero) / codes_per_unit, in ``unit``.

    Every method takes a scalar or an array of any shape and answers in kind. ``first`` is open below,
    the last code is open above (its lower edge exists).
    """

    name: str
    unit: str
    first: int
    last: int
    zero: int
    codes_per_unit: int

    @overload
    def index(self, value: float) -> int: ...
    @overload
    def index(self, value: Array) -> IntArray: ...
    def index(self, value: float | Array) -> int | IntArray:
        """Code whose interval holds ``value`` (in ``unit``), clamped to the table; NaN gives ``NO_CODE``."""
        values = np.asarray(value, dtype=np.float64)
        codes = np.clip(np.floor(self.codes_per_unit * values) + self.zero, self.first, self.last)
        result = np.where(np.isnan(values), NO_CODE, codes).astype(np.int64)
        return result if isinstance(value, np.ndarray) else int(result)

    @overload
    def lower_edge(self, code: float) -> float: ...
    @overload
    def lower_edge(self, code: Array) -> FloatArray: ...
    def lower_edge(self, code: float | Array) -> float | FloatArray:
        """Lower edge in ``unit``; NaN for the first code, which has none, and for a code outside the table.

        An average of codes is converted by the same formula, without rounding.
        """
        codes = np.asarray(code, dtype=np.float64)
        has_edge = (codes >= self.first + 1) & (codes <= self.last)
        result = np.where(has_edge, (codes - self.zero) / self.codes_per_unit, np.nan)
        return result if isinstance(code, np.ndarray) else float(result)

    @overload
    def is_open_below(self, code: float) -> bool: ...
    @overload
    def is_open_below(self, code: Array) -> BoolArray: ...
    def is_open_below(self, code: float | Array) -> bool | BoolArray:
        """Whether the code only says "below the range": a valid report without a value, to be flagged."""
        result = np.asarray(code) == self.first
        return result if isinstance(code, np.ndarray) else bool(result)


NR_RSRP = CodeMap("NR SS-RSRP", "dBm", 0, 126, 157, 1)  # TS 38.133 Table 10.1.6.1-1; 127 is no measurement
NR_RSRQ = CodeMap("NR SS-RSRQ", "dB", 0, 127, 87, 2)  # TS 38.133 Table 10.1.11.1-1
NR_SINR = CodeMap("NR SS-SINR", "dB", 0, 127, 47, 2)  # TS 38.133 Table 10.1.16.1-1
NR_L1_RSRP = CodeMap("NR L1-RSRP", "dBm", 17, 112, 157, 1)  # TS 38.133 Table 10.1.6.1-1, L1 column
LTE_RSRP = CodeMap("LTE RSRP", "dBm", 0, 97, 141, 1)  # TS 36.133 Table 9.1.4-1, without the later extension
LTE_RSRQ = CodeMap("LTE RSRQ", "dB", 0, 34, 40, 2)  # TS 36.133 Table 9.1.7-1, without the later extension

nr_rsrp_index, nr_rsrp_dbm = NR_RSRP.index, NR_RSRP.lower_edge
nr_rsrq_index, nr_rsrq_db = NR_RSRQ.index, NR_RSRQ.lower_edge
nr_sinr_index, nr_sinr_db = NR_SINR.index, NR_SINR.lower_edge
nr_l1_rsrp_index, nr_l1_rsrp_dbm = NR_L1_RSRP.index, NR_L1_RSRP.lower_edge
lte_rsrp_index, lte_rsrp_dbm = LTE_RSRP.index, LTE_RSRP.lower_edge
lte_rsrq_index, lte_rsrq_db = LTE_RSRQ.index, LTE_RSRQ.lower_edge


@dataclass(frozen=True)
class ThresholdMap:
    """A threshold of TS 38.331 6.3.2: codes 0..127, value = (code - zero) / codes_per_unit, in ``unit``.

    ``infinite`` is the code that means plus infinity, or None. Thresholds are settings, so a wrong one raises.
    """

    name: str
    unit: str
    zero: int
    codes_per_unit: int
    infinite: int | None = None

    @overload
    def value(self, code: int) -> float: ...
    @overload
    def value(self, code: Array) -> FloatArray: ...
    def value(self, code: int | Array) -> float | FloatArray:
        """Threshold in ``unit``, scalar or array. Raises ConfigError unless every code is an integer 0..127."""
        codes = np.asarray(code, dtype=np.float64)
        if not np.all((codes >= 0) & (codes <= 127) & (codes == np.floor(codes))):
            raise ConfigError(f"{self.name} threshold code {code!r} is not allowed: use an integer in 0..127")
        result = np.where(codes == self.infinite, np.inf, (codes - self.zero) / self.codes_per_unit)
        return result if isinstance(code, np.ndarray) else float(result)

    @overload
    def code(self, value: float) -> int: ...
    @overload
    def code(self, value: Array) -> IntArray: ...
    def code(self, value: float | Array) -> int | IntArray:
        """Code of a threshold in ``unit``. Raises ConfigError for a value no code stands for; nothing is rounded."""
        values = np.asarray(value, dtype=np.float64)
        ladder = np.asarray(self.value(np.arange(128)))
        codes = np.clip(np.searchsorted(ladder, values), 0, 127)
        if not np.array_equal(ladder[codes], values):
            allowed = f"{ladder[0]:g}..{ladder[126]:g} {self.unit} in steps of {1 / self.codes_per_unit:g}"
            raise ConfigError(f"{self.name} threshold {value!r} is not allowed: use {allowed}, or {ladder[127]:g}")
        return codes.astype(np.int64) if isinstance(value, np.ndarray) else int(codes)


NR_RSRP_THRESHOLD = ThresholdMap("NR RSRP", "dBm", 156, 1, infinite=127)  # RSRP-Range
NR_RSRQ_THRESHOLD = ThresholdMap("NR RSRQ", "dB", 87, 2)  # RSRQ-Range
NR_SINR_THRESHOLD = ThresholdMap("NR SINR", "dB", 46, 2)  # SINR-Range

nr_rsrp_threshold_dbm, nr_rsrp_threshold_code = NR_RSRP_THRESHOLD.value, NR_RSRP_THRESHOLD.code
nr_rsrq_threshold_db, nr_rsrq_threshold_code = NR_RSRQ_THRESHOLD.value, NR_RSRQ_THRESHOLD.code
nr_sinr_threshold_db, nr_sinr_threshold_code = NR_SINR_THRESHOLD.value, NR_SINR_THRESHOLD.code


# Allowed settings, TS 38.331 6.3.2; others are refused, never rounded.
A3_OFFSET_DB = tuple(ie / 2 for ie in range(-30, 31))
HYSTERESIS_DB = tuple(ie / 2 for ie in range(31))
TTT_MS = (0, 40, 64, 80, 100, 128, 160, 256, 320, 480, 512, 640, 1024, 1280, 2560, 5120)
CIO_DB = (
    *(-24, -22, -20, -18, -16, -14, -12, -10, -8, -6, -5, -4, -3, -2, -1, 0),
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24),
)
FILTER_K = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 17, 19)
FILTER_K_DEFAULT = 4  # for RSRP, RSRQ and SINR
REPORT_MS = (
    *(120, 240, 480, 640, 1024, 2048, 5120, 10240, 20480, 40960),
    *(60_000, 360_000, 720_000, 1_800_000),
)


def check_a3_offset_db(a3_offset_db: float, key: str = "a3_offset_db") -> float:
    """Return the A3 offset in dB (-15..15 in half dB); ConfigError, naming ``key``, for another one."""
    return _check(a3_offset_db, A3_OFFSET_DB, key, "-15..15 dB in steps of 0.5 dB")


def check_hysteresis_db(hysteresis_db: float, key: str = "hysteresis_db") -> float:
    """Return the hysteresis in dB (0..15 in half dB); ConfigError, naming ``key``, for another one."""
    return _check(hysteresis_db, HYSTERESIS_DB, key, "0..15 dB in steps of 0.5 dB")


def check_ttt_ms(ttt_ms: int, key: str = "ttt_ms") -> int:
    """Return the time to trigger in ms if it is in ``TTT_MS``; ConfigError, naming ``key``, for another one."""
    return int(_check(ttt_ms, TTT_MS, key))


def check_cio_db(cio_db: int, key: str = "cio_db") -> int:
    """Return the cell individual offset in dB if it is in ``CIO_DB``; ConfigError, naming ``key``, for another one."""
    return int(_check(cio_db, CIO_DB, key))


def check_filter_k(filter_k: int, key: str = "filter_k") -> int:
    """Return the L3 filter coefficient if it is in ``FILTER_K``; ConfigError, naming ``key``, for another one."""
    return int(_check(filter_k, FILTER_K, key))


def check_report_ms(report_ms: int, key: str = "report_ms") -> int:
    """Return the report interval in ms if it is in ``REPORT_MS``; ConfigError, naming ``key``, for another one."""
    return int(_check(report_ms, REPORT_MS, key))


@overload
def step_cio_db(cio_db: int, rungs: int) -> int: ...
@overload
def step_cio_db(cio_db: Array, rungs: int | Array) -> IntArray: ...
def step_cio_db(cio_db: int | Array, rungs: int | Array) -> int | IntArray:
    """Move a cell individual offset in dB by ``rungs`` of the uneven ladder ``CIO_DB``, stopping at its ends.

    Scalar, or arrays that broadcast. Raises ConfigError when the offset is not on the ladder.
    """
    ladder = np.asarray(CIO_DB, dtype=np.int64)
    values = np.asarray(cio_db)
    if not np.isin(values, ladder).all():
        raise ConfigError(f"cio_db = {cio_db!r} is not allowed: use one of {_listed(CIO_DB)}")
    moved = ladder[np.clip(np.searchsorted(ladder, values) + np.asarray(rungs), 0, len(ladder) - 1)]
    return moved if isinstance(cio_db, np.ndarray) else int(moved)


def _check(value: float, allowed: Sequence[float], key: str, wording: str = "") -> float:
    if isinstance(value, bool) or value not in allowed:
        raise ConfigError(f"{key} = {value!r} is not allowed: use {wording or f'one of {_listed(allowed)}'}")
    return value


def _listed(allowed: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in allowed)


@dataclass(frozen=True)
class Kpi:
    """One radio measurement: its unit, the closed range ``low..high`` in that unit, and the decimals kept.

    ``decimals`` fixes the rounding of forecasts and the fixed-point scale (10 ** decimals) of shared sums. A
    ``setting`` is configured, not measured: it stands still by right. One of ``hindsight`` is known only long after,
    and never by a single report: what is observed of it is a rule of thumb, which no forecast is judged by.
    """

    name: str
    unit: str
    low: float
    high: float
    decimals: int
    description: str
    setting: bool = False
    hindsight: bool = False


def kpi_of(column: str) -> Kpi:
    """What a column of a stream measures, at whatever place of a grid; ConfigError when it is unknown."""
    known = KPIS.get(base_name(column))
    if known is None:
        raise ConfigError(f"unknown column {base_name(column)!r}; known are {', '.join(sorted(KPIS))}")
    return known


def is_hindsight(column: str) -> bool:
    """Whether a column is known in hindsight only; False for one that is unknown."""
    known = KPIS.get(base_name(column))
    return known is not None and known.hindsight


def _catalogue(*kpis: Kpi) -> dict[str, Kpi]:
    return {kpi.name: kpi for kpi in kpis}


KPIS: dict[str, Kpi] = _catalogue(
    Kpi("dl_throughput_kbps", "kbit/s", 0, 100_000_000, 0, "Downlink throughput of a radio cell"),
    Kpi("ul_throughput_kbps", "kbit/s", 0, 100_000_000, 0, "Uplink throughput of a radio cell"),
    Kpi("prb_use_dl_percent", "%", 0, 100, 1, "Downlink resource blocks used, of those available"),
    Kpi("prb_use_ul_percent", "%", 0, 100, 1, "Uplink resource blocks used, of those available"),
    Kpi("connected_ues", "UEs", 0, 10_000, 1, "UEs in RRC connected, mean over the period"),
    Kpi("rsrp_dbm", "dBm", -156, -31, 2, "Reference signal received power (TS 38.133 10.1.6)"),
    Kpi("rsrq_db", "dB", -43, 20, 2, "Reference signal received quality (TS 38.133 10.1.11)"),
    Kpi("sinr_db", "dB", -23, 40, 2, "Signal to interference and noise ratio (TS 38.133 10.1.16)"),
    Kpi("cqi", "index", 0, 15, 2, "Channel quality indicator; 0 = out of range, which is a value (TS 38.214 5.2.2.1)"),
    Kpi("rank", "layers", 1, 8, 2, "Spatial layers the UE recommends"),
    Kpi("bler_ratio", "ratio", 0, 1, 4, "Block error ratio of first transmissions"),
    Kpi("mcs", "index", 0, 31, 2, "Modulation and coding scheme in use (TS 38.214 5.1.3.1)"),
    Kpi("serving", "flag", 0, 1, 0, "1 where the row is that of the serving radio cell, 0 for a neighbour", True),
    Kpi("approximate", "flag", 0, 1, 0, "1 where the identity of the radio cell is a guess (a rank, not a PCI)", True),
    Kpi("nbr1_rsrp_dbm", "dBm", -156, -31, 2, "RSRP of the strongest other radio cell of the same report"),
    Kpi("nbr1_rsrq_db", "dB", -43, 20, 2, "RSRQ of the strongest other radio cell of the same report"),
    Kpi("nbr1_sinr_db", "dB", -23, 40, 2, "SINR of the strongest other radio cell of the same report"),
    Kpi("nbr2_rsrp_dbm", "dBm", -156, -31, 2, "RSRP of the second strongest other radio cell of the same report"),
    Kpi("onsite_rsrp_dbm", "dBm", -156, -31, 2, "RSRP of the strongest other radio cell of the same site and report"),
    Kpi("offsite_rsrp_dbm", "dBm", -156, -31, 2, "RSRP of the strongest radio cell of another site in the same report"),
    Kpi("allocated_prbs", "PRBs", 0, 400, 1, "Resource blocks allocated, mean over the period"),
    Kpi("granted_prbs", "PRBs", 0, 1_000_000, 0, "Resource blocks granted to a UE, summed over the period"),
    Kpi("prb_used_dl", "PRBs", 0, 10_000, 1, "Downlink resource blocks used, mean over the period"),
    Kpi("prb_used_ul", "PRBs", 0, 10_000, 1, "Uplink resource blocks used, mean over the period"),
    Kpi("prb_avail_dl", "PRBs", 0, 10_000, 1, "Downlink resource blocks of the radio cell", setting=True),
    Kpi("prb_avail_ul", "PRBs", 0, 10_000, 1, "Uplink resource blocks of the radio cell", setting=True),
    Kpi("dl_volume_kbit", "kbit", 0, 2_000_000_000, 0, "Downlink volume of the period"),
    Kpi("ul_volume_kbit", "kbit", 0, 2_000_000_000, 0, "Uplink volume of the period"),
    Kpi("rlc_delay_dl_ms", "ms", 0, 300, 2, "Downlink delay in RLC (TS 28.552 5.1.3.3.3)"),
    Kpi("rlc_delay_ul_ms", "ms", 0, 300, 2, "Uplink delay in RLC (TS 28.552 5.1.1.1.4)"),
    Kpi("packet_loss_ul_ratio", "ratio", 0, 1, 6, "Uplink packets lost (TS 28.552 5.1.3.1.1)"),
    Kpi("packet_drop_dl_ratio", "ratio", 0, 1, 6, "Downlink packets dropped (TS 28.552 5.1.3.2)"),
    Kpi("hysteresis_db", "dB", 0, 15, 1, "Hysteresis in force (TS 38.331 6.3.2)", setting=True),
    Kpi("a3_offset_db", "dB", -15, 15, 1, "A3 offset in force (TS 38.331 6.3.2)", setting=True),
    Kpi("stay_cost", "failures", -0.5, 1.5, 4, "What staying on a link costs beyond the strongest", hindsight=True),
    Kpi("command_failure_ratio", "ratio", 0, 1, 4, "Whether a command fails, T310 running", hindsight=True),
    Kpi("access_failure_ratio", "ratio", 0, 1, 4, "Whether a handover here fails, out of sync", hindsight=True),
    Kpi("activity_count", "count", 0, 1e9, 0, "Activity events in the period"),
)

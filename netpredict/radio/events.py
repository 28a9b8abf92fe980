"""Measurement events A1-A5, the L3 filter, time to trigger, and what became of handovers.

Conditions follow TS 38.331 5.5.4.2 to 5.5.4.6: strict comparisons over scalars or arrays that broadcast, answered by
a mask (0-d for scalars). Measurements and thresholds are dBm for RSRP, dB for RSRQ and SINR; hysteresis and offsets
are dB. A missing measurement (NaN) neither enters nor leaves. Between enter and leave lies a dead band of twice the
hysteresis, in which ``advance_ttt`` keeps what was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.radio.counters import CounterRatio, ratio
from netpredict.radio.quantities import BoolArray, FloatArray, IntArray, check_filter_k, check_ttt_ms

Values = float | npt.NDArray[np.floating]


class Conditions(NamedTuple):
    """Masks of the entry and the leaving condition of one event; never both true in a row."""

    entering: BoolArray
    leaving: BoolArray


@dataclass(frozen=True)
class NeighbourOffsets:
    """Offsets in dB that events add to measurements: of the measurement object (Ofn, Ofp) and the CIO (Ocn, Ocp).

    ``n`` is the neighbour, ``p`` the serving radio cell. Each is a scalar or an array by row.
    """

    ofn_db: Values = 0.0
    ocn_db: Values = 0.0
    ofp_db: Values = 0.0
    ocp_db: Values = 0.0


NO_OFFSETS = NeighbourOffsets()


def a1(serving: Values, threshold: Values, hysteresis_db: Values) -> Conditions:
    """A1, the serving radio cell is better than a threshold (TS 38.331 5.5.4.2)."""
    return Conditions(
        entering=np.asarray(serving - hysteresis_db > threshold),
        leaving=np.asarray(serving + hysteresis_db < threshold),
    )


def a2(serving: Values, threshold: Values, hysteresis_db: Values) -> Conditions:
    """A2, the serving radio cell is worse than a threshold: A1 turned round (TS 38.331 5.5.4.3)."""
    above = a1(serving, threshold, hysteresis_db)
    return Conditions(entering=above.leaving, leaving=above.entering)


def a3(
    serving: Values,
    neighbour: Values,
    a3_offset_db: Values,
    hysteresis_db: Values,
    offsets: NeighbourOffsets = NO_OFFSETS,
) -> Conditions:
    """A3, a neighbour is better than the serving radio cell by an offset (TS 38.331 5.5.4.4)."""
    bar = serving + offsets.ofp_db + offsets.ocp_db + a3_offset_db
    return a1(neighbour + offsets.ofn_db + offsets.ocn_db, bar, hysteresis_db)


def a4(
    neighbour: Values,
    threshold: Values,
    hysteresis_db: Values,
    offsets: NeighbourOffsets = NO_OFFSETS,
) -> Conditions:
    """A4, a neighbour is better than a threshold (TS 38.331 5.5.4.5)."""
    return a1(neighbour + offsets.ofn_db + offsets.ocn_db, threshold, hysteresis_db)


def a5(
    serving: Values,
    neighbour: Values,
    serving_threshold: Values,
    neighbour_threshold: Values,
    hysteresis_db: Values,
    offsets: NeighbourOffsets = NO_OFFSETS,
) -> Conditions:
    """A5, the serving radio cell is worse than one threshold and a neighbour better than another (TS 38.331 5.5.4.6).

    It enters when both hold and leaves when either has turned.
    """
    bad = a2(serving, serving_threshold, hysteresis_db)
    good = a4(neighbour, neighbour_threshold, hysteresis_db, offsets)
    return Conditions(entering=bad.entering & good.entering, leaving=bad.leaving | good.leaving)


def l3_weight(filter_k: int) -> float:
    """Weight a = 0.5 ** (k / 4) of the newest measurement; ConfigError for a k not allowed (TS 38.331 5.5.3.2)."""
    return float(0.5 ** (check_filter_k(filter_k) / 4))


def l3_weight_at(filter_k: int, sample_period_s: float, measurement_period_s: float) -> float:
    """Weight for samples every ``sample_period_s`` where ``filter_k`` assumes the UE's ``measurement_period_s``.

    a' = 1 - (1 - a) ** (T / X): the same time constant (own derivation). Raises ConfigError unless both are above 0.
    """
    if not (sample_period_s > 0 and measurement_period_s > 0):
        raise ConfigError(
            f"sample_period_s = {sample_period_s!r}, measurement_period_s = {measurement_period_s!r}: use > 0"
        )
    return float(1 - (1 - l3_weight(filter_k)) ** (sample_period_s / measurement_period_s))


def l3_filter(previous: npt.ArrayLike, measured: npt.ArrayLike, weight: float) -> FloatArray:
    """Filtered measurements in dB or dBm, arrays that broadcast (TS 38.331 5.5.3.2).

    NaN in ``previous`` (nothing yet) takes the measurement, NaN in ``measured`` keeps the filtered value. RRC reports
    are filtered by the UE already: do not filter them twice.
    """
    old, new = np.asarray(previous, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    mixed = (1 - weight) * old + weight * new
    return np.where(np.isnan(old), new, np.where(np.isnan(new), old, mixed))


def ttt_in_slots(ttt_ms: int, period_us: int) -> int:
    """Slots of ``period_us`` µs a condition must go on holding, rounded up; ConfigError for a TTT not allowed."""
    if period_us <= 0:
        raise ConfigError(f"period_us = {period_us!r} is not allowed: use a period above 0 µs")
    return -(-check_ttt_ms(ttt_ms) * 1000 // period_us)


class TttState(NamedTuple):
    """Time to trigger of n rows: for how many slots the pending condition holds, and whether the event is entered.

    ``held_slots`` counts the entry condition of a row that has not entered, the leaving condition of one that has.
    """

    held_slots: IntArray
    entered: BoolArray


def new_ttt(rows: int) -> TttState:
    """State of ``rows`` rows that have not entered, shape (rows,)."""
    return TttState(np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.bool_))


def advance_ttt(
    state: TttState, conditions: Conditions, ttt_slots: int, leave_ttt_slots: int | None = None
) -> tuple[TttState, BoolArray]:
    """State after one slot, and the mask of rows that entered in it; ``state`` is left alone.

    A row enters once the entry condition held without a break for ``ttt_slots`` slots after the first, and leaves in
    the same way by the leaving condition (``leave_ttt_slots``, by default the same: TS 38.331 5.5.4.1). In the dead
    band neither holds: a pending row starts anew, an entered one stays. Call it once per slot; for a slot without
    a measurement both conditions are false, which breaks a pending run and keeps the rest.
    """
    leave_slots = ttt_slots if leave_ttt_slots is None else leave_ttt_slots
    pending = np.where(state.entered, conditions.leaving, conditions.entering)
    held = np.where(pending, state.held_slots + 1, 0)
    turned = held > np.where(state.entered, leave_slots, ttt_slots)
    after = TttState(np.where(turned, 0, held), state.entered ^ turned)
    return after, turned & after.entered


class MobilityClass(StrEnum):
    """Problem classes of intra-system mobility (TS 38.300 15.5.2.2.2); ping-pong is netpredict's own."""

    TOO_LATE = "too_late"
    TOO_EARLY = "too_early"
    WRONG_RADIO_CELL = "wrong_radio_cell"
    PING_PONG = "ping_pong"


@dataclass(frozen=True)
class Mobility:
    """How a UE left ``serving``: by a failure of the link or handover (``failed``), or by a handover.

    Names are radio_cell_ids. ``serving`` is the target of the last handover, also when that handover failed;
    ``source`` is the radio cell before it (None: no handover known); ``reappeared_in`` is where the UE
    re-established or was handed over to. ``since_handover_s`` counts from the start of the last handover
    to the failure, ``stay_s`` is the time of stay in ``serving``, both in seconds.
    """

    serving: str
    source: str | None
    reappeared_in: str
    failed: bool
    since_handover_s: float | None
    stay_s: float


def classify_mobility(mobility: Mobility, *, recent_s: float, ping_pong_s: float = 1.0) -> MobilityClass | None:
    """Class of one departure, or None when mobility is not to blame (such as a return to the same radio cell).

    ``recent_s`` is Tstore_UE_cntxt: a handover started less than this before the failure is to blame for it.
    ``ping_pong_s`` is T_pp, the time of stay below which a return to the source is ping-pong (1 s, the minimum time of
    stay of TR 36.839; 5 s is in use too): print it with the number.
    """
    returned = mobility.source is not None and mobility.reappeared_in == mobility.source
    if not mobility.failed:
        return MobilityClass.PING_PONG if returned and mobility.stay_s < ping_pong_s else None
    if mobility.reappeared_in == mobility.serving:
        return None
    if mobility.source is None or mobility.since_handover_s is None or mobility.since_handover_s >= recent_s:
        return MobilityClass.TOO_LATE
    return MobilityClass.TOO_EARLY if returned else MobilityClass.WRONG_RADIO_CELL


_HANDOVERS = ("MM.HoExeInterReq", "MM.HoExeIntraReq")

# TS 28.552 5.1.1.6 and 5.1.1.25, per relation and period.
MOBILITY_RATIOS: dict[str, CounterRatio] = {
    "preparation_success": CounterRatio("MM.HoPrepInterSucc", ("MM.HoPrepInterReq",)),
    "execution_success": CounterRatio("MM.HoExeInterSucc", ("MM.HoExeInterReq",)),
    "execution_success_intra_gnb": CounterRatio("MM.HoExeIntraSucc", ("MM.HoExeIntraReq",)),
    "too_late": CounterRatio("HO.IntraSys.TooLate", _HANDOVERS),
    "too_early": CounterRatio("HO.IntraSys.TooEarly", _HANDOVERS),
    "wrong_radio_cell": CounterRatio("HO.IntraSys.ToWrongCell", _HANDOVERS),
}


def mobility_ratios(counts: Mapping[str, float]) -> dict[str, float | None]:
    """Mobility shares 0..1 of one relation and period by name; None where a counter is absent or nothing was tried."""
    return {name: counter_ratio.of(counts) for name, counter_ratio in MOBILITY_RATIOS.items()}


def ping_pong_ratio(ping_pongs: int, successful_handovers: int) -> float | None:
    """Ping-pongs over successful handovers, 0..1; None without a handover. No intra-system counter exists for it."""
    return ratio(ping_pongs, successful_handovers)

"""Outer-loop link adaptation, the window controller, and block error ratios.

All steps are pure: state in, new state out, over scalars or arrays that broadcast.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.radio.counters import CounterRatio
from netpredict.radio.quantities import FloatArray, IntArray


def step_nack(step_ack: float, bler_target: float) -> float:
    """Step down per NACK, in the unit of ``step_ack``, whose fixed point is ``bler_target`` (a ratio)."""
    return step_ack * (1 - bler_target) / bler_target


def fixed_point_bler(step_ack: float, step_nack: float) -> float:
    """Block error ratio 0..1 at which the mean of the steps is zero."""
    return step_ack / (step_ack + step_nack)


@dataclass(frozen=True)
class Olla:
    """Settings of an outer loop: steps and bound in CQI (downlink) or dB (uplink), target a ratio.

    Raises ConfigError unless ``0 < bler_target < 1``, ``step_ack > 0`` and ``max_offset > 0``.
    """

    bler_target: float = 0.1
    step_ack: float = 0.03
    max_offset: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.bler_target < 1:
            raise ConfigError(f"bler_target = {self.bler_target!r} is not allowed: use a ratio between 0 and 1")
        if not (self.step_ack > 0 and self.max_offset > 0):
            raise ConfigError(f"{self} is not allowed: step_ack and max_offset must be above 0")

    @property
    def step_nack(self) -> float:
        """Step down per NACK, in the unit of ``step_ack``."""
        return step_nack(self.step_ack, self.bler_target)


def advance_olla(
    offset: npt.ArrayLike,
    ack: npt.ArrayLike,
    settings: Olla,
    *,
    at_lowest: npt.ArrayLike = False,
    at_highest: npt.ArrayLike = False,
) -> FloatArray:
    """Offset (CQI or dB, as in ``settings``) after one FIRST transmission per row; leave retransmissions out.

    ``ack`` is a mask. The offset freezes where the MCS sits at a table bound and would be pushed further out: an ACK
    at the highest MCS, a NACK at the lowest. The way back stays open, else a link stuck there could never recover.
    """
    frozen = np.where(ack, at_highest, at_lowest)
    step = np.where(ack, settings.step_ack, -settings.step_nack)
    moved = np.asarray(offset, dtype=np.float64) + np.where(frozen, 0.0, step)
    return np.asarray(np.clip(moved, -settings.max_offset, settings.max_offset))


def choose_cqi(at_least: npt.ArrayLike, efficiency: npt.ArrayLike, price: npt.ArrayLike) -> IntArray:
    """The CQI c >= 1 that maximises ``efficiency[c] * P(ok) - price * P(fail)``, P(ok) = ``at_least[…, c]``.

    ``at_least`` (…, 16) is P(CQI >= c), ``efficiency`` (16,) and ``price`` (…) in bit/s/Hz; of equals the lowest wins.
    NaN among the probabilities gives CQI 1.
    """
    chance, cost = np.asarray(at_least)[..., 1:], np.asarray(price)[..., None]
    chance = np.where(np.isnan(chance), 0.0, chance).astype(chance.dtype, copy=False)
    worth = (np.asarray(efficiency)[1:] + cost) * chance  # less the price, which is the same for all
    best: IntArray = 1 + np.argmax(worth, axis=-1)
    return best


@dataclass(frozen=True)
class Price:
    """Settings of what a lost block costs, in bit/s/Hz: where it starts, and how it follows the block error ratio.

    ``bler_target`` is a ratio; ``rate`` the rise of the logarithm per lost block: ACKs take it back at the target.
    It stays within ``least`` … ``most``. Raises ConfigError unless ``0 < bler_target < 1``, ``rate >= 0`` and
    ``0 < least <= first <= most``.
    """

    bler_target: float = 0.1
    first: float = 2.0
    rate: float = 0.05
    least: float = 0.1
    most: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.bler_target < 1:
            raise ConfigError(f"bler_target = {self.bler_target!r} is not allowed: use a ratio between 0 and 1")
        if not (self.rate >= 0 and 0 < self.least <= self.first <= self.most):
            raise ConfigError(f"{self} is not allowed: keep rate >= 0 and 0 < least <= first <= most")


def advance_price(price: npt.ArrayLike, bler: npt.ArrayLike, settings: Price) -> FloatArray:
    """The price after first transmissions of which the share ``bler`` (ratio) was lost; NaN leaves it as it was."""
    lost = np.asarray(bler, dtype=np.float64)
    turn = np.where(np.isnan(lost), 0.0, settings.rate * (lost - settings.bler_target))
    return np.asarray(np.clip(np.asarray(price) * np.exp(turn), settings.least, settings.most))


@dataclass(frozen=True)
class WindowController:
    """Settings of the window rule: block error bounds (ratios), the least first transmissions, MCS bounds.

    Bounds in use: 0.05/0.15 and 0.15/0.35. ``weight`` is that of the newest window in the running mean. What is
    enough to go up (``min_scheduled``) differs between gNBs: 4 is our choice.
    Raises ConfigError unless ``0 <= lower_bler < upper_bler <= 1``, ``0 < weight <= 1``, ``0 <= lowest <= highest``.
    """

    lower_bler: float = 0.05
    upper_bler: float = 0.15
    min_scheduled: int = 4
    lowest_mcs: int = 0
    highest_mcs: int = 28
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.lower_bler < self.upper_bler <= 1:
            raise ConfigError(f"{self} is not allowed: keep 0 <= lower_bler < upper_bler <= 1")
        if not 0 < self.weight <= 1:
            raise ConfigError(f"weight = {self.weight!r} is not allowed: use a ratio above 0, up to 1")
        if not 0 <= self.lowest_mcs <= self.highest_mcs:
            raise ConfigError(f"{self} is not allowed: keep 0 <= lowest_mcs <= highest_mcs")


def advance_window(
    bler: npt.ArrayLike,
    mcs: npt.ArrayLike,
    scheduled: npt.ArrayLike,
    errors: npt.ArrayLike,
    settings: WindowController,
) -> tuple[FloatArray, IntArray]:
    """Running block error ratio and MCS after a window of ``scheduled`` first transmissions, ``errors`` of them bad.

    MCS goes up by 1 below ``lower_bler`` if at least ``min_scheduled`` were sent, down by 1 above ``upper_bler``,
    within the MCS bounds. An empty window changes nothing.
    """
    before, sent = np.asarray(bler, dtype=np.float64), np.asarray(scheduled, dtype=np.float64)
    window = np.asarray(errors, dtype=np.float64) / np.maximum(sent, 1)
    after = np.where(sent > 0, (1 - settings.weight) * before + settings.weight * window, before)
    up = (after < settings.lower_bler) & (sent >= settings.min_scheduled)
    down = (after > settings.upper_bler) & (sent > 0)
    moved = np.asarray(mcs, dtype=np.int64) + up.astype(np.int64) - down.astype(np.int64)
    return after, np.asarray(np.clip(moved, settings.lowest_mcs, settings.highest_mcs))


# TS 28.552 5.1.1.7; the denominators of the two residual ratios are inferred, unverified.
BLER_RATIOS: dict[str, CounterRatio] = {
    "dl_initial": CounterRatio("TB.IntialErrNbrDl", ("TB.TotNbrDlInitial",)),
    "dl_all": CounterRatio("TB.ErrTotNbrDl", ("TB.TotNbrDl",)),
    "dl_residual": CounterRatio("TB.ResidualErrNbrDl", ("TB.TotNbrDlInitial",)),
    "ul_initial": CounterRatio("TB.ErrNbrUlInitial", ("TB.TotNbrUlInit",)),
    "ul_all": CounterRatio("TB.ErrTotNbrUl", ("TB.TotNbrUl",)),
    "ul_residual": CounterRatio("TB.ResidualErrNbrUl", ("TB.TotNbrUlInit",)),
}


def bler_ratios(counts: Mapping[str, float]) -> dict[str, float | None]:
    """The six block error ratios 0..1 of one period by name; None where a counter is absent or nothing was sent."""
    return {name: ratio.of(counts) for name, ratio in BLER_RATIOS.items()}

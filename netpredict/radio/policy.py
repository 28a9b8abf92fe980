"""RRMPolicyRatio, the object behind bandwidth actions (TS 28.541 4.3.36), and the quantile that decides them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from netpredict.errors import ConfigError


@dataclass(frozen=True)
class RrmPolicyRatio:
    """Shares of the resource blocks of a radio cell for one network slice, integers in percent 0..100.

    A reservation shows only under contention. Raises ConfigError unless
    ``dedicated_percent <= min_percent <= max_percent`` and each is an integer in 0..100.
    """

    dedicated_percent: int = 0
    min_percent: int = 0
    max_percent: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_percent(field.name, getattr(self, field.name))
        if not self.dedicated_percent <= self.min_percent <= self.max_percent:
            raise ConfigError(f"{self} is not allowed: keep dedicated_percent <= min_percent <= max_percent")


def cost_quantile(c_under: float, c_over: float) -> float:
    """The quantile of the demand whose provision costs least, c_under / (c_under + c_over).

    The critical ratio of the newsvendor problem (Arrow, Harris and Marschak 1951). ConfigError unless both costs are
    finite and above 0.
    """
    if not (0 < c_under < math.inf and 0 < c_over < math.inf):
        raise ConfigError(f"c_under = {c_under:g} and c_over = {c_over:g}: use finite costs above 0")
    return c_under / (c_under + c_over)


def check_sum_of_minima(policies: Iterable[RrmPolicyRatio]) -> None:
    """Raise ConfigError when the minima of all network slices of one radio cell exceed 100 percent together."""
    total_percent = sum(policy.min_percent for policy in policies)
    if total_percent > 100:
        raise ConfigError(f"the sum of min_percent is {total_percent}: keep it at or below 100 per radio cell")


def _check_percent(name: str, percent: object) -> None:
    if isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= 100:
        raise ConfigError(f"{name} = {percent!r} is not allowed: use an integer in 0..100")

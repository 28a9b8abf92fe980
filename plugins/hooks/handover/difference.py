"""By how much the target beats the serving radio cell at the quantile of least expected cost, from two forecasts.

A late handover costs ``c_under``, an unneeded one ``c_over``: to go is cheaper where P(target is better by the margin)
is above c_over / (c_under + c_over), and that is where the quantile tau = c_under / (c_under + c_over) of the
difference passes the margin (the newsvendor's ratio, ``netpredict.radio.policy``).

The two forecasts are marginal. Their errors are taken to be jointly normal in each tail, with one correlation, so that
the quantile of the difference lies sqrt(a**2 + b**2 - 2 * correlation * a * b) from its median: a is how far the
target's own quantile tau lies from its median, b the same of the serving radio cell at 1 - tau. Exact for normal
errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from netpredict.radio.policy import cost_quantile
from netpredict.types import IntArray

Floats = npt.NDArray[np.float64]
MEDIAN = 0.5


class Difference:
    """The quantile at which a target is compared with its serving radio cell."""

    def __init__(self, c_under: float, c_over: float, correlation: float) -> None:
        self.tau, self._other = cost_quantile(c_under, c_over), cost_quantile(c_over, c_under)
        self._correlation = correlation

    def levels(self) -> Sequence[float]:
        """Quantiles of the forecasts that it needs, rising."""
        return sorted({MEDIAN, self.tau, self._other})

    def beyond_median(self, target: Floats, serving: Floats) -> Floats:
        """(n, levels) each, by ``levels()`` -> (n,): the quantile tau of target - serving less the one at 0.5."""
        if self.tau == MEDIAN:
            return np.zeros(len(target))
        place = {level: number for number, level in enumerate(self.levels())}
        a = target[:, place[self.tau]] - target[:, place[MEDIAN]]
        b = serving[:, place[MEDIAN]] - serving[:, place[self._other]]
        spread: Floats = np.sqrt(np.maximum(a * a + b * b - 2 * self._correlation * a * b, 0.0))
        return np.copysign(spread, self.tau - MEDIAN)


def compared(forecast: Floats, levels: Sequence[float], wanted: Sequence[float], serving_row: IntArray) -> Floats:
    """(n, m) by ``levels`` -> (2, n, wanted): of each row, and of its serving row. Levels must be among them."""
    places = [int(np.abs(np.asarray(levels) - level).argmin()) for level in wanted]
    mine = forecast[:, places]
    return np.stack([mine, mine[serving_row]])

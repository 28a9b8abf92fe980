"""The policy of the mcs hook as a rule that is walked along traces: choose by cost, let the price follow the NACKs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netpredict.radio.link import Price, choose_cqi
from netpredict.types import AnyArray, BoolArray, IntArray


class Priced:
    """P settings of the price side by side, on one forecast ``at_least`` (rows, 16) = P(CQI >= c)."""

    def __init__(self, at_least: AnyArray, efficiency: AnyArray, settings: Sequence[Price], traces: int) -> None:
        self._at_least, self._efficiency, self.candidates = at_least, efficiency.astype(np.float32), len(settings)
        fields = ("bler_target", "first", "rate", "least", "most")
        parts = {name: np.array([getattr(each, name) for each in settings], np.float32) for name in fields}
        self._target, self._rate = parts["bler_target"], parts["rate"]
        self._least, self._most = parts["least"], parts["most"]
        self._price = np.tile(parts["first"], (traces, 1))

    def choose(self, rows: slice) -> IntArray:
        """See ``Rule``."""
        at_least = self._at_least[rows]
        return choose_cqi(at_least[:, None], self._efficiency, self._price[: len(at_least)])

    def hear(self, nack: AnyArray, chosen: IntArray, heard: BoolArray) -> None:
        """See ``Rule``; the arithmetic is that of ``radio.link.advance_price``."""
        price = self._price[: len(heard)]
        turn = self._rate * (nack - self._target) * heard[:, None]
        np.clip(price * np.exp(turn), self._least, self._most, out=price)

"""What an evaluation of the mcs hook found: rows of figures, JSON as they stand."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np

from netpredict.evaluate.goodput import TRACE_BLER_LIMIT, Tally
from netpredict.types import AnyArray, IntArray


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one rule on the scored traces: goodput in bit/s/Hz, BLER pooled, share of traces above 12 %.

    ``settings`` are those chosen in each fold.
    """

    name: str
    goodput: float
    bler: float
    traces_above_ratio: float
    settings: list[str]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One reporting delay, CQI table, BLER limit (None: none) and delay of our decision.

    ``gain`` is the goodput of ours over that of the best plain rule, less 1, with a 95 % interval by bootstrap over
    traces. ``same_policy_by_table``: the hook's policy on the Markov table in place of the forecast.
    """

    delay_s: int
    cqi_table: int
    bler_limit: float | None
    decision_delay_ms: int
    gain: float
    gain_low: float
    gain_high: float
    ours: Outcome
    plain: Outcome
    same_policy_by_table: Outcome
    families: list[Outcome]
    ours_bler_by_trace: list[float]
    plain_bler_by_trace: list[float]


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """Cross-entropy of the scored seconds in nats: of the forecast, and of the table by the last report."""

    delay_s: int
    log_loss: float
    markov_log_loss: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All rows, and what they were taken on."""

    traces: int
    folds: int
    decision_delay_ms: int
    rows: list[Row]
    fitness: list[Fitness]


@dataclass(slots=True)
class Choice:
    """What the candidate chosen in each fold did on the traces of that fold; sums by trace."""

    table: int
    settings: list[str] = field(default_factory=list)
    _parts: list[tuple[AnyArray, AnyArray, AnyArray]] = field(default_factory=list)

    def add(self, name: str, tally: Tally, test: IntArray) -> None:
        """One fold: a tally of one candidate, and the traces scored."""
        scored = test[tally.blocks[test] > 0]
        self.settings.append(name)
        self._parts.append(
            (tally.blocks[scored], tally.nacks[scored, 0], tally.goodput[self.table][scored, 0]),
        )

    @property
    def goodput(self) -> AnyArray:
        """Sums by scored trace, bit/s/Hz."""
        return self._column(2)

    def bler_by_trace(self) -> list[float]:
        """Ratios, in the order of the folds."""
        ratios: list[float] = (self._column(1) / self._column(0)).tolist()
        return ratios

    def outcome(self, name: str = "") -> Outcome:
        """The figures; named by what was chosen where no name is given."""
        blocks, nacks = self._column(0), self._column(1)
        return Outcome(
            name=name or max(self.settings, key=self.settings.count),
            goodput=float(self.goodput.sum() / blocks.sum()),
            bler=float(nacks.sum() / blocks.sum()),
            traces_above_ratio=float((nacks > TRACE_BLER_LIMIT * blocks).mean()),
            settings=list(self.settings),
        )

    def _column(self, index: int) -> AnyArray:
        return np.concatenate([part[index] for part in self._parts])

"""Goodput and block error ratio of rules that choose a CQI each second, on recorded CQI that is reported late.

A block sent at CQI c in a second whose CQI was y arrives when y >= c, and then carries the efficiency of c; CQI 0 lets
nothing through. Only seconds whose CQI was measured count, and only once a report is known. What became of a second is
heard when its report would be: as late as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from netpredict.radio.tables import MAX_CQI, cqi_efficiency
from netpredict.types import AnyArray, BoolArray, FloatArray, IntArray

LOWEST_CQI = 1
_ROUNDING = np.float32(1e-4)
BLER_LIMIT, TRACE_BLER_LIMIT, TRACES_ABOVE_LIMIT = 0.10, 0.12, 0.15
"""Pooled over all traces; and at most this share of the traces above this ratio."""


class Panel:
    """Traces of different length side by side, the longest first: second t of all is one slice of flat arrays.

    ``cqi`` float32 (rows,) is NaN where nothing was measured; ``trace`` (rows,) the place in ``order`` of each row.
    """

    def __init__(self, series: Sequence[FloatArray]) -> None:
        """``series`` are CQI on a grid of seconds, (T,) each."""
        lengths = np.array([len(each) for each in series], np.int64)
        self.order: IntArray = np.argsort(-lengths, kind="stable")
        self.lengths = lengths[self.order]
        steps = int(self.lengths.max(initial=0))
        self.active: IntArray = (self.lengths[None, :] > np.arange(steps)[:, None]).sum(axis=1)
        self.starts: IntArray = np.concatenate([[0], np.cumsum(self.active)])
        self.cqi = self.flat(series)

    @property
    def steps(self) -> int:
        """Seconds of the longest trace."""
        return len(self.active)

    @property
    def traces(self) -> int:
        """How many there are."""
        return len(self.order)

    def at(self, step: int) -> slice:
        """The rows of one second."""
        return slice(int(self.starts[step]), int(self.starts[step + 1]))

    def flat(self, each: Sequence[AnyArray]) -> AnyArray:
        """Arrays (T, …) by trace in the order given to the constructor -> (rows, …)."""
        first = np.asarray(each[0])
        rows = np.empty((int(self.starts[-1]), *first.shape[1:]), first.dtype)
        for place, trace in enumerate(self.order.tolist()):
            rows[self.starts[: self.lengths[place]] + place] = each[trace]
        return rows

    def only(self, traces: IntArray) -> Panel:
        """A panel of these traces, in this order."""
        each = self.unflat(self.cqi)
        return Panel([each[trace] for trace in traces.tolist()])

    def of(self, rows: AnyArray, panel: Panel, traces: IntArray) -> AnyArray:
        """Rows (rows, …) of this panel as those of ``only(traces)``."""
        each = self.unflat(rows)
        return panel.flat([each[trace] for trace in traces.tolist()])

    def unflat(self, rows: AnyArray) -> list[AnyArray]:
        """The inverse of ``flat``."""
        parts: list[AnyArray] = [np.empty(0)] * self.traces
        for place, trace in enumerate(self.order.tolist()):
            parts[trace] = rows[self.starts[: self.lengths[place]] + place]
        return parts


def known(cqi: AnyArray, delay: int) -> AnyArray:
    """(T,): the newest CQI reported ``delay`` seconds later, NaN before the first."""
    seen = np.where(np.isfinite(cqi), np.arange(len(cqi)), -1)
    newest = np.maximum.accumulate(seen)
    held = np.where(newest >= 0, cqi[np.maximum(newest, 0)], np.nan)
    return np.concatenate([np.full(min(delay, len(cqi)), np.nan), held[: max(0, len(cqi) - delay)]])


class Rule(Protocol):
    """P candidates that choose side by side, each with its own state of every trace."""

    @property
    def candidates(self) -> int:
        """P."""
        ...

    def choose(self, rows: slice) -> IntArray:
        """CQI 1..15 of the rows of a second, (n, P) or (n, 1)."""
        ...

    def hear(self, nack: AnyArray, chosen: IntArray, heard: BoolArray) -> None:
        """What became of the second that was reported last: lost or not, or the lost share (n, P), where ``heard``."""
        ...


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums by trace, in the order of the series: ``blocks`` (traces,), ``nacks`` (traces, P),
    ``goodput`` {CQI table: (traces, P)} in bit/s/Hz.
    """

    blocks: IntArray
    nacks: AnyArray
    goodput: dict[int, AnyArray]

    def bler(self, traces: AnyArray) -> AnyArray:
        """Pooled over these traces, (P,)."""
        ratio: AnyArray = self.nacks[traces].sum(axis=0) / max(1, int(self.blocks[traces].sum()))
        return ratio

    def above(self, traces: AnyArray) -> AnyArray:
        """Share of these traces whose own ratio is above ``TRACE_BLER_LIMIT``, (P,)."""
        counted = np.asarray(traces)[self.blocks[traces] > 0]
        share: AnyArray = (self.nacks[counted] > TRACE_BLER_LIMIT * self.blocks[counted, None]).mean(axis=0)
        return share

    def mean_goodput(self, table: int, traces: AnyArray) -> AnyArray:
        """bit/s/Hz pooled over these traces, (P,)."""
        mean: AnyArray = self.goodput[table][traces].sum(axis=0) / max(1, int(self.blocks[traces].sum()))
        return mean

    def only(self, candidates: IntArray) -> Tally:
        """These candidates alone."""
        goodput = {table: sums[:, candidates] for table, sums in self.goodput.items()}
        return Tally(self.blocks, self.nacks[:, candidates], goodput)

    @classmethod
    def side_by_side(cls, tallies: Sequence[Tally]) -> Tally:
        """The candidates of several walks along the same panel, with the tables of the first."""
        goodput = {
            table: np.concatenate([each.goodput[table] for each in tallies], axis=1) for table in tallies[0].goodput
        }
        return cls(tallies[0].blocks, np.concatenate([each.nacks for each in tallies], axis=1), goodput)


def best(tally: Tally, table: int, traces: AnyArray, limited: bool, bler_limit: float = BLER_LIMIT) -> int:
    """The candidate of most goodput on these traces; ``limited``: among those that keep both limits there.

    Where none keeps them, the one that comes nearest.
    """
    goodput = tally.mean_goodput(table, traces)
    if not limited:
        return int(np.argmax(goodput))
    bler, above = tally.bler(traces) / bler_limit, tally.above(traces) / TRACES_ABOVE_LIMIT
    kept = (bler <= 1) & (above <= 1)
    return int(np.argmax(np.where(kept, goodput, -np.inf)) if kept.any() else np.argmin(bler + above))


def walk(panel: Panel, rule: Rule, delay: int, tables: Sequence[int], decision_delay_s: float = 0.0) -> Tally:
    """Every second: hear of the second ``delay`` ago, choose, count.

    A choice is in force ``decision_delay_s`` into its second; until then, the one before.
    """
    efficiencies: dict[int, FloatArray] = {table: cqi_efficiency(table).astype(np.float32) for table in tables}
    count = _Count(panel, rule.candidates, efficiencies)
    scored = np.isfinite(panel.flat([known(each, delay) for each in panel.unflat(panel.cqi)]))
    scored &= np.isfinite(panel.cqi)
    whole, part = int(decision_delay_s), np.float32(decision_delay_s % 1.0)
    recent: list[tuple[AnyArray, IntArray]] = []
    decided: list[IntArray] = []
    for step in range(panel.steps):
        rows = panel.at(step)
        n = rows.stop - rows.start
        if step >= delay:
            nack, chosen = recent.pop(0)
            rule.hear(nack[:n], chosen[:n], np.isfinite(panel.cqi[panel.at(step - delay)][:n]))
        decided.append(rule.choose(rows))
        chosen = _in_force(decided, whole, n)
        before = _in_force(decided, whole + 1, n) if part else chosen
        recent.append((count.add(rows, scored[rows], chosen, before, part), chosen))
        del decided[: -(whole + 2)]
    return count.tally()


def _in_force(decided: Sequence[IntArray], ago: int, n: int) -> IntArray:
    """The choice of so many seconds ago; the first one before there was any."""
    return decided[max(0, len(decided) - 1 - ago)][:n]


class _Count:
    def __init__(self, panel: Panel, candidates: int, efficiencies: dict[int, FloatArray]) -> None:
        self.panel, self.efficiencies = panel, efficiencies
        shape = (panel.traces, candidates)
        self.blocks = np.zeros(panel.traces, np.int64)
        self.nacks = np.zeros(shape)
        self.goodput: dict[int, AnyArray] = {table: np.zeros(shape) for table in efficiencies}

    def add(self, rows: slice, scored: BoolArray, chosen: IntArray, before: IntArray, part: np.float32) -> AnyArray:
        """Lost share of each row, (n, P); a mask where nothing is decided late."""
        cqi, counts = self.panel.cqi[rows][:, None], scored[:, None]
        self.blocks[: len(scored)] += scored
        arrived = cqi >= chosen
        if not part:
            self._add(arrived & counts, chosen, 1)
            lost: AnyArray = ~arrived
        else:
            early = cqi >= before
            self._add(arrived & counts, chosen, np.float32(1.0) - part)
            self._add(early & counts, before, part)
            lost = np.float32(1.0) - (np.float32(1.0) - part) * arrived - part * early
        self.nacks[: len(scored)] += lost & counts if not part else lost * counts
        return lost

    def _add(self, arrived: BoolArray, chosen: IntArray, weight: AnyArray | np.float32 | float) -> None:
        sent = chosen * arrived
        for table, efficiency in self.efficiencies.items():
            self.goodput[table][: len(sent)] += efficiency.take(sent) * weight if weight != 1 else efficiency.take(sent)

    def tally(self) -> Tally:
        place = np.argsort(self.panel.order)
        goodput = {table: sums[place] for table, sums in self.goodput.items()}
        return Tally(self.blocks[place], self.nacks[place], goodput)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Choices that nothing heard can change: (rows, P) int."""

    choices: IntArray

    @property
    def candidates(self) -> int:
        """P."""
        return int(self.choices.shape[1])

    def choose(self, rows: slice) -> IntArray:
        """See ``Rule``."""
        return self.choices[rows]

    def hear(self, nack: AnyArray, chosen: IntArray, heard: BoolArray) -> None:
        """See ``Rule``."""


def bounded(cqi: AnyArray) -> IntArray:
    """The nearest whole CQI below that may be chosen."""
    # NaN (nothing reported yet) becomes the lowest; steps that add up to a whole number in decimals reach it
    near = np.asarray(cqi + _ROUNDING)
    np.fmax(near, LOWEST_CQI, out=near)
    return np.minimum(near, MAX_CQI, out=near).astype(np.int64)

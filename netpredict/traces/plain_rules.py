"""What a simulated network does by itself where nobody tells it anything: rules of measured values, no forecast."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netpredict.radio.link import Olla, advance_olla
from netpredict.radio.tables import MAX_CQI, cqi_to_mcs
from netpredict.traces.channel import CQI_TABLE

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

STEP_PERCENT = 2.0
STAY_PERIODS = 10
"""A quota stays for so many minutes at least: policies come over management, which is no fast path."""
SLEEP_BELOW_PERCENT, WAKE_ABOVE_PERCENT, SLEEP_STAY_PERIODS = 20.0, 50.0, 8


@dataclass(frozen=True)
class RuleSettings:
    """``quota_periods`` and ``headroom_percent``: PRBs for the highest use of the last periods and so much more; with
    no period to look back at, all PRBs are always there and nothing sleeps.

    ``a3_offset_db``: handover when a neighbour is so much stronger. ``cqi_reports``: MCS by the lowest CQI of the last
    reports, moved by the outer loop (OLLA).
    """

    quota_periods: int = 15
    headroom_percent: float = 5.0
    a3_offset_db: float = 3.0
    cqi_reports: int = 1

    def __str__(self) -> str:
        prbs = "all PRBs, nothing sleeps"
        if self.quota_periods:
            of = "minute" if self.quota_periods == 1 else f"{self.quota_periods} minutes"
            prbs = f"PRBs and sleep by the highest use of the last {of}, PRBs with {self.headroom_percent:g} % more"
        cqi = "last CQI" if self.cqi_reports == 1 else f"lowest of the last {self.cqi_reports} CQI"
        return f"{prbs}; event A3 at {self.a3_offset_db:g} dB; MCS by the {cqi} with OLLA"


class QuotaRule:
    """PRB quotas and sleep by the highest use of the last periods, percent of the carrier, [radio cells]."""

    def __init__(self, settings: RuleSettings, radio_cells: int) -> None:
        self._headroom_percent = settings.headroom_percent
        self._used: deque[Array] = deque(maxlen=settings.quota_periods)
        self._asleep = np.zeros(radio_cells, bool)
        self._awake_periods = np.zeros(radio_cells, np.int64)
        self._quota = np.full(radio_cells, 100.0)
        self._set_periods = np.full(radio_cells, STAY_PERIODS)

    def hear(self, used_percent: Array) -> None:
        """Take in the use of one period."""
        if self._used.maxlen == 0:
            return
        self._used.append(used_percent)
        peak = np.max(self._used, axis=0)
        sleeps = ~self._asleep & (peak < SLEEP_BELOW_PERCENT) & (self._awake_periods >= SLEEP_STAY_PERIODS)
        wakes = self._asleep & (used_percent > WAKE_ABOVE_PERCENT)
        self._asleep = (self._asleep | sleeps) & ~wakes
        self._awake_periods = np.where(self._asleep, 0, self._awake_periods + 1)
        wanted = np.ceil((peak + self._headroom_percent) / STEP_PERCENT) * STEP_PERCENT
        wanted = np.clip(wanted, STEP_PERCENT, 100.0)
        moves = (wanted != self._quota) & (self._set_periods >= STAY_PERIODS)
        self._quota = np.where(moves, wanted, self._quota)
        self._set_periods = np.where(moves, 1, self._set_periods + 1)

    def quota_percent(self) -> Array:
        """Quota of the next period; all PRBs before anything was heard."""
        return self._quota.copy()

    def asleep(self) -> Flags:
        """Whether the capacity cell under each radio cell sleeps in the next period."""
        return self._asleep


class LinkRule:
    """MCS of each UE by the lowest CQI of its last reports, moved by the outer loop of its block errors."""

    def __init__(self, settings: RuleSettings, ues: int) -> None:
        self._reported: deque[NDArray[np.intp]] = deque(maxlen=settings.cqi_reports)
        self._olla = Olla()
        self._offset = np.zeros(ues)
        self._mcs_of_cqi = np.maximum(cqi_to_mcs(CQI_TABLE), 0)  # there is none for CQI 0

    def hear(self, bler_ratio: Array, ours: Flags) -> None:
        """Block errors of the last second: the mean step of the loop where the MCS was this rule's."""
        acked, lost = (advance_olla(self._offset, ack, self._olla) for ack in (True, False))
        self._offset = np.where(ours, (1 - bler_ratio) * acked + bler_ratio * lost, self._offset)

    def report(self, cqi: NDArray[np.intp]) -> None:
        """Take in a report of every UE."""
        self._reported.append(cqi)

    def mcs(self) -> NDArray[np.intp]:
        """MCS index of each UE; the lowest one before the first report."""
        if not self._reported:
            return np.zeros(len(self._offset), np.intp)
        cqi = np.clip(np.floor(np.min(self._reported, axis=0) + self._offset), 1, MAX_CQI).astype(np.intp)
        return np.asarray(self._mcs_of_cqi[cqi], np.intp)

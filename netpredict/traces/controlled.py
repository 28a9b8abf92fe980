"""A simulated network that can be told what to do: PRB quotas, sleep of capacity cells, serving radio cells, MCS.

Where it is told nothing it goes by plain rules. Demand, mobility, shadowing and fading are those of the simulator and
the same whatever it is told: two runs of one seed differ by what they were told alone. For a while only the radio cells
report, each minute; then UEs report RSRP each second too, and their channel state every few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netpredict.radio.tables import mcs_efficiency
from netpredict.traces.channel import CQI_TABLE, block_error_ratio, needed_sinr_db
from netpredict.traces.fleet import Reports
from netpredict.traces.plain_rules import LinkRule, QuotaRule, RuleSettings
from netpredict.traces.simulator import Simulator, SimulatorConfig, Snapshot

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

Q_OUT_DB = -8.0
"""SINR at which the control channel is lost in one of ten cases (Qout of TS 38.133, about so much)."""
PING_PONG_S = 5.0
EVERY_NTH_HAS_CAPACITY = 3
"""The first radio cell of each site has a capacity cell of the same width: awake it carries half of the demand."""
COST_OF_UNSERVED = 4.0
"""A percent of PRBs too few costs so many times one too many, as in the defaults of the bandwidth hook."""
PRB_COLUMNS = ("event_time_us", "demand", "provisioned", "over", "unserved", "changes")
LINK_COLUMNS = ("event_time_us", "outage", "goodput", "bler", "handovers", "failed", "ping_pongs")


@dataclass(frozen=True)
class ControlledConfig:
    """``quiet_s`` without reports of UEs, then ``session_s`` with them; both whole minutes."""

    seed: int = 1
    radio_cells: int = 21
    ues: int = 24
    start_us: int = 1_767_798_000_000_000  # Wednesday 2026-01-07 15:00 UTC
    quiet_s: int = 2 * 3600
    session_s: int = 300
    traffic_period_s: int = 60
    channel_state_period_s: int = 5

    @property
    def length_s(self) -> int:
        """All of it."""
        return self.quiet_s + self.session_s


class Orders(NamedTuple):
    """What was told, by identity: quota of a radio cell in percent of the carrier, whether a capacity cell sleeps, MCS
    of a UE, and handovers (source, target) that are each tried once, in the next second.
    """

    quota_percent: Mapping[str, float] = {}
    asleep: Mapping[str, bool] = {}
    mcs: Mapping[str, int] = {}
    handovers: Mapping[str, tuple[str, str]] = {}


@dataclass
class Account:
    """What came of it, a row a period: PRBs in percent of a carrier, mean over radio cells; UEs as counts or sums."""

    ues: int
    prb: list[tuple[float, ...]] = field(default_factory=list)
    links: list[tuple[float, ...]] = field(default_factory=list)

    def columns(self, of: str) -> dict[str, Array]:
        """``prb`` or ``links`` by name of the column."""
        names = PRB_COLUMNS if of == "prb" else LINK_COLUMNS
        rows = np.array(getattr(self, of), float).reshape(-1, len(names))
        return dict(zip(names, rows.T, strict=True))

    def kpis(self) -> dict[str, float]:
        """Means over the whole run; ratios 0..1, PRBs in percent of a carrier a radio cell, goodput in bit/s/Hz."""
        prb, links = self.columns("prb"), self.columns("links")
        seconds = max(1, len(self.links) * self.ues)
        minutes = seconds / 60
        over, unserved = (float(prb[name].mean()) if self.prb else 0.0 for name in ("over", "unserved"))
        return {
            "outage_ratio": float(links["outage"].sum() / seconds),
            "over_provisioned_prb_percent": over,
            "unserved_prb_percent": unserved,
            "prb_cost_percent": COST_OF_UNSERVED * unserved + over,
            "changes_per_radio_cell_hour": float(prb["changes"].mean()) * 60 if self.prb else 0.0,
            "goodput_bps_hz": float(links["goodput"].sum() / seconds),
            "bler_ratio": float(links["bler"].sum() / seconds),
            "handovers_per_ue_minute": float(links["handovers"].sum() / minutes),
            "failed_handovers_per_ue_minute": float(links["failed"].sum() / minutes),
            "ping_pongs_per_ue_minute": float(links["ping_pongs"].sum() / minutes),
        }


class ControlledNetwork:
    """One run; ``step`` moves it on, ``account`` says what came of it."""

    def __init__(self, config: ControlledConfig, rules: RuleSettings) -> None:
        self.config = config
        self.simulator = Simulator(
            SimulatorConfig(
                seed=config.seed,
                radio_cells=config.radio_cells,
                ues=config.ues,
                start_us=config.start_us,
                traffic_period_s=config.traffic_period_s,
                channel_state_period_s=config.channel_state_period_s,
            )
        )
        self.simulator.fleet.a3_offset_db = rules.a3_offset_db
        self.radio_cell_ids, self.ue_ids = self.simulator.radio_cell_ids, self.simulator.ue_ids
        self.account = Account(config.ues)
        self._has_capacity = np.arange(config.radio_cells) % EVERY_NTH_HAS_CAPACITY == 0
        self._quotas, self._links = QuotaRule(rules, config.radio_cells), LinkRule(rules, config.ues)
        self._used_ratio = np.full(config.radio_cells, 0.3)
        self._sinr_db = np.full(config.ues, np.inf)
        self._left, self._left_s = np.full(config.ues, -1), np.full(config.ues, -np.inf)
        self._provisioned = np.full(config.radio_cells, 100.0) + 100.0 * self._has_capacity
        self._bler: list[Array] = []
        self._efficiency = mcs_efficiency(CQI_TABLE)
        self._place = {name: index for index, name in enumerate(self.radio_cell_ids)}
        self.capacity_cells = {f"{name}-b": name for name in self.radio_cell_ids[::EVERY_NTH_HAS_CAPACITY]}
        """The radio cell that covers for each capacity cell."""

    def seconds(self) -> Iterator[int]:
        """When something happens, s since the start: each minute, in the session each second."""
        yield from range(0, self.config.quiet_s, self.config.traffic_period_s)
        yield from range(self.config.quiet_s, self.config.length_s)

    def step(self, second: int, orders: Orders) -> Snapshot:
        """Let what was told be in force and time move on to ``second``; what is reported then."""
        event_time_us = self.config.start_us + second * 1_000_000
        traffic = reports = channel_state = None
        if second % self.config.traffic_period_s == 0:
            traffic = self._carry(event_time_us, orders)
        if second >= self.config.quiet_s:
            reports, channel_state = self._connect(second, event_time_us, orders)
        return Snapshot(event_time_us, traffic, reports, channel_state, self.simulator.fleet.serving)

    def _carry(self, event_time_us: int, orders: Orders) -> Array:
        """One period of traffic under quotas: what it measures, [radio cells, TRAFFIC_KPIS of the wire]."""
        values = self.simulator.load.advance(event_time_us / 1e6)
        demand = 100 * self.simulator.load.demand_ratio
        quota, asleep = self._quotas.quota_percent(), self._quotas.asleep().copy()
        for name, percent in orders.quota_percent.items():
            quota[self._place[name]] = percent
        for name, sleeps in orders.asleep.items():
            asleep[self._place[self.capacity_cells[name]]] = sleeps
        awake = self._has_capacity & ~asleep
        below, above = np.where(awake, demand / 2, demand), np.where(awake, demand / 2, 0.0)
        used, used_above = np.minimum(below, quota), np.minimum(above, 100.0)
        provisioned = quota + 100.0 * awake
        served = used + used_above
        row = (demand, provisioned, provisioned - served, demand - served, provisioned != self._provisioned)
        self._provisioned = provisioned
        self.account.prb.append((event_time_us, *(float(part.mean()) for part in row)))
        self._quotas.hear(used)
        self._used_ratio = used / 100
        values[:, 0] = np.round(values[:, 0] * used / np.minimum(demand, 100.0), 1)
        values[:, 2] = np.round(used, 1)
        return values

    def _connect(self, second: int, event_time_us: int, orders: Orders) -> tuple[Reports, Array | None]:
        """One second of all UEs: handovers, outage, block errors, and what they report."""
        fleet, config = self.simulator.fleet, self.config
        before = fleet.serving.copy()
        fleet.move(1.0)
        self._hand_over(orders.handovers)
        reports = fleet.measure(self._used_ratio, 1.0)
        moved = (fleet.serving != before) & (before >= 0)
        # the command comes over the radio cell that is left, the access goes to the new one
        failed = moved & ((self._sinr_db < Q_OUT_DB) | (reports.sinr_db < Q_OUT_DB))
        out = failed | (reports.sinr_db < Q_OUT_DB)
        back = moved & (fleet.serving == self._left) & (second - self._left_s <= PING_PONG_S)
        self._left = np.where(moved, before, self._left)
        self._left_s = np.where(moved, second, self._left_s)
        self._sinr_db = reports.sinr_db
        state = self.simulator.channel.advance(reports.sinr_db, 1.0)
        plain = self._links.mcs()
        told = np.array([orders.mcs.get(ue, -1) for ue in self.ue_ids])
        mcs = np.where(told >= 0, told, plain)
        efficiency = self._efficiency[mcs]
        bler = block_error_ratio(state[:, 1] - needed_sinr_db(efficiency))
        goodput = np.where(out, 0.0, efficiency * (1 - bler))
        counted = (out.sum(), goodput.sum(), bler.sum(), moved.sum(), failed.sum(), back.sum())
        self.account.links.append((event_time_us, *map(float, counted)))
        self._links.hear(bler, told < 0)
        self._bler.append(bler)
        if second % config.channel_state_period_s:
            return reports, None
        self._links.report(state[:, 0].astype(np.intp))
        state[:, 3], state[:, 4] = np.round(np.mean(self._bler, axis=0), 4), mcs
        self._bler.clear()
        return reports, state

    def _hand_over(self, handovers: Mapping[str, tuple[str, str]]) -> None:
        """Move UEs as told, where they are still served by the radio cell that they should leave."""
        fleet = self.simulator.fleet
        for ue, (source, target) in handovers.items():
            row = int(ue.rpartition("-")[2])
            if fleet.serving[row] == self._place[source]:
                fleet.serving[row] = self._place[target]


def run_plain(config: ControlledConfig, rules: RuleSettings) -> Account:
    """A whole run in which nobody tells the network anything."""
    network = ControlledNetwork(config, rules)
    for second in network.seconds():
        network.step(second, Orders())
    return network.account


QUOTAS = tuple(product((1, 5, 10, 20), (2.0, 5.0, 8.0, 12.0, 16.0)))
A3_OFFSETS_DB = (2.0, 3.0, 4.0, 6.0)
CQI_REPORTS = (1, 2, 3)
REHEARSAL_SEED = 1_000_000


def tuned(config: ControlledConfig) -> RuleSettings:
    """The best plain rules on a rehearsal: the same time of day in a network of another seed.

    Quota by cost, A3 offset by outage (of equals the fewer handovers), MCS by goodput.
    """
    rehearsal = replace(config, seed=config.seed + REHEARSAL_SEED)
    quiet, session = replace(rehearsal, session_s=0), replace(rehearsal, quiet_s=0)
    best = RuleSettings()
    quotas = [replace(best, quota_periods=p, headroom_percent=h) for p, h in QUOTAS]
    best = min(quotas, key=lambda rules: run_plain(quiet, rules).kpis()["prb_cost_percent"])
    offsets = [replace(best, a3_offset_db=offset_db) for offset_db in A3_OFFSETS_DB]
    best = min(offsets, key=lambda rules: _outage(run_plain(session, rules).kpis()))
    reports = [replace(best, cqi_reports=count) for count in CQI_REPORTS]
    return max(reports, key=lambda rules: run_plain(session, rules).kpis()["goodput_bps_hz"])


def _outage(kpis: Mapping[str, float]) -> tuple[float, float]:
    return kpis["outage_ratio"], kpis["handovers_per_ue_minute"]

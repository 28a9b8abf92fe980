"""A seeded simulator of telemetry: same configuration, same bytes. It reads no clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netpredict.errors import ConfigError
from netpredict.ingest.messages import ChannelState as ChannelStateRow
from netpredict.ingest.messages import Neighbour, Rsrp, Traffic
from netpredict.traces.channel import ChannelState
from netpredict.traces.fleet import LEAST_RSRP_DBM, Fleet, Reports
from netpredict.traces.layout import hexagonal
from netpredict.traces.load import TrafficLoad
from netpredict.traces.message import SCHEMA_OF, TraceMessage, traffic_message, ue_message
from netpredict.traces.wire import STREAM_KPIS


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What to simulate. ``start_us`` is UTC µs (default: Monday 2026-01-05); periods are whole seconds.

    ``inter_site_m`` is that of urban macro in TR 38.901 Table 7.2-1; for it the antennas are tilted.
    """

    seed: int = 1
    radio_cells: int = 500
    ues: int = 300
    start_us: int = 1_767_571_200_000_000
    traffic_period_s: int = 60
    rsrp_period_s: int = 1
    channel_state_period_s: int = 1
    inter_site_m: float = 500.0

    def __post_init__(self) -> None:
        if self.radio_cells < 1 or self.ues < 0:
            raise ConfigError("the simulator needs radio_cells >= 1 and ues >= 0")
        if min(self.traffic_period_s, self.rsrp_period_s, self.channel_state_period_s) < 1:
            raise ConfigError("the simulator's periods are whole seconds, at least 1")

    def period_s(self, stream: str) -> int:
        """Period of one stream."""
        periods = (self.traffic_period_s, self.rsrp_period_s, self.channel_state_period_s)
        return dict(zip(STREAM_KPIS, periods, strict=True))[stream]

    @property
    def slot_s(self) -> int:
        """Length of one slot of ``step``: the longest that meets every period in use."""
        if not self.ues:
            return self.traffic_period_s
        return gcd(self.traffic_period_s, self.rsrp_period_s, self.channel_state_period_s)


class Snapshot(NamedTuple):
    """What one slot brought; a stream that is not due is None. ``traffic`` [radio cells, kpis], ``channel_state``
    [ue, kpis] have the columns of ``STREAM_KPIS``, ``serving`` [ue] is the radio cell of each UE.
    """

    event_time_us: int
    traffic: NDArray[np.float64] | None
    reports: Reports | None
    channel_state: NDArray[np.float64] | None
    serving: NDArray[np.intp]


class History(NamedTuple):
    """One stream as dense arrays: ``values`` float32 [series, steps, kpis], NaN = missing; ``slots`` int64 [steps] are
    event time over period, rounded half up, as the daemon counts them.
    """

    series_keys: list[tuple[str, ...]]
    slots: NDArray[np.int64]
    values: NDArray[np.float32]
    kpis: tuple[str, ...]


class Simulator:
    """Radio cells and UEs that go on from where the last call left them.

    Series are (radio cell) for ``traffic``, (UE, radio cell) for ``rsrp`` and (UE) for ``channel-state``.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        # One generator a part: more UEs leave the traffic as it was.
        load_rng, fleet_rng, channel_rng = (
            np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(3)
        )
        self.layout = hexagonal(config.radio_cells, config.inter_site_m)
        self.radio_cell_ids = self.layout.radio_cell_ids()
        self.ue_ids = [f"sim-ue-{ue:05d}" for ue in range(config.ues)]
        self.load = TrafficLoad(load_rng, config.radio_cells, config.traffic_period_s)
        self.fleet = Fleet(fleet_rng, self.layout, config.ues)
        self.channel = ChannelState(channel_rng, self.fleet.speed_ms)
        self.next_slot = 0

    def step(self, slot: int) -> Snapshot:
        """Advance everything by one slot of ``config.slot_s``; slots come in order, without holes."""
        if slot != self.next_slot:
            raise ValueError(f"the next slot is {self.next_slot}, not {slot}")
        self.next_slot += 1
        config = self.config
        elapsed_s = slot * config.slot_s
        event_time_us = config.start_us + elapsed_s * 1_000_000
        traffic = self.load.advance(event_time_us / 1e6) if elapsed_s % config.traffic_period_s == 0 else None
        reports = channel_state = None
        rsrp_due, channel_due = elapsed_s % config.rsrp_period_s == 0, elapsed_s % config.channel_state_period_s == 0
        if config.ues:
            self.fleet.move(config.slot_s)
            if rsrp_due or channel_due:
                measured = self.fleet.measure(self.load.load_ratio, config.slot_s)
                reports = measured if rsrp_due else None
                if channel_due:
                    channel_state = self.channel.advance(measured.sinr_db, config.channel_state_period_s)
        return Snapshot(event_time_us, traffic, reports, channel_state, self.fleet.serving)

    def snapshots(self, duration_s: int) -> Iterator[Snapshot]:
        """Step through the next ``duration_s`` seconds."""
        for _ in range(-(-duration_s // self.config.slot_s)):
            yield self.step(self.next_slot)

    def messages(self, duration_s: int) -> Iterator[TraceMessage]:
        """The messages of the next ``duration_s`` seconds, by event time."""
        for snapshot in self.snapshots(duration_s):
            yield from self.encode(snapshot)

    def encode(self, snapshot: Snapshot) -> Iterator[TraceMessage]:
        """The messages of one slot."""
        if snapshot.traffic is not None:
            yield from self._traffic(snapshot.event_time_us, snapshot.traffic)
        if snapshot.reports is not None:
            yield from self._reports(snapshot.event_time_us, snapshot.reports)
        if snapshot.channel_state is not None:
            yield from self._channel_state(snapshot.event_time_us, snapshot.channel_state, snapshot.serving)

    def history(self, duration_s: int) -> dict[str, History]:
        """The next ``duration_s`` seconds as arrays instead of messages: equal values, without the way through JSON."""
        snapshots = list(self.snapshots(duration_s))
        ue_keys: list[tuple[str, ...]] = [(ue,) for ue in self.ue_ids]
        radio_cell_keys: list[tuple[str, ...]] = [(radio_cell_id,) for radio_cell_id in self.radio_cell_ids]
        traffic = [(s.event_time_us, s.traffic) for s in snapshots if s.traffic is not None]
        channel_state = [(s.event_time_us, s.channel_state) for s in snapshots if s.channel_state is not None]
        return {
            "traffic": self._dense("traffic", radio_cell_keys, traffic),
            "rsrp": self._dense_reports([(s.event_time_us, s.reports) for s in snapshots if s.reports is not None]),
            "channel-state": self._dense("channel-state", ue_keys, channel_state),
        }

    def _traffic(self, event_time_us: int, values: NDArray[np.float64]) -> Iterator[TraceMessage]:
        schema = SCHEMA_OF["traffic"]
        for radio_cell_id, row in zip(self.radio_cell_ids, values.tolist(), strict=True):
            yield traffic_message(Traffic(schema, radio_cell_id, event_time_us, *row))

    def _reports(self, event_time_us: int, reports: Reports) -> Iterator[TraceMessage]:
        schema, radio_cell_ids = SCHEMA_OF["rsrp"], self.radio_cell_ids
        rows = zip(
            self.ue_ids,
            reports.radio_cell.tolist(),
            reports.rsrp_dbm.tolist(),
            reports.rsrq_db.tolist(),
            reports.sinr_db.tolist(),
            strict=True,
        )
        for ue_id, radio_cells, rsrp_dbm, rsrq_db, sinr_db in rows:
            neighbours = [
                Neighbour(radio_cell_ids[radio_cell], level_dbm, quality_db)
                for radio_cell, level_dbm, quality_db in zip(radio_cells[1:], rsrp_dbm[1:], rsrq_db[1:], strict=True)
                if level_dbm >= LEAST_RSRP_DBM
            ]
            serving = radio_cell_ids[radio_cells[0]]
            report = Rsrp(schema, serving, event_time_us, ue_id, rsrp_dbm[0], rsrq_db[0], sinr_db, neighbours)
            yield ue_message("rsrp", report)

    def _channel_state(
        self, event_time_us: int, values: NDArray[np.float64], serving: NDArray[np.intp]
    ) -> Iterator[TraceMessage]:
        schema, radio_cell_ids = SCHEMA_OF["channel-state"], self.radio_cell_ids
        for ue_id, radio_cell, row in zip(self.ue_ids, serving.tolist(), values.tolist(), strict=True):
            kpis: list[Any] = [None if value != value else value for value in row]
            yield ue_message(
                "channel-state", ChannelStateRow(schema, radio_cell_ids[radio_cell], event_time_us, ue_id, *kpis)
            )

    def _dense(self, stream: str, keys: list[tuple[str, ...]], steps: list[tuple[int, NDArray[np.float64]]]) -> History:
        kpis = STREAM_KPIS[stream]
        values = np.empty((len(keys), len(steps), len(kpis)), dtype=np.float32)
        for step, (_, rows) in enumerate(steps):
            values[:, step] = rows
        return History(keys, self._slots(stream, [event_time_us for event_time_us, _ in steps]), values, kpis)

    def _dense_reports(self, steps: list[tuple[int, Reports]]) -> History:
        kpis, radio_cells = STREAM_KPIS["rsrp"], self.config.radio_cells
        slots = self._slots("rsrp", [event_time_us for event_time_us, _ in steps])
        pairs = [reports.radio_cell + radio_cells * np.arange(len(reports.radio_cell))[:, None] for _, reports in steps]
        heard = [reports.rsrp_dbm >= LEAST_RSRP_DBM for _, reports in steps]
        known = (
            np.unique(np.concatenate([pair[ok] for pair, ok in zip(pairs, heard, strict=True)]))
            if steps
            else np.empty(0, int)
        )
        values = np.full((len(known), len(steps), len(kpis)), np.nan, dtype=np.float32)
        for step, (_, reports) in enumerate(steps):
            series = np.searchsorted(known, pairs[step][heard[step]])
            values[series, step, 0] = reports.rsrp_dbm[heard[step]]
            values[series, step, 1] = reports.rsrq_db[heard[step]]
            values[np.searchsorted(known, pairs[step][:, 0]), step, 2] = reports.sinr_db
        keys: list[tuple[str, ...]] = [
            (self.ue_ids[p // radio_cells], self.radio_cell_ids[p % radio_cells]) for p in known.tolist()
        ]
        return History(keys, slots, values, kpis)

    def _slots(self, stream: str, event_times_us: list[int]) -> NDArray[np.int64]:
        period_us = self.config.period_s(stream) * 1_000_000
        return (2 * np.array(event_times_us, dtype=np.int64) + period_us) // (2 * period_us)

"""A seeded simulator of telemetry: same configuration, same bytes. It reads no clock.

How radio and UEs are made tells ``fleet``. A measurement of L1 takes 200 ms (TS 38.133, FR1 without DRX): reports come
no more often, so that no two of them share a sample.
"""

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
from netpredict.traces.fleet import LEAST_RSRP_DBM, NEIGHBOURS, NEIGHBOURS_MAX, Fleet, Reports
from netpredict.traces.layout import hexagonal
from netpredict.traces.load import TrafficLoad
from netpredict.traces.message import SCHEMA_OF, TraceMessage, traffic_message, ue_message
from netpredict.traces.wire import STREAM_KPIS

RSRP_PERIOD_MS, RSRP_STEP_MS = 200, 20
"""The least period of reports, and what every period is a multiple of: that of the SS blocks, which bounds the grid."""
FASTEST_KMH = 500.0


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What to simulate. ``start_us`` is UTC µs (default: Monday 2026-01-05).

    ``inter_site_m`` is that of urban macro in TR 38.901 Table 7.2-1; for it the antennas are tilted. A report names the
    strongest ``neighbours``. With ``neighbour_sinr`` it has the SINR of each of them, and the serving radio cell's is
    measured as theirs are; without, it has only the latter, free of error. UEs drive at ``speeds_kmh`` in turn; with
    none, at those of TR 36.839 by chance. ConfigError for what cannot be simulated.
    """

    seed: int = 1
    radio_cells: int = 500
    ues: int = 300
    start_us: int = 1_767_571_200_000_000
    traffic_period_s: int = 60
    rsrp_period_ms: int = 1000
    channel_state_period_s: int = 1
    inter_site_m: float = 500.0
    neighbours: int = NEIGHBOURS
    neighbour_sinr: bool = False
    speeds_kmh: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.radio_cells < 1 or self.ues < 0:
            raise ConfigError("the simulator needs radio_cells >= 1 and ues >= 0")
        if min(self.traffic_period_s, self.channel_state_period_s) < 1:
            raise ConfigError("the simulator's periods of traffic and channel state are whole seconds, at least 1")
        if self.rsrp_period_ms < RSRP_PERIOD_MS or self.rsrp_period_ms % RSRP_STEP_MS:
            raise ConfigError(
                f"rsrp_period_ms = {self.rsrp_period_ms}: the simulator reports every {RSRP_PERIOD_MS} ms at most, in "
                f"multiples of {RSRP_STEP_MS} ms"
            )
        if not 0 <= self.neighbours <= NEIGHBOURS_MAX:
            raise ConfigError(f"neighbours = {self.neighbours}: a report names 0 to {NEIGHBOURS_MAX}")
        for speed_kmh in self.speeds_kmh:
            if not 0 <= speed_kmh <= FASTEST_KMH:
                raise ConfigError(f"a speed of {speed_kmh} km/h: UEs drive at 0 to {FASTEST_KMH:.0f} km/h")

    def period_us(self, stream: str) -> int:
        """Period of one stream."""
        periods_ms = (1000 * self.traffic_period_s, self.rsrp_period_ms, 1000 * self.channel_state_period_s)
        return 1000 * dict(zip(STREAM_KPIS, periods_ms, strict=True))[stream]

    @property
    def slot_ms(self) -> int:
        """Length of one slot of ``step``: the longest that meets every period in use."""
        streams = STREAM_KPIS if self.ues else ("traffic",)
        return gcd(*map(self.period_us, streams)) // 1000


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
        self.fleet = Fleet(
            fleet_rng,
            self.layout,
            config.ues,
            neighbours=config.neighbours,
            neighbour_sinr=config.neighbour_sinr,
            speeds_kmh=config.speeds_kmh,
        )
        self.channel = ChannelState(channel_rng, self.fleet.speed_ms)
        self.next_slot = 0
        self._measured_slot = -1

    def step(self, slot: int) -> Snapshot:
        """Advance everything by one slot of ``config.slot_ms``; slots come in order, without holes."""
        if slot != self.next_slot:
            raise ValueError(f"the next slot is {self.next_slot}, not {slot}")
        self.next_slot += 1
        config = self.config
        elapsed_us = slot * config.slot_ms * 1000
        event_time_us = config.start_us + elapsed_us
        traffic_due, rsrp_due, channel_due = (elapsed_us % config.period_us(stream) == 0 for stream in STREAM_KPIS)
        traffic = self.load.advance(event_time_us / 1e6) if traffic_due else None
        reports = channel_state = None
        if config.ues:
            self.fleet.move(config.slot_ms / 1000)
            if rsrp_due or channel_due:
                since_s = (slot - self._measured_slot) * config.slot_ms / 1000
                self._measured_slot = slot
                measured = self.fleet.measure(self.load.load_ratio, since_s)
                reports = measured if rsrp_due else None
                if channel_due:
                    channel_state = self.channel.advance(measured.sinr_db, config.channel_state_period_s)
        return Snapshot(event_time_us, traffic, reports, channel_state, self.fleet.serving)

    def snapshots(self, duration_s: int) -> Iterator[Snapshot]:
        """Step through the next ``duration_s`` seconds."""
        for _ in range(-(-duration_s * 1000 // self.config.slot_ms)):
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
            _sinr_db(reports),
            strict=True,
        )
        for ue_id, *row in rows:
            (serving, rsrp_dbm, rsrq_db, sinr_db), *others = zip(*row, strict=True)
            neighbours = [
                Neighbour(radio_cell_ids[radio_cell], *measured)
                for radio_cell, *measured in others
                if measured[0] >= LEAST_RSRP_DBM
            ]
            report = Rsrp(schema, radio_cell_ids[serving], event_time_us, ue_id, rsrp_dbm, rsrq_db, sinr_db, neighbours)
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
            if reports.measured_sinr_db is None:
                values[np.searchsorted(known, pairs[step][:, 0]), step, 2] = reports.sinr_db
            else:
                values[series, step, 2] = reports.measured_sinr_db[heard[step]]
        keys: list[tuple[str, ...]] = [
            (self.ue_ids[p // radio_cells], self.radio_cell_ids[p % radio_cells]) for p in known.tolist()
        ]
        return History(keys, slots, values, kpis)

    def _slots(self, stream: str, event_times_us: list[int]) -> NDArray[np.int64]:
        period_us = self.config.period_us(stream)
        return (2 * np.array(event_times_us, dtype=np.int64) + period_us) // (2 * period_us)


def _sinr_db(reports: Reports) -> list[list[float | None]]:
    """[ue, 1 + neighbours] as it stands in messages."""
    if reports.measured_sinr_db is not None:
        measured: list[list[float | None]] = reports.measured_sinr_db.tolist()
        return measured
    unknown = [None] * (reports.radio_cell.shape[1] - 1)
    return [[sinr_db, *unknown] for sinr_db in reports.sinr_db.tolist()]

"""The world of the demo: its config, the simulated network, and the thread that writes the log of that network."""

from __future__ import annotations

import contextlib
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netpredict.config import Config, parse_config
from netpredict.errors import StoreError
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.operate.daemon import Daemon
from netpredict.store.sql import SqlStore
from netpredict.traces.simulator import Simulator, SimulatorConfig
from netpredict.types import PolledPartition, TopicPartition

TIME_LAPSE = 720.0
"""Simulated seconds per second of the demo: a minute shows half a day."""
REPORT_PERIOD_S = 20
"""Period of RSRP and channel state; traffic has the period of its simulator, 60 s."""
RADIO_CELLS_PER_UE = 10 / 3
PARTITIONS = 2
LAG_MAX_S = 900
"""The simulated network waits when the daemon has yet to read so much of its time..."""
KEPT_MAX_S = 2_700
"""... or when so much is not durable yet: the log lives in memory, and actions expire two hours after their slot."""
TRIM_RECORDS = 5_000
GARBLED_EVERY = 24_989
"""Every so many records one arrives cut in half, as on air: it has to end as a dead letter and harm nobody else."""
INGEST_DELAY_MS = 150
TOPICS = {"traffic": "ran.traffic", "rsrp": "ran.rsrp", "channel-state": "ran.channel-state"}
DATABASE = "netpredict.db"
OPTIONS = "{ units = 24, train_epochs = 6, minibatch_size = 32, learning_rate = 0.002 }"
CONFIG_FILE = "netpredict.toml"
MARK = "# Written by `netpredict demo`"

TRAFFIC = """\
[streams.traffic]
topic = "ran.traffic"
schema = "traffic"
series_by = ["radio_cell_id"]
period_s = 60
kpis = ["prb_use_dl_percent"]
features = ["dl_throughput_kbps", "connected_ues"]
horizon_steps = 20
season_s = 86400
season_buckets = 24
"""
"""Of both networks of the demo, for what is trained on the one serves in the other; their routes are their own."""

TEMPLATE = """\
{mark}; its folder is made anew by every run.
# Time runs {time_lapse:g} times as fast as in a real network, so actions stay valid for longer than they should there.

[daemon]
data_dir = {folder}
commit_interval_s = 0.5
seed = {seed}

[store]
url = {url}
retention_days = 0.07
prune_rows = 100000

[http]
enabled = false

{traffic}routes = [{{ active = "lstm", shadows = ["gru", "simple_rnn"] }}]

[streams.rsrp]
topic = "ran.rsrp"
schema = "rsrp"
series_by = ["ue_id", "radio_cell_id"]
period_s = {period_s}
kpis = ["rsrp_dbm"]
features = ["serving"]
horizon_steps = 6
max_gap_steps = 2
warm_steps = 4
series_ttl_s = 900
routes = [{{ active = "gru" }}]

[streams.channel-state]
topic = "ran.channel-state"
schema = "channel-state"
series_by = ["ue_id", "radio_cell_id"]
period_s = {period_s}
kpis = ["cqi"]
features = ["sinr_db"]
horizon_steps = 6
max_gap_steps = 2
warm_steps = 4
series_ttl_s = 900
routes = [{{ active = "simple_rnn" }}]

[predictors.lstm]
plugin = "lstm"
options = {options}

[predictors.gru]
plugin = "gru"
options = {options}

[predictors.simple_rnn]
plugin = "simple_rnn"
options = {options}

[hooks.bandwidth]
plugin = "bandwidth"
stream = "traffic"
mode = "auto"
cooldown_s = 600
effect_s = 7200
options = {{ step_percent = 20, min_stay_slots = 60, valid_for_s = 7200 }}

[hooks.handover]
plugin = "handover"
stream = "rsrp"
mode = "auto"
effect_s = 7200
options = {{ lead_steps = 1, a3_offset_db = 6, hysteresis_db = 2, cooldown_slots = 60, valid_for_s = 7200 }}

[hooks.mcs]
plugin = "mcs"
stream = "channel-state"
mode = "shadow"
options = {{ min_stay_slots = 15 }}

[actuators.log]
plugin = "log"
"""


def config_text(folder: Path, seed: int) -> str:
    """The config of a demo as TOML."""
    return TEMPLATE.format(
        mark=MARK,
        traffic=TRAFFIC,
        time_lapse=TIME_LAPSE,
        folder=quoted(str(folder)),
        url=quoted(f"sqlite:///{folder / DATABASE}"),
        seed=seed,
        period_s=REPORT_PERIOD_S,
        options=OPTIONS,
    )


def parsed(text: str) -> Config:
    """The checked config of a text."""
    return parse_config(tomllib.loads(text))


def refuse_if_in_use(folder: Path) -> None:
    """Raises AlreadyRunning while a process holds the store in this folder."""
    database = folder / DATABASE
    if database.exists():
        with contextlib.suppress(StoreError), SqlStore(f"sqlite:///{database}"):
            pass


def quoted(text: str) -> str:
    """A string of TOML."""
    return msgspec.json.encode(text).decode()


def simulated_network(radio_cells: int, seed: int, start_us: int) -> Simulator:
    """The network, at the beginning of the history that the predictors are trained on."""
    return Simulator(
        SimulatorConfig(
            seed=seed,
            radio_cells=radio_cells,
            ues=max(12, round(radio_cells / RADIO_CELLS_PER_UE)),
            start_us=start_us,
            rsrp_period_ms=1000 * REPORT_PERIOD_S,
            channel_state_period_s=REPORT_PERIOD_S,
        )
    )


@dataclass
class SimulatedClock:
    """Shows the time of the simulated network, so that actions expire by it; waits are real."""

    time_us: int

    def now_us(self) -> int:
        """Event time that the network has reached."""
        return self.time_us

    def monotonic_s(self) -> float:
        """Never goes back, s."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, s."""
        time.sleep(seconds)


class SharedSource(MemorySource):
    """Reads a log that another thread appends to and trims; whoever touches the log holds ``lock``."""

    def __init__(self, log: MemoryLog, poll_records_max: int, idle_s: float = 0.01) -> None:
        super().__init__(log, poll_records_max)
        self._idle_s = idle_s
        self.lock = threading.Lock()
        self.taken: dict[TopicPartition, int] = {}

    def poll(self, timeout_s: float) -> Sequence[PolledPartition]:
        """What is there, or nothing after a short wait."""
        with self.lock:
            polled = super().poll(timeout_s)
        for part in polled:
            self.taken[part.topic_partition] = part.next_offset
        if not polled:
            time.sleep(min(timeout_s, self._idle_s))
        return polled

    def seek(self, topic_partition: TopicPartition, offset: int | None) -> int:
        """See MemorySource."""
        with self.lock:
            return super().seek(topic_partition, offset)

    def end_offsets(self) -> Mapping[TopicPartition, int]:
        """See MemorySource."""
        with self.lock:
            return super().end_offsets()


class DaemonThread(threading.Thread):
    """The daemon in a thread, as ``netpredict run`` has it in a process."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(name="daemon", daemon=True)
        self.failure: BaseException | None = None
        self._daemon_of_ours = daemon

    def run(self) -> None:
        """Until it is told to stop."""
        try:
            self._daemon_of_ours.run()
        except BaseException as error:
            self.failure = error


class Network(threading.Thread):
    """Lets the simulated network go on for ``span_s`` of its time and writes its telemetry to the log, by event time.

    It waits for the daemon, so that memory stays bounded, and forgets what is durable.
    """

    def __init__(self, simulator: Simulator, source: SharedSource, clock: SimulatedClock, span_s: int) -> None:
        super().__init__(name="simulated-network", daemon=True)
        self.begin_us = clock.time_us
        self.end_us = clock.time_us + span_s * 1_000_000
        self.written = 0
        self.garbled = 0
        self.stopping = False
        self.failure: BaseException | None = None
        self._simulator = simulator
        self._source = source
        self._clock = clock
        self._span_s = span_s
        config = simulator.config
        self._records_per_s = config.radio_cells / config.traffic_period_s + 2 * config.ues / REPORT_PERIOD_S

    @property
    def now_us(self) -> int:
        """Event time reached."""
        return self._clock.time_us

    @property
    def progress(self) -> float:
        """Share of the span that is over."""
        return min(1.0, (self._clock.time_us - self.begin_us) / max(1, self.end_us - self.begin_us))

    def run(self) -> None:
        """Until the span is over or ``stopping`` is set."""
        try:
            for snapshot in self._simulator.snapshots(self._span_s):
                messages = [
                    (TOPICS[m.stream], m.key, m.value, m.event_time_us // 1000)
                    for m in self._simulator.encode(snapshot)
                ]
                self._wait_for_the_daemon()
                if self.stopping:
                    return
                self._write(messages)
                self._clock.time_us = snapshot.event_time_us + 1_000 * INGEST_DELAY_MS
        except BaseException as error:
            self.failure = error

    def _write(self, messages: Sequence[tuple[str, bytes, bytes, int]]) -> None:
        with self._source.lock:
            for topic, key, value, time_ms in messages:
                self.written += 1
                if self.written % GARBLED_EVERY == 0:
                    self.garbled += 1
                    value = value[: len(value) // 2]
                self._source.log.append(topic, key, value, time_ms + INGEST_DELAY_MS)
            self._trim()

    def _trim(self) -> None:
        log = self._source.log
        for topic_partition, durable in list(self._source.reported.items()):
            if durable - log.first(topic_partition) >= TRIM_RECORDS:
                log.trim(topic_partition, durable)

    def _wait_for_the_daemon(self) -> None:
        while not self.stopping and (
            self._behind(self._source.taken) > LAG_MAX_S * self._records_per_s
            or self._behind(self._source.reported) > KEPT_MAX_S * self._records_per_s
        ):
            time.sleep(0.005)

    def _behind(self, offsets: Mapping[TopicPartition, int]) -> int:
        return self.written - sum(offsets.copy().values())  # type: ignore[attr-defined]

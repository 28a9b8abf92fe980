"""The closed loop of the demo: netpredict acts on a simulated network, whose next telemetry depends on what it did.

Time is the network's: a step of it is let go when the records of the step before are durable and every action that
they brought about has come to its end at the RAN controller, or after ``STEP_MAX_S``. The same network, with the same
demand, mobility and fading, also runs by its plain rules alone.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from netpredict.cli import demo_world
from netpredict.cli.demo_controller import ControllerServer, RanController
from netpredict.cli.demo_world import MARK, TOPICS, DaemonThread, SharedSource, SimulatedClock
from netpredict.config import Config
from netpredict.errors import NetpredictError
from netpredict.ingest.source import MemoryLog
from netpredict.operate.daemon import Daemon
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.traces.controlled import Account, ControlledConfig, ControlledNetwork, run_plain, tuned
from netpredict.traces.message import TraceMessage
from netpredict.traces.plain_rules import STAY_PERIODS, RuleSettings
from netpredict.types import OutcomeKind

FOLDER = "closed-loop"
RESULT_FILE = "closed-loop.json"
SECRET_FILE = "controller.secret"
STEP_MAX_S = 2.0
"""The network waits no longer for what netpredict makes of a step: its actions then count from a later one."""
WAIT_MAX_S, STEP_LEAST_S = 90.0, 0.02
"""On a machine that is too slow for the whole run it waits so long in all, then hardly at each step."""
LOOK_S = 0.001
STATIC = RuleSettings(quota_periods=0)
"""What a network does that nobody has touched."""
HOLDOUT_RATIO = 0.2
"""Radio cells and UEs that are left to the plain rules: what actions do can only be told beside them."""

TEMPLATE = """\
{mark}; its folder is made anew by every run.

[daemon]
data_dir = {folder}
commit_interval_s = 0.001
seed = {seed}

[store]
url = {url}
prune_rows = 0

[http]
enabled = false

{traffic}routes = [{{ active = "{load_by}" }}]

[streams.rsrp]
topic = "ran.rsrp"
schema = "rsrp"
series_by = ["ue_id", "radio_cell_id"]
period_s = 1
kpis = ["rsrp_dbm"]
features = ["serving"]
horizon_steps = 3
max_gap_steps = 2
routes = [{{ active = "level" }}]

[streams.channel-state]
topic = "ran.channel-state"
schema = "channel-state"
series_by = ["ue_id"]
period_s = {channel_state_period_s}
kpis = ["cqi"]
features = ["sinr_db", "bler_ratio", "mcs"]
horizon_steps = 3
max_gap_steps = 2
routes = [{{ active = "level" }}]

{network}
# Nothing to train: an exponentially weighted mean. Its intervals are calibrated as those of a network.
[predictors.level]
plugin = "ewma"
options = {{ alpha = 0.8 }}

[hooks.bandwidth]
plugin = "bandwidth"
stream = "traffic"
mode = "auto"
actuators = ["ran"]
effect_s = 1800
cooldown_s = 0
holdout_ratio = {holdout_ratio}
[hooks.bandwidth.options]
lead_steps = {stay_slots}
min_stay_slots = {stay_slots}
step_percent = 2
headroom_percent = 2
deadband_percent = 2
least_percent = 2
burst_percent = 0
dedicated_ratio = 1.0
capacity_cells = {capacity_cells}

[hooks.handover]
plugin = "handover"
stream = "rsrp"
mode = "auto"
actuators = ["ran"]
effect_s = 60
cooldown_s = 5
exclude = "none"
options = {{ lead_steps = 1, ttt_ms = 0 }}
# some hundred scored forecasts of a few moving UEs say little of a skill so small
breaker = {{ rows_min = 5000 }}

[hooks.mcs]
plugin = "mcs"
stream = "channel-state"
mode = "auto"
actuators = ["ran"]
effect_s = 15
cooldown_s = 0
holdout_ratio = {holdout_ratio}
exclude = "none"
[hooks.mcs.options]
price = 0.1
price_rate = 1.0

[actuators.ran]
plugin = "webhook"
[actuators.ran.options]
url = "{ran}/actions"
verify_url = "{ran}/objects/{{object_id}}/{{attribute}}"
revert_url = "{ran}/reverts"
hmac_file = {secret_file}
"""


@dataclass
class Loop:
    """What came of it: the accounts, actions by hook and outcome, steps whose actions came late."""

    config: ControlledConfig
    rules: RuleSettings
    static: Account
    plain: Account
    ours: Account
    late_steps: int
    predictor: str
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        plain, ours = self.plain.kpis(), self.ours.kpis()
        return {
            "network": asdict(self.config),
            "static": {"what": str(STATIC), "kpis": self.static.kpis()},
            "plain_rules": {"what": str(self.rules), "kpis": plain},
            "netpredict": {"what": f"{self.predictor} for load, ewma for RSRP and CQI", "kpis": ours},
            "change_against_plain_rules": {
                name: ours[name] / plain[name] - 1 if plain[name] else None for name in plain
            },
            "actions": [{"hook": hook, "outcome": kind, "n": n} for (hook, kind), n in sorted(self.actions.items())],
            "late_steps": self.late_steps,
        }


class Trained(NamedTuple):
    """A network that forecasts load, trained before: its predictor, section of the config, version and artefact."""

    predictor: str
    plugin: str
    options: Mapping[str, Any]
    version: str
    folder: Path

    def section(self) -> str:
        """As TOML."""
        options = ", ".join(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in self.options.items())
        head = f"[predictors.{self.predictor}]\nplugin = {demo_world.quoted(self.plugin)}\n"
        return f"{head}options = {{ {options} }}\n"


def config_text(home: Path, network: ControlledNetwork, url: str, trained: Trained | None) -> str:
    """The config of the daemon in the loop as TOML; ``url`` is that of the RAN controller."""
    covers = {covering: [name] for name, covering in network.capacity_cells.items()}
    pairs = ", ".join(
        f"{demo_world.quoted(name)} = {msgspec.json.encode(names).decode()}" for name, names in covers.items()
    )
    return TEMPLATE.format(
        mark=MARK,
        traffic=demo_world.TRAFFIC,
        folder=demo_world.quoted(str(home)),
        url=demo_world.quoted(f"sqlite:///{home / demo_world.DATABASE}"),
        seed=network.config.seed,
        channel_state_period_s=network.config.channel_state_period_s,
        capacity_cells=f"{{ {pairs} }}",
        ran=url,
        secret_file=demo_world.quoted(str(home / SECRET_FILE)),
        load_by=trained.predictor if trained else "level",
        network=trained.section() if trained else "",
        holdout_ratio=HOLDOUT_RATIO,
        stay_slots=STAY_PERIODS,
    )


def run_loop(home: Path, config: ControlledConfig, trained: Trained | None = None) -> Loop:
    """Run the network untouched, by plain rules, and with netpredict.

    The result goes to ``home``, config and store to a new folder in it.
    Without ``trained`` load is forecast by an exponentially weighted mean too.
    """
    rules = tuned(config)
    static, plain = run_plain(config, STATIC), run_plain(config, rules)
    network = ControlledNetwork(config, rules)
    clock = SimulatedClock(config.start_us)
    folder = home / FOLDER
    folder.mkdir(parents=True)
    secret = shared_secret(folder / SECRET_FILE)
    ues, radio_cells = frozenset(network.ue_ids), frozenset(network.radio_cell_ids)
    controller = RanController(radio_cells, frozenset(network.capacity_cells), ues, secret, clock.now_us)
    with ControllerServer(controller) as server:
        text = config_text(folder, network, server.url, trained)
        (folder / demo_world.CONFIG_FILE).write_text(text, encoding="utf-8")
        parsed = demo_world.parsed(text)
        migrate.upgrade(parsed.store_url)
        if trained is not None:
            with SqlStore(parsed.store_url) as store:
                what = ("traffic", trained.predictor, trained.version, trained.plugin, str(trained.folder))
                store.register_model(*what, {}, "active")
        late_steps = Driver(parsed, network, controller, clock).run()
    loop = Loop(config, rules, static, plain, network.account, late_steps, trained.predictor if trained else "ewma")
    for row in History(parsed.store_url).firings(limit=1_000_000):
        loop.actions.update((row["hook"], outcome_text(outcome)) for outcome in row["outcomes"])
    (home / RESULT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(loop.document())) + b"\n")
    return loop


SHOWN = {
    "outage_ratio": ("outage, share of UE-seconds", -1),
    "over_provisioned_prb_percent": ("over-provisioned PRBs, % of a carrier", -1),
    "unserved_prb_percent": ("demand not served, % of a carrier", -1),
    "prb_cost_percent": ("their cost, unserved 4 times as dear", -1),
    "goodput_bps_hz": ("goodput of a UE, bit/s/Hz", 1),
}
"""KPIs by which the loop is judged, their names for people, and which way is better."""
BESIDE = {
    "changes_per_radio_cell_hour": "changes of PRBs per radio cell and hour",
    "bler_ratio": "block error ratio",
    "handovers_per_ue_minute": "handovers per UE-minute",
    "failed_handovers_per_ue_minute": "failed handovers per UE-minute",
    "ping_pongs_per_ue_minute": "ping-pongs per UE-minute",
}
"""What has to be seen beside them."""


def shown_kpis(loop: Loop) -> list[tuple[str, bool]]:
    """Names of the KPIs by which the loop is judged, and whether each is no worse with netpredict."""
    plain, ours = loop.plain.kpis(), loop.ours.kpis()
    return [(text, sign * (ours[name] - plain[name]) >= 0) for name, (text, sign) in SHOWN.items()]


def outcome_text(outcome: Mapping[str, Any]) -> str:
    """What came of an action, with the reason where it was not applied."""
    kind = outcome["kind"] or "not finished"
    return kind if kind in (OutcomeKind.APPLIED, "not finished") else f"{kind}: {outcome['reason']}"


def shared_secret(path: Path) -> bytes:
    """A new secret in a new file that nobody else can read."""
    secret = secrets.token_hex(32)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret)
    return secret.encode()


class Driver:
    """Moves the network on, step by step with a daemon that reads its telemetry from memory."""

    def __init__(
        self, config: Config, network: ControlledNetwork, controller: RanController, clock: SimulatedClock
    ) -> None:
        self._network, self._controller, self._clock = network, controller, clock
        log = MemoryLog(dict.fromkeys(TOPICS.values(), 1))
        self._source = SharedSource(log, 10_000, LOOK_S)
        self._daemon = Daemon(config, lambda _config, _on_revoke: self._source, clock=clock)
        self._thread = DaemonThread(self._daemon)
        self._history = History(config.store_url)
        self._written = 0

    def run(self) -> int:
        """The whole run; gives how many steps went on before all their actions had come to an end."""
        late_steps, left_s = 0, WAIT_MAX_S
        self._thread.start()
        try:
            self._wait(lambda: self._daemon.phase == "running", 60.0)
            for second in self._network.seconds():
                snapshot = self._network.step(second, self._controller.take_orders())
                self._write(list(self._network.simulator.encode(snapshot)))
                self._clock.time_us = snapshot.event_time_us + 1_000 * demo_world.INGEST_DELAY_MS
                begun_s = time.monotonic()
                if not self._wait(self._settled, min(STEP_MAX_S, max(left_s, STEP_LEAST_S))):
                    late_steps += 1
                left_s -= time.monotonic() - begun_s
        finally:
            self._daemon.flags.stop = True
            self._thread.join()
        if self._thread.failure is not None:
            raise self._thread.failure
        return late_steps

    def _write(self, messages: list[TraceMessage]) -> None:
        with self._source.lock:
            for message in messages:
                time_ms = message.event_time_us // 1000 + demo_world.INGEST_DELAY_MS
                self._source.log.append(TOPICS[message.stream], message.key, message.value, time_ms)
            self._written += len(messages)

    def _settled(self) -> bool:
        """Whether all records are durable and all their actions have an outcome."""
        if sum(self._source.reported.copy().values()) < self._written:
            return False
        return not any(self._history.outbox_depth().values())

    def _wait(self, met: Any, most_s: float) -> bool:
        until_s = time.monotonic() + most_s
        while not met():
            if not self._thread.is_alive():
                raise self._thread.failure or NetpredictError("the daemon of the closed loop has ended")
            if time.monotonic() > until_s:
                return False
            time.sleep(LOOK_S)
        return True

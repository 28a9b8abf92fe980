"""``netpredict demo``: the main job without any server, from training to actions, in little more than a minute."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from netpredict.build import build_streams
from netpredict.cli import demo_figures, demo_loop, demo_loop_figure, demo_training, demo_world
from netpredict.cli.demo_loop import Loop, Trained, run_loop
from netpredict.cli.demo_training import Training
from netpredict.cli.demo_view import LiveView, Watcher, skill_rows, status_line, utc
from netpredict.cli.demo_world import MARK, DaemonThread, Network, SharedSource, SimulatedClock
from netpredict.config import Config
from netpredict.errors import ConfigError
from netpredict.ingest.source import MemoryLog
from netpredict.learn.child import Step
from netpredict.learn.retrain import models_folder
from netpredict.operate.daemon import Daemon
from netpredict.operate.logs import configure_logs
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.traces.controlled import ControlledConfig

START_US = 1_767_765_600_000_000
"""The demo begins on Wednesday 2026-01-07 at 06:00 UTC, when load begins to rise."""
FRAMES_PER_S = 4
LINE_EVERY_S = 3.0
OVERTIME = 1.2
"""A slow machine sees less of the simulated day, not a longer demo."""
SETTLE_S = 3.0
POLL_RECORDS_MAX = 10_000
LOOP_QUIET_S, LOOP_SESSION_S, LOOP_WHOLE_FROM_S = 7200, 300, 20
"""Simulated time of the closed loop: without and with UEs; a demo shorter than so long has less of it."""
LOG_FILE = "demo.log"
INTERRUPTED = 130
UNITS = {"prb_use_dl_percent": " %", "rsrp_dbm": " dB"}


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long to run, s; 25 s show up to five hours.")] = 25,
    radio_cells: Annotated[int, typer.Option(min=7, max=5000, help="Radio cells of the simulated network.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same network.")] = 1,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write; made anew [default: ./netpredict-demo-SEED].")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live view.")] = False,
    closed_loop: Annotated[
        bool, typer.Option(help="Then let it act on a smaller network whose telemetry depends on its actions.")
    ] = True,
) -> int:
    """Show what netpredict does, without a broker or a database server."""
    home = (folder or Path(f"netpredict-demo-{seed}")).absolute()
    make_folder(home)
    console = Console(markup=False, highlight=False, emoji=False)
    plain = plain or not console.is_terminal
    with stderr_in(home / LOG_FILE):
        return Demo(home, console, plain, seconds, radio_cells, seed, closed_loop).run()


def make_folder(home: Path) -> None:
    """An empty folder; only one that a demo has written, and none is using, is emptied for it."""
    if home.exists() and any(home.iterdir()):
        config = home / demo_world.CONFIG_FILE
        if not (config.is_file() and config.read_text(encoding="utf-8").startswith(MARK)):
            raise ConfigError(f"{home} is not empty and was not written by a demo; choose another --folder")
        demo_world.refuse_if_in_use(home)
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def stderr_in(path: Path) -> Iterator[None]:
    """Send all that is written to stderr to a file, also by libraries that are no Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
        stderr, sys.stderr = sys.stderr, open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stderr = stderr
            os.dup2(kept, 2)
            os.close(kept)


@dataclass
class Demo:
    """One run: 1 config, store; 2 the network's past; 3 training; 4 the daemon over the network's future; 5 a closed
    loop; 6 what came of both.
    """

    home: Path
    console: Console
    plain: bool
    seconds: float
    radio_cells: int
    seed: int
    closed_loop: bool = True

    def run(self) -> int:
        """All of it; the exit code."""
        begun_s = time.monotonic()
        configure_logs("json", "info", out=sys.stderr)
        self.say(f"netpredict demo: {self.radio_cells} radio cells, seed {self.seed}. Writing to {self.home}")
        config = self.configured()  # 1
        try:
            trainings = self.trained(config)  # 2, 3
        except (KeyboardInterrupt, demo_training.Cancelled):
            self.say("Stopped before the daemon started.")
            return INTERRUPTED
        network = self.watched(config)  # 4
        loop = self.looped(*self.loop_of(config, trainings)) if self.closed_loop else None  # 5
        self.say("Drawing ...")
        history = History(config.store_url)
        span_us = (network.begin_us, network.now_us)
        figures = demo_figures.draw_all(self.home, config, history, trainings, span_us)  # 6
        if loop is not None:
            figures.append(demo_loop_figure.draw(self.home, loop))
        Summary(self.console, config, history, trainings, figures, loop).show(self.home, network)
        self.say(f"{time.monotonic() - begun_s:.0f} s in all.")
        return 0

    def say(self, text: str) -> None:
        """A line for the user."""
        self.console.print(Text(text))

    def configured(self) -> Config:
        """The config, written to the folder too, and an empty store."""
        text = demo_world.config_text(self.home, self.seed)
        (self.home / demo_world.CONFIG_FILE).write_text(text, encoding="utf-8")
        config = demo_world.parsed(text)
        migrate.upgrade(config.store_url)
        return config

    def trained(self, config: Config) -> list[Training]:
        """Predictors of all streams, trained and active."""
        start_us = START_US - demo_training.RADIO_HISTORY_S * 1_000_000
        self.simulator = demo_world.simulated_network(self.radio_cells, self.seed, start_us)
        past = demo_training.past(self.simulator)
        streams = {stream.name: stream for stream in build_streams(config)}
        self.say("Training on what the simulated network told before ...")
        shown = TrainingProgress(self.console, self.plain, demo_training.jobs(config))
        with shown:
            trainings = demo_training.train_all(config, streams, past, START_US, shown.step, shown.done)
        demo_training.put_on_the_shelf(config, config.store_url, trainings)
        return trainings

    def watched(self, config: Config) -> Network:
        """Run the daemon over the network's future and show it, until the end, the time limit or Ctrl-C."""
        clock = SimulatedClock(START_US)
        log = MemoryLog(dict.fromkeys(demo_world.TOPICS.values(), demo_world.PARTITIONS))
        source = SharedSource(log, POLL_RECORDS_MAX)
        daemon = Daemon(config, lambda _config, _on_revoke: source, clock=clock)
        network = Network(self.simulator, source, clock, round(self.seconds * demo_world.TIME_LAPSE))
        runner = DaemonThread(daemon)
        runner.start()
        self.say("Starting the daemon ...")
        try:
            self._until(lambda: daemon.phase == "running", runner)
            network.start()
            self._watch(runner, network, Watcher(daemon, network, History(config.store_url)))
        except KeyboardInterrupt:
            self.say("Stopping; a second Ctrl-C will not wait.")
        finally:
            network.stopping = True
            daemon.flags.stop = True
            runner.join()
        for failure in (runner.failure, network.failure):
            if failure is not None:
                raise failure
        return network

    def loop_of(self, config: Config, trainings: Sequence[Training]) -> tuple[Path, ControlledConfig, Trained]:
        """What the closed loop is run with, among it the network that forecast the load of the past best."""
        best = max((one for one in trainings if one.stream == "traffic"), key=lambda one: one.skill)
        bound = config.predictors[best.predictor]
        folder = models_folder(config, best.stream, best.predictor) / best.version
        trained = Trained(best.predictor, bound.plugin, bound.options, best.version, folder)
        size = ControlledConfig(
            seed=self.seed,
            quiet_s=60 * round(min(LOOP_QUIET_S, self.seconds * LOOP_QUIET_S / LOOP_WHOLE_FROM_S) / 60),
            session_s=60 * max(1, round(min(LOOP_SESSION_S, self.seconds * LOOP_SESSION_S / LOOP_WHOLE_FROM_S) / 60)),
        )
        self.say("Closing the loop: every action goes to a RAN controller, and a network does as it is told ...")
        return self.home, size, trained

    def looped(self, home: Path, size: ControlledConfig, trained: Trained) -> Loop | None:
        """What came of the closed loop; None after Ctrl-C."""
        try:
            return run_loop(home, size, trained)
        except KeyboardInterrupt:
            self.say("Stopped before the loop was over.")
            return None

    def _until(self, met: Any, runner: DaemonThread) -> None:
        while not met() and runner.is_alive():
            time.sleep(0.05)

    def _watch(self, runner: DaemonThread, network: Network, watcher: Watcher) -> None:
        view = LiveView(f"netpredict demo · {self.radio_cells} radio cells · seed {self.seed}")
        live = Live(view, console=self.console, screen=True, auto_refresh=False, redirect_stderr=False)
        deadline_s = time.monotonic() + OVERTIME * self.seconds
        line_at_s = settled_at_s = float("-inf")
        with contextlib.nullcontext() if self.plain else live:
            while runner.is_alive():
                seen = watcher.read()
                view.seen, view.rates = seen, watcher.rates
                now_s = time.monotonic()
                if not self.plain:
                    live.refresh()
                elif now_s - line_at_s >= LINE_EVERY_S:
                    line_at_s = now_s
                    self.say(status_line(seen))
                if now_s > deadline_s:
                    network.stopping = True
                if not network.is_alive() and seen.lag == 0:
                    settled_at_s = now_s if settled_at_s == float("-inf") else settled_at_s
                    done = seen.durable == network.written and not seen.under_way
                    if done or now_s - settled_at_s > SETTLE_S:
                        return
                time.sleep(1 / FRAMES_PER_S)


class TrainingProgress:
    """A bar for each training with its losses and the time left; plain: a line when one is done."""

    def __init__(self, console: Console, plain: bool, jobs: Sequence[tuple[str, str]]) -> None:
        self._console = console
        self._plain = plain
        self._progress = Progress(
            TextColumn("{task.description:<26}", markup=False),
            BarColumn(bar_width=24, pulse_style="bar.back"),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=plain,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        for job in jobs:
            self._tasks[job] = self._progress.add_task(" ".join(job), total=1, start=False, state="waiting")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, stream: str, predictor: str, step: Step) -> None:
        """One train_epoch is done."""
        task = self._tasks[stream, predictor]
        self._progress.start_task(task)
        losses = "  ".join(
            f"{name} {value:.3f}" for name, value in (("loss", step.loss), ("held out", step.validation_loss)) if value
        )
        state = f"epoch {step.done}/{step.total}  {losses}  {step.left_s:3.0f} s left"
        self._progress.update(task, completed=step.done, total=step.total, state=state)

    def done(self, training: Training) -> None:
        """One training is done."""
        name = (training.stream, training.predictor)
        text = f"{training.seconds:.1f} s, held-out skill {training.skill:+.3f}"
        if self._plain:
            self._console.print(Text(f"trained {' '.join(name)}: {text}"))
        else:
            epochs = len(training.loss)
            self._progress.update(self._tasks[name], completed=epochs, total=epochs, state=text)
            self._progress.stop_task(self._tasks[name])


@dataclass
class Summary:
    """What the demo did, from the store."""

    console: Console
    config: Config
    history: History
    trainings: Sequence[Training]
    figures: Sequence[Path]
    loop: Loop | None = None

    def show(self, home: Path, network: Network) -> None:
        """Print it."""
        hours = (network.now_us - network.begin_us) / 3.6e9
        self.console.print(
            Text(f"\n{hours:.1f} simulated hours up to {utc(network.now_us)} UTC, {network.written:,} records.")
        )
        self.accounts(network)
        self.skill()
        self.training()
        self.actions()
        if self.loop is not None:
            self.closed_loop(self.loop)
        self.next_steps(home)

    def accounts(self, network: Network) -> None:
        """Every offset of the log is one record that was accepted, duplicate, late, dead or control."""
        counts = ("accepted", "duplicate", "late", "dead", "control")
        table = _table("topic / partition", "offsets", *counts, "accounted for")
        rows = self.history.progress()
        for row in rows:
            total = sum(row[name] for name in counts)
            good = "every one" if total == row["next_offset"] else f"{total - row['next_offset']:+,}"
            table.add_row(
                f"{row['topic']}/{row['partition']}", _n(row["next_offset"]), *(_n(row[c]) for c in counts), good
            )
        covered = sum(row["next_offset"] for row in rows)
        table.add_row(
            "all", _n(covered), *(_n(sum(row[c] for row in rows)) for c in counts), f"of {network.written:,} written"
        )
        self._print("Records", table)

    def skill(self) -> None:
        """Accuracy over all lead times, as scored live."""
        table = _table("stream", "predictor", "scored", "MAE", "MAE of naive", "skill", "within 10..90 %")
        for row in skill_rows(self.history.skill()):
            active = self.config.streams[row.stream].routes[0].active == row.predictor
            unit = UNITS.get(row.kpi, "")
            table.add_row(
                row.stream,
                f"{row.predictor}{'' if active else ' (shadow)'}",
                _n(row.n),
                f"{row.mae:.3f}{unit}",
                f"{row.naive_mae:.3f}{unit}",
                f"{row.skill:+.3f}",
                f"{row.covered:.1%}",
            )
        self._print("Accuracy of the networks, scored as the truth arrived (skill above 0: better than naive)", table)

    def training(self) -> None:
        """What training took."""
        table = _table("stream", "predictor", "version", "epochs", "seconds", "skill on held-out history")
        for one in self.trainings:
            table.add_row(
                one.stream, one.predictor, one.version, str(len(one.loss)), f"{one.seconds:.1f}", f"{one.skill:+.3f}"
            )
        self._print("Training", table)

    def actions(self) -> None:
        """Firings by hook and what came of them."""
        counted: Counter[tuple[str, str, str]] = Counter(
            (row["hook"], row["mode"], demo_figures.outcome_of(row))
            for row in self.history.firings(limit=demo_figures.ACTIONS_MAX)
        )
        table = _table("hook", "mode", "outcome", "actions")
        for (hook, mode, outcome), n in sorted(counted.items()):
            table.add_row(hook, mode, outcome, _n(n))
        self._print("Actions", table)

    def closed_loop(self, loop: Loop) -> None:
        """KPIs of the closed loop, and what came of its actions."""
        table = _table("KPI", "static", "plain rules", "netpredict", "to plain rules")
        runs = [account.kpis() for account in (loop.static, loop.plain, loop.ours)]
        better = dict(demo_loop.shown_kpis(loop))
        for name, text in (*((name, text) for name, (text, _) in demo_loop.SHOWN.items()), *demo_loop.BESIDE.items()):
            static, plain, ours = (kpis[name] for kpis in runs)
            word = {True: "", False: "  worse"}.get(better.get(text, True), "")
            change = f"{demo_loop_figure.change_text(plain, ours)}{word}"
            table.add_row(text, f"{static:.4g}", f"{plain:.4g}", f"{ours:.4g}", change)
        self._print("The closed loop: KPIs of one network without and with netpredict", table)
        counted = _table("hook", "outcome", "actions")
        for (hook, outcome), n in sorted(loop.actions.items()):
            counted.add_row(hook, outcome, _n(n))
        self._print(f"Plain rules: {loop.rules}", counted)
        if loop.late_steps:
            self.console.print(Text(f"{loop.late_steps} steps did not wait for all their actions: too slow a machine."))

    def next_steps(self, home: Path) -> None:
        """Commands that look into what the demo left behind."""
        shown = _relative(home)
        config = f"--config {shown / demo_world.CONFIG_FILE}"
        loop = f"--config {shown / demo_loop.FOLDER / demo_world.CONFIG_FILE}"
        lines = [
            ("figures", " ".join(path.name for path in self.figures) + f" in {shown}"),
            ("look", f"netpredict streams {config}"),
            ("", f"netpredict forecasts --stream traffic {config}"),
            ("", f"netpredict actions list --hook handover --limit 5 {config}"),
            ("", f"netpredict dead-letters list {config}"),
            *([("loop", f"netpredict actions effect {loop}")] if self.loop is not None else []),
            ("change", f"{shown / demo_world.CONFIG_FILE}, then: netpredict check-config {config}"),
            ("run", "netpredict run --config netpredict.toml, with a broker; netpredict sample-config begins one"),
        ]
        table = Table.grid(padding=(0, 2))
        for name, text in lines:
            table.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
        self._print("What to try next", table)

    def _print(self, title: str, table: Table) -> None:
        self.console.print()
        self.console.print(Text(title, style="bold"))
        self.console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    numeric = {"offsets", "accepted", "duplicate", "late", "dead", "control", "scored", "MAE", "MAE of naive", "skill"}
    numeric |= {"static", "plain rules", "netpredict", "to plain rules"}
    numeric |= {"epochs", "seconds", "actions", "within 10..90 %", "skill on held-out history"}
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left")
    return table


def _n(number: int) -> str:
    return f"{number:,}"


def _relative(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path

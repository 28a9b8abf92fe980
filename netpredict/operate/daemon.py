"""The daemon: poll, step, commit, again. Parts start from the end of the line and stop from its beginning."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog

import netpredict
from netpredict import crash
from netpredict.act.breaker import CircuitBreakers, Watched, watched_of
from netpredict.act.guards import GuardSettings, guards_of
from netpredict.act.revert import EffectWatch
from netpredict.act.runner import ActionRunner
from netpredict.build import build_actuators, build_streams
from netpredict.clock import Clock, SystemClock
from netpredict.config import Config, RevertConfig, load_config
from netpredict.errors import NetpredictError, SourceUnavailable, StoreUnavailable
from netpredict.ingest.source import Source
from netpredict.learn import jobs
from netpredict.learn.retrain import models_folder
from netpredict.learn.retrainer import Retrainer
from netpredict.learn.shelf import StoreShelf
from netpredict.operate import memory
from netpredict.operate.control import ControlSocket, control_folder
from netpredict.operate.health import HealthServer, health_app
from netpredict.operate.logs import RateLimit, configure_logs
from netpredict.operate.metrics import Metrics
from netpredict.operate.notify import Notifier, Watchdog
from netpredict.operate.outlet import SLOWEST_S, ForecastPublisher
from netpredict.operate.ownership import Ownership
from netpredict.operate.policy import PolicyJob
from netpredict.operate.scheduler import RetrainScheduler, ScheduledJob
from netpredict.operate.sink import Sink
from netpredict.operate.standing import Standing
from netpredict.operate.tally import Tally
from netpredict.operate.writer import CommitWriter
from netpredict.pipeline import Pipeline
from netpredict.store import migrate
from netpredict.store.breakers import SqlBreakers
from netpredict.store.commit import GapRow
from netpredict.store.history import History
from netpredict.store.mobility import MobilityHistory
from netpredict.store.outbox import SqlOutbox
from netpredict.store.publication import SqlPublications
from netpredict.store.reversal import SqlFollowUps
from netpredict.store.sql import SqlStore
from netpredict.stream import Stream
from netpredict.types import ArmState, Mode, TopicPartition

LOG = structlog.get_logger(__name__)
CHORES_S = 1.0
"""Metrics are brought up to date this often."""
MODELS_S = 2.0
"""The store is asked this often whether another model version became active, and what was asked for."""
TRIALS_CRON = "*/5 * * * *"
"""Trials of model versions are judged, and bad forecasts noticed, this often."""
POLICIES_CRON = "* * * * *"
"""Policies over stored mobility look this often whether a window is complete."""
COLLECT_S = 30.0
"""The cyclic garbage collector is off during steps; it runs on an idle poll at most this often, and at ten times it."""
SWITCH_S = 0.001
"""How long a thread may hold the GIL while another waits: the commit writer lets go of it often."""
POLL_LEAST_S = 0.005
DAY_US = 86_400_000_000

MakeSource = Callable[[Config, Callable[[tuple[TopicPartition, ...]], None]], Source]
MakeSink = Callable[[Config], Sink]


@dataclass
class Flags:
    """What signals ask for. Handlers only set them."""

    stop: bool = False
    reload: bool = False

    def install(self) -> None:
        """SIGTERM and SIGINT stop, SIGHUP reloads."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.stop = True

        def reload(_number: int, _frame: FrameType | None) -> None:
            self.reload = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, reload)


@dataclass
class _Timer:
    """Says when something that is done every so often is due."""

    every_s: float
    last_s: float = field(default=float("-inf"))

    def due(self, now_s: float) -> bool:
        if now_s - self.last_s < self.every_s:
            return False
        self.last_s = now_s
        return True


class Daemon:
    """One instance over one source and one store. ``run`` returns when ``flags.stop`` was set and all is durable."""

    def __init__(
        self,
        config: Config,
        make_source: MakeSource,
        *,
        clock: Clock | None = None,
        reread: Callable[[], Config] | None = None,
        notifier: Notifier | None = None,
        make_sink: MakeSink | None = None,
        log_limits: Sequence[RateLimit] = (),
    ) -> None:
        self.config = config
        self.flags = Flags()
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self.tally = Tally(self.metrics)
        self.notifier = notifier or Notifier({})
        self.watchdog = Watchdog(self.notifier, self.clock)
        self.phase = "starting"
        # containers of one image may share host name and process id
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.http_address: tuple[str, int] | None = None
        self.publisher: ForecastPublisher | None = None
        self._make_source = make_source
        self._make_sink = make_sink or kafka_sink
        self._reread = reread
        self._log_limits = log_limits
        self._beat_s = self.clock.monotonic_s()
        self._commit = _Timer(config.daemon.commit_interval_s, self._beat_s)
        self._chores, self._models, self._collect = _Timer(CHORES_S), _Timer(MODELS_S), _Timer(COLLECT_S)
        self._lag: Mapping[TopicPartition, int] = {}
        self._trouble = ""

    # -- life ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start the parts from the end of the line, loop, stop them from its beginning."""
        gc_was_on = gc.isenabled()
        with ExitStack() as running:
            self._start(running)
            if not self.flags.stop:
                self._enter("running")
                self.notifier.ready("running")
            gc.freeze()
            gc.disable()
            sys.setswitchinterval(SWITCH_S)
            try:
                while not self.flags.stop:
                    if self.flags.reload:
                        self._reload()
                    self._turn()
            finally:
                if gc_was_on:
                    gc.enable()
                self._enter("draining")
                self.notifier.stopping("draining")
            self._drain()

    def _start(self, running: ExitStack) -> None:
        self.metrics.build_info(netpredict.__version__)
        self._enter("starting")
        self.store = SqlStore(self.config.store_url, self.clock, publishing=self.config.publish.enabled)
        self.store.start()
        running.callback(self.store.close)
        self._listen(running)
        self._build(self.config)
        self.runner = self._action_runner()
        self.runner.start()
        running.callback(self.runner.stop, 10.0)
        self._start_publisher(running)
        self.writer = CommitWriter(self.store, self.config.store, self.clock, self._prune)
        self.writer.start()
        running.callback(self.writer.stop, self.config.daemon.drain_s)
        if swept := jobs.sweep(models_folder(self.config)):
            LOG.info("trainings_swept", folders=swept)
        self.retrainer = Retrainer(self.config, self.streams, self.store, self.clock, lambda: self.flags.stop)
        mobility = MobilityHistory(self.config.store_url)
        self.policy_job = PolicyJob(
            list(self.streams.values()), mobility, self.store, publish=self.config.publish.enabled
        )
        self.scheduler = RetrainScheduler(self._jobs())
        self.scheduler.start()
        running.callback(self.scheduler.stop, True)
        running.callback(self.retrainer.stop)  # first: a training under way ends at once
        self._watch(running)
        self.source = self._make_source(self.config, self._before_revoke)
        running.callback(lambda: self.source.close())
        self.ownership = Ownership(self.pipeline, self.source, self.metrics, self.clock, self._taken_over)
        self._connect()

    def _listen(self, running: ExitStack) -> None:
        """Verbs of the command line come in from here on, also while the rest starts and drains."""
        if self.store.database.shared:
            return  # they write for themselves
        control = ControlSocket(control_folder(self.config.daemon.data_dir), self.store)
        control.start()
        running.callback(control.stop)
        self.store.announce(control.path)

    def _connect(self) -> None:
        wait_s = 0.5
        while not self.flags.stop:
            try:
                self.source.start()
                return
            except SourceUnavailable as error:
                LOG.warning("source_unavailable", error=str(error), wait_s=wait_s)
                self._tell_trouble()
                self._moved()
                self.clock.sleep(wait_s)
                wait_s = min(2 * wait_s, 10.0)

    def _build(self, config: Config) -> None:
        """Streams and pipeline of a config; raises before anything is replaced."""
        streams = build_streams(config)
        shelf = StoreShelf(config, self.store, streams)
        self.pipeline = Pipeline(config.kafka.group, streams, self.store, shelf, self.owner)
        self.streams: dict[str, Stream] = {stream.name: stream for stream in streams}
        self.shelf = shelf
        self.config = config

    def _action_runner(self) -> ActionRunner:
        actuators = build_actuators(self.config)
        self.breakers = CircuitBreakers(SqlBreakers(self.store), self._watched(), self.clock)
        follow_ups, history = SqlFollowUps(self.store, self.owner), History(self.config.store_url)
        self.effects = EffectWatch(follow_ups, actuators, history.mean, self._reverts(), self.clock)
        chores = [self.breakers.turn, self.effects.turn]
        self.outbox = outbox = SqlOutbox(self.store, self.owner, self._exclusions())
        return ActionRunner(outbox, actuators, self.clock, guards=self._guards(), chores=chores)

    def _guards(self) -> dict[str, GuardSettings]:
        return {name: guards_of(hook) for name, hook in self.config.hooks.items()}

    def _exclusions(self) -> dict[str, dict[str, list[str]]]:
        return {name: hook.neighbours for name, hook in self.config.hooks.items() if hook.exclude == "effect"}

    def _reverts(self) -> dict[str, RevertConfig]:
        return {name: hook.revert for name, hook in self.config.hooks.items()}

    def _watched(self) -> list[Watched]:
        return [
            watched
            for stream in self.streams.values()
            for bound in stream.hooks
            for watched in watched_of(
                bound.name,
                bound.config,
                stream.config,
                bound.hook.kpis_needed(),
                bound.hook.steps_needed(),
                stream.levels,
            )
        ]

    def _start_publisher(self, running: ExitStack) -> None:
        config = self.config
        if not config.publish.enabled:
            return
        publications = SqlPublications(self.store, config.kafka.group, self.owner)
        make_sink = lambda: self._make_sink(config)  # noqa: E731
        self.publisher = ForecastPublisher(
            config.publish, config.kafka.group, config.streams, publications, make_sink, self.clock
        )
        self.publisher.start()
        running.callback(self.publisher.stop, config.daemon.drain_s)
        self.metrics.before_render(lambda: self.metrics.unpublished_windows.set(publications.count()))

    def _jobs(self) -> list[ScheduledJob]:
        jobs = [ScheduledJob("policies", POLICIES_CRON, self._review)]
        if not self.config.learn.enabled:
            return jobs
        return [
            *jobs,
            ScheduledJob("retrain", self.config.learn.cron, self.retrainer.scheduled),
            ScheduledJob("trials", TRIALS_CRON, self.retrainer.turn),
        ]

    def _review(self) -> None:
        """Let the policies decide, and see to it that what they or a verb have fired is published."""
        self.policy_job.scheduled()
        if self.publisher is not None:
            self.publisher.look_back()

    def _watch(self, running: ExitStack) -> None:
        stall_s = self.config.daemon.stall_after_s
        self.watchdog.register("loop", lambda: self._beat_s, stall_s)
        self.watchdog.register("writer", self.writer.beat, stall_s + self.config.store.retry_max_s)
        self.watchdog.register("runner", lambda: self.runner.beat, stall_s)
        if self.publisher is not None:
            self.watchdog.register("publisher", self.publisher.beat, stall_s + SLOWEST_S)
        self.watchdog.register("scheduler", self.scheduler.beat, stall_s)
        self.watchdog.start()
        running.callback(self.watchdog.stop)
        standing = Standing(self.metrics, self.clock)
        standing.of_store(History(self.config.store_url), lambda: list(self.config.hooks), list(self.streams))
        standing.of_jobs(self.scheduler.last_runs)
        standing.of_loops(self.watchdog.late)
        standing.of_logs(self._log_limits)
        if self.config.http.enabled:
            app = health_app(self.watchdog.late, self._not_ready, self.metrics)
            server = HealthServer(app, self.config.http)
            server.start()
            running.callback(server.stop)
            self.http_address = server.address

    def _not_ready(self) -> list[str]:
        phase = [] if self.phase == "running" else [self.phase]
        return [*phase, self._trouble] if self._trouble else phase

    def _tell_trouble(self) -> None:
        """What keeps records from coming, to readyz and to ``systemctl status``."""
        if self.source.trouble != self._trouble:
            self._trouble = self.source.trouble
            self.notifier.status(f"{self.phase}; {self._trouble}" if self._trouble else self.phase)

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.metrics.enter_phase(phase)
        LOG.info("phase", phase=phase)

    def _taken_over(self) -> None:
        self._moved()
        if self.publisher is not None:
            self.publisher.look_back()

    def _moved(self) -> None:
        self._beat_s = self.clock.monotonic_s()

    # -- the loop ------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One turn: 1 poll; 2 follow the assignment; 3 step; 4 settle and submit commits; 5 chores."""
        polled = self.source.poll(self._poll_s())  # 1
        if polled:
            crash.reached("after_poll")
        moved = self.ownership.follow(self.source.changes())  # 2
        with self._timed("step", bool(polled)):
            self.pipeline.step([part for part in polled if part.topic_partition not in moved])  # 3
        self._moved()
        self._settle()  # 4
        now_s = self._beat_s
        full = self.pipeline.rows_pending >= self.config.daemon.commit_rows_max
        if not self.writer.busy and (full or self._commit.due(now_s)):
            self._submit()
        elif self.pipeline.rows_pending >= 2 * self.config.daemon.commit_rows_max:
            self._hold_back()
        self._do_chores(now_s, idle=not polled)  # 5

    @contextmanager
    def _timed(self, phase: str, counts: bool = True) -> Iterator[None]:
        began_s = self.clock.monotonic_s()
        yield
        if counts:
            self.metrics.step_seconds.labels(phase).observe(self.clock.monotonic_s() - began_s)

    def _poll_s(self) -> float:
        """How long a poll may wait: no longer than until the next commit is due, while there is something to commit."""
        if not self.pipeline.rows_pending:
            return self.config.kafka.poll_timeout_s
        due_s = self._commit.last_s + self._commit.every_s - self.clock.monotonic_s()
        return min(self.config.kafka.poll_timeout_s, max(due_s, POLL_LEAST_S))

    def _submit(self) -> None:
        for gap in self.source.gaps():
            lane = self.pipeline.lanes.get(gap.topic_partition)
            if lane is not None:
                lane.gaps.append(GapRow(gap.first, gap.until, gap.reason))
        with self._timed("gather"):
            commit = self.pipeline.take_commit()
        if commit is not None:
            self._commit.last_s = self.clock.monotonic_s()
            self.writer.submit(commit)

    def _settle(self) -> None:
        """Take note of what became durable; raise what ended the writer."""
        if self.writer.failure is not None:
            raise self.writer.failure
        written = self.writer.written()
        if written is None:
            return
        self.tally.committed(written)
        if self.publisher is not None:
            self.publisher.offer(written)
        for lane in written.commit.lanes:
            if lane.topic_partition in written.fenced:
                self.ownership.give_way(lane.topic_partition, lane.epoch, self.config.kafka.session_timeout_s / 2)
        durable = {
            lane.topic_partition: lane.new_offset
            for lane in written.commit.lanes
            if lane.topic_partition not in written.fenced
        }
        self.source.report_progress(durable)
        if any(lane.firings for lane in written.commit.lanes):
            self.runner.wake()

    def _hold_back(self) -> None:
        """Two commits' worth wait: poll nothing new, but keep polling for the group's sake, until one is durable."""
        self.source.pause()
        while self.writer.busy and self.writer.failure is None and not self.flags.stop:
            self.writer.wait(0.5)
            self.source.poll(0.0)
            self.ownership.follow(self.source.changes())
            self._moved()
        self.source.resume()

    def _before_revoke(self, _topic_partitions: tuple[TopicPartition, ...]) -> None:
        """On the listener's thread: the commit in flight may still count before the new owner takes its epoch."""
        crash.reached("on_revoke")
        self.writer.wait(min(10.0, self.config.kafka.session_timeout_s / 3))

    def _do_chores(self, now_s: float, idle: bool) -> None:
        if self._chores.due(now_s):
            self._tell_trouble()
            self._lag = self.pipeline.lag(self.source.end_offsets())
            self._count()
            self.ownership.try_again()
        if self._models.due(now_s):
            self._ask_store()
        if (idle and self._collect.due(now_s)) or now_s - self._collect.last_s > 10 * COLLECT_S:
            self._collect.last_s = now_s
            memory.collect()

    def _count(self) -> None:
        self.tally.update(self.pipeline, self.streams, self._lag, self.runner.stats)
        self.tally.behind(self.pipeline, self._lag, self.clock.now_us())
        self.tally.clients(self.source.stats, self.writer.retries, len(self.store.damaged))
        for (hook, group), state in self.breakers.states.items():
            self.metrics.hook_disarmed.labels(hook, group).set(state is ArmState.NOT_MEET)
        self.tally.learned(self.retrainer.results, self.retrainer.trials)
        if self.publisher is not None:
            topics = self.config.publish
            self.tally.published(self.publisher.stats, topics.forecasts_topic, topics.actions_topic)

    def _ask_store(self) -> None:
        """What others want of this daemon; a store that is away is asked again next time."""
        try:
            self._follow_models()
            self.pipeline.take_requests()
        except StoreUnavailable as error:
            LOG.warning("store_not_asked", error=str(error))

    def _follow_models(self) -> None:
        """A version that became active serves from the next record on, a challenger is on trial."""
        for stream in self.streams.values():
            for name in stream.predictor_names():
                version = self.shelf.active(stream.name, name)
                if version is not None:
                    self.pipeline.activate(stream.name, name, version)
                self.pipeline.challenge(stream.name, name, self.shelf.challenger(stream.name, name))

    def _prune(self) -> None:
        """On the writer's thread, behind a commit: retention by event time, so that a replay of old data keeps it.

        Dead letters and gaps, whose times say little, age by the clock.
        """
        config, newest = self.config.store, self.pipeline.oldest_watermark_us()
        if newest is None or not config.prune_rows:
            return
        kept_us = round(config.retention_days * DAY_US)
        before = newest - kept_us
        aged = (self.clock.now_us() - kept_us, self.pipeline.buckets_at(kept_us))
        self.tally.pruned += self.store.prune_notes(before, *aged, config.prune_rows)
        if config.retention_gib and self.store.used_bytes() > config.retention_gib * 2**30:
            before = max(before, newest - self.pipeline.needed_us())
        self.tally.pruned += self.store.prune(before, config.prune_rows)

    def _reload(self) -> None:
        """Read the config again: a wrong one changes nothing; a right one takes effect between two commits."""
        self.flags.reload = False
        if self._reread is None:
            return
        self.notifier.reloading()
        try:
            config = self._reread()
            build_streams(config)
        except NetpredictError as error:
            LOG.error("reload_refused", error=str(error))
            self.notifier.ready("running; the last reload was refused")
            return
        fixed = ("store", "kafka", "http", "daemon", "learn", "actuators", "publish")
        changed = [name for name in fixed if getattr(config, name) != getattr(self.config, name)]
        topics = {stream.topic for stream in config.streams.values()} != set(self.pipeline.streams)
        if changed or topics:
            LOG.warning("restart_needed", sections=changed, topics_changed=topics)
        if topics or "store" in changed or "kafka" in changed:
            self.notifier.ready("running; a restart is needed for the new config")
            return
        self._flush()
        owned = list(self.pipeline.lanes)
        try:
            self._build(config)
        except StoreUnavailable as error:
            LOG.error("reload_refused", error=str(error))
            self.notifier.ready("running; the last reload found no store")
            return
        self.retrainer.follow(config, self.streams)
        self.breakers.follow(self._watched())
        self.effects.follow(self._reverts())
        self.policy_job.follow(list(self.streams.values()))
        self.outbox.exclusions = self._exclusions()
        self.runner.follow(self._guards())
        if self.publisher is not None:
            self.publisher.follow(config.streams)
        self.ownership.pipeline = self.pipeline
        for topic_partition in owned:
            self.ownership.take_over(topic_partition)
        LOG.info("reloaded")
        self.notifier.ready("running")

    def _flush(self) -> None:
        """Make durable all that was polled."""
        self.writer.wait(self.config.daemon.drain_s)
        self._settle()
        if not self.writer.busy:
            self._submit()
            self.writer.wait(self.config.daemon.drain_s)
            self._settle()

    def _drain(self) -> None:
        """Commit what was polled; what cannot be committed in time is read again after the next start."""
        self._flush()
        self._count()

    @property
    def acts(self) -> bool:
        """Whether any hook may act outside."""
        hooks = self.config.hooks.values()
        return any(Mode.AUTO in (hook.mode, *(group.mode for group in hook.groups)) for hook in hooks)


def kafka_source(config: Config, on_revoke: Callable[[tuple[TopicPartition, ...]], None]) -> Source:
    """The source of a real broker."""
    from netpredict.ingest.kafka import KafkaSource

    return KafkaSource(config.kafka, sorted(stream.topic for stream in config.streams.values()), on_revoke)


def kafka_sink(config: Config) -> Sink:
    """Where forecasts and actions go: the broker that the telemetry comes from."""
    from netpredict.operate.publisher import publishing_sink

    return publishing_sink(config.kafka, config.publish.outstanding_bytes_max)


def run_daemon(config_path: Path | None) -> int:
    """``netpredict run``: until SIGTERM. The exit code is 0, or that of the error that ended it."""
    config = load_config(config_path)
    limits = configure_logs(config.daemon.log_format, config.daemon.log_level)
    migrate.upgrade(config.store_url)
    reread = lambda: load_config(config_path)  # noqa: E731
    daemon = Daemon(config, kafka_source, reread=reread, notifier=Notifier(), log_limits=limits)
    daemon.flags.install()
    try:
        daemon.run()
    except NetpredictError as error:
        LOG.error("ended", error=str(error), exit_code=error.exit_code)
        return error.exit_code
    LOG.info("ended", exit_code=0)
    return 0

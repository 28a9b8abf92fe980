"""Starts, kills, stops, continues and awaits real daemons (``tests.faults.daemon``), each a process of its own.

They are forked from one server process that has imported the daemon already: a restart costs a fraction of a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from netpredict.types import TopicPartition
from tests.faults import daemon
from tests.faults.world import World

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "__main__",
        "tests.faults.daemon",
        "netpredict.operate.daemon",
        "netpredict.operate.publisher",
        "netpredict.ingest.kafka",
        "netpredict.store.postgres",
        "alembic.command",
        "netpredict_plugins.decoders.json",
        "netpredict_plugins.predictors.ewma",
        "netpredict_plugins.predictors.drift",
        "netpredict_plugins.predictors.naive",
        "netpredict_plugins.predictors.seasonal_naive",
        "netpredict_plugins.hooks.bandwidth",
        "netpredict_plugins.hooks.handover",
        "netpredict_plugins.hooks.mcs",
        "netpredict_plugins.actuators.webhook",
        "netpredict_plugins.actuators.log",
    ]
)

FEED_EVERY_S = 2.0


class FaultyDaemon:
    """One daemon over a config file; its log lies beside it. Ended by its id at the latest when the test ends."""

    def __init__(self, config: Path, *faults: str) -> None:
        self.log = config.with_suffix(".log")
        self._log_began = self.log.stat().st_size if self.log.exists() else 0
        self._process = CONTEXT.Process(target=daemon.run, args=(str(config), faults, str(self.log)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """A signal, by its id."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.ended(30.0)

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return self.ended(timeout_s)

    def ended(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; the exit code, -9 after SIGKILL."""
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"still runs after {timeout_s} s:\n{self.tail()}"
        return self._process.exitcode

    def wait_until(
        self,
        true: Callable[[], bool],
        timeout_s: float = 60.0,
        told: Callable[[], object] = lambda: "",
        feed: Callable[[], object] = lambda: None,
    ) -> None:
        """Until something holds, while the daemon lives; else ``told`` says what there is instead.

        ``feed`` is called every few seconds: a fault strikes at its nth passing, and a poll may take all there is.
        """
        deadline_s = time.monotonic() + timeout_s
        fed_s = time.monotonic()
        while not true():
            assert self.running, f"ended with {self._process.exitcode}; {told()}\n{self.tail()}"
            assert time.monotonic() < deadline_s, f"not so after {timeout_s} s; {told()}\n{self.tail()}"
            time.sleep(0.05)
            if time.monotonic() > fed_s + FEED_EVERY_S:
                feed()
                fed_s = time.monotonic()

    def drain(self, world: World, timeout_s: float = 120.0) -> dict[TopicPartition, int]:
        """Until the store has come to where the log ends now; gives these offsets."""
        ends = world.ends()
        self.wait_until(lambda: world.drained(ends), timeout_s, lambda: world.behind(ends))
        return ends

    def said(self, text: str) -> bool:
        """Whether its log holds this text since it was started."""
        return text in self.output()

    def output(self) -> str:
        """Its log since it was started."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_began)
            return log.read().decode(errors="replace")

    def lost(self) -> int:
        """Topic partitions that Kafka gave to others unasked, by its log."""
        return self._counted("lost")

    def revoked(self) -> int:
        """Topic partitions that it gave back when asked, by its log."""
        return self._counted("revoked")

    def _counted(self, name: str) -> int:
        lines = (json.loads(line) for line in self.output().splitlines() if line.startswith("{"))
        return sum(line[name] for line in lines if line.get("event") == "assignment")

    def tail(self) -> str:
        """The end of that, without what the actuator ``log`` wrote."""
        lines = [line for line in self.output().splitlines() if '"action_applied"' not in line]
        return "\n".join(lines[-30:])


class Supervisor:
    """Starts daemons, and ends those that still run when the test is over."""

    def __init__(self) -> None:
        self.daemons: list[FaultyDaemon] = []

    def start(self, config: Path, *faults: str) -> FaultyDaemon:
        """A daemon with these faults (see ``tests.faults.daemon``)."""
        started = FaultyDaemon(config, *faults)
        self.daemons.append(started)
        return started

    def until_struck(self, config: Path, *faults: str, timeout_s: float = 60.0, feed: Callable[[], object]) -> None:
        """A daemon that lives until a ``crash`` fault ends it. While it does not come there it is fed more."""
        started = self.start(config, *faults)
        deadline_s = time.monotonic() + timeout_s
        while started.running:
            assert time.monotonic() < deadline_s, f"never came to {faults}:\n{started.tail()}"
            started._process.join(4.0)
            if started.running:
                feed()
        assert started.ended() == -signal.SIGKILL, f"{faults}: {started.tail()}"
        assert started.said("fault struck: crash"), started.tail()

    def end_all(self) -> None:
        """SIGKILL to whatever still runs."""
        for started in self.daemons:
            if started.running:
                started.send(signal.SIGKILL)
                started.ended()


@contextmanager
def supervisor() -> Iterator[Supervisor]:
    """A supervisor that leaves nothing behind."""
    made = Supervisor()
    try:
        yield made
    finally:
        made.end_all()

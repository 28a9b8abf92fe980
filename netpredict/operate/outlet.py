"""The forecast publisher: what commits bring goes to Kafka from a thread of its own, at least once; no loop waits.

Each commit notes in the store what it brought (table ``publication``); the note goes when Kafka has acknowledged all of
it. What did not fit into the queue, was refused, or was under way in a crash is read back from the store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from netpredict import crash
from netpredict.clock import Clock
from netpredict.config import PublishConfig, StreamConfig
from netpredict.errors import NetpredictError
from netpredict.operate.envelope import Directory, Envelope
from netpredict.operate.sink import Sink
from netpredict.operate.writer import Written
from netpredict.store.commit import ForecastRows, LaneCommit
from netpredict.store.publication import Window
from netpredict.types import Firing

LOG = structlog.get_logger(__name__)

RETRY_S, RETRY_MAX_S = 0.5, 15.0
FLUSH_S = 30.0
MESSAGES_PER_TURN = 200_000
"""So many messages read back are acknowledged together."""
WINDOWS_PER_READ = 256
SLOWEST_S = 120.0
"""What one send may take when Kafka is slow, beside the limits of the other loops."""


class Publications(Directory, Protocol):
    """The store as the publisher sees it."""

    def unpublished(self, limit: int) -> list[Window]:
        """Windows not marked as published, oldest first."""
        ...

    def mark_published(self, windows: Iterable[Window]) -> None:
        """These are in Kafka."""
        ...

    def forecasts(self, window: Window) -> Iterable[ForecastRows]:
        """Stored forecasts of a window, in chunks."""
        ...

    def firings(self, window: Window) -> list[Firing]:
        """Stored firings of a window."""
        ...

    def firings_of(self, window: Window, firing_ids: Sequence[str]) -> list[Firing]:
        """Those of these firings that the window's lane stored."""
        ...


@dataclass(frozen=True, slots=True)
class _Fresh:
    """One lane's share of a commit that has just become durable."""

    window: Window
    forecasts: list[ForecastRows]
    firing_ids: list[str]

    @classmethod
    def of(cls, lane: LaneCommit) -> _Fresh | None:
        times = lane.window()
        if times is None:
            return None
        window = Window(lane.lane_id, lane.topic_partition, lane.new_offset, *times)
        return cls(window, lane.forecasts, [firing.firing_id for firing, _ in lane.firings])

    @property
    def size_bytes(self) -> int:
        return sum(rows.ticks.nbytes + 8 * rows.series_id.nbytes for rows in self.forecasts)


class ForecastPublisher:
    """Publishes what it is offered, and what the store says is left. ``offer`` never waits.

    ``make_sink`` is called again after each failure: a client that was refused is not trusted any more.
    """

    def __init__(
        self,
        config: PublishConfig,
        group: str,
        streams: Mapping[str, StreamConfig],
        publications: Publications,
        make_sink: Callable[[], Sink],
        clock: Clock,
    ) -> None:
        self.stats: dict[str, int] = {
            "forecasts": 0,
            "actions": 0,
            "failures": 0,
            "overflows": 0,
            "too_large": 0,
            "queued_windows": 0,
        }
        self._config = config
        self._group = group
        self._publications = publications
        self._make_sink = make_sink
        self._clock = clock
        self._envelope = self._new_envelope(streams)
        self._sink: Sink | None = None
        self._queue: deque[_Fresh] = deque()
        self._queued_bytes = 0
        self._too_large = 0
        self._behind = True  # something may be left by the last run
        self._stopping = False
        self._beat = clock.monotonic_s()
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="forecast-publisher", daemon=True)

    # -- for the daemon ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what the last run left."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Send what is queued, then end; false when that took too long: the next start sends the rest."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def beat(self) -> float:
        """Monotonic time of the last move."""
        return self._beat

    def offer(self, written: Written) -> None:
        """Take what became durable; when the queue is full it stays noted in the store and is read back."""
        lanes = (lane for lane in written.commit.lanes if lane.topic_partition not in written.fenced)
        fresh = [part for part in map(_Fresh.of, lanes) if part is not None]
        size = sum(part.size_bytes for part in fresh)
        with self._wake:
            if self._queue and self._queued_bytes + size > self._config.outstanding_bytes_max:
                self.stats["overflows"] += 1
                self._behind = True
            else:
                self._queue.extend(fresh)
                self._queued_bytes += size
                self.stats["queued_windows"] = len(self._queue)
            self._wake.notify_all()

    def look_back(self) -> None:
        """Read what is noted in the store: a topic partition that was taken over may have been left with some."""
        with self._wake:
            self._behind = True
            self._wake.notify_all()

    def follow(self, streams: Mapping[str, StreamConfig]) -> None:
        """Use the streams of a config that was read again."""
        self._envelope = self._new_envelope(streams)

    def _new_envelope(self, streams: Mapping[str, StreamConfig]) -> Envelope:
        shadows = self._config.predictors == "all"
        return Envelope(self._group, streams, self._publications, shadows=shadows)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = RETRY_S
        while self._has_work():
            try:
                self._turn()
                wait_s = RETRY_S
            except NetpredictError as error:
                LOG.warning("publish_failed", error=str(error), wait_s=wait_s)
                self.stats["failures"] += 1
                self._behind = True
                self._drop_sink()
                if self._stopping:
                    break
                self._pause(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
        self._drop_sink()

    def _has_work(self) -> bool:
        """Wait for something to do; false when it is time to end: what was left behind waits for the next start."""
        while True:
            self._move()
            with self._wake:
                if self._queue or self._stopping or self._behind:
                    return bool(self._queue) or not self._stopping
                self._wake.wait(1.0)

    def _pause(self, seconds: float) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, seconds)

    def _turn(self) -> None:
        """1 send what is fresh; 2 read back some of what is left; 3 wait until Kafka has it all; 4 note that."""
        with self._wake:
            fresh, self._queue, self._queued_bytes = list(self._queue), deque(), 0
            self.stats["queued_windows"] = 0
        sink = self._connected()
        crash.reached("before_publish")
        for part in fresh:  # 1
            self._send(sink, part.window, part.forecasts, self._fresh_firings(part))
        done = [part.window for part in fresh]
        if self._behind and not self._stopping:
            done += self._catch_up(sink, {window.key for window in done})  # 2
        if done:
            sink.flush(FLUSH_S)  # 3
            self._move()
            crash.reached("after_publish")
            self._publications.mark_published(done)  # 4
        self.stats["too_large"] = self._too_large + sink.stats["too_large"]

    def _catch_up(self, sink: Sink, sent: set[tuple[int, int]]) -> list[Window]:
        with self._wake:
            held = sent | {part.window.key for part in self._queue}
            self._behind = False  # unless the queue overflows from now on, or there is more
        found = self._publications.unpublished(WINDOWS_PER_READ)
        left = [window for window in found if window.key not in held]
        done: list[Window] = []
        most = self.stats["forecasts"] + MESSAGES_PER_TURN
        for window in left:
            self._send(sink, window, self._publications.forecasts(window), self._publications.firings(window))
            done.append(window)
            if self._stopping or self.stats["forecasts"] >= most:
                break
        if len(done) < len(left) or len(found) == WINDOWS_PER_READ:
            self._behind = True
        return done

    def _fresh_firings(self, part: _Fresh) -> list[Firing]:
        return self._publications.firings_of(part.window, part.firing_ids) if part.firing_ids else []

    def _send(self, sink: Sink, window: Window, forecasts: Iterable[ForecastRows], firings: Sequence[Firing]) -> None:
        for rows in forecasts:
            for messages in self._envelope.forecasts(window.topic_partition, rows):
                sink.send_all(self._config.forecasts_topic, messages)
                self.stats["forecasts"] += len(messages)
                self._move()
        if firings:
            sink.send_all(self._config.actions_topic, [self._envelope.action(firing) for firing in firings])
            self.stats["actions"] += len(firings)

    def _connected(self) -> Sink:
        if self._sink is None:
            sink = self._make_sink()
            sink.start()
            self._sink = sink
        return self._sink

    def _drop_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self._too_large += sink.stats["too_large"]
            sink.close(1.0)
        self._move()

    def _move(self) -> None:
        self._beat = self._clock.monotonic_s()

"""The thread that makes commits durable while the next poll is processed: one in flight, retried, never reordered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from netpredict import crash
from netpredict.clock import Clock
from netpredict.config import StoreConfig
from netpredict.errors import NetpredictError, StoreError
from netpredict.store.commit import Commit, Store
from netpredict.types import TopicPartition

LOG = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """A commit that is durable, the topic partitions that were fenced out of it, and how long it took, s."""

    commit: Commit
    fenced: frozenset[TopicPartition]
    seconds: float


class CommitWriter:
    """Writes one commit at a time. A retriable failure retries the same copies; any other ends the writer.

    ``failure`` is the error that ended it. ``behind`` is called after each commit, while nothing waits: pruning.
    """

    def __init__(self, store: Store, config: StoreConfig, clock: Clock, behind: Callable[[], None]) -> None:
        self.failure: NetpredictError | None = None
        self.retries = 0
        self._store = store
        self._config = config
        self._clock = clock
        self._behind = behind
        self._beat = clock.monotonic_s()
        self._waiting: Commit | None = None
        self._written: Written | None = None
        self._stopping = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="commit-writer", daemon=True)

    def start(self) -> None:
        """Begin to wait for commits."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End after the commit in flight; false when it did not end in time."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether a commit is in flight."""
        with self._wake:
            return self._waiting is not None

    def beat(self) -> float:
        """Monotonic time of the last move; an idle writer is never late."""
        return self._beat if self.busy else self._clock.monotonic_s()

    def submit(self, commit: Commit) -> None:
        """Hand over a commit; only when not busy."""
        with self._wake:
            assert self._waiting is None, "a commit is in flight"
            self._beat = self._clock.monotonic_s()
            self._waiting = commit
            self._wake.notify_all()

    def written(self) -> Written | None:
        """What became durable since the last call."""
        with self._wake:
            written, self._written = self._written, None
            return written

    def wait(self, timeout_s: float) -> bool:
        """Until nothing is in flight, at most ``timeout_s``; whether that is so."""
        with self._wake:
            return self._wake.wait_for(lambda: self._waiting is None or self.failure is not None, timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting is not None or self._stopping)
                commit = self._waiting
            if commit is None:
                return
            try:
                written = self._write(commit)
            except Exception as error:  # whatever it is: a writer that ended in silence would hold the loop up for ever
                LOG.error("commit_failed", error=str(error), exc_info=not isinstance(error, NetpredictError))
                with self._wake:
                    self.failure = _ours(error)
                    self._wake.notify_all()
                return
            with self._wake:
                self._written, self._waiting = written, None
                self._wake.notify_all()
            self._prune()

    def _write(self, commit: Commit) -> Written:
        started_s, wait_s = self._clock.monotonic_s(), self._config.retry_s
        while True:
            try:
                crash.reached("before_commit")
                fenced = self._store.commit(commit)
                crash.reached("after_commit")
                return Written(commit, frozenset(fenced), self._clock.monotonic_s() - started_s)
            except NetpredictError as error:
                if not error.retriable or self._stopping:
                    raise
                self.retries += 1
                LOG.warning("commit_retried", error=str(error), wait_s=wait_s)
            self._beat = self._clock.monotonic_s()
            self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, self._config.retry_max_s)

    def _prune(self) -> None:
        try:
            self._behind()
        except Exception as error:
            LOG.warning("prune_failed", error=str(error), exc_info=not isinstance(error, NetpredictError))


def _ours(error: Exception) -> NetpredictError:
    if isinstance(error, NetpredictError):
        return error
    return StoreError(f"the commit failed with {type(error).__name__}: {error}; the restart reads its records again")

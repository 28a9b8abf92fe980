from __future__ import annotations

from netpredict.clock import SystemClock
from netpredict.config import StoreConfig
from netpredict.errors import StoreError
from netpredict.operate.writer import CommitWriter
from netpredict.store.commit import Commit


class Broken:
    def commit(self, commit: Commit) -> set[object]:
        raise RuntimeError("nobody foresaw this")


def test_a_failure_that_nobody_foresaw_ends_the_writer_aloud():
    writer = CommitWriter(Broken(), StoreConfig(), SystemClock(), lambda: None)  # type: ignore[arg-type]
    writer.start()
    writer.submit(Commit([]))
    assert writer.wait(10.0), "the loop would wait for this writer for ever"
    assert isinstance(writer.failure, StoreError)
    assert "nobody foresaw this" in str(writer.failure)


def test_a_failure_of_what_runs_behind_a_commit_costs_nothing():
    def prune() -> None:
        raise RuntimeError("nobody foresaw this")

    class Quiet:
        def commit(self, commit: Commit) -> set[object]:
            return set()

    writer = CommitWriter(Quiet(), StoreConfig(), SystemClock(), prune)  # type: ignore[arg-type]
    writer.start()
    for _ in range(2):
        writer.submit(Commit([]))
        assert writer.wait(10.0)
    assert writer.failure is None
    assert writer.stop(10.0)

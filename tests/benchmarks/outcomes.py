"""Outcomes per second of the action runner on one store: ``python -m tests.benchmarks.outcomes [FIRINGS]``.

Three backlogs: firings that have expired, firings that a guard refuses, firings that are applied.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from netpredict.act.guards import GuardSettings
from netpredict.act.runner import ActionRunner
from netpredict.store import migrate
from netpredict.store.commit import Commit
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from tests.act.memory_outbox import NOW_US, FakeActuator, FakeClock
from tests.store.store_builders import assign, firing, lane_commit

KINDS = {
    "expired": ({"expires_at_us": NOW_US - 1}, GuardSettings(), 1.0),
    "refused": ({"expires_at_us": NOW_US + 10**9}, GuardSettings(rate_per_min=1e-9), 1.0),
    "applied": ({"expires_at_us": NOW_US + 10**9}, GuardSettings(cooldown_s=0.0, rate_per_min=1e9), 0.05),
}


def outcomes_per_s(folder: Path, kind: str, firings: int) -> float:
    """Settle a backlog of one kind; how many outcomes a second that gave."""
    changes, guards, share = KINDS[kind]
    count = max(1, round(firings * share))
    url = f"sqlite:///{folder}/{kind}.db"
    migrate.upgrade(url)
    with SqlStore(url) as store:
        lane = assign(store)
        backlog = [(firing(number, object_id=f"cell-{number}", **changes), ("log",)) for number in range(count)]
        store.commit(Commit([lane_commit(lane, 0, 1, firings=backlog)]))
        outbox = SqlOutbox(store)
        runner = ActionRunner(outbox, {"log": FakeActuator()}, FakeClock(), guards={"bandwidth": guards})
        began_s = time.monotonic()
        while outbox.pending(1) and time.monotonic() - began_s < 60:
            runner.run_pass()
        settled = runner.stats["applied"] + runner.stats["skipped"]
        return settled / (time.monotonic() - began_s)


def main() -> None:
    """One line for each kind."""
    firings = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(dir="build") as folder:
        for kind in KINDS:
            print(f"{kind}: {outcomes_per_s(Path(folder), kind, firings):,.0f} outcomes/s")


if __name__ == "__main__":
    main()

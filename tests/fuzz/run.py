"""``make fuzz``: mutated records through the real pipeline, and a share of them through a real broker and daemon.

What has to hold, else it ends with an AssertionError that names the seed: nothing raises; every offset is counted once;
every dead letter is kept, counted in a range, or entered again; good series are bit-equal to a run without mutants.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from netpredict.ingest.source import MemoryLog
from netpredict.store import migrate
from netpredict.store.compare import Dump, difference, dump
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.bad_input.harness import OF_SERIES
from tests.fuzz.world import GOOD, SENDERS, config_of, records
from tests.pipeline_world import World, static_shelf

STEPS, AGAIN_STEPS = 60, 3
TOPICS = {name: f"fuzz.{name}" for name in SENDERS}
COUNTS = ("accepted", "duplicate", "late", "dead", "control")
Figures = dict[str, Counter[str]]


def new_figures() -> Figures:
    """Counters by name."""
    return {name: Counter() for name in ("records", "kinds", "reasons", "outcomes", "replays")}


def fill(log: MemoryLog, seed: int, steps: range, mutants: int, figures: Figures | None) -> None:
    """Append good records, and where ``figures`` are given the mutants among them."""
    for name, topic in TOPICS.items():
        for good, record in records(name, seed, steps, mutants):
            if good or figures is not None:
                log.append_to(TopicPartition(topic, 0), record.key, record.value, record.timestamp, record.headers)
            if not good and figures is not None:
                figures["records"][name] += 1
                figures["kinds"][record.kind] += 1


def good_of(store: Dump) -> Dump:
    """What belongs to the good series."""
    found = {
        table: [row for row in store[table] if str(row[column]).startswith(GOOD)] for table, column in OF_SERIES.items()
    }
    return found | {"firing": [row for row in store["firing"] if str(row[6]).startswith(GOOD)]}


def check(store: Dump, ends: dict[str, int], where: str) -> Counter[str]:
    """Every offset once, every letter somewhere; gives the outcomes."""
    outcomes: Counter[str] = Counter()
    entered = Counter(row[1] for row in store["control_journal"] if row[6] == "replayed")
    for row in store["topic_progress"]:
        topic, counts = row[1], row[6:11]
        letters = sum(letter[0] == topic for letter in store["dead_letter"])
        counted = sum(found[8] for found in store["dead_letter_range"] if found[1] == topic)
        assert sum(counts) == row[5] == ends[topic], f"{where}: {topic} counts {counts} of {ends[topic]} offsets"
        assert letters + counted + entered[topic] == counts[2] + counts[3], f"{where}: letters of {topic} are lost"
        outcomes.update(dict(zip(COUNTS, counts, strict=True)))
    return outcomes


def one_run(folder: Path, seed: int, mutants: int, figures: Figures) -> None:
    """A log with mutants and the same without, each to its end, then the letters again."""
    dumps, ends = [], {}
    for name, counted in (("mutants", figures), ("good", None)):
        log = MemoryLog(dict.fromkeys(TOPICS.values(), 1))
        fill(log, seed, range(STEPS), mutants, counted)
        world = World(log, config_of(TOPICS, "leaky"), lambda streams, _: static_shelf(streams, ["leaky"]))
        url = f"sqlite:///{folder}/{name}-{seed}.db"
        migrate.upgrade(url)
        with SqlStore(url) as store:
            world.run(store, 400, commit_every=4)
            if counted is not None:
                figures["reasons"].update(_reasons(url))
                figures["replays"]["asked"] += store.request_replay("fuzz")["asked"]
        fill(log, seed, range(STEPS, STEPS + AGAIN_STEPS), 0, None)
        with SqlStore(url) as store:
            world.run(store, 400, commit_every=4)
            assert store.requests() == [], f"seed {seed}: a replay is left"
        dumps.append(dump(url))
        if counted is not None:
            ends = {topic: log.end(TopicPartition(topic, 0)) for topic in TOPICS.values()}
    mutated, calm = dumps
    assert good_of(calm)["forecast"]
    assert difference(good_of(mutated), good_of(calm)) == [], f"seed {seed}: a good series was harmed"
    figures["outcomes"].update(check(mutated, ends, f"seed {seed}"))
    figures["replays"].update(
        str(msgspec.json.decode(row[7]).get("outcome", "refused"))
        for row in mutated["control_journal"]
        if row[6] in ("replayed", "replay_refused")
    )


def _reasons(url: str) -> Counter[str]:
    store = dump(url, ["dead_letter", "dead_letter_range"])
    reasons = Counter(row[3] for row in store["dead_letter"])
    for row in store["dead_letter_range"]:
        reasons[row[5]] += row[8]
    return reasons


def fuzz(count: int, seed: int, mutants: int = 60, say: Any = print) -> Figures:
    """Runs with rising seeds until so many mutants went through the pipeline."""
    figures = new_figures()
    while figures["records"].total() < count:
        with tempfile.TemporaryDirectory(prefix="netpredict-fuzz-") as folder:
            one_run(Path(folder), seed, mutants, figures)
        say(f"seed {seed}: {figures['records'].total()} mutants, all accounted for")
        seed += 1
    return figures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000, help="mutants through the pipeline in this process")
    parser.add_argument("--live", type=int, default=20_000, help="mutants through a broker and a daemon")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first run; printed")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz.json"))
    given = parser.parse_args()
    print(f"seed {given.seed}: repeat with --seed {given.seed}")
    started_s = time.monotonic()
    figures = fuzz(given.records, given.seed)
    report: dict[str, Any] = {name: dict(counter.most_common()) for name, counter in figures.items()}
    report |= {
        "seed": given.seed,
        "mutants": figures["records"].total(),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    if given.live:
        from tests.fuzz.live import fuzz_live

        report["live"] = fuzz_live(given.live, given.seed)
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""Good radio cells and bad records on one topic partition, and what one bad record may do: nothing to anybody else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from netpredict.ingest.source import MemoryLog
from netpredict.store import migrate
from netpredict.store.compare import Dump, difference, dump
from netpredict.store.letters import VALUE_BYTES_MAX
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.pipeline_world import CONFIG, INGEST_MS, MINUTE_US, START_US, World, traffic

PLACE = TopicPartition("ran.traffic", 0)
GOOD = ("good-0", "good-1", "good-2")
MINUTES, BAD_FROM = 45, 12
COUNTS = ("accepted", "duplicate", "late", "dead", "control")
OF_SERIES = {"series": 4, "series_state": 4, "forecast": 5, "observation": 5}
"""Tables whose rows belong to one series, and the column of its key."""


@dataclass(frozen=True)
class Bad:
    """A record that a sane sender would not send."""

    value: bytes | None
    key: bytes | None = b"bad"
    timestamp: int = INGEST_MS
    headers: Sequence[tuple[str, bytes]] = ()


def message(**changes: Any) -> bytes:
    """A sound message of the radio cell "bad" with some fields changed; ... leaves a field out."""
    sound: dict[str, Any] = {
        "schema": "netpredict.traffic/1",
        "radio_cell_id": "bad",
        "event_time_us": START_US + BAD_FROM * MINUTE_US,
        "prb_use_dl_percent": 40.0,
    }
    return msgspec.json.encode({name: value for name, value in (sound | changes).items() if value is not ...})


def raw(before: str, after: str) -> bytes:
    """A sound message with some text replaced, for what no encoder would write."""
    text = message().decode()
    assert before in text
    return text.replace(before, after).encode()


@dataclass
class Suffered:
    """What became of the bad records; ``offsets`` says where they stood."""

    store: Dump
    offsets: list[int]
    counts: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        (progress,) = [row for row in self.store["topic_progress"] if row[1:3] == PLACE]
        assert sum(progress[6:11]) == progress[5], "every offset is counted once"
        self.counts = dict(zip(COUNTS, progress[6:11], strict=True))

    def letters(self) -> dict[int, tuple[str, bytes | None, bytes | None]]:
        """Reason, key and value by number of the bad record."""
        found = {row[2]: (row[3], row[6], row[7]) for row in self.store["dead_letter"] if row[:2] == PLACE}
        return {number: found[offset] for number, offset in enumerate(self.offsets) if offset in found}

    def reasons(self) -> list[str]:
        """The reason of each bad record, "" of one that is no dead letter."""
        letters = self.letters()
        return [letters[number][0] if number in letters else "" for number in range(len(self.offsets))]


def log_of(bad: Sequence[Bad]) -> tuple[MemoryLog, list[int]]:
    """Good cells by minute, and the bad records among them; the offsets of these."""
    log, offsets, waiting = MemoryLog({"ran.traffic": 1}), [], list(bad)
    each = -(-len(bad) // (MINUTES - BAD_FROM - 1))
    for minute in range(MINUTES):
        for number, key in enumerate(GOOD):
            log.append_to(PLACE, *traffic(key, minute, 20.0 + 20 * number + (minute * 7) % 11), INGEST_MS)
            if minute >= BAD_FROM and number == 1:
                for record in waiting[:each]:
                    offsets.append(log.append_to(PLACE, record.key, record.value, record.timestamp, record.headers))
                del waiting[:each]
    assert not waiting
    return log, offsets


def run(path: Path, log: MemoryLog, poll: int = 50, **changes: Any) -> Dump:
    """The store after the pipeline went through a log."""
    url = f"sqlite:///{path}"
    migrate.upgrade(url)
    config = copy.deepcopy(CONFIG)
    config["streams"] = {"traffic": config["streams"]["traffic"] | {"series_ttl_s": 604_800.0} | changes}
    config["hooks"] = {"bandwidth": config["hooks"]["bandwidth"]}
    with SqlStore(url) as store:
        World(log, config).run(store, poll)
    return dump(url)


def of(store: Dump, keys: Sequence[str]) -> Dump:
    """What belongs to some series."""
    return {table: [row for row in store[table] if row[column] in keys] for table, column in OF_SERIES.items()}


def suffer(tmp_path: Path, *bad: Bad, shared: bool = True, **changes: Any) -> Suffered:
    """Run with these records and without: the good cells must be equal to the bit.

    With ``shared``, so must be what all series of a topic partition share: scores and calibration. Without, nothing is
    scored: a strange record that is accepted counts there like any other.
    """
    changes |= {} if shared else {"score_series_max": 0}
    log, offsets = log_of(bad)
    suffered = Suffered(run(tmp_path / "suffered.db", log, **changes), offsets)
    calm = run(tmp_path / "calm.db", log_of([])[0], **changes)
    assert difference(of(suffered.store, GOOD), of(calm, GOOD)) == []
    assert of(calm, GOOD)["forecast"]
    if shared:
        for table in ("score", "firing"):
            assert difference({table: suffered.store[table]}, {table: calm[table]}) == []
    for number, (_, key, value) in suffered.letters().items():
        whole = ((part or b"")[:VALUE_BYTES_MAX] for part in (bad[number].key, bad[number].value))
        assert (key or b"", value or b"") == (*whole,), "the letter keeps the bytes"
    assert suffered.counts["dead"] + suffered.counts["late"] == len(suffered.letters())
    return suffered

"""Dead letters as an operator needs them: bounded, accounted for, and free to enter again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from netpredict.store import migrate
from netpredict.store.compare import Dump, difference, dump
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.pipeline_world import CONFIG, INGEST_MS, World, new_log, traffic

P0 = TopicPartition("ran.traffic", 0)
ACCEPTED, DUPLICATE, LATE, DEAD, CONTROL = range(6, 11)


def storm(minutes: int = 60) -> Any:
    """A cell that is well, between rubbish of three kinds, the same on both topic partitions."""
    log = new_log()
    for minute in range(minutes):
        for partition in range(2):
            place = TopicPartition("ran.traffic", partition)
            log.append_to(place, *traffic("cell-0", minute, 20.0 + minute % 7), INGEST_MS)
            for number in range(minute % 4):
                log.append_to(place, b"k", b"{rubbish %d" % number, INGEST_MS + minute)
            if minute % 3 == 0:
                log.append_to(place, b"k", None, INGEST_MS)
            if minute % 5 == 4:
                log.append_to(place, *traffic("cell-0", minute - 2, 1.0), INGEST_MS)
    return log


def lived(path: Path, log: Any, poll: int = 5000, stops: tuple[int, ...] = (), **how: Any) -> Dump:
    """The store after a run over the log that dies after so many polls, again and again."""
    url = f"sqlite:///{path}"
    migrate.upgrade(url)
    config = copy.deepcopy(CONFIG)
    changes = {"dead_letters_max": 2, "dead_letters_offsets": 40}
    config["streams"] = {"traffic": config["streams"]["traffic"] | changes | how.pop("changes", {})}
    config["hooks"] = {}
    world = World(log, config)
    for stop in (*stops, None):
        with SqlStore(url) as store:
            world.run(store, poll, stop_after=stop, **how)
    return dump(url)


def test_every_dead_letter_is_kept_whole_or_counted_in_a_range(tmp_path: Path) -> None:
    found = lived(tmp_path / "a.db", storm())
    for progress in found["topic_progress"]:
        place = progress[1:3]
        letters = [row for row in found["dead_letter"] if row[:2] == place]
        ranges = [row for row in found["dead_letter_range"] if row[1:3] == place]
        assert sum(progress[6:11]) == progress[5]
        assert len(letters) + sum(row[8] for row in ranges) == progress[DEAD] + progress[LATE]
        for *_, begins, reason, first, last, count, first_us, last_us in ranges:
            whole = [row for row in letters if begins <= row[2] < begins + 40 and row[3] == reason]
            assert len(whole) == 2, "a range begins where two letters of its reason are kept"
            assert begins <= first <= last < begins + 40
            assert first > max(row[2] for row in whole)
            assert count <= last - first + 1
            assert first_us <= last_us
    assert {row[5] for row in found["dead_letter_range"]} == {"undecodable", "tombstone", "late"}


@pytest.mark.parametrize(
    ("poll", "commit_every", "stops"), [(1, 1, ()), (7, 3, ()), (3, 2, (5, 1, 9, 20)), (11, 1, (1, 1))]
)
def test_ranges_are_the_same_whatever_the_poll_the_commit_and_the_death(
    tmp_path: Path, poll: int, commit_every: int, stops: tuple[int, ...]
) -> None:
    log = storm()
    reference = lived(tmp_path / "a.db", log)
    assert reference["dead_letter_range"]
    other = lived(tmp_path / "b.db", log, poll, stops, commit_every=commit_every)
    assert difference(other, reference) == []


def test_a_storm_leaves_few_rows(tmp_path: Path) -> None:
    log = new_log()
    for number in range(5000):
        log.append_to(P0, b"k", b"{%d" % number, INGEST_MS)
    found = lived(tmp_path / "a.db", log, 100, changes={"dead_letters_max": 3, "dead_letters_offsets": 2000})
    assert len(found["dead_letter"]) == 9
    assert [(row[4], *row[6:9]) for row in found["dead_letter_range"]] == [
        (0, 3, 1999, 1997),
        (2000, 2003, 3999, 1997),
        (4000, 4003, 4999, 997),
    ]


def test_none_may_be_kept_whole(tmp_path: Path) -> None:
    found = lived(tmp_path / "a.db", storm(), changes={"dead_letters_max": 0})
    assert not found["dead_letter"]
    assert sum(row[8] for row in found["dead_letter_range"]) == sum(
        row[DEAD] + row[LATE] for row in found["topic_progress"]
    )

"""Dead letters as an operator needs them: bounded, accounted for, and free to enter again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netpredict.errors import DataError
from netpredict.store import letters, migrate
from netpredict.store.compare import Dump, difference, dump
from netpredict.store.history import History
from netpredict.store.letters import VALUE_BYTES_MAX
from netpredict.store.sql import SqlStore
from netpredict.types import Quality, TopicPartition
from tests.pipeline_world import CONFIG, INGEST_MS, MINUTE_US, START_US, World, new_log, traffic

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


# -- letters that enter again ----------------------------------------------------------------------------------------

MINUTES, HALF = 40, 20
ONLY_CELLS = {"routes": [{"match": "cell-*", "active": "leaky"}]}


def replay_log() -> Any:
    """cell-0 and cell-1 on P0; minute 8 of cell-0 comes at 10, "new-7" at 15 and 16, rubbish at 12 and 13."""
    log = new_log()
    for minute in range(MINUTES):
        for number in range(2):
            if (number, minute) != (0, 8):
                log.append_to(P0, *traffic(f"cell-{number}", minute, 20.0 + 9 * number + (minute * 7) % 11), INGEST_MS)
        if minute == 10:
            log.append_to(P0, *traffic("cell-0", 8, 55.5), INGEST_MS)
        if minute in (12, 13):
            log.append_to(P0, b"k", b"{rubbish", INGEST_MS)
        if minute in (15, 16):
            log.append_to(P0, *traffic("new-7", minute, 70.0), INGEST_MS)
    return log


class Operated:
    """A store that saw the first half of the log while only cell-* was routed, and then goes on with every route."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.url = f"sqlite:///{path}"
        migrate.upgrade(self.url)
        config = copy.deepcopy(CONFIG)
        config["streams"] = {"traffic": config["streams"]["traffic"] | {"series_ttl_s": 1e6} | changes}
        config["hooks"] = {"bandwidth": config["hooks"]["bandwidth"]}
        self.world = World(replay_log(), config)
        self.run(poll=2 * HALF + 4, stop=1, **ONLY_CELLS)
        assert self.reasons() == {
            (21, "late"),
            (26, "undecodable"),
            (29, "undecodable"),
            (34, "no_route"),
            (37, "no_route"),
        }

    def run(self, poll: int = 5000, stop: int | None = None, commit_every: int = 1, **changes: Any) -> Operated:
        traffic_stream = self.world.config["streams"]["traffic"]
        before = dict(traffic_stream)
        traffic_stream |= changes
        self.world.offsets = {}
        with SqlStore(self.url) as store:
            self.world.run(store, poll, commit_every=commit_every, stop_after=stop)
        self.world.config["streams"]["traffic"] = before
        return self

    def reasons(self) -> set[tuple[int, str]]:
        return {(row[2], row[3]) for row in self.table("dead_letter")}

    def table(self, name: str) -> list[tuple[Any, ...]]:
        return dump(self.url, [name])[name]

    def replay(self, **chosen: Any) -> dict[str, int]:
        with SqlStore(self.url) as store:
            return store.request_replay("tester", **chosen)

    def journal(self, kind: str) -> list[dict[str, Any]]:
        return [msgspec.json.decode(row[7]) for row in self.table("control_journal") if row[6] == kind]

    def observed(self, key: str) -> dict[int, tuple[int, str]]:
        """Flags and ticks by minute."""
        rows = self.table("observation")
        return {(row[4] - START_US) // MINUTE_US: (row[9], row[10]) for row in rows if row[5] == key}

    def forecast_minutes(self, key: str) -> list[int]:
        return [(row[4] - START_US) // MINUTE_US for row in self.table("forecast") if row[5] == key]


@pytest.fixture(scope="module")
def all_asked(tmp_path_factory: pytest.TempPathFactory) -> Operated:
    """All five letters asked for, and the log to its end."""
    operated = Operated(tmp_path_factory.mktemp("asked") / "a.db")
    assert operated.replay() == {"asked": 5, "waiting": 0, "cut": 0, "left": 0}
    return operated.run()


def test_what_is_sound_now_and_not_late_enters_as_if_it_came_now(all_asked: Operated) -> None:
    assert sorted(all_asked.observed("new-7")) == all_asked.forecast_minutes("new-7") == [15, 16]
    outcomes = {letter["offset"]: letter["outcome"] for letter in all_asked.journal("replayed")}
    assert outcomes == {21: "late", 34: "accepted", 37: "accepted"}


def test_what_is_still_bad_stays_with_the_reason_journaled(all_asked: Operated) -> None:
    assert all_asked.reasons() == {(26, "undecodable"), (29, "undecodable")}
    refused = all_asked.journal("replay_refused")
    assert [(letter["offset"], letter["why"].split(":")[0]) for letter in refused] == [
        (26, "undecodable"),
        (29, "undecodable"),
    ]
    assert all_asked.replay() == {"asked": 2, "waiting": 0, "cut": 0, "left": 0}, "it may be tried again"


def test_a_late_letter_joins_the_observations_and_nothing_else_moves(tmp_path: Path) -> None:
    asked, unasked = Operated(tmp_path / "a.db"), Operated(tmp_path / "b.db").run()
    asked.replay(reason="late")
    asked.run()
    assert 8 not in unasked.observed("cell-0")
    flags, ticks = asked.observed("cell-0")[8]
    assert flags == Quality.LATE
    assert msgspec.json.decode(ticks)[0] == 555
    joined = ("observation", "dead_letter", "control_journal")
    one, two = ({name: rows for name, rows in dump(of.url).items() if name not in joined} for of in (asked, unasked))
    assert difference(one, two) == []


def test_replayed_letters_are_counted_apart(all_asked: Operated, tmp_path: Path) -> None:
    unasked = Operated(tmp_path / "a.db").run()
    counts = [row[5:11] for row in all_asked.table("topic_progress")]
    assert counts == [row[5:11] for row in unasked.table("topic_progress")]
    assert all(sum(row[1:]) == row[0] for row in counts)


@pytest.mark.parametrize(
    ("poll", "commit_every", "stops"), [(1, 1, ()), (7, 3, (1,)), (3, 2, (1, 1, 5)), (2, 4, (3, 3, 9)), (5, 1, (2, 1))]
)
def test_replays_are_the_same_whatever_dies(
    all_asked: Operated, tmp_path: Path, poll: int, commit_every: int, stops: tuple[int, ...]
) -> None:
    operated = Operated(tmp_path / "a.db")
    operated.replay()
    for stop in stops:
        operated.run(poll, stop, commit_every)
    operated.run(poll, commit_every=commit_every)
    assert difference(dump(operated.url), dump(all_asked.url)) == []


def test_a_replay_of_log_and_journal_gives_the_same_store(all_asked: Operated, tmp_path: Path) -> None:
    entered = [(row[4], row[6], msgspec.json.decode(row[7])) for row in all_asked.table("control_journal")]
    again = Operated(tmp_path / "a.db")
    place = again.table("topic_progress")[0][5]
    with SqlStore(again.url) as store:
        for offset, kind, payload in entered:
            if kind == "replayed":
                assert offset == place
                store.request(1, "replayed", {name: payload[name] for name in payload if name != "outcome"})
    again.run()
    left_out = ("control_journal", "dead_letter")
    one, two = (
        {name: rows for name, rows in dump(of.url).items() if name not in left_out} for of in (again, all_asked)
    )
    assert difference(one, two) == []


def test_a_letter_is_asked_for_once_and_gone_when_it_entered(tmp_path: Path) -> None:
    operated = Operated(tmp_path / "a.db")
    chosen = {"topic": "ran.traffic", "partition": 0, "reason": "no_route", "from_offset": 30, "to_offset": 34}
    assert operated.replay(**chosen) == {"asked": 1, "waiting": 0, "cut": 0, "left": 0}
    assert operated.replay(**chosen) == {"asked": 0, "waiting": 1, "cut": 0, "left": 0}
    operated.run()
    assert operated.replay(**chosen) == {"asked": 0, "waiting": 0, "cut": 0, "left": 0}
    assert len(operated.journal("replayed")) == 1


def test_the_same_bytes_twice_change_nothing_the_second_time(tmp_path: Path) -> None:
    once, twice = Operated(tmp_path / "a.db"), Operated(tmp_path / "b.db")
    once.replay()
    twice.replay()
    with SqlStore(twice.url) as store:
        for request in store.requests():
            store.request(request.lane_id, request.kind, request.payload)
    once.run()
    twice.run()
    outcomes = [letter["outcome"] for letter in twice.journal("replayed")]
    assert outcomes == ["late", "accepted", "accepted", "late", "late", "duplicate"]
    one, two = (
        {name: rows for name, rows in dump(of.url).items() if name != "control_journal"} for of in (once, twice)
    )
    assert difference(one, two) == []


def test_what_lives_no_more_is_refused_as_late(tmp_path: Path) -> None:
    """Else a replay would begin a series in the past, or compete with what the log itself may bring."""
    operated = Operated(tmp_path / "a.db", series_ttl_s=1200.0).run()
    operated.replay(reason="no_route")
    operated.world.log.append_to(P0, *traffic("cell-1", MINUTES, 50.0), INGEST_MS)
    operated.run()
    assert {(letter["offset"], letter["why"]) for letter in operated.journal("replay_refused")} == {
        (34, "late: its series is not alive any more"),
        (37, "late: its series is not alive any more"),
    }
    assert {(34, "no_route"), (37, "no_route")} <= operated.reasons()
    assert not any(row[4] == "new-7" for row in operated.table("series"))


def test_without_stored_observations_a_late_letter_stays(tmp_path: Path) -> None:
    operated = Operated(tmp_path / "a.db")
    operated.world.config = operated.world.config | {"store": {"observations": False}}
    operated.replay(reason="late")
    operated.run()
    assert (21, "late") in operated.reasons()
    assert [letter["why"] for letter in operated.journal("replay_refused")] == ["late"]


def test_cut_and_counted_letters_cannot_enter_again(tmp_path: Path) -> None:
    operated = Operated(tmp_path / "a.db", dead_letters_max=3)
    operated.world.log.append_to(P0, b"k", b"[" * (VALUE_BYTES_MAX + 1), INGEST_MS)
    for _ in range(9):
        operated.world.log.append_to(P0, b"k", b"{rubbish", INGEST_MS)
    end = operated.world.log.end(P0)
    operated.run()
    with pytest.raises(DataError, match=r"only the first 65536 bytes were kept.*produce them anew"):
        operated.replay(from_offset=end - 10, to_offset=end - 10)
    with pytest.raises(DataError, match="8 dead letters, but beyond dead_letters_max"):
        operated.replay(from_offset=end - 5)
    assert operated.replay() == {"asked": 6, "waiting": 0, "cut": 1, "left": 0}


def test_no_more_wait_than_the_pipeline_may_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operated = Operated(tmp_path / "a.db")
    monkeypatch.setattr(letters, "REPLAYS_WAITING_MAX", 3)
    assert operated.replay() == {"asked": 3, "waiting": 0, "cut": 0, "left": 2}
    assert operated.replay() == {"asked": 0, "waiting": 3, "cut": 0, "left": 2}
    operated.run()
    assert operated.replay(reason="no_route") == {"asked": 2, "waiting": 0, "cut": 0, "left": 0}


def test_a_request_that_is_not_understood_is_refused_and_gone(tmp_path: Path) -> None:
    operated = Operated(tmp_path / "a.db")
    with SqlStore(operated.url) as store:
        store.request(1, "replayed", {"offset": "much"})
        store.request(1, "transplant", {})
    operated.run()
    assert [(row["request"], row["why"][:14]) for row in operated.journal("refused")] == [
        ("replayed", "not understood"),
        ("transplant", "not understood"),
    ]
    with SqlStore(operated.url) as store:
        assert store.requests() == []


def test_dropped_letters_are_gone_with_a_note_who_did_it(tmp_path: Path) -> None:
    operated = Operated(tmp_path / "a.db")
    operated.replay(reason="late")
    with SqlStore(operated.url) as store:
        assert store.drop_dead_letters("tester", reason="undecodable", to_offset=26) == {"letters": 1, "ranges": 0}
        assert store.drop_dead_letters("tester") == {"letters": 3, "ranges": 0}
    assert operated.reasons() == {(21, "late")}, "what waits for a replay stays"
    notes = [row for row in History(operated.url).audit() if row["what"] == "dead_letters_drop"]
    assert [note["who"] for note in notes] == ["tester", "tester"]
    assert notes[-1]["detail"] == {"from_offset": 0, "reason": "undecodable", "to_offset": 26}

"""States that go from series to series: by the control journal, the same whatever dies, or refused with a reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netpredict.errors import DataError
from netpredict.forecast.series import unpacked
from netpredict.store import migrate
from netpredict.store.commit import SeriesState
from netpredict.store.compare import difference, dump
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.testing import LeakyMean
from netpredict.transplant import payload
from netpredict.types import Quality, TopicPartition
from tests.pipeline_world import CONFIG, INGEST_MS, START_US, World, new_log, static_shelf, traffic

P0, P1 = TopicPartition("ran.traffic", 0), TopicPartition("ran.traffic", 1)
LATE_FROM, MOVED_FROM, MINUTES = 20, 25, 40


def traffic_log() -> Any:
    """By minute: "late" appears on P0 at 20, "cell-2" goes from P0 to P1 at 25, "cell-9" is always on P1."""
    log = new_log()
    for minute in range(MINUTES):
        for number, key in enumerate(["cell-0", "cell-1", "cell-2", *["late"] * (minute >= LATE_FROM)]):
            row = traffic(key, minute, 20.0 + 9 * number + (minute * 7) % 11)
            log.append_to(P1 if key == "cell-2" and minute >= MOVED_FROM else P0, *row, INGEST_MS)
        log.append_to(P1, *traffic("cell-9", minute, 50.0), INGEST_MS)
    return log


class Life:
    """Runs over that log on one SQL store; each begins where the last one ended."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.url = f"sqlite:///{path}"
        migrate.upgrade(self.url)
        config = copy.deepcopy(CONFIG)
        config["streams"] = {"traffic": config["streams"]["traffic"] | {"series_ttl_s": 1e6} | changes}
        config["hooks"] = {"bandwidth": config["hooks"]["bandwidth"]}
        self.world = World(traffic_log(), config)

    def run(self, poll: int = 10, stop: int | None = None, commit_every: int = 1) -> Life:
        self.world.offsets = {}
        with SqlStore(self.url) as store:
            self.world.run(store, poll, commit_every=commit_every, stop_after=stop)
        return self

    def state(self, key: str, place: TopicPartition = P0) -> SeriesState:
        found = History(self.url).series_states("traffic", key)
        return next(state for state in found if state.topic_partition == place)

    def column(self, key: str, name: str, place: TopicPartition = P0) -> Any:
        state = self.state(key, place)
        assert state.layout
        assert state.state
        return unpacked(state.layout, state.state)[name][0].tolist()

    def ask(self, kind: str, source: SeriesState, target: SeriesState, **changes: Any) -> None:
        with SqlStore(self.url) as store:
            store.request(target.lane_id, kind, payload(kind, source, target) | changes)

    def journal(self, *kinds: str) -> list[tuple[TopicPartition, int, str, Any]]:
        rows = dump(self.url, ["control_journal"])["control_journal"]
        found = [(TopicPartition(*row[1:3]), row[4], row[6], msgspec.json.decode(row[7])) for row in rows]
        return [row for row in found if row[2] in kinds]

    def quality(self, key: str, of: Quality, place: TopicPartition = P0) -> list[int]:
        """Minutes whose forecast on this topic partition bears a flag."""
        rows = [row for row in dump(self.url, ["forecast"])["forecast"] if (row[1:3], row[5]) == (place, key)]
        return [(row[4] - START_US) // 60_000_000 for row in rows if row[11] & of]

    def waiting(self) -> int:
        with SqlStore(self.url) as store:
            return len(store.requests())


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], dict[str, object]]:
    """Payloads of a transplant from cell-0 to late, and of the move of cell-2, both from a run up to minute 22."""
    life = Life(tmp_path_factory.mktemp("asked") / "a.db").run(stop=7)
    return (
        payload("transplant", life.state("cell-0"), life.state("late")),
        payload("move", life.state("cell-2"), life.state("cell-2", P1)),
    )


def lived(path: Path, wanted: dict[tuple[TopicPartition, int], tuple[str, Any]], poll: int = 5000, **how: Any) -> Life:
    life = Life(path)
    life.world.asks = dict(wanted)
    for stop in (*how.pop("stops", ()), None):
        life.run(poll, stop, **how)
    return life


def asks(asked: tuple[dict[str, object], dict[str, object]]) -> dict[tuple[TopicPartition, int], tuple[str, Any]]:
    """Long after both series are there, so that a death may set the log back."""
    return {(P0, 100): ("transplant", asked[0]), (P1, 53): ("move", asked[1])}


@pytest.fixture(scope="module")
def reference(asked, tmp_path_factory: pytest.TempPathFactory) -> Life:
    return lived(tmp_path_factory.mktemp("reference") / "a.db", asks(asked))


# -- what it does --------------------------------------------------------------------------------------------------


def test_a_transplanted_series_is_served_by_the_model_from_its_next_record_on(asked, tmp_path: Path) -> None:
    alone = lived(tmp_path / "alone.db", {})
    helped = lived(tmp_path / "helped.db", {(P0, 64): ("transplant", asked[0])})  # it has seen one minute
    assert alone.quality("late", Quality.WARMING) == [20, 21]
    assert helped.quality("late", Quality.WARMING) == [20]
    assert helped.state("late").slot == alone.state("late").slot
    assert helped.journal("transplant") == [(P0, 64, "transplant", asked[0])]
    assert helped.waiting() == 0


def test_the_neighbour_and_all_others_are_left_alone(reference: Life, tmp_path: Path) -> None:
    alone = lived(tmp_path / "alone.db", {})
    for key in ("cell-0", "cell-1", "cell-9"):
        place = P1 if key == "cell-9" else P0
        assert reference.state(key, place) == alone.state(key, place)
    assert reference.state("late") != alone.state("late")


def test_a_transplant_takes_no_hook_state_and_a_move_takes_all(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db").run(stop=7)
    late, cell = life.state("late"), life.state("cell-2")
    moved = life.state("cell-2", P1)
    of_hooks = {name for name in unpacked(cell.layout or "", cell.state or b"") if name.startswith("hook.")}
    assert of_hooks
    for kind, to, given in (("transplant", late, set()), ("move", moved, of_hooks)):
        names = {name for name, *_ in msgspec.json.decode(str(payload(kind, cell, to)["layout"]))}
        assert {name for name in names if name.startswith("hook.")} == given


def test_a_moved_series_has_the_state_it_had(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db").run(poll=28, commit_every=1, stop=2)  # P1 is past minute 25, P0 at offset 56
    life.run(poll=500, stop=1)
    source, target = life.state("cell-2"), life.state("cell-2", P1)
    before = life.column("cell-2", "leaky@v1.mean")
    assert life.column("cell-2", "leaky@v1.mean", P1) != before
    life.ask("move", source, target)
    life.world.log.append_to(P1, *traffic("cell-9", MINUTES, 50.0), INGEST_MS)
    life.run()
    assert life.column("cell-2", "leaky@v1.mean", P1) == before
    assert life.state("cell-2", P1).slot == target.slot


# -- one function of log and journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("poll", "commit_every"), [(1, 40), (7, 3), (13, 1)])
def test_polls_and_commits_change_nothing(asked, reference: Life, tmp_path: Path, poll: int, commit_every: int) -> None:
    life = lived(tmp_path / "a.db", asks(asked), poll, commit_every=commit_every)
    assert difference(dump(life.url), dump(reference.url)) == []


@pytest.mark.parametrize(
    ("poll", "stops"), [(1, (101,)), (1, (55, 47, 30)), (4, (14, 4, 2)), (4, (25, 1)), (11, (9, 1)), (11, (3, 5, 2, 1))]
)
def test_a_replay_of_log_and_journal_gives_the_store_that_deaths_gave(asked, tmp_path: Path, poll: int, stops) -> None:
    """A request that a death left waiting takes effect elsewhere: the journal says where."""
    died = lived(tmp_path / "died.db", asks(asked), poll, stops=stops, commit_every=2)
    entered = died.journal("transplant", "move")
    assert len(entered) == 2
    assert died.waiting() == 0
    replayed = lived(tmp_path / "replayed.db", {row[:2]: row[2:] for row in entered})
    assert difference(dump(died.url), dump(replayed.url)) == []


def test_what_is_asked_while_nothing_comes_waits_and_is_done_once(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db").run()
    late = life.state("late")
    life.ask("transplant", life.state("cell-0"), late)
    for _ in range(2):
        life.run()
        assert (life.waiting(), life.state("late")) == (1, late)
    life.world.log.append_to(P0, *traffic("cell-1", MINUTES, 50.0), INGEST_MS)
    life.run()
    assert (life.waiting(), len(life.journal("transplant"))) == (0, 1)
    assert life.column("late", "leaky@v1.mean") == life.column("cell-0", "leaky@v1.mean")
    after = life.state("late")
    life.world.log.append_to(P0, *traffic("cell-0", MINUTES, 90.0), INGEST_MS)
    life.run()
    assert life.state("late") == after


# -- a series that moved -----------------------------------------------------------------------------------------------


def test_a_series_that_lives_on_another_partition_is_flagged_until_it_is_warm(tmp_path: Path) -> None:
    life = lived(tmp_path / "a.db", {}, poll=4)
    assert life.quality("cell-2", Quality.MOVED, P1) == life.quality("cell-2", Quality.WARMING, P1) == [25, 26]
    assert life.journal("moved") == [(P1, 25, "moved", {"series": "cell-2", "number": 1, "from": "ran.traffic/0"})]
    assert not any(life.quality(key, Quality.MOVED) for key in ("cell-0", "cell-1", "cell-2", "late"))
    died = lived(tmp_path / "died.db", {}, poll=4, stops=(7, 7), commit_every=2)
    assert difference(dump(died.url), dump(life.url)) == []


def test_moved_series_are_listed_until_they_have_their_state(tmp_path: Path) -> None:
    life = lived(tmp_path / "a.db", {}, poll=4)
    place = {"stream": "traffic", "series": "cell-2", "topic": "ran.traffic", "from_partition": 0, "partition": 1}
    (row,) = History(life.url).moved()
    assert row == place | {"from_slot": row["slot"] - 15, "slot": row["slot"], "asked": False}
    assert History(life.url).moved("rsrp") == []
    life.ask("move", life.state("cell-2"), life.state("cell-2", P1))
    assert [row["asked"] for row in History(life.url).moved("traffic")] == [True]
    life.world.log.append_to(P1, *traffic("cell-9", MINUTES, 50.0), INGEST_MS)
    life.run()
    assert History(life.url).moved() == []


def test_a_pipeline_counts_the_series_that_moved(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db")
    with SqlStore(life.url) as store:
        pipeline = life.world.run(store, 5)
    assert pipeline.moved == {"traffic": 1}


# -- refusals ----------------------------------------------------------------------------------------------------------


def refused(life: Life) -> str:
    life.world.log.append_to(P0, *traffic("cell-1", MINUTES, 50.0), INGEST_MS)
    life.run()
    assert life.waiting() == 0
    ((*_, found),) = life.journal("refused")
    assert (found["request"], found["series"]) == ("transplant", "late")
    return str(found["why"])


def test_a_series_that_is_gone_by_then_refuses(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db").run()
    life.ask("transplant", life.state("cell-0"), life.state("late"), number=77)
    assert "not alive on ran.traffic/0" in refused(life)


def test_a_neighbour_of_other_predictors_is_refused(tmp_path: Path) -> None:
    routes = [{"match": "late", "active": "leaky"}, {"active": "other"}]
    life = Life(tmp_path / "a.db", routes=routes).run()
    life.ask("transplant", life.state("cell-0"), life.state("late"))
    assert "cell-0 is routed to other predictors" in refused(life)


def test_a_state_of_other_versions_is_refused_when_asked_for_and_when_it_enters(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db").run()
    life.ask("transplant", life.state("cell-0"), life.state("late"))
    cold = life.state("cell-0")

    def newer(streams: Any, _: Any) -> Any:
        shelf = static_shelf(streams)
        shelf.put("traffic", "leaky", "v2", lambda: LeakyMean(streams[0].features, streams[0].output, 0.2))
        return shelf

    life.world.shelf = newer
    assert "another layout: the state lacks leaky@v2." in refused(life)
    with pytest.raises(DataError, match=r"it lacks leaky@v2\.error, leaky@v2\.mean"):
        payload("transplant", cold, life.state("cell-1"))


def test_a_series_without_a_state_gives_none_and_takes_none(tmp_path: Path) -> None:
    life = Life(tmp_path / "a.db").run()
    state = life.state("late")
    nothing = SeriesState(P0, state.lane_id, state.series_id, "late", state.slot, None, None)
    for pair in ((nothing, state), (state, nothing)):
        with pytest.raises(DataError, match=r"late on ran\.traffic/0 has no stored state"):
            payload("move", *pair)

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netpredict.store.commit import Commit, LaneSnapshot
from netpredict.store.publication import SqlPublications, Window
from netpredict.store.sql import SqlStore
from netpredict.types import TopicPartition
from tests.store import store_builders as build
from tests.store.store_builders import LAYOUT, TOPIC_PARTITION, firing, full_commit, lane_commit, slot_time


@pytest.fixture
def publishing(url: str) -> Iterator[SqlStore]:
    with SqlStore(url, publishing=True) as store:
        yield store


@pytest.fixture
def publications(publishing: SqlStore) -> SqlPublications:
    return SqlPublications(publishing, "group")


def window_of(lane: LaneSnapshot, next_offset: int, first: int, last: int) -> Window:
    return Window(lane.lane_id, TOPIC_PARTITION, next_offset, slot_time(first), slot_time(last))


def test_a_commit_notes_the_slot_times_of_what_it_brought(publishing: SqlStore, publications: SqlPublications) -> None:
    lane, model_id = build.run(publishing, slots=2)
    both = [build.forecasts(lane, model_id, 3, [0]), build.forecasts(lane, model_id, 5, [0, 1])]
    publishing.commit(Commit([lane_commit(lane, 20, 30, forecasts=both)]))
    publishing.commit(Commit([lane_commit(lane, 30, 40)]))
    assert publications.unpublished(9) == [
        window_of(lane, 10, 1, 1),
        window_of(lane, 20, 2, 2),
        window_of(lane, 30, 3, 5),
    ]
    assert publications.unpublished(1) == [window_of(lane, 10, 1, 1)]
    assert SqlPublications(publishing, "another").unpublished(9) == []


def test_nothing_is_noted_without_publishing(store: SqlStore) -> None:
    build.run(store, slots=2)
    assert SqlPublications(store, "group").count() == 0


def test_a_fenced_lane_leaves_no_note(publishing: SqlStore, publications: SqlPublications) -> None:
    lane, model_id = build.assign(publishing), build.register(publishing)
    build.assign(publishing)
    assert publishing.commit(Commit([full_commit(lane, model_id)])) == {TOPIC_PARTITION}
    assert publications.count() == 0


def test_a_repeated_commit_and_a_recreated_topic_lose_no_slot(
    publishing: SqlStore, publications: SqlPublications
) -> None:
    lane, model_id = build.run(publishing, slots=1)
    publishing.commit(Commit([full_commit(lane, model_id, 1)]))  # its reply was lost
    assert publications.unpublished(9) == [window_of(lane, 10, 1, 1)]
    again = build.assign(publishing, topic_id="id-2")
    late = [build.forecasts(again, model_id, 7, [0])]
    publishing.commit(Commit([lane_commit(again, 0, 10, forecasts=late)]))
    assert publications.unpublished(9) == [window_of(lane, 10, 1, 7)]


def test_what_is_published_is_forgotten(publishing: SqlStore, publications: SqlPublications) -> None:
    build.run(publishing, slots=3)
    first, second, third = publications.unpublished(9)
    publications.mark_published([first, third, first])
    assert publications.unpublished(9) == [second]


def test_pruning_never_passes_the_oldest_window(publishing: SqlStore, publications: SqlPublications) -> None:
    build.run(publishing, slots=4)
    one, two, *_ = publications.unpublished(9)
    publications.mark_published([one, two])
    publishing.prune(slot_time(9), 1000)
    with publishing.database.reader() as connection:
        (oldest,) = connection.execute("SELECT min(slot_time_us) FROM forecast").fetchone()
    assert oldest == slot_time(3)
    publications.mark_published(publications.unpublished(9))
    assert publishing.prune(slot_time(9), 1000) > 0


def test_pruning_does_not_wait_for_ever_when_publishing_was_turned_off(url: str) -> None:
    with SqlStore(url, publishing=True) as store:
        build.run(store, slots=2)
    with SqlStore(url) as store:
        assert store.prune(slot_time(9), 1000) > 0


def test_the_forecasts_of_a_window_come_back_as_they_were(
    publishing: SqlStore, publications: SqlPublications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netpredict.store.publication.ROWS_PER_READ", 2)
    lane, model_id = build.assign(publishing), build.register(publishing)
    shadow = build.register(publishing, "v2")
    other = publishing.assign("group", TopicPartition("cells", 1), build.STREAM, "id-1", "tester")
    publishing.commit(
        Commit(
            [
                lane_commit(
                    lane,
                    0,
                    10,
                    forecasts=[
                        build.forecasts(lane, model_id, 1, range(5)),
                        build.forecasts(lane, shadow, 1, range(3)),
                        build.forecasts(lane, model_id, 4, [2]),
                    ],
                ),
                lane_commit(
                    other,
                    0,
                    10,
                    topic_partition=TopicPartition("cells", 1),
                    forecasts=[build.forecasts(other, model_id, slot, range(3)) for slot in (0, 1, 2, 4, 5)],
                ),
            ]
        )
    )
    (window,) = [window for window in publications.unpublished(9) if window.lane_id == lane.lane_id]
    found: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {}
    for rows in publications.forecasts(window):
        assert rows.layout == LAYOUT
        for row, series_id in enumerate(rows.series_id.tolist()):
            key = (int(rows.slot_time_us[row]), series_id, rows.model_id)
            assert key not in found
            found[key] = rows.ticks[row].tolist(), rows.sources[row].tolist()
    expected = {}
    for model, slot, numbers in ((model_id, 1, range(5)), (shadow, 1, range(3)), (model_id, 4, [2])):
        rows = build.forecasts(lane, model, slot, numbers)
        for row, series_id in enumerate(rows.series_id.tolist()):
            expected[slot_time(slot), series_id, model] = rows.ticks[row].tolist(), rows.sources[row].tolist()
    assert found == expected


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_reading_a_window_uses_the_primary_key(publishing: SqlStore) -> None:
    with publishing.database.reader() as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT series_id FROM forecast WHERE slot_time_us = 1"
            " AND (series_id, model_id) > (1, 1) AND series_id <= 9 ORDER BY series_id, model_id LIMIT 9"
        ).fetchall()
    assert len(plan) == 1
    assert "slot_time_us=?" in plan[0][3]
    assert "model_id)>(?" in plan[0][3] or "series_id>" in plan[0][3]


def test_a_firing_that_another_lane_stored_first_is_not_published_again(
    publishing: SqlStore, publications: SqlPublications
) -> None:
    lane, other_place = build.assign(publishing), TopicPartition("cells", 1)
    other = publishing.assign("group", other_place, build.STREAM, "id-1", "tester")
    publishing.commit(Commit([lane_commit(lane, 0, 10, firings=[(firing(1), ("log",))])]))
    fired = [(firing(1, value={"quota": 99}), ("log",)), (firing(2), ("log",))]
    publishing.commit(Commit([lane_commit(other, 0, 10, topic_partition=other_place, firings=fired)]))
    first, second = publications.unpublished(9)
    assert publications.firings(first) == [firing(1)]
    assert publications.firings_of(second, ["firing-2", "firing-1"]) == [firing(2)]
    assert publications.firings(second) == [firing(2)]


def test_what_a_policy_fired_is_published_by_itself_and_without_what_commits_brought(
    publishing: SqlStore, publications: SqlPublications
) -> None:
    lane, _ = build.run(publishing, slots=1)  # with a firing of another hook in the same slot
    publications.mark_published(publications.unpublished(9))
    at_us = slot_time(1)
    decided = [firing(number, hook="cio", slot_time_us=at_us) for number in (7, 8)]
    assert publishing.fire(decided, ["log"], True) == ["firing-7", "firing-8"]
    (window,) = publications.unpublished(9)
    assert (window.lane_id, window.from_time_us, window.until_time_us) == (lane.lane_id, at_us, at_us)
    assert list(publications.forecasts(window)) == []
    assert publications.firings(window) == decided
    publications.mark_published([window])
    assert publishing.fire(decided, ["log"], True) == []
    assert publications.count() == 0, "decided again, and published before"
    publishing.fire([*decided, firing(9, hook="cio", slot_time_us=at_us)], ["log"], True)
    assert publications.count() == 1
    publishing.fire([firing(10, hook="cio")], ["log"], False)
    assert publications.count() == 1, "the publisher is off"


def test_names_come_by_id(publishing: SqlStore, publications: SqlPublications) -> None:
    lane, model_id = build.run(publishing, slots=1)
    assert publications.series_keys(build.ids(lane, [0, 2, 7]).tolist()) == {
        int(build.ids(lane, [number])[0]): f"cell-{number}" for number in (0, 2)
    }
    assert publications.model(model_id) == ("gru", "v1")
    assert publications.model(99) == ("unknown", "-")
    assert publications.count() == 1

"""A log and its control journal, run again, give the store that the first life gave, deaths and all."""

from __future__ import annotations

import pytest

from netpredict.build import build_streams
from netpredict.config import parse_config
from netpredict.errors import DataError
from netpredict.pipeline import Pipeline
from netpredict.store.commit import EXCLUDE
from netpredict.testing import MemoryStore
from netpredict.types import PolledPartition, TopicPartition
from tests.pipeline_world import CONFIG, MINUTE_US, START_US, World
from tests.rerun import BlindShelf, Rerun
from tests.test_pipeline_more import assert_same, finished, only_traffic, steady, two_versions, with_deaths


def rerun(world: World, journal, poll: int) -> MemoryStore:
    store = MemoryStore()
    streams = build_streams(parse_config(world.config))
    shelf = BlindShelf(world.shelf(streams, store))
    pipeline = Pipeline("test", streams, store, shelf)
    for place in world.log.topic_partitions():
        if place.topic in pipeline.streams:
            lane, _ = pipeline.assign(place)
            pipeline.started(lane, world.log.first(place))
    again = Rerun(pipeline, shelf, journal)
    while polled := [
        PolledPartition(place, records, records[-1].offset + 1)
        for place, lane in pipeline.lanes.items()
        if (records := world.log.read(place, lane.next_offset, poll))
    ]:
        again.step(polled)
    store.commit(pipeline.take_commit())
    return store


def two_lives() -> World:
    """A version that is activated, one on trial that is dismissed, one that cannot be loaded; an action's interval."""
    world = only_traffic(steady(60, 8), partitions=2, series_ttl_s=1e7)
    world.shelf = two_versions
    world.activations = {81: ("traffic", "leaky", "v2"), 150: ("traffic", "leaky", "nowhere")}
    world.challenges = {30: ("traffic", "leaky", "v2"), 60: ("traffic", "leaky", None)}
    until_us = START_US + 50 * MINUTE_US
    changed = {"action": "f1", "radio_cells": ["cell-0", "cell-1"], "from_us": START_US, "until_us": until_us}
    world.asks = {(place, 45): (EXCLUDE, changed) for place in world.log.topic_partitions()}
    return world


@pytest.mark.parametrize("poll", [1, 7, 5000])
@pytest.mark.parametrize("stops", [(), (9, 20, 3)])
def test_log_and_journal_give_the_same_store_again(poll: int, stops: tuple[int, ...]) -> None:
    first = with_deaths(two_lives(), stops, 5) if stops else finished(two_lives())
    kinds = {row.kind for rows in first.journal.values() for row in rows}
    assert kinds == {"config", "activate", "challenge", "dismiss", "refused", "exclude"}
    assert_same(rerun(two_lives(), first.journal, poll), first)


def test_without_the_journal_it_is_another_store() -> None:
    first = finished(two_lives())
    again = rerun(two_lives(), {}, 7)
    assert again.dump()["forecasts"] != first.dump()["forecasts"]


def test_the_journal_of_another_config_is_told() -> None:
    first = finished(two_lives())
    other = only_traffic(steady(60, 8), partitions=2, config=CONFIG, series_ttl_s=1e6)
    other.shelf = two_versions
    with pytest.raises(DataError, match=r"at offset 0 of ran.traffic/\d another config"):
        rerun(other, first.journal, 7)


def test_every_kind_of_the_journal_is_known() -> None:
    unknown = {
        TopicPartition("ran.traffic", 0): [
            type(row)(3, "dance", {}) for row in finished(two_lives()).journal[TopicPartition("ran.traffic", 0)][:1]
        ]
    }
    with pytest.raises(DataError, match="does not know the journal entry 'dance'"):
        rerun(two_lives(), unknown, 7)

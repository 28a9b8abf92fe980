"""The pipeline over a log in this process: the store is a function of the log, however it was cut."""

import math
import random
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.build import build_decoder
from netpredict.config import parse_config
from netpredict.decide import BoundHook
from netpredict.ingest.messages import Traffic
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.pipeline import Pipeline
from netpredict.stream import Stream
from netpredict.testing import LeakyMean, MemoryStore, StaticShelf
from netpredict.types import DueAction, Quality, Source, StateArray, TopicPartition

START_US = 1_700_000_040_000_000
PERIOD_US = 60_000_000
CONFIG = {
    "streams": {
        "traffic": {
            "topic": "ran.traffic",
            "schema": "traffic",
            "series_by": ["radio_cell_id"],
            "period_s": 60.0,
            "kpis": ["prb_use_dl_percent"],
            "features": ["connected_ues"],
            "horizon_steps": 4,
            "warm_steps": 3,
            "bucket_s": 600.0,
            "max_gap_steps": 3,
            "routes": [{"active": "leaky"}],
        }
    },
    "predictors": {"leaky": {"plugin": "naive"}},
}


class CountingHook:
    """Fires at every third row of a series, so that its state matters."""

    api_version = 1

    def levels_needed(self):
        return [0.8]

    def kpis_needed(self):
        return ["prb_use_dl_percent"]

    def columns_needed(self):
        return []

    def steps_needed(self):
        return 1

    def state_spec(self):
        return {"seen": StateArray((), "int32")}

    def decide(self, batch, state):
        seen = state["seen"] + 1
        due = [
            DueAction(row, f"cell={batch.key_of(row)}", "ratio", {"percent": int(seen[row])}, {}, 60.0)
            for row in np.flatnonzero(seen % 3 == 0).tolist()
        ]
        return due, {"seen": seen}


class StaticNaive(LeakyMean):
    """Stands for the ladder's rungs in these tests."""


def make_pipeline(store, series_max=1_000_000, config=CONFIG, shelf=None):
    parsed = parse_config(config)
    stream_config = parsed.streams["traffic"]
    stream_config = msgspec.structs.replace(stream_config, series_max=series_max)
    hook = CountingHook()
    from netpredict.config import HookConfig

    bound = BoundHook("counting", HookConfig(plugin="x", stream="traffic"), hook, tuple(hook.state_spec()))
    stream = Stream(
        "traffic",
        stream_config,
        build_decoder("traffic", stream_config),
        [bound],
        lambda plugin, features, output: LeakyMean(features, output, memory=0.0),
        True,
    )
    if shelf is None:
        shelf = StaticShelf()
        shelf.put("traffic", "leaky", "v1", lambda: LeakyMean(stream.features, stream.output))
    return Pipeline("test", [stream], store, shelf)


def record(cell, minute, prb, **rest):
    message = Traffic("netpredict.traffic/1", cell, START_US + minute * PERIOD_US, prb_use_dl_percent=prb, **rest)
    return cell.encode(), msgspec.json.encode(message)


def write_log(rows, partitions=2):
    log = MemoryLog({"ran.traffic": partitions})
    for key, value in rows:
        log.append("ran.traffic", key, value, (START_US + 10**13) // 1000)
    return log


def messy_rows(seed=1, cells=9, minutes=80):
    """Gaps, duplicates, late rows, rubbish and missing values over some cells, in a random but causal order."""
    rng = random.Random(seed)
    rows = []
    for minute in range(minutes):
        for cell in rng.sample(range(cells), cells):
            luck = rng.random()
            prb = round(30 + 20 * math.sin(minute / 9 + cell) + rng.gauss(0, 3), 2)
            if luck < 0.05:
                continue
            rows.append(record(f"cell-{cell}", minute, None if luck > 0.97 else prb, connected_ues=float(cell)))
            if luck < 0.10:
                rows.append(rows[-1])
            if luck < 0.08 and minute > 5:
                rows.append(record(f"cell-{cell}", minute - 4, prb))
            if luck > 0.98:
                rows.append((b"cell-1", b"{rubbish"))
        if minute == 40:
            rows += [record("cell-far", minute + 60 * k, 50.0) for k in range(3)]
    return rows


def run(log, poll, commit_every=3, stop_after=None, store=None, config=CONFIG):
    """Drain the log into a store; with ``stop_after`` the process dies after so many polls, uncommitted work lost."""
    store = store or MemoryStore()
    pipeline = make_pipeline(store, config=config)
    source = MemorySource(log, poll)
    for topic_partition in source.changes().assigned:
        lane, offset = pipeline.assign(topic_partition)
        pipeline.started(lane, source.seek(topic_partition, offset))
    polls = 0
    while polled := source.poll(0):
        pipeline.step(polled)
        polls += 1
        if polls % commit_every == 0 and (commit := pipeline.take_commit()):
            assert store.commit(commit) == set()
        if polls == stop_after:
            return store
    if commit := pipeline.take_commit():
        assert store.commit(commit) == set()
    return store


def assert_equal_stores(one, two):
    left, right = one.dump(), two.dump()
    for table in left:
        assert left[table] == right[table], f"{table} differs"


@pytest.fixture(scope="module")
def log():
    return write_log(messy_rows())


@pytest.fixture(scope="module")
def reference(log):
    return run(log, 5000)


@pytest.mark.parametrize("poll", [1, 7, 64])
def test_the_store_is_the_same_whatever_the_size_of_a_poll(log, reference, poll):
    assert_equal_stores(run(log, poll, commit_every=5), reference)


@pytest.mark.parametrize("stop_after", [1, 2, 10, 17, 40])
def test_the_store_is_the_same_after_a_death_at_any_poll(log, reference, stop_after):
    store = run(log, 13, commit_every=4, stop_after=stop_after)
    assert_equal_stores(run(log, 7, store=store), reference)


def test_every_offset_is_accounted_for(log, reference):
    for topic_partition, (offset, counts, _) in reference.dump()["progress"].items():
        assert sum(counts.values()) == offset == log.end(topic_partition)
        assert min(counts["duplicate"], counts["late"], counts["accepted"]) > 0


def test_rubbish_ends_as_dead_letters_with_reason_and_bytes(reference):
    letters = [letter for letter in reference.dead_letters.values() if letter.reason == "undecodable"]
    assert letters
    assert all(letter.value == b"{rubbish" for letter in letters)
    assert {letter.reason for letter in reference.dead_letters.values()} == {"undecodable", "late", "no_value"}


def test_a_zombie_with_an_old_epoch_changes_nothing(log):
    store = MemoryStore()
    zombie = make_pipeline(store)
    source = MemorySource(log, 50)
    for topic_partition in source.changes().assigned:
        lane, offset = zombie.assign(topic_partition)
        zombie.started(lane, source.seek(topic_partition, offset))
    zombie.step(source.poll(0))
    heir = run(log, 40, store=store)
    before = heir.dump()
    commit = zombie.take_commit()
    assert commit is not None
    assert store.commit(commit) == {part.topic_partition for part in commit.lanes}
    assert store.dump() == before


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([3, 50]))
def test_the_order_of_series_in_the_log_changes_no_series_result(shuffler, poll):
    """Shuffle which series comes first, keeping each series' own order: every series ends bit for bit the same."""
    rows = [row for row in messy_rows(seed=3, cells=6, minutes=30) if row[1] != b"{rubbish"]
    queues = {}
    for key, value in rows:
        queues.setdefault(key, []).append((key, value))
    shuffled = []
    while queues:
        key = shuffler.choice(sorted(queues))
        shuffled.append(queues[key].pop(0))
        if not queues[key]:
            del queues[key]
    assert series_results(run(write_log(shuffled, 1), poll)) == series_results(run(write_log(rows, 1), 5000))


def series_results(store):
    """What belongs to series alone, uncalibrated by their neighbours: hidden states and observations."""
    dump = store.dump()
    states = {key[1]: state for key, state in dump["states"].items()}
    seen = {(time_us, key[1]): row for (time_us, key), row in dump["observations"].items()}
    return states, seen


def test_on_a_ramp_naive_errs_by_exactly_the_lead():
    """Alignment: with y = t the last value is wrong by k steps at lead k, and the scores say so."""
    store = run(write_log([record("cell-0", minute, float(minute)) for minute in range(60)], 1), 9)
    for score in store.scores.values():
        assert score.naive_abs_ticks == score.n * score.lead_steps * 10
    scored = Counter()
    for score in store.scores.values():
        scored[score.lead_steps] += score.n
    assert scored == {lead: 60 - lead for lead in range(1, 5)}, (
        "scored before the truth is known to the model, all leads"
    )


def test_a_cold_series_is_served_by_the_ladder_and_says_so():
    store = run(write_log([record("cell-0", minute, 50.0) for minute in range(5)], 1), 5)
    first = min(store.forecasts)
    _, _, sources, *_ = store.forecasts[first]
    assert set(sources) == {Source.NAIVE}
    _, _, sources, *_ = store.forecasts[max(store.forecasts)]
    assert set(sources) == {Source.MODEL}
    assert Quality.WARMING


def test_a_silent_series_is_retired_and_may_come_back_cold():
    """cell-1 falls silent longer than its time to live, comes back with a stale stamp, then with a fresh one."""
    rows = [record(f"cell-{cell}", minute, 40.0) for minute in range(5) for cell in range(2)]
    rows += [record("cell-0", minute, 40.0) for minute in range(5, 240)]
    rows += [record("cell-1", 3, 40.0), record("cell-1", 240, 40.0), record("cell-0", 241, 40.0)]
    config = msgspec.json.decode(msgspec.json.encode(CONFIG))
    config["streams"]["traffic"]["series_ttl_s"] = 3600.0
    log = write_log(rows, 1)
    reference = run(log, 5000, config=config)
    assert [letter.reason for letter in reference.dead_letters.values()] == ["late"]
    for poll in (1, 9, 100):
        one, two = run(log, poll, config=config).dump(), reference.dump()
        assert one["states"] == two["states"]
        assert one["forecasts"] == two["forecasts"]


def test_series_beyond_the_cap_are_refused_and_counted():
    store = MemoryStore()
    pipeline = make_pipeline(store, series_max=2)
    log = write_log([record(f"cell-{n}", 1, 10.0) for n in range(5)], 1)
    source = MemorySource(log, 100)
    lane, offset = pipeline.assign(TopicPartition("ran.traffic", 0))
    pipeline.started(lane, source.seek(lane.topic_partition, offset))
    pipeline.step(source.poll(0))
    commit = pipeline.take_commit()
    assert commit is not None
    assert commit.lanes[0].counts == {"accepted": 2, "duplicate": 0, "late": 0, "dead": 3, "control": 0}
    assert {letter.reason for letter in commit.lanes[0].dead_letters} == {"series_cap"}


@pytest.mark.parametrize("stamp_ms", [2**63 - 1, 10**30, -1])
def test_an_absurd_record_timestamp_ends_as_a_dead_letter_that_can_be_stored(stamp_ms):
    log = MemoryLog({"ran.traffic": 1})
    log.append("ran.traffic", b"cell-0", b"{rubbish", stamp_ms)
    log.append("ran.traffic", b"cell-1", record("cell-1", 1, 40.0)[1], (START_US + 10**13) // 1000)
    store = run(log, 10)
    (letter,) = store.dead_letters.values()
    assert 0 <= letter.ingest_time_us < 2**63
    assert len(store.observations) == 1

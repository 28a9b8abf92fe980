"""The pipeline with real decoders, hooks and stores: the store is a function of the log, and of nothing else."""

import copy
import itertools
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.build import build_predictor
from netpredict.config import parse_config
from netpredict.errors import ArtefactError
from netpredict.learn.shelf import StoreShelf
from netpredict.store import migrate
from netpredict.store.compare import difference, dump
from netpredict.store.sql import SqlStore
from netpredict.testing import LeakyMean, MemoryStore, StaticShelf
from netpredict.types import MISSING_TICKS, Mode, Quality, Source, TopicPartition
from tests.pipeline_world import (
    CONFIG,
    START_US,
    World,
    channel_rows,
    filled,
    report_rows,
    static_shelf,
    traffic,
    traffic_rows,
)

T0 = TopicPartition("ran.traffic", 0)
ALL = {"ran.traffic": traffic_rows(), "ran.rsrp": report_rows(), "ran.channel": channel_rows()}


@pytest.fixture(scope="module")
def log():
    return filled(ALL)


def only_traffic(rows, config=None, partitions=1, **changes):
    config = copy.deepcopy(config or CONFIG)
    config["streams"] = {"traffic": config["streams"]["traffic"] | changes}
    config["hooks"] = {name: hook for name, hook in config["hooks"].items() if hook["stream"] == "traffic"}
    return World(filled({"ran.traffic": rows}, partitions), config)


def assert_same(one, two):
    left, right = (store if isinstance(store, dict) else store.dump() for store in (one, two))
    for table in left:
        assert left[table] == right[table], f"{table} differs"


def finished(world, store=None, poll=5000, **how):
    store = store or MemoryStore()
    world.offsets = {}
    world.run(store, poll, **how)
    return store


def with_deaths(world, stops, poll):
    store = MemoryStore()
    world.offsets = {}
    for stop in stops:
        world.run(store, poll, commit_every=2, stop_after=stop)
    world.run(store, poll + 3)
    return store


# -- one function of the log ------------------------------------------------------------------------------------


def sql(place: Path | str, world: World, poll: int, stops=(), **how):
    """The dump of an SQL store, a file or a URL, after deaths at these polls and a last run to the end."""
    url = place if isinstance(place, str) else f"sqlite:///{place}"
    migrate.upgrade(url)
    world.offsets = {}
    world.shelf = lambda streams, store: StoreShelf(parse_config(world.config), store, streams)
    for stop in (*stops, None):
        with SqlStore(url) as store:
            world.run(store, poll, stop_after=stop, **how)
    return dump(url)


@pytest.fixture(scope="module")
def sql_reference(log, tmp_path_factory):
    return sql(tmp_path_factory.mktemp("sql") / "reference.db", World(log), 5000)


@pytest.mark.parametrize(("poll", "commit_every"), [(1, 40), (7, 5), (300, 1)])
def test_the_sql_store_is_the_same_whatever_the_poll_and_the_commit(log, sql_reference, tmp_path, poll, commit_every):
    assert difference(sql(tmp_path / "other.db", World(log), poll, commit_every=commit_every), sql_reference) == []


@pytest.mark.parametrize("stops", [(1,), (5, 5, 5), (9, 1, 14), (2, 30)])
def test_the_sql_store_is_the_same_after_deaths(log, sql_reference, tmp_path, stops):
    assert difference(sql(tmp_path / "other.db", World(log), 11, stops, commit_every=3), sql_reference) == []


@pytest.mark.parametrize(("poll", "stops"), [(300, ()), (11, (5, 5, 5, 9))])
def test_the_store_on_postgresql_is_that_on_sqlite(log, sql_reference, postgres, poll, stops):
    url = postgres.new_database()
    assert difference(sql(url, World(log), poll, stops, commit_every=3), sql_reference) == []


def test_a_series_whose_state_is_damaged_begins_cold_and_takes_no_stored_slot_again(tmp_path):
    again = [traffic(f"cell-{cell}", 7, 1.0) for cell in range(4)]
    world, url = only_traffic([*steady(10), *again, *steady(14)[40:]]), f"sqlite:///{tmp_path}/damaged.db"
    world.shelf = lambda streams, store: StoreShelf(parse_config(world.config), store, streams)
    migrate.upgrade(url)
    with SqlStore(url) as store:
        world.run(store, 20, commit_every=1, stop_after=2)
        with store.database.transaction() as connection:
            connection.execute("UPDATE series_state SET checksum = checksum + 1")
    with SqlStore(url) as store:
        world.run(store, 7)
        assert len(store.damaged) == 4
    ((*_, accepted, duplicate, late, dead, _, _),) = dump(url)["topic_progress"]
    assert (accepted, duplicate, late, dead) == (56, 0, 4, 0)
    forecasts = [row for row in dump(url)["forecast"] if row[5] == "cell-0"]
    assert [row[11] & Quality.WARMING > 0 for row in forecasts][10:] == [True, True, False, False]


def test_the_log_has_something_of_everything(sql_reference):
    """Else the tests above prove less than they say."""
    progress = {row[1:3]: row for row in sql_reference["topic_progress"]}
    for (topic, partition), row in progress.items():
        assert sum(row[6:11]) == row[5], (topic, partition)
    assert min(sum(row[6 + index] for row in progress.values()) for index in range(4)) > 0
    assert {row[5] for row in sql_reference["firing"]} == {"bandwidth", "handover", "mcs"}
    assert {row[3] for row in sql_reference["dead_letter"]} == {"undecodable", "late", "identity", "no_value"}
    assert any(row[-1] for row in sql_reference["series"]), "no series was retired"
    assert sql_reference["outbox"]
    assert len({row[8] for row in sql_reference["score"]}) > 3


@pytest.mark.parametrize("poll", [1, 7])
def test_the_memory_store_is_the_same_whatever_the_poll(log, poll):
    assert_same(finished(World(log), poll=poll, commit_every=11), finished(World(log)))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=4), st.integers(1, 60), st.integers(0, 5))
def test_any_death_and_any_poll_end_in_the_same_store(stops, poll, seed):
    world = only_traffic(traffic_rows(seed, cells=7, minutes=50), partitions=2)
    assert_same(with_deaths(world, stops, poll), finished(world))


@pytest.mark.parametrize("poll", [1, 13, 100])
def test_a_series_that_retires_and_returns_inside_one_poll(poll):
    """With the whole log in one poll nothing may be known of rows to come when a bucket ends."""
    rows = [traffic(f"cell-{cell}", minute, 40.0) for minute in range(5) for cell in range(3)]
    rows += [traffic("cell-0", minute, 40.0) for minute in range(5, 60)]
    rows += [traffic("cell-1", 61, 40.0), traffic("cell-2", 3, 40.0), traffic("cell-2", 62, 40.0)]
    world = only_traffic(rows, series_max=3)
    reference = finished(world)
    assert_same(finished(world, poll=poll), reference)
    retired = sorted(row["key"] for row in reference.series.values() if "retired" in row)
    assert retired == ["cell-1", "cell-2"]
    assert len(reference.series) == 5


@pytest.mark.parametrize("poll", [1, 10])
def test_caps_and_hash_samples_do_not_depend_on_the_poll(poll):
    rows = [traffic(f"cell-{n}", minute, 10.0 + n) for minute in range(40) for n in range(minute % 30)]
    world = only_traffic(rows, series_max=20, score_series_max=4)
    reference = finished(world)
    assert_same(finished(world, poll=poll, commit_every=1), reference)
    assert_same(with_deaths(world, [3, 4], poll), reference)
    assert any(letter.reason == "series_cap" for letter in reference.dead_letters.values())


# -- no series sees another ----------------------------------------------------------------------------------------


def by_series(store):
    """All that belongs to a series alone: hidden and hook states, observations, forecasts, firings."""
    found = store.dump()
    states = {key[1]: state for key, state in found["states"].items()}
    seen = {(time_us, key[1]): row for (time_us, key), row in found["observations"].items()}
    forecasts = {(time_us, key[1], model): row for (time_us, key, model), row in found["forecasts"].items()}
    return states, seen, forecasts, found["firings"]


def shuffled(rows, choose):
    """The rows with each series' own order kept."""
    queues = {}
    for key, value in rows:
        queues.setdefault(key, []).append((key, value))
    while queues:
        key = choose(sorted(queues))
        yield queues[key].pop(0)
        if not queues[key]:
            del queues[key]


def unharmed(rows):
    return [row for row in rows if row[1] != b"{rubbish"]


ALONE = {"bucket_s": 1e7, "series_ttl_s": 1e7}  # no bucket ends: calibration is shared by a lane on purpose


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 3, 50, 5000]))
def test_the_order_of_series_in_the_log_changes_no_forecast_of_any(shuffler, poll):
    rows = unharmed(traffic_rows(3, cells=6, minutes=25))
    reference = by_series(finished(only_traffic(rows, **ALONE)))
    other = by_series(finished(only_traffic(list(shuffled(rows, shuffler.choice)), **ALONE), poll=poll))
    for one, two in zip(reference, other, strict=True):
        assert one == two
    assert all(reference)


def test_a_series_alone_is_forecast_as_among_others():
    rows = unharmed(traffic_rows(4, cells=7, minutes=30))
    whole = by_series(finished(only_traffic(rows, **ALONE)))
    for cell in range(7):
        alone = by_series(finished(only_traffic([row for row in rows if row[0] == b"cell-%d" % cell], **ALONE)))
        assert alone[0][f"cell-{cell}"] == whole[0][f"cell-{cell}"]
        assert alone[2].items() <= whole[2].items()


def gru_world(rows, units=5):
    world = only_traffic(rows, **ALONE)

    def shelf(streams, _):
        made = StaticShelf()
        config = parse_config(world.config | {"predictors": {"leaky": {"plugin": "gru", "options": {"units": units}}}})
        for stream in streams:
            made.put(
                stream.name, "leaky", "v1", partial(build_predictor, "leaky", config, stream.features, stream.output)
            )
        return made

    world.shelf = shelf
    return world


def test_a_real_recurrent_network_gives_the_same_bits_in_any_poll_and_order():
    rows = unharmed(traffic_rows(5, cells=20, minutes=8))
    store = finished(gru_world(rows))
    for poll in (1, 7):
        assert_same(finished(gru_world(rows), poll=poll), store)
    backwards = list(shuffled(rows, max))
    assert by_series(finished(gru_world(backwards), poll=9)) == by_series(store)
    assert any(Source.MODEL in sources for _, _, sources, *_ in store.forecasts.values())


# -- models ------------------------------------------------------------------------------------------------------


def two_versions(streams, _):
    shelf = static_shelf(streams)
    stream = streams[0]
    shelf.put("traffic", "leaky", "v2", lambda: LeakyMean(stream.features, stream.output, 0.2), active=False)
    return shelf


def steady(minutes=60, cells=4):
    return [traffic(f"cell-{cell}", m, 20.0 + cell + (m * 7) % 11) for m in range(minutes) for cell in range(cells)]


def models_by_minute(store, cell="cell-0"):
    key_of = {series: row["key"] for series, row in store.series.items()}
    return {
        (time_us - START_US) // 60_000_000: model
        for (time_us, series, model) in store.forecasts
        if key_of[series] == cell
    }


def test_a_new_version_serves_a_series_once_it_is_warm_and_the_old_one_retires():
    world = only_traffic(steady())
    world.shelf, world.activations = two_versions, {80: ("traffic", "leaky", "v2")}
    store = finished(world)
    models = models_by_minute(store)
    v1, v2 = models[0], models[max(models)]
    first = min(minute for minute, model in models.items() if model == v2)
    assert v1 != v2
    assert first == 80 // 4 + 3 - 1, "served before warm_steps or later than needed"
    assert all(model == (v2 if minute >= first else v1) for minute, model in models.items())
    assert {row.kind for row in store.journal[T0]} == {"config", "activate"}
    assert [row.effective_offset for row in store.journal[T0] if row.kind == "activate"] == [0, 80]
    state = msgspec.json.decode(store.lanes[T0]["state"])
    assert [version for version, _ in state["versions"]["leaky"]] == ["v2"]
    assert not any("leaky@v1" in layout for layout, _, _ in store.states.values())


@pytest.mark.parametrize("poll", [1, 13])
@pytest.mark.parametrize("stops", [(), (3,), (7, 5), (1, 2, 3)])
@pytest.mark.parametrize("back", [False, True])
def test_activation_is_the_same_whatever_dies_around_it(poll, stops, back):
    """Also the stored states: they bear the versions that ran when they were touched."""
    world = only_traffic([traffic("cell-9", 0, 50.0), *steady()], series_ttl_s=1e7)
    world.shelf, world.activations = two_versions, {81: ("traffic", "leaky", "v2")}
    if back:
        world.activations[83] = ("traffic", "leaky", "v1")
    reference = finished(world)
    world.offsets = {}
    assert_same(with_deaths(world, stops, poll), reference)


def test_a_roll_back_serves_the_old_version_again():
    world = only_traffic(steady())
    world.shelf = two_versions
    world.activations = {80: ("traffic", "leaky", "v2"), 120: ("traffic", "leaky", "v1")}
    reference = finished(world)
    models = models_by_minute(reference)
    assert models[max(models)] == models[0] != models[28]
    assert_same(with_deaths(world, [11, 20, 5], 4), reference)
    state = msgspec.json.decode(reference.lanes[T0]["state"])
    assert [version for version, _ in state["versions"]["leaky"]] == ["v1"]


def test_a_version_that_leaves_one_lane_leaves_nothing_there_and_stays_on_the_other():
    world = only_traffic(steady(8, 12), partitions=2)
    world.shelf = two_versions
    pipeline = world.build(MemoryStore())
    lanes = [pipeline.assign(TopicPartition("ran.traffic", partition))[0] for partition in (0, 1)]
    for lane in lanes:
        pipeline.started(lane, 0)
    stream = pipeline.streams["ran.traffic"]
    pipeline.step(world._polled(pipeline, 1000))
    (version,) = stream.versions["leaky"]
    seen = stream.table.column("leaky@v1.steps")
    pipeline.activate("traffic", "leaky", "v2")
    del lanes[0].state.versions["leaky"][1:]
    stream.rank_versions(lanes[0], "leaky")
    for lane, runs in zip(lanes, (False, True), strict=True):
        rows = stream.table.rows_of(lane.index)
        assert len(rows)
        assert (version in stream.versions_on(lane)) is runs
        assert bool(seen[rows].any()) is runs
        assert bool((version.board.pending.issued[stream.table.scored[rows]] > 0).any()) is runs
        assert bool(list(version.board.sums(lane.index))) is runs


class BrokenShelf(StaticShelf):
    broken = ()

    def __init__(self):
        super().__init__()
        self.loads = 0

    def load(self, stream, predictor, version):
        self.loads += 1
        if version in self.broken:
            raise ArtefactError(f"{version} is damaged")
        return super().load(stream, predictor, version)


def broken_world(rows, versions=("v1", "v2"), active="v1"):
    world, shelf = only_traffic(rows), BrokenShelf()

    def made(streams, _):
        if shelf._builders:
            return shelf
        for version, memory in zip(versions, (0.7, 0.2), strict=True):
            build = lambda memory=memory: LeakyMean(streams[0].features, streams[0].output, memory)  # noqa: E731
            shelf.put("traffic", "leaky", version, build, active=version == active)
        return shelf

    world.shelf = made
    return world, shelf


def test_an_artefact_that_cannot_be_loaded_is_refused_once_and_the_old_one_serves_on():
    world, shelf = broken_world(steady(30))
    shelf.broken = ("v2",)
    store = MemoryStore()
    pipeline = world.run(store, 20, stop_after=3)
    for _ in range(5):
        pipeline.activate("traffic", "leaky", "v2")
    pipeline.step(world._polled(pipeline, 20))
    store.commit(pipeline.take_commit())
    assert [row.kind for row in store.journal[T0]].count("refused") == 1
    assert msgspec.json.decode(store.lanes[T0]["state"])["versions"]["leaky"] == [["v1", 0]]


def test_a_lane_whose_newest_artefact_is_gone_goes_on_with_the_one_before():
    world, shelf = broken_world(steady(60))
    world.activations = {80: ("traffic", "leaky", "v2")}
    store = MemoryStore()
    world.run(store, 10, commit_every=1, stop_after=9)
    shelf.broken, world.activations, shelf._active = ("v2",), {}, {("traffic", "leaky"): "v1"}
    world.run(store, 10)
    models = models_by_minute(store)
    assert models[max(models)] == models[0]
    state = msgspec.json.decode(store.lanes[T0]["state"])
    assert [version for version, _ in state["versions"]["leaky"]] == ["v1"]


def test_without_any_artefact_the_ladder_serves_and_says_so():
    world, shelf = broken_world(steady(10))
    shelf.broken = ("v1", "v2")
    pipeline = world.build(store := MemoryStore())
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    pipeline.step(world._polled(pipeline, 100))
    commit = pipeline.take_commit()
    rows = commit.lanes[0].forecasts
    assert {source for part in rows for source in part.sources[:, 0].tolist()} == {Source.NAIVE}
    assert all((part.quality & Quality.NO_MODEL).all() for part in rows)
    assert {part.model_id for part in rows} == {1000}
    assert store.commit(commit) == set()


def test_shadows_are_stored_and_scored_but_nobody_acts_on_them():
    routes = [{"active": "leaky", "shadows": ["other"]}]
    plain, shadowed = (only_traffic(steady(), routes=r) for r in ([{"active": "leaky"}], routes))
    one, two = finished(plain), finished(shadowed)
    extra = {key[2] for key in two.forecasts} - {key[2] for key in one.forecasts}
    assert len(extra) == 1
    assert one.firings == two.firings != {}
    mine = {key: row for key, row in two.forecasts.items() if key[2] not in extra}
    assert mine == one.forecasts
    assert extra < {score.model_id for score in two.scores.values()}
    assert {score.source for score in two.scores.values() if score.model_id in extra} == {Source.MODEL}
    assert_same(with_deaths(shadowed, [4, 9], 7), two)


def trial(rows=None, until=None, promoted=None, **changes):
    """v2 on trial from offset 80 on; what comes of it at the offset ``until`` or ``promoted``."""
    world = only_traffic(rows or steady(), **changes)
    world.shelf, world.challenges = two_versions, {80: ("traffic", "leaky", "v2")}
    if until is not None:
        world.challenges[until] = ("traffic", "leaky", None)
    if promoted is not None:
        world.activations = {promoted: ("traffic", "leaky", "v2")}
        world.challenges[promoted] = ("traffic", "leaky", None)
    return world


def of_model(store, model):
    return {key: row for key, row in store.forecasts.items() if key[2] == model}


def test_a_challenger_is_stored_and_scored_and_serves_nobody():
    """What is served, decided and fired is that of a run without it, bit for bit, whatever dies."""
    plain, world = only_traffic(steady()), trial()
    plain.shelf = two_versions
    one, two = finished(plain), finished(world)
    (v1,) = {model for *_, model in one.forecasts}
    (v2,) = {model for *_, model in two.forecasts} - {v1}
    assert of_model(two, v1) == one.forecasts
    assert one.firings == two.firings != {}
    minutes = [(time_us - START_US) // 60_000_000 for time_us, *_ in of_model(two, v2)]
    assert min(minutes) == 80 // 4 + 3 - 1, "stored before it was warm, or later than needed"
    assert {score.source for score in two.scores.values() if score.model_id == v2} == {Source.MODEL}
    mine = {score for score in one.scores.values() if score.model_id == v1}
    assert mine == {score for score in two.scores.values() if score.model_id == v1}
    assert [(row.effective_offset, row.kind) for row in two.journal[T0] if row.kind != "config"] == [
        (0, "activate"),
        (80, "challenge"),
    ]
    assert any("leaky@v2" in layout for layout, _, _ in two.states.values())


def test_a_series_that_appears_during_a_trial_is_never_served_by_the_challenger():
    """Both versions are cold for it: the active one serves, warming, as it would without a challenger."""
    rows = steady()
    rows[160:] = [row for number, pair in enumerate(rows[160:]) for row in _with_newcomer(number, pair)]
    plain, world = only_traffic(rows), trial(rows)
    plain.shelf = two_versions
    one, two = finished(plain), finished(world)
    (v1,) = {model for *_, model in one.forecasts}
    assert of_model(two, v1) == one.forecasts
    assert one.firings == two.firings


def _with_newcomer(number, row):
    """A report of a new radio cell behind the four of each minute."""
    return [row] if number % 4 < 3 else [row, traffic("newcomer", 40 + number // 4, 50.0)]


def test_a_challengers_forecasts_say_what_they_are():
    world = trial()
    pipeline = world.build(store := MemoryStore())
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    while polled := world._polled(pipeline, 50):
        pipeline.step(polled)
    parts = pipeline.take_commit().lanes[0].forecasts
    flagged = {part.model_id: {bool(flags & Quality.CHALLENGER) for flags in part.quality} for part in parts}
    assert sorted(flagged.values()) == [{False}, {True}]
    assert store.lanes[T0]["next"] is None


@pytest.mark.parametrize("poll", [1, 13])
@pytest.mark.parametrize("stops", [(), (3,), (7, 5), (1, 2, 3), (9, 1, 4)])
@pytest.mark.parametrize("end", [{}, {"until": 140}, {"promoted": 140}, {"until": 84}, {"promoted": 84}], ids=str)
def test_a_trial_and_its_end_are_the_same_whatever_dies_around_them(poll, stops, end):
    world = trial([traffic("cell-9", 0, 50.0), *steady()], series_ttl_s=1e7, **end)
    reference = finished(world)
    world.offsets = {}
    assert_same(with_deaths(world, stops, poll), reference)
    kinds = [row.kind for row in reference.journal[T0] if row.kind not in ("config", "activate")]
    assert kinds == ["challenge", *(["dismiss"] if "until" in end else [])]
    state = msgspec.json.decode(reference.lanes[T0]["state"])
    assert state["challengers"] == ({} if end else {"leaky": "v2"})


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=4), st.integers(1, 60), st.integers(0, 5))
def test_any_death_and_any_poll_end_in_the_same_store_with_a_challenger(stops, poll, seed):
    world = only_traffic(traffic_rows(seed, cells=7, minutes=50), partitions=1)
    world.shelf = two_versions
    world.challenges = {60: ("traffic", "leaky", "v2"), 200: ("traffic", "leaky", None)}
    world.activations = {200: ("traffic", "leaky", "v2")}
    assert_same(with_deaths(world, stops, poll), finished(world))


def test_the_sql_store_is_the_same_after_deaths_with_a_challenger(tmp_path):
    """Pending forecasts, sums and calibration of the challenger come back from SQL too."""

    def shelf(streams, store):
        """The versions of ``two_versions`` under the ids that this store gives them."""
        made = two_versions(streams, store)
        for version in ("v1", "v2"):
            _, build = made._builders["traffic", "leaky", version]
            model_id = store.register_model("traffic", "leaky", version, "x", "", {}, "candidate")
            made._builders["traffic", "leaky", version] = (model_id, build)
        return made

    dumps = []
    for name, poll, stops in (("a", 5000, ()), ("b", 11, (9, 1, 7)), ("c", 7, (14, 3, 3))):
        url = f"sqlite:///{tmp_path}/{name}.db"
        migrate.upgrade(url)
        world = trial(promoted=140)
        world.shelf = shelf
        for stop in (*stops, None):
            with SqlStore(url) as store:
                world.run(store, poll, commit_every=2, stop_after=stop)
        dumps.append(dump(url))
    assert difference(dumps[0], dumps[1]) == difference(dumps[0], dumps[2]) == []
    assert {row[5] for row in dumps[0]["score"]} == {"v1", "v2"}


def test_a_promoted_challenger_serves_at_once_where_it_is_warm():
    store = finished(trial(promoted=140))
    models = {}
    for time_us, _, model in store.forecasts:
        models.setdefault((time_us - START_US) // 60_000_000, set()).add(model)
    v1, v2 = min(models[0]), max(models[59])
    assert models[140 // 4 - 1] == {v1, v2}
    assert all(models[minute] == {v2} for minute in range(140 // 4, 60)), "its warm state was thrown away"


def test_a_dismissed_challenger_leaves_nothing_behind():
    store = finished(trial(until=140))
    assert not any("leaky@v2" in layout for layout, _, _ in store.states.values())
    assert "leaky@v2" not in msgspec.json.decode(store.lanes[T0]["state"])["calibration"]


def test_a_challenger_that_cannot_be_loaded_is_refused_once_and_costs_nothing():
    world, shelf = broken_world(steady(30))
    shelf.broken = ("v2",)
    reference = finished(world)
    store = MemoryStore()
    world.offsets = {}
    pipeline = world.run(store, 20, stop_after=3)
    for _ in range(5):
        pipeline.challenge("traffic", "leaky", "v2")
    while polled := world._polled(pipeline, 20):
        pipeline.step(polled)
    store.commit(pipeline.take_commit())
    assert [row.kind for row in store.journal[T0]].count("refused") == 1
    assert store.forecasts == reference.forecasts


def test_another_challenger_takes_the_place_of_the_first_one():
    world = trial()
    world.shelf = lambda streams, store: three_versions(streams, store)
    world.challenges[120] = ("traffic", "leaky", "v3")
    reference = finished(world)
    assert_same(with_deaths(world, (12, 4, 9), 9), reference)
    assert [row.payload["version"] for row in reference.journal[T0] if row.kind == "challenge"] == ["v2", "v3"]
    assert len({model for *_, model in reference.forecasts}) == 3


def three_versions(streams, store):
    shelf = two_versions(streams, store)
    stream = streams[0]
    shelf.put("traffic", "leaky", "v3", lambda: LeakyMean(stream.features, stream.output, 0.5), active=False)
    return shelf


def test_routes_are_chosen_by_pattern_and_what_matches_none_is_refused():
    routes = [{"match": "cell-[01]", "active": "leaky"}, {"match": "cell-*", "active": "other"}]
    world = only_traffic([*steady(), traffic("mast-1", 3, 40.0)], routes=routes)
    store = finished(world)
    used = {cell: set(models_by_minute(store, f"cell-{cell}").values()) for cell in range(4)}
    assert used[0] == used[1] != used[2] == used[3]
    assert [letter.reason for letter in store.dead_letters.values()] == ["no_route"]
    assert_same(finished(world, poll=5), store)


class Touchy(LeakyMean):
    """Raises at 66 %."""

    def advance(self, features, hidden):
        if (features[:, 0] == 66.0).any():
            raise ValueError("66")
        return super().advance(features, hidden)


def test_a_raising_predictor_costs_its_own_series_only():
    rows = steady(30)
    hurt = [traffic("cell-1", 12, 66.0) if row == traffic("cell-1", 12, 21.0 + 84 % 11) else row for row in rows]
    assert hurt != rows

    def shelf(streams, _):
        made = StaticShelf()
        made.put("traffic", "leaky", "v1", lambda: Touchy(streams[0].features, streams[0].output))
        return made

    worlds = [only_traffic(each, **ALONE) for each in (rows, hurt)]
    for world in worlds:
        world.shelf = shelf
    sound, one = finished(worlds[0]), finished(worlds[1])
    for poll in (1, 6):
        assert_same(finished(worlds[1], poll=poll), one)
    key_of = {series: row["key"] for series, row in one.series.items()}
    differing = {key_of[key[1]] for key, row in one.forecasts.items() if sound.forecasts[key] != row}
    assert differing == {"cell-1"}


# -- values --------------------------------------------------------------------------------------------------------


def qualities(commit):
    return [int(value) for part in commit.lanes[0].forecasts for value in part.quality]


def stepped(rows, **changes):
    world = only_traffic(rows, **changes)
    pipeline = world.build(MemoryStore())
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    pipeline.step(world._polled(pipeline, 10**6))
    return pipeline.take_commit()


def test_a_kpi_that_was_never_measured_has_no_forecast_and_hurts_no_other():
    commit = stepped([traffic("cell-0", minute, 40.0) for minute in range(9)])
    for part in commit.lanes[0].forecasts:
        ticks = part.ticks.reshape(-1, 2, 4, 4)
        assert (part.sources[:, 1] == Source.NONE).all()
        assert (ticks[:, 1] == MISSING_TICKS).all()
        assert (ticks[:, 0] != MISSING_TICKS).all()
        assert (part.observed[:, 1] == MISSING_TICKS).all()
    assert {score.kpi for score in commit.lanes[0].scores} == {"prb_use_dl_percent"}


def test_a_kpi_that_is_missing_for_long_is_flagged_and_not_scored_meanwhile():
    rows = [traffic("cell-0", m, 40.0 if m < 5 else None, dl_throughput_kbps=100.0 + m) for m in range(30)]
    commit = stepped(rows, **ALONE)
    flags = qualities(commit)
    assert [bool(flag & Quality.INPUT_MISSING) for flag in flags] == [False] * 5 + [True] * 25
    n = {score.kpi: score.n for score in commit.lanes[0].scores if score.lead_steps == 1 and score.source == 0}
    assert n["prb_use_dl_percent"] < n["dl_throughput_kbps"]
    last = commit.lanes[0].forecasts[-1].ticks.reshape(-1, 2, 4, 4)
    assert (last[:, 0] == last[:, 0, :1]).all() or (last[:, 0] > 0).all()


@pytest.mark.parametrize(("missing", "steps", "first"), [(0, 9, 0), (3, 12, 0), (4, 1, Quality.WARMING)])
def test_a_short_gap_is_advanced_and_a_long_one_starts_cold(missing, steps, first):
    minutes = [*range(8), 8 + missing]
    world = only_traffic([traffic("cell-0", m, 40.0, dl_throughput_kbps=9.0) for m in minutes])
    pipeline = world.build(MemoryStore())
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    pipeline.step(world._polled(pipeline, 100))
    commit = pipeline.take_commit()
    assert pipeline.streams["ran.traffic"].table.column("leaky@v1.steps")[lane.rows["cell-0"]] == steps
    assert len(qualities(commit)) == 9, "a missing step issues no forecast"
    assert qualities(commit)[-1] == first


def test_forecasts_are_rounded_once_and_inside_the_range_everywhere():
    commit = stepped([traffic("cell-0", m, 99.0 + (m % 2), dl_throughput_kbps=3.0 * (m % 2)) for m in range(30)])
    for part in commit.lanes[0].forecasts:
        ticks = part.ticks.reshape(-1, 2, 4, 4)
        assert ticks[:, 0].max() <= 1000
        assert ticks[:, 1].min() >= 0
        assert (np.diff(ticks, axis=-1) >= 0).all()


def test_quantiles_are_widened_from_what_the_model_said_and_rounded_after_that():
    world = only_traffic([traffic("cell-0", m, prb) for m, prb in enumerate((40.0, 43.3, 41.7))], warm_steps=0)
    world.shelf = lambda streams, _: static_shelf(streams)
    pipeline = world.build(MemoryStore())
    stream = pipeline.streams["ran.traffic"]
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    stream.versions["leaky"][0].board.factor[0] = factor = np.float32(1.7)
    pipeline.step(world._polled(pipeline, 10))
    stored = np.concatenate([part.ticks for part in pipeline.take_commit().lanes[0].forecasts]).reshape(3, 2, 4, -1)

    model = LeakyMean(stream.features, stream.output, 0.7)
    hidden = {name: np.zeros((1, *spec.shape), spec.dtype) for name, spec in model.state_spec().items()}
    middle = stream.levels.index(0.5)
    for value, ticks in zip((40.0, 43.3, 41.7), stored, strict=True):
        features = np.full((1, stream.features.width), np.nan, np.float32)
        features[:, 0] = value
        outputs, hidden = model.advance(features, hidden)
        said = outputs["prb_use_dl_percent"][0]
        centre = said[:, middle : middle + 1]
        np.testing.assert_array_equal(ticks[0], np.rint((centre + (said - centre) * factor).astype(np.float64) * 10))


class Spy:
    """Keeps what it sees; raises for one UE; writes where it must not when told to."""

    api_version = 1

    def __init__(self):
        self.seen = []

    def levels_needed(self):
        return []

    def kpis_needed(self):
        return []

    def columns_needed(self):
        return []

    def steps_needed(self):
        return 1

    def state_spec(self):
        from netpredict.types import StateArray

        return {"n": StateArray((), "int32")}

    def decide(self, batch, state):
        if any(batch.key_of(row).fields[0] == "cell-2" for row in range(len(batch))):
            raise RuntimeError("cell-2")
        self.seen.append((batch.forecasts["prb_use_dl_percent"].copy(), batch.record.copy()))
        with pytest.raises(ValueError, match="read-only"):
            batch.observed[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            state["n"][0] = 1
        return [], {"n": state["n"] + 1}


def spied(rows, poll):
    world = only_traffic(rows)
    pipeline = world.build(store := MemoryStore())
    stream = pipeline.streams["ran.traffic"]
    spy = Spy()
    stream.hooks[0].hook, stream.hooks[0].arrays = spy, ("n",)
    stream.table.add_columns(stream.hooks[0].columns())
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    while polled := world._polled(pipeline, poll):
        pipeline.step(polled)
    store.commit(pipeline.take_commit())
    counts = {key: int(stream.table.column("hook.bandwidth.n")[row]) for key, row in lane.rows.items()}
    return spy, counts, stream.hooks[0].failures, store


@pytest.mark.parametrize("poll", [1, 3, 1000])
def test_a_raising_hook_costs_its_own_reports_only(poll):
    _, counts, failures, _ = spied(steady(10), poll)
    assert counts == {"cell-0": 10, "cell-1": 10, "cell-2": 0, "cell-3": 10}
    assert failures == 10


def test_hooks_see_the_rounded_forecasts_that_are_stored():
    spy, _, _, store = spied([row for row in steady(10) if row[0] == b"cell-0"], 1)
    stored = [np.frombuffer(row[0], np.int32).reshape(2, 4, -1)[0] for _, row in sorted(store.forecasts.items())]
    for (seen, _), ticks in zip(spy.seen, stored, strict=True):
        np.testing.assert_array_equal(seen[0], (ticks / 10).astype(np.float32))


# -- firings -------------------------------------------------------------------------------------------------------


def test_handovers_are_fired_ahead_with_their_reason_and_mode(sql_reference):
    handovers = [row for row in sql_reference["firing"] if row[5] == "handover"]
    assert handovers
    for row in handovers:
        value, why = msgspec.json.decode(row[8]), msgspec.json.decode(row[9])
        assert row[6].startswith("UE=ue-")
        assert value["source"] != value["target"]
        assert why["margin_db"] > 0
        assert row[10] == Mode.SHADOW
        assert row[11] < row[12]
    assert {row[10] for row in sql_reference["firing"] if row[5] == "bandwidth"} == {Mode.AUTO}
    assert len(sql_reference["outbox"]) == sum(row[10] == Mode.AUTO for row in sql_reference["firing"])


def test_an_actions_id_is_unique_and_the_first_in_the_log_counts(log):
    """Two reports of a UE in one slot may both fire: whatever the poll, the earlier one is kept."""
    stores = [finished(World(log), poll=poll) for poll in (1, 5000)]
    assert stores[0].firings == stores[1].firings
    fired = [(f.hook, f.object_id, f.attribute, f.slot_time_us) for f, _ in stores[0].firings.values()]
    assert len(set(fired)) == len(fired) == len(stores[0].firings)


# -- offsets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sql"])
def test_records_that_retention_took_are_a_gap_and_no_fence(tmp_path, kind):
    rows = steady(30)
    world = only_traffic(rows)
    if kind == "sql":
        url = f"sqlite:///{tmp_path}/store.db"
        migrate.upgrade(url)
        store = SqlStore(url)
        store.start()
    else:
        store = MemoryStore()
    world.run(store, 10, commit_every=1, stop_after=3)
    world.log.trim(T0, 50)
    world.run(store, 10)
    if kind == "sql":
        store.close()
        found = dump(url)
        assert [row[4:] for row in found["gap"]] == [(30, 50, "offset_out_of_range")]
        (progress,) = found["topic_progress"]
        assert (progress[5], sum(progress[6:11])) == (120, 100)
    else:
        assert [tuple(vars_of(gap)) for gap in store.gaps[T0]] == [(30, 50, "offset_out_of_range")]
        assert store.lanes[T0]["next"] == 120


def vars_of(gap):
    return gap.from_offset, gap.to_offset, gap.reason


def test_a_lane_that_begins_late_has_no_gap_and_its_place_is_durable_before_any_record():
    world = only_traffic(steady(30))
    store = MemoryStore()
    for begin in (40, 70):
        pipeline = world.build(store)
        lane, offset = pipeline.assign(T0)
        pipeline.started(lane, begin if offset is None else offset)
        assert lane.next_offset == 40
        if commit := pipeline.take_commit():
            assert store.commit(commit) == set()
            assert store.commit(commit) == set()  # the reply was lost
    assert store.gaps.get(T0, []) == []
    assert store.journal.get(T0, []) == []
    world.run(store, 10)
    assert [row.kind for row in store.journal[T0]] == ["config", "activate"]


def test_offsets_without_records_are_control():
    from netpredict.types import PolledPartition

    world = only_traffic(steady(10))
    pipeline = world.build(store := MemoryStore())
    lane, _ = pipeline.assign(T0)
    pipeline.started(lane, 0)
    pipeline.step([PolledPartition(T0, world.log.read(T0, 0, 4), 6)])
    pipeline.step([PolledPartition(T0, [], 9)])
    store.commit(pipeline.take_commit())
    assert store.lanes[T0]["next"] == 9
    assert store.lanes[T0]["counts"] == {"accepted": 4, "duplicate": 0, "late": 0, "dead": 0, "control": 5}


def test_a_revoked_lane_leaves_nothing_behind():
    world = World(filled(ALL))
    pipeline = world.build(MemoryStore())
    for topic_partition in world.log.topic_partitions():
        lane, _ = pipeline.assign(topic_partition)
        pipeline.started(lane, 0)
    pipeline.step(world._polled(pipeline, 100))
    pipeline.revoke(T0)
    commit = pipeline.take_commit()
    assert T0 not in {lane.topic_partition for lane in commit.lanes}
    for topic_partition in list(pipeline.lanes):
        pipeline.revoke(topic_partition)
    assert pipeline.take_commit() is None
    for stream in pipeline.streams.values():
        assert len(stream.table) == 0
        assert stream.all_versions() == []
    lane, _ = pipeline.assign(T0)
    assert lane.index == 0


# -- configs that change -------------------------------------------------------------------------------------------


def other_config(world, **changes):
    config = copy.deepcopy(world.config)
    config["streams"]["traffic"] |= changes
    return World(world.log, config)


CHANGES = [
    {"kpis": ["prb_use_dl_percent"]},
    {"kpis": ["dl_throughput_kbps", "prb_use_dl_percent"]},
    {"horizon_steps": 6},
    {"horizon_steps": 4, "quantile_levels": [0.05, 0.5, 0.95]},
    {"bucket_s": 1200.0},
    {"bucket_s": 300.0},
    {"period_s": 120.0, "series_ttl_s": 3000.0},
    {"period_s": 30.0},
    {"phase_s": 0.0},
    {"season_s": 3600.0, "season_buckets": 6},
    {"warm_steps": 20},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_changed_config_starts_and_goes_on_as_one_function_of_the_log(changes):
    world = only_traffic(traffic_rows(2))
    half = MemoryStore()
    world.run(half, 20, commit_every=1, stop_after=12)
    ends = []
    for stops, poll in (((), 5000), ((1, 3, 2), 17)):
        store = copy.deepcopy(half)
        changed = other_config(world, **changes)
        for stop in (*stops, None):
            changed.run(store, poll, commit_every=2, stop_after=stop)
        ends.append(store)
    assert_same(*ends)
    counts = ends[0].lanes[T0]["counts"]
    assert counts["accepted"] > 5 * counts["late"], "the series are stuck behind slots of another grid"
    assert [row.kind for row in ends[0].journal[T0]].count("config") == 2
    assert ends[0].scores


@pytest.mark.parametrize(("stops", "poll"), [((), 7), ((1, 4, 2, 6), 33)])
def test_what_a_forecast_has_to_beat_is_the_same_after_deaths(tmp_path, stops, poll):
    """Seasonal naive is kept beside each forecast: a restart scores what was pending against the same baseline."""

    def world():
        return other_config(only_traffic(traffic_rows(3)), season_s=600.0, season_buckets=10)

    reference, store = sql(tmp_path / "a.db", world(), 5000), sql(tmp_path / "b.db", world(), poll, stops)
    assert difference(reference, store) == []
    memory = finished(world())
    model = [row for row in memory.scores.values() if row.source == Source.MODEL]
    assert any(row.seasonal_abs_ticks != row.naive_abs_ticks for row in model), "the season never showed"
    assert all(row.truth_abs_ticks for row in model if row.kpi == "prb_use_dl_percent")


def test_several_activations_hold_over_many_lanes_of_one_stream():
    """Ranks are by lane: a lane that has not moved on does not hold the others back."""
    world = only_traffic(steady(40, 12), partitions=3)
    world.shelf = two_versions
    pipeline = world.build(store := MemoryStore())
    for partition in range(3):
        lane, _ = pipeline.assign(TopicPartition("ran.traffic", partition))
        pipeline.started(lane, 0)
    for number in itertools.count():
        polled = world._polled(pipeline, 7)
        if not polled:
            break
        pipeline.step(polled)
        if number == 5:
            pipeline.activate("traffic", "leaky", "v2")
        if number == 9:
            pipeline.revoke(TopicPartition("ran.traffic", 1))
            lane, offset = pipeline.assign(TopicPartition("ran.traffic", 1))
            pipeline.started(lane, offset or 0)
    store.commit(pipeline.take_commit())
    versions = [msgspec.json.decode(lane["state"])["versions"]["leaky"] for lane in store.lanes.values()]
    assert all(len(serving) == 1 for serving in versions)

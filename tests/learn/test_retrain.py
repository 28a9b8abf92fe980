"""From a retraining to a verdict, over a store whose scores are written by hand; the child is played."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netpredict.build import build_streams
from netpredict.config import Config, LearnConfig, parse_config
from netpredict.errors import ConfigError, DataError
from netpredict.learn import retrain as retraining
from netpredict.learn.child import ARTEFACT, Result
from netpredict.learn.registry import WEIGHTS, Trained, save_artefact
from netpredict.learn.retrain import has_trials, judged
from netpredict.learn.retrainer import Retrainer
from netpredict.store import migrate
from netpredict.store.commit import Commit, LaneSnapshot, ModelRow, ScoreRow
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.types import TrainingReport
from tests.learn.noisy import FEATURES, OUTPUT
from tests.pipeline_world import CONFIG
from tests.services.postgres import Postgres
from tests.store.store_builders import assign, lane_commit
from tests.test_pipeline_hindsight import config as of_links

HOUR_US = 3_600_000_000
GOOD, FAIR, BAD = (
    {"skill": skill, "pinball.prb_use_dl_percent": loss} for skill, loss in ((0.4, 1.0), (0.3, 1.2), (-0.1, 2.0))
)


class Clock:
    """Stands still, at noon."""

    def __init__(self) -> None:
        self.time_us = 12 * HOUR_US

    def now_us(self) -> int:
        return self.time_us

    def monotonic_s(self) -> float:
        return self.time_us / 1e6

    def sleep(self, seconds: float) -> None:
        self.time_us += round(seconds * 1e6)


class World:
    """A store, a retrainer over it, and a child that gives ``results`` one by one."""

    def __init__(self, folder: Path, store: SqlStore, clock: Clock, **learn: Any) -> None:
        raw = CONFIG | {
            "daemon": {"data_dir": str(folder)},
            "store": {"url": store.url},
            "learn": {
                "challenge_buckets_min": 6,
                "challenge_buckets_max": 12,
                "challenge_rows_min": 10,
                "trigger_buckets": 4,
                "trigger_rows_min": 10,
            }
            | learn,
            "streams": {"traffic": CONFIG["streams"]["traffic"]},
            "hooks": {},
            "predictors": {"leaky": {"plugin": "gru", "options": {"units": 2}}},
        }
        self.config: Config = parse_config(raw)
        self.store, self.clock = store, clock
        self.streams = {stream.name: stream for stream in build_streams(self.config)}
        self.results: list[Result | Exception] = []
        self.jobs: list[dict[str, Any]] = []
        self.retrainer = Retrainer(self.config, self.streams, store, clock)
        self.lane: LaneSnapshot | None = None
        self.offset = 0

    def child(self, folder: Path, **limits: Any) -> Result:
        self.jobs.append(limits)
        limits["on_wait"]()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        saved = save_artefact(folder / ARTEFACT, trained(len(self.jobs)))
        return Result(version=saved.version, scores=result.scores, **_compared(result))

    def bucket(self, number: int, losses: dict[int, float], skill: float = 0.5, n: int = 100) -> None:
        """A finished bucket in which versions (by model id) had these pinball losses."""
        lane = self.lane = self.lane or assign(self.store)
        rows = [
            ScoreRow(
                model_id=model_id,
                source=0,
                kpi="prb_use_dl_percent",
                lead_steps=1,
                bucket=number,
                n=n,
                flat=0,
                truth_abs_ticks=n * 100,
                seasonal_abs_ticks=n * 100,
                abs_ticks=round(n * 100 * (1 - skill)),
                square_ticks=0,
                naive_abs_ticks=n * 100,
                below=(10, 50, 90),
                pinball=(0, round(loss * n * 1000), 0),
            )
            for model_id, loss in losses.items()
        ]
        commit = lane_commit(lane, self.offset, self.offset + 1, scores=rows, state=f'{{"bucket":{number + 1}}}')
        assert self.store.commit(Commit([commit])) == set()
        self.offset += 1

    def stages(self) -> list[str]:
        return [row.stage for row in self.store.models("traffic")]

    def runs(self) -> list[dict[str, Any]]:
        return History(self.store.url).retrain_runs()


def _compared(result: Result) -> dict[str, Any]:
    names = ("held_out", "incumbent_held_out", "incumbent_error")
    return {name: getattr(result, name) for name in names}


def trained(number: int) -> Trained:
    weights = {"head": np.full(3, number, np.float32)}
    report = TrainingReport(1, 1.0, [0.1], [0.1], {"skill": 0.3})
    return Trained("gru", {"units": 2}, FEATURES, OUTPUT, weights, report, (0, 10), 5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[SqlStore]:
    migrate.upgrade(url)
    with SqlStore(url, clock) as store:
        yield store


@pytest.fixture
def make(tmp_path: Path, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(*results: Result | Exception, **learn: Any) -> World:
        world = World(tmp_path, store, clock, **learn)
        world.results = list(results)
        monkeypatch.setattr(retraining, "run_child", world.child)
        monkeypatch.setattr(retraining, "history", lambda config, stream: None)
        monkeypatch.setattr(retraining, "write_job", lambda folder, *rest: folder)
        return world

    return made


FIRST = Result(held_out=GOOD)
BETTER = Result(held_out=GOOD, incumbent_held_out=FAIR)


def on_trial(make: Any, **learn: Any) -> World:
    """The first version serves, the second one is on trial."""
    world: World = make(FIRST, BETTER, **learn)
    for expected in ("promoted", "challenging"):
        assert [run.result for run in world.retrainer.scheduled()] == [expected]
    assert world.stages() == ["active", "challenger"]
    return world


def ids(world: World) -> list[int]:
    return [row.model_id for row in world.store.models("traffic")]


# -- the held-out slice ----------------------------------------------------------------------------------------------


def row_of(version: str) -> ModelRow:
    return ModelRow(1, "traffic", "leaky", version, "gru", "x", "active", 0, {"skill": 0.9})


@pytest.mark.parametrize(
    ("result", "incumbent", "again", "expected", "why"),
    [
        (Result(held_out=BAD), None, "candidate", "refused", "not above 0"),
        (Result(), None, "candidate", "refused", "skill nan"),
        (Result(held_out=GOOD), None, "candidate", "promoted", "first version"),
        (
            Result(held_out=GOOD, incumbent_held_out=FAIR),
            row_of("old"),
            "candidate",
            "challenging",
            "-16.7% against old",
        ),
        (Result(held_out=FAIR, incumbent_held_out=GOOD), row_of("old"), "candidate", "refused", "+20.0% against old"),
        (Result(held_out=GOOD, incumbent_held_out=GOOD), row_of("old"), "candidate", "challenging", "+0.0%"),
        (Result(held_out=GOOD, incumbent_error="is damaged"), row_of("old"), "candidate", "promoted", "is damaged"),
        (Result(version="v", held_out=GOOD), row_of("old"), "refused", "refused", "gave v once more, which is refused"),
    ],
)
def test_a_candidate_is_judged_on_the_slice_that_both_forecast(
    result: Result, incumbent: ModelRow | None, again: str, expected: str, why: str
) -> None:
    """The stored score of the incumbent (0.9 here) counts for nothing: it is of other days."""
    outcome, told = judged(result, incumbent, again, LearnConfig(), trial=True)
    assert outcome == expected
    assert why in told


def test_without_trials_the_slice_decides_alone() -> None:
    better = Result(held_out=GOOD, incumbent_held_out=FAIR)
    equal = Result(held_out=GOOD, incumbent_held_out=GOOD)
    assert judged(better, row_of("old"), "candidate", LearnConfig(), trial=False)[0] == "promoted"
    assert judged(equal, row_of("old"), "candidate", LearnConfig(), trial=False)[0] == "refused"


def test_what_is_known_in_hindsight_only_is_not_tried_live() -> None:
    (links,) = build_streams(parse_config(of_links()))
    (plain,) = build_streams(parse_config(of_links(kpis=["rsrp_dbm"]) | {"hooks": {}}))
    assert (has_trials(LearnConfig(), links), has_trials(LearnConfig(), plain)) == (False, True)
    assert not has_trials(LearnConfig(challenge_buckets_min=0), plain)


# -- trials ----------------------------------------------------------------------------------------------------------


def test_a_challenger_that_wins_its_trial_serves_and_every_step_is_stored_with_its_reason(make: Any) -> None:
    world = on_trial(make)
    old, new = ids(world)
    for number in range(5):
        world.bucket(number, {old: 2.0, new: 1.5})
        assert world.retrainer.turn() == []
    assert world.retrainer.trials == {("traffic", "leaky"): 5}
    world.bucket(5, {old: 2.0, new: 1.5})
    (run,) = world.retrainer.turn()
    assert (run.result, "lower over 6 buckets" in run.why) == ("promoted", True)
    assert world.stages() == ["retired", "active"]
    assert [entry["result"] for entry in world.runs()] == ["promoted", "challenging", "promoted"]
    newest = world.runs()[0]["detail"]
    assert newest["why"] == run.why
    assert (newest["cause"], newest["buckets"]) == ({"kind": "trial"}, 6)
    audit = History(world.store.url).audit()
    assert [(entry["who"], entry["what"]) for entry in audit[:2]] == [
        ("netpredict", "model_promoted"),
        ("netpredict", "model_challenges"),
    ]
    assert audit[0]["detail"]["previous"] == world.store.models("traffic")[0].version
    assert world.retrainer.results == {
        ("traffic", "leaky", "promoted"): 2,
        ("traffic", "leaky", "challenging"): 1,
    }


def test_a_challenger_that_loses_or_never_wins_is_refused(make: Any) -> None:
    world = on_trial(make)
    old, new = ids(world)
    for number in range(6):
        world.bucket(number, {old: 1.0, new: 1.5})
    (run,) = world.retrainer.turn()
    assert (run.result, "higher over 6 buckets" in run.why) == ("refused", True)
    assert world.stages() == ["active", "refused"]


def test_a_trial_without_a_winner_ends(make: Any) -> None:
    world = on_trial(make)
    old, new = ids(world)
    for number in range(12):
        world.bucket(number, {old: 1.0, new: 1.1 if number % 2 else 0.9})
    (run,) = world.retrainer.turn()
    assert (run.result, "no better for certain after 12 buckets" in run.why) == ("refused", True)


def test_a_bucket_in_progress_and_those_before_the_trial_do_not_count(make: Any) -> None:
    world: World = make(FIRST, BETTER)
    world.retrainer.scheduled()
    (old,) = ids(world)
    for number in range(4):
        world.bucket(number, {old: 2.0, 2: 1.0})
    world.retrainer.scheduled()
    assert world.runs()[0]["detail"]["since_bucket"] == 5
    for number in range(4, 8):
        world.bucket(number, {old: 2.0, ids(world)[1]: 1.0})
    world.retrainer.turn()
    assert world.retrainer.trials == {("traffic", "leaky"): 3}


def test_a_trial_without_buckets_ends_in_time(make: Any, clock: Clock) -> None:
    world = on_trial(make, challenge_max_s=3600.0)
    assert world.retrainer.turn() == []
    clock.time_us += 2 * HOUR_US
    (run,) = world.retrainer.turn()
    assert (run.result, "only 0 buckets" in run.why) == ("refused", True)


def test_a_trial_ends_when_the_version_it_was_compared_with_serves_no_more(make: Any) -> None:
    world = on_trial(make)
    other = world.store.register_model("traffic", "leaky", "other", "gru", "x", {}, "candidate")
    world.store.move_model(other, "active", "me", "model_promoted", {})
    (run,) = world.retrainer.turn()
    assert (run.result, "serves no more" in run.why) == ("refused", True)
    assert world.stages() == ["retired", "refused", "active"]


def test_a_challenger_whose_artefact_was_harmed_is_refused(make: Any) -> None:
    world = on_trial(make)
    (Path(world.store.models("traffic")[1].folder) / WEIGHTS).write_bytes(b"")
    (run,) = world.retrainer.turn()
    assert (run.result, "cannot run" in run.why, "bytes" in run.why) == ("refused", True, True)


def test_a_challenger_that_the_daemon_refused_is_refused(make: Any) -> None:
    from netpredict.store.commit import JournalRow

    world = on_trial(make)
    lane = assign(world.store)
    payload = {"predictor": "leaky", "version": world.store.models("traffic")[1].version, "why": "no such layer"}
    journal = [JournalRow(0, "refused", payload)]
    world.store.commit(Commit([lane_commit(lane, 0, 1, state='{"bucket":1}', journal=journal)]))
    (run,) = world.retrainer.turn()
    assert (run.result, "no such layer" in run.why) == ("refused", True)


def test_no_training_disturbs_a_trial(make: Any) -> None:
    world = on_trial(make)
    assert world.retrainer.scheduled() == []
    assert len(world.jobs) == 2


def test_what_was_refused_once_is_not_tried_again(make: Any) -> None:
    """The same history gives the same version."""
    world = on_trial(make)
    old, new = ids(world)
    for number in range(6):
        world.bucket(number, {old: 1.0, new: 1.5})
    world.retrainer.turn()
    world.results = [BETTER]
    world.jobs.pop()
    (run,) = world.retrainer.scheduled()
    assert (run.result, "once more, which is refused" in run.why) == ("refused", True)
    assert world.stages() == ["active", "refused"]


# -- when ------------------------------------------------------------------------------------------------------------


def drifting(world: World) -> None:
    (active,) = ids(world)
    for number, skill in enumerate([0.4] * 8 + [-0.3] * 6):
        world.bucket(number, {active: 1.0}, skill=skill)


def test_bad_forecasts_trigger_a_retraining_with_the_reason_stored_once(make: Any) -> None:
    world: World = make(FIRST, Result(held_out=BAD, incumbent_held_out=BAD))
    world.retrainer.scheduled()
    assert world.retrainer.turn() == []
    drifting(world)
    (run,) = world.retrainer.turn()
    assert run.result == "refused"
    cause = world.runs()[0]["detail"]["cause"]
    assert (cause["kind"], cause["newest_bucket"]) == ("drift", 14)
    assert "skill of prb_use_dl_percent is -0.300" in cause["why"]
    assert world.retrainer.turn() == [], "the same evidence led to a second training"


def test_neither_clock_nor_drift_begin_a_training_outside_the_window(make: Any, clock: Clock) -> None:
    """What the clock wanted is done when the window opens, once."""
    world: World = make(FIRST, BETTER, window_utc=["01:00-05:00"])
    assert world.retrainer.scheduled() == []
    clock.time_us += 13 * HOUR_US
    assert [run.result for run in world.retrainer.turn()] == ["promoted"]
    assert world.retrainer.turn() == []
    drifting(world)
    clock.time_us += 6 * HOUR_US
    assert world.retrainer.turn() == []
    clock.time_us += 18 * HOUR_US
    assert [run.result for run in world.retrainer.turn()] == ["challenging"]


def test_a_window_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"learn\.window_utc"):
        parse_config({"learn": {"window_utc": ["1-5"]}})
    with pytest.raises(ConfigError, match="challenge_buckets_min"):
        parse_config({"learn": {"challenge_buckets_min": 200}})


def test_old_artefacts_are_deleted_but_what_serves_and_what_served_before_stay(make: Any) -> None:
    worse = Result(held_out=FAIR, incumbent_held_out=GOOD)
    better = Result(held_out=GOOD, incumbent_held_out=FAIR)
    world: World = make(FIRST, better, *[worse] * 4, keep_versions=2, challenge_buckets_min=0)
    for _ in range(6):
        world.retrainer.scheduled()
    assert world.stages() == ["retired", "active", "deleted", "deleted", "refused", "refused"]
    there = [Path(row.folder).exists() for row in world.store.models("traffic")]
    assert there == [True, True, False, False, True, True]
    assert History(world.store.url).audit()[0]["detail"]["why"] == "beyond learn.keep_versions"


def test_a_failed_training_is_recorded_and_the_child_has_its_limits(make: Any) -> None:
    world: World = make(DataError("no history"), nice=12, threads=2, memory_max_bytes=2**30, timeout_s=9.0)
    (run,) = world.retrainer.scheduled()
    assert (run.result, run.why) == ("failed", "no history")
    assert world.runs()[0]["detail"]["why"] == "no history"
    limits = {name: world.jobs[0][name] for name in ("nice", "threads", "memory_max_bytes", "timeout_s")}
    assert limits == {"nice": 12, "threads": 2, "memory_max_bytes": 2**30, "timeout_s": 9.0}


def test_a_stop_ends_the_training_under_way_and_begins_no_other(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world: World = make()
    begun = threading.Event()

    def endless(folder: Path, **limits: Any) -> Result:
        begun.set()
        for _ in itertools.count():
            limits["on_wait"]()
            threading.Event().wait(0.01)
        raise AssertionError

    monkeypatch.setattr(retraining, "run_child", endless)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(world.retrainer.scheduled()))
    thread.start()
    assert begun.wait(30)
    world.retrainer.stop()
    thread.join(30)
    assert [run.result for run in found] == ["cancelled"]
    assert world.runs()[0]["result"] == "cancelled"
    assert world.retrainer.scheduled() == []


class TestInstances:
    """Two daemons on one PostgreSQL store."""

    @pytest.fixture
    def url(self, postgres: Postgres) -> str:
        return postgres.new_database()

    @pytest.fixture
    def other(self, make: Any, store: SqlStore, clock: Clock) -> Iterator[Retrainer]:
        with SqlStore(store.url, clock) as other:
            world: World = make(FIRST)
            self.world = world
            yield Retrainer(world.config, world.streams, other, clock)

    def test_what_is_due_on_both_runs_on_one(self, other: Retrainer) -> None:
        assert [run.result for run in self.world.retrainer.scheduled()] == ["promoted"]
        assert other.scheduled() == []
        assert len(self.world.runs()) == 1

    def test_neither_judges_nor_trains_while_the_other_does(self, other: Retrainer) -> None:
        with self.world.store.alone("learn") as ours:
            assert ours
            assert other.scheduled() == []
        assert [run.result for run in other.turn()] == ["promoted"]

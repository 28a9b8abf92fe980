"""F18, F20 and F21: harmed models, trainings that fail in every way, and swaps under load."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netpredict.build import build_streams
from netpredict.config import Config, parse_config
from netpredict.ingest.source import MemoryLog
from netpredict.learn import child
from netpredict.learn.retrain import models_folder
from netpredict.learn.shelf import StoreShelf
from netpredict.pipeline import Pipeline
from netpredict.store import compare, migrate
from netpredict.store.commit import JournalRow
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.types import PolledPartition, TopicPartition
from tests.faults import rig, stub_predictor
from tests.faults.conftest import Recorder, scales
from tests.faults.rig import InThread, raw_config
from tests.rerun import BlindShelf, Rerun

LEARN = {"enabled": True, "cron": "0 0 29 2 *", "history_steps": 64, "timeout_s": 6.0}


class Learning:
    """A daemon whose serving versions are chosen by the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stub_predictor.install(monkeypatch)
        monkeypatch.setattr("netpredict.operate.daemon.MODELS_S", 0.1)
        self.log = MemoryLog({rig.TOPIC: 3})
        self.config: Config = parse_config(
            raw_config(folder, predictor="stub", learn=LEARN, kafka={"poll_records_max": 60})
        )
        self.home = models_folder(self.config, "traffic", "stub")
        self.minute = 0

    def load(self, minutes: int) -> None:
        rig.fill(self.log, rig.rows(range(self.minute, self.minute + minutes)))
        self.minute += minutes

    def start(self) -> InThread:
        return InThread(self.config, self.log)

    def save(self, running: InThread, memory: float, width: int = 1) -> tuple[int, str]:
        version = stub_predictor.artefact(self.home, running.daemon.streams["traffic"], memory, width)
        folder = str(self.home / version)
        store = running.daemon.store
        return store.register_model("traffic", "stub", version, "stub", folder, {}, "candidate"), version

    def promote(self, running: InThread, memory: float, width: int = 1) -> str:
        model_id, version = self.save(running, memory, width)
        running.daemon.store.move_model(model_id, "active", "test", "model_promoted", {})
        return version

    def until_serving(self, running: InThread, version: str) -> None:
        """Warm for every series, so that it alone serves."""

        def serves() -> bool:
            self.load(1)
            running.until(running.drained)
            return newest_versions(running.url) == {version}

        running.until(serves)


@pytest.fixture
def learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learning:
    return Learning(tmp_path, monkeypatch)


def newest_versions(url: str) -> set[str]:
    """Those of the forecasts of the newest slot."""
    rows = compare.dump(url, ["forecast"])["forecast"]
    return {row[8] for row in rows if row[4] == max(row[4] for row in rows)}


CHILDREN = {
    "crash": "os.kill(os.getpid(), signal.SIGKILL)",
    "exits": "sys.exit(3)",
    "hang": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    "no model": "finish(version, held_out={'skill': 0.9})",
    "no version": "finish('')",
    "half-written result": "open(folder + '/result.json', 'w').write('{\"version\": \"ab')",
    "half-written model": "half(); finish(version, held_out={'skill': 0.9, 'loss': 0.1})",
    "NaN loss": "copy(); finish(version, held_out={})",
}
"""What goes wrong in a training, as the code of its child."""


def impostor(place: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, code: str) -> None:
    """Let the child be this script instead: it may write a result, or half of the artefact ``whole``."""
    script = place / "impostor"
    script.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(f"""
        import json, os, shutil, signal, sys, time
        folder, version = sys.argv[3], {whole.name!r}
        def finish(version, **more):
            open(folder + "/result.json", "w").write(json.dumps({{"version": version, **more}}))
        def copy():
            shutil.copytree({str(whole)!r}, folder + "/artefact")
        def half():
            copy()
            os.truncate(folder + "/artefact/weights.safetensors", 20)
        """)
        + code
        + "\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(script))


@scales("names", short=("hang", "half-written model", "NaN loss"), long=tuple(CHILDREN))
def test_f20_whatever_becomes_of_a_training_the_old_model_serves_on(
    learning: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder, names: tuple[str, ...]
) -> None:
    record.about("F20")
    learning.load(64)
    with learning.start() as running:
        running.until(running.drained)
        old = learning.promote(running, 0.7)
        learning.until_serving(running, old)
        whole = learning.home / stub_predictor.artefact(learning.home, running.daemon.streams["traffic"], 0.9)
        moved = whole.rename(tmp_path / whole.name)
        results: dict[str, str] = {}
        for number, name in enumerate(names, 1):
            with monkeypatch.context() as patch:
                impostor(tmp_path, patch, moved, CHILDREN[name])
                running.daemon.scheduler.run_now("retrain")
                running.until(lambda number=number: len(runs_of(running)) == number)  # type: ignore[misc]
            results[name] = f"{runs_of(running)[0]['result']}: {runs_of(running)[0]['detail']['why']}"
            learning.load(1)
            running.until(running.drained)
            assert newest_versions(running.url) == {old}, name
        assert {name: text.partition(":")[0] for name, text in results.items()} == {
            **dict.fromkeys(names, "failed"),
            "NaN loss": "refused",
        }, results
        stages = {row.version: row.stage for row in running.daemon.store.models("traffic")}
        assert stages[old] == "active"
        assert running.daemon.watchdog.late() == []
        assert not list(learning.home.glob(".job-*")), "no half work is left behind"
    record("F20", [], f"{len(names)} failed trainings", sum(rig.ends_of(learning.log).values()), "the old model serves")


def runs_of(running: InThread) -> list[dict[str, Any]]:
    return History(running.url).retrain_runs()


def test_f20_a_full_model_disk_is_a_failed_training(
    learning: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    record.about("F16")
    learning.load(64)

    def full(*_: object, **__: object) -> Path:
        raise OSError(28, "No space left on device")

    with learning.start() as running:
        running.until(running.drained)
        monkeypatch.setattr("netpredict.learn.retrain.write_job", full)
        running.daemon.scheduler.run_now("retrain")
        running.until(lambda: runs_of(running))
        (run,) = runs_of(running)
        assert (run["result"], "No space left" in run["detail"]["why"]) == ("failed", True), run
    record("F16", [], "model disk full", 3840, "recorded as failed")


def test_f18_a_harmed_model_is_refused_and_the_one_before_serves(learning: Learning, record: Recorder) -> None:
    record.about("F18")
    learning.load(5)
    with learning.start() as running:
        running.until(running.drained)
        old = learning.promote(running, 0.7)
        learning.until_serving(running, old)
        model_id, new = learning.save(running, 0.9)
        weights = learning.home / new / "weights.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        running.daemon.store.move_model(model_id, "active", "test", "model_promoted", {})
        running.until(lambda: History(running.url).journal("traffic", "refused") or learning.load(1))
        running.until(running.drained)
        assert newest_versions(running.url) == {old}
    refusals = [row["payload"] for row in History(running.url).journal("traffic", "refused")]
    assert {(row["version"], "SHA-256" in row["why"]) for row in refusals} == {(new, True)}
    with learning.start() as running:  # the daemon starts anew with the harmed version in the store
        learning.load(2)
        running.until(running.drained)
        assert newest_versions(running.url) == {old}
    record("F18", [], "1 bit of a model", sum(rig.ends_of(learning.log).values()), "refused, the old one serves")


def test_f21_versions_are_swapped_under_load_also_with_another_state(
    learning: Learning, tmp_path: Path, record: Recorder
) -> None:
    """Log and journal, run again, give the same store: each row names the version that made it."""
    record.about("F21")
    learning.load(3)
    versions: list[str] = []
    for memory, width in ((0.7, 1), (0.8, 3), (0.9, 2)):
        with learning.start() as running:  # with a restart between the swaps
            learning.load(8)
            running.until(lambda: running.daemon.phase == "running")
            versions.append(learning.promote(running, memory, width))
            for _ in range(6):
                learning.load(2)
                running.until(lambda: True)
            learning.until_serving(running, versions[-1])
    rows = compare.dump(running.url, ["forecast"])["forecast"]
    assert {row[8] for row in rows} - {"-"} == set(versions)
    for series in {row[5] for row in rows}:
        order = [(*("-",), *versions).index(row[8]) for row in rows if row[5] == series]
        assert order == sorted(order), "a series never goes back to a version before"
    rig.assert_accounted_for(running.url)
    assert_same_again(learning, running.url, tmp_path)
    record("F21", [], f"{len(versions)} swaps", len(rows), "O holds, journal followed")


def assert_same_again(learning: Learning, url: str, folder: Path) -> None:
    journal: dict[TopicPartition, list[JournalRow]] = {}
    for _, topic, partition, _, offset, _, kind, payload in compare.dump(url, ["control_journal"])["control_journal"]:
        journal.setdefault(TopicPartition(topic, partition), []).append(
            JournalRow(offset, kind, msgspec.json.decode(payload))
        )
    again = f"sqlite:///{folder}/again.db"
    migrate.upgrade(again)
    with SqlStore(again) as store, SqlStore(url) as first:
        for row in first.models():
            store.register_model(row.stream, row.predictor, row.version, row.plugin, row.folder, {}, row.stage)
        streams = build_streams(learning.config)
        shelf = BlindShelf(StoreShelf(learning.config, store, streams))
        pipeline = Pipeline(learning.config.kafka.group, streams, store, shelf)
        for place in learning.log.topic_partitions():
            pipeline.started(pipeline.assign(place)[0], 0)
        rerun = Rerun(pipeline, shelf, journal)
        for place in learning.log.topic_partitions():
            records = learning.log.read(place, 0, 10**6)
            rerun.step([PolledPartition(place, records, learning.log.end(place))])
        commit = pipeline.take_commit()
        assert commit is not None
        store.commit(commit)
    rig.assert_equal(url, again)

"""``netpredict models``: what serves, what is whole, and one command back."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from netpredict.build import build_stream
from netpredict.cli import backtest
from netpredict.cli.telemetry import recorded
from netpredict.config import load_config
from netpredict.learn.registry import MANIFEST, WEIGHTS, Trained, save_artefact
from netpredict.plugins import load
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from netpredict.types import TrainingReport
from tests.cli.conftest import CONFIG, Cli, document, record
from tests.learn.noisy import FEATURES, OUTPUT

TENSORS = {"head.kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}


class Shelf(NamedTuple):
    """A store with three versions of lstm: the first retired, the second active, the third a candidate."""

    url: str
    versions: tuple[str, ...]
    folders: tuple[Path, ...]


def artefact(folder: Path, seed: int, **changes: Any) -> str:
    given: dict[str, Any] = {
        "predictor": "lstm",
        "options": {"units": 3},
        "features": FEATURES,
        "output": OUTPUT,
        "weights": TENSORS,
        "report": TrainingReport(1, 1.0, [0.1], [0.1], {"skill": 0.1}),
        "window_us": (0, 10),
        "trained_at_us": 1_700_000_000_000_000,
        "seed": seed,
    }
    return save_artefact(folder, Trained(**given | changes)).version


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    url = f"sqlite:///{tmp_path}/models.db"
    migrate.upgrade(url)
    folders = tuple(tmp_path / name for name in "abc")
    versions = tuple(artefact(folder, seed) for seed, folder in enumerate(folders))
    with SqlStore(url) as store:
        for version, folder, stage in zip(versions, folders, ("retired", "active", "candidate"), strict=True):
            store.register_model("traffic", "lstm", version, "lstm", str(folder), {"skill": 0.1}, stage)
        store.register_model("traffic", "naive", "-", "naive", "", {}, "active")
    return Shelf(url, versions, folders)


def listed(cli: Cli, shelf: Shelf) -> dict[str, dict[str, Any]]:
    told: Any = document(cli("models", "list", "--predictor", "lstm", "--url", shelf.url, "--json"))
    return {row["version"]: row for row in told["models"]}


def stages(cli: Cli, shelf: Shelf) -> list[str]:
    rows = listed(cli, shelf)
    return [rows[version]["stage"] for version in shelf.versions]


def told(cli: Cli, *words: object) -> Any:
    return document(cli("models", *words, "--json"))


def test_a_promoted_version_serves_and_a_rollback_takes_it_back(cli: Cli, shelf: Shelf) -> None:
    first, second, third = shelf.versions
    url = ("--url", shelf.url)
    assert told(cli, "promote", "traffic", "lstm", third, *url)["was"] == second
    assert stages(cli, shelf) == ["retired", "retired", "active"]
    assert told(cli, "rollback", "traffic", "lstm", "--why", "it drifts", *url)["active"] == second
    assert stages(cli, shelf) == ["retired", "active", "retired"]
    shown = told(cli, "show", "traffic", "lstm", second, *url)
    assert [(entry["what"], entry["detail"]["why"]) for entry in shown["changes"]] == [
        ("model_rolled_back", "it drifts")
    ]
    assert "it drifts" in cli("models", "show", "traffic", "lstm", second, *url).stdout
    assert told(cli, "promote", "traffic", "lstm", first, *url)["was"] == second
    assert told(cli, "rollback", "traffic", "lstm", *url)["active"] == second


def test_what_cannot_be_promoted_is_told(cli: Cli, shelf: Shelf) -> None:
    for words in (("promote", "traffic", "lstm", "zz"), ("promote", "traffic", "naive", "-"), ("rollback", "x", "y")):
        assert cli("models", *words, "--url", shelf.url).exit_code == 1
    with SqlStore(shelf.url):
        assert cli("models", "promote", "traffic", "lstm", shelf.versions[2], "--url", shelf.url).exit_code == 69
    assert stages(cli, shelf) == ["retired", "active", "candidate"]


def test_a_damaged_version_is_marked_and_cannot_be_promoted_or_gone_back_to(cli: Cli, shelf: Shelf) -> None:
    blob = (shelf.folders[0] / WEIGHTS).read_bytes()
    (shelf.folders[0] / WEIGHTS).write_bytes(blob[:-1])
    shutil.rmtree(shelf.folders[2])
    rows = listed(cli, shelf)
    assert [rows[version]["artefact"].partition(":")[0] for version in shelf.versions] == [
        "damaged",
        "whole",
        "damaged",
    ]
    assert "bytes, its manifest says" in rows[shelf.versions[0]]["artefact"]
    assert cli("models", "list", "--url", shelf.url).stdout.count("damaged") == 2
    for words in (("rollback", "traffic", "lstm"), ("promote", "traffic", "lstm", shelf.versions[2])):
        result = cli("models", *words, "--url", shelf.url)
        assert result.exit_code == 1
        assert "is damaged" in result.stderr
    assert stages(cli, shelf) == ["retired", "active", "candidate"]


# -- with a real network -------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A config with an empty store of its own; rnn serves both streams."""
    path = tmp_path / "netpredict.toml"
    path.write_text(CONFIG.format(folder=tmp_path).replace('active = "naive"', 'active = "rnn"'))
    return path


def network(config: Path, name: str = "version", units: int = 3, stage: str = "active") -> tuple[str, Path]:
    """An untrained network of stream traffic, registered in the store of the config."""
    read = load_config(config)
    stream = build_stream("traffic", read)
    plugin = load("predictors", "simple_rnn")
    options = {"units": units}
    weights = plugin.build(plugin.options(**options), stream.features, stream.output).weights()
    folder = config.with_name("models") / name
    version = artefact(
        folder,
        1,
        predictor="simple_rnn",
        options=options,
        features=stream.features,
        output=stream.output,
        weights=weights,
    )
    migrate.upgrade(read.store.url)
    with SqlStore(read.store.url) as store:
        store.register_model("traffic", "rnn", version, "simple_rnn", str(folder), {}, stage)
    return version, folder


def test_check_tells_whether_an_artefact_loads(cli: Cli, own: Path, tmp_path: Path) -> None:
    version, folder = network(own)
    words = ("--config", own)
    assert told(cli, "check", version[:5], *words) == {
        "version": version,
        "folder": str(folder),
        "loads": True,
        "warnings": [],
    }
    copied = shutil.copytree(folder, tmp_path / "copied")
    assert cli("models", "check", copied, *words).exit_code == 0
    other = own.read_text().replace("horizon_steps = 4", "horizon_steps = 5")
    own.write_text(other)
    misfit = cli("models", "check", version, *words)
    assert (misfit.exit_code, "train it again" in misfit.stderr) == (1, True)
    assert cli("models", "check", "no-such", *words).exit_code == 1


def test_check_warns_of_other_packages(cli: Cli, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=1")
    version, _ = network(own)
    monkeypatch.delenv("TF_XLA_FLAGS")
    assert told(cli, "check", version, "--config", own)["warnings"] == [
        "TF_XLA_FLAGS is not set, trained under --tf_xla_auto_jit=1"
    ]
    assert "warning: TF_XLA_FLAGS" in cli("models", "check", version, "--config", own).stderr


@pytest.mark.parametrize("harm", ["corrupted", "truncated", "swapped", "swapped_folder", "manifest", "gone", "misfit"])
def test_a_harmed_artefact_is_refused_with_the_reason(cli: Cli, own: Path, harm: str) -> None:
    """By ``check``, and by a backtest, which says which version was refused and fails."""
    version, folder = network(own)
    _, other = network(own, "other", units=4, stage="candidate")
    weights = folder / WEIGHTS
    if harm == "corrupted":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    elif harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif harm == "swapped":
        shutil.copy(other / WEIGHTS, weights)
    elif harm == "swapped_folder":
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    elif harm == "manifest":
        (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace('"units": 3', '"units": 5'))
    elif harm == "gone":
        shutil.rmtree(folder)
    elif harm == "misfit":
        own.write_text(own.read_text().replace("horizon_steps = 4", "horizon_steps = 5"))
    checked = cli("models", "check", version, "--config", own)
    assert checked.exit_code == 1
    assert checked.stderr
    result = cli("backtest", "--file", record(own.with_name("a.jsonl"), 300), "--config", own)
    assert result.exit_code == 1
    assert f"refused rnn@{version} on stream traffic: " in result.stderr


def test_after_the_newest_artefact_broke_a_start_serves_with_the_one_before(cli: Cli, own: Path) -> None:
    """The daemon's pipeline from an empty lane: what is refused is journaled, and who serves instead."""
    old, _ = network(own, "old", stage="retired")
    new, folder = network(own, "new", units=4)
    (folder / WEIGHTS).write_bytes(b"")
    read = load_config(own)
    log = backtest.memory_log(recorded(record(own.with_name("a.jsonl"), 600)), read)
    backtest.run(read, log, read.store.url)
    history = History(read.store.url)
    rows = history.forecasts("traffic", history.series("traffic")[0]["series"], limit=100)
    assert {row["version"] for row in rows} == {old}
    journal = [(row["kind"], row["payload"].get("version")) for row in history.journal("traffic")]
    assert ("refused", new) in journal
    assert ("activate", old) in journal


def test_a_network_is_verified_to_the_letter_and_a_changed_forecast_is_named(cli: Cli, own: Path) -> None:
    """Live it answers all series of a poll together, in the replay a few: the bits are the same."""
    own.write_text(own.read_text().replace("bucket_s = 600.0", "bucket_s = 600.0\nanchor_s = 1200.0"))
    network(own, units=8)
    read = load_config(own)
    nothing = cli("models", "verify", "--config", own)
    assert (nothing.exit_code, "nothing was verified" in nothing.stderr) == (1, True)
    log = backtest.memory_log(recorded(record(own.with_name("a.jsonl"), 3600)), read)
    backtest.run(read, log, read.store.url)
    (found,) = told(cli, "verify", "--stream", "traffic", "--days", "9", "--config", own)["verified"]
    assert found["difference"] is None
    assert found["forecasts"] > 60
    assert str(found["forecasts"]) in cli("models", "verify", "--days", 9, "--config", own).stdout
    with sqlite3.connect(read.store.url.removeprefix("sqlite:///")) as connection:
        late = "(SELECT max(slot_time_us) - 300000000 FROM forecast)"
        connection.execute(f"UPDATE forecast SET ticks = replace(ticks, '[', '[9') WHERE slot_time_us > {late}")
    connection.close()
    result = cli("models", "verify", "--stream", "traffic", "--config", own)
    assert result.exit_code == 1
    assert "is not what a replay gives: ticks is" in result.stderr
    assert cli("models", "verify", "--stream", "none", "--config", own).exit_code == 1

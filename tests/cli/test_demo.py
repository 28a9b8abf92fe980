"""The demo as a user runs it, on a small network for a few seconds."""

import os
import subprocess
import sys
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from rich.console import Console

from netpredict.cli.demo import Demo, make_folder
from netpredict.cli.demo_training import jobs
from netpredict.cli.demo_world import config_text, parsed
from netpredict.errors import AlreadyRunning, ConfigError
from netpredict.learn.retrain import trainable
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.store.sql import SqlStore

FIGURES = ("forecast.png", "skill.png", "training.png", "actions.png", "closed-loop.png")
NETPREDICT = Path(sys.executable).with_name("netpredict")


class Ran(NamedTuple):
    home: Path
    out: str
    history: History


def netpredict(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NETPREDICT__")}
    return subprocess.run(
        [str(NETPREDICT), *words], capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A demo that has run to its end."""
    home = tmp_path_factory.mktemp("demo") / "run"
    words = ("--seconds", "5", "--radio-cells", "40", "--plain", "--folder", str(home))
    done = netpredict("demo", *words, timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Ran(home, done.stdout, History(f"sqlite:///{home / 'netpredict.db'}"))


@pytest.mark.slow
class TestAFinishedDemo:
    def test_leaves_figures(self, ran: Ran) -> None:
        for name in FIGURES:
            drawn = (ran.home / name).read_bytes()
            assert drawn.startswith(b"\x89PNG")
            assert len(drawn) > 10_000, name

    def test_has_accounted_for_every_offset(self, ran: Ran) -> None:
        rows = ran.history.progress()
        assert {row["stream"] for row in rows} == {"traffic", "rsrp", "channel-state"}
        for row in rows:
            counted = sum(row[name] for name in ("accepted", "duplicate", "late", "dead", "control"))
            assert counted == row["next_offset"] > 0
        written = sum(row["next_offset"] for row in rows)
        assert f"{written:,} records" in ran.out

    def test_has_model_forecasts_of_all_streams(self, ran: Ran) -> None:
        scored = Counter(row["stream"] for row in ran.history.skill() if row["source"] == "model" and row["n"])
        assert set(scored) == {"traffic", "rsrp", "channel-state"}
        for stream in scored:
            series = [row for row in ran.history.series(stream) if row["last_slot"] is not None]
            assert ran.history.forecasts(stream, series[0]["series"])

    def test_has_fired_all_three_hooks_and_applied_those_in_auto_mode(self, ran: Ran) -> None:
        kinds = {
            hook: {
                (row["mode"], outcome["kind"])
                for row in ran.history.firings(hook=hook, limit=10_000)
                for outcome in row["outcomes"] or [{"kind": None}]
            }
            for hook in ("bandwidth", "handover", "mcs")
        }
        assert ("auto", "applied") in kinds["bandwidth"]
        assert ("auto", "applied") in kinds["handover"]
        assert kinds["mcs"] == {("shadow", None)}

    def test_writes_what_the_log_actuator_says_to_its_log(self, ran: Ran) -> None:
        assert '"event":"action_applied"' in (ran.home / "demo.log").read_text(encoding="utf-8")

    def test_names_commands_that_work(self, ran: Ran) -> None:
        config = str(ran.home / "netpredict.toml")
        for words in (
            ("streams",),
            ("forecasts", "--stream", "traffic"),
            ("actions", "list", "--hook", "handover", "--limit", "5"),
            ("dead-letters", "list"),
            ("check-config",),
        ):
            assert f"netpredict {' '.join(words)}" in " ".join(ran.out.split())
            done = netpredict(*words, "--config", config)
            assert done.returncode == 0, done.stderr

    def test_closes_the_loop_and_says_what_it_is_compared_with(self, ran: Ran) -> None:
        told = msgspec.json.decode((ran.home / "closed-loop.json").read_bytes())
        assert told["netpredict"]["what"].startswith(("lstm", "gru", "simple_rnn"))
        for name, value in told["plain_rules"]["kpis"].items():
            assert f"{value:.4g}" in ran.out, name
        config = str(ran.home / "closed-loop" / "netpredict.toml")
        done = netpredict("actions", "list", "--json", "--limit", "1000", "--config", config)
        applied = [
            o for row in msgspec.json.decode(done.stdout)["actions"] for o in row["outcomes"] if o["actuator"] == "ran"
        ]
        assert {"verified"} <= {outcome["reason"] for outcome in applied}

    def test_is_replaced_by_the_next_one(self, ran: Ran, tmp_path: Path) -> None:
        home = tmp_path / "old"
        home.mkdir()
        (home / "netpredict.toml").write_text((ran.home / "netpredict.toml").read_text())
        (home / "old.png").touch()
        make_folder(home)
        assert list(home.iterdir()) == []


def test_all_that_the_demo_trains_can_be_trained(tmp_path: Path) -> None:
    config = parsed(config_text(tmp_path, seed=1))
    learnt = [(name, predictor) for name, stream in config.streams.items() for predictor in trainable(config, stream)]
    assert jobs(config) == learnt


def test_a_loop_that_ctrl_c_ended_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("netpredict.cli.demo.run_loop", interrupted)
    assert demo_of(tmp_path).looped(tmp_path, cast(Any, None), cast(Any, None)) is None


def demo_of(home: Path) -> Demo:
    return Demo(home, Console(file=StringIO()), plain=True, seconds=5, radio_cells=40, seed=1)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not written by a demo"):
        make_folder(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    text = config_text(tmp_path, seed=1)
    (tmp_path / "netpredict.toml").write_text(text)
    url = parsed(text).store.url
    migrate.upgrade(url)
    with SqlStore(url), pytest.raises(AlreadyRunning):
        make_folder(tmp_path)
    assert (tmp_path / "netpredict.db").exists()

"""The closed loop of the demo: a daemon, a RAN controller over HTTP, and a network that does as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from typer.testing import CliRunner

from netpredict.cli import demo_loop, demo_loop_figure
from netpredict.cli.app import app
from netpredict.cli.demo_loop import FOLDER, RESULT_FILE, SHOWN, Loop, outcome_text, run_loop, shown_kpis
from netpredict.errors import StoreError
from netpredict.operate.daemon import Daemon
from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.traces.controlled import ControlledConfig, run_plain

CONFIG = ControlledConfig(quiet_s=900, session_s=60, ues=12)
MINUTE_US = 60_000_000


class Ran(NamedTuple):
    home: Path
    loop: Loop
    history: History


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("demo")
    loop = run_loop(home, CONFIG)
    return Ran(home, loop, History(f"sqlite:///{home / FOLDER / 'netpredict.db'}"))


def test_actions_of_all_hooks_are_applied_and_verified(ran: Ran) -> None:
    for hook in ("bandwidth", "handover", "mcs"):
        outcomes = [outcome for row in ran.history.firings(hook=hook, limit=1000) for outcome in row["outcomes"]]
        applied = [outcome for outcome in outcomes if outcome["kind"] == "applied"]
        assert applied
        assert {outcome["reason"] for outcome in applied} == {"verified"}
    assert sum(ran.loop.actions.values()) == len(ran.history.firings(limit=100_000))


def test_the_next_telemetry_shows_what_was_set(ran: Ran) -> None:
    """The loop is closed: no radio cell uses more than the quota that it was given a minute before."""
    checked, bound = 0, 0
    for row in ran.history.firings(hook="bandwidth", limit=1000):
        if row["attribute"] != "rRMPolicyRatio" or row["outcomes"][0]["kind"] != "applied":
            continue
        next_us = row["slot_time_us"] + MINUTE_US
        found = ran.history.recent_observations("traffic", row["series"], limit=1000)
        used = [each["values"]["prb_use_dl_percent"] for each in found if each["slot_time_us"] == next_us]
        quota = row["value"]["rRMPolicyMaxRatio"]
        checked += len(used)
        bound += sum(value == quota for value in used)
        assert all(value <= quota for value in used)
    assert checked > 20
    assert bound > 0  # demand that a quota cut off was among them


def test_radio_cells_held_out_are_left_to_the_plain_rules(ran: Ran) -> None:
    kinds = {outcome_text(o) for row in ran.history.firings(hook="bandwidth", limit=1000) for o in row["outcomes"]}
    assert "skipped: holdout" in kinds


def test_the_network_without_netpredict_is_what_it_was(ran: Ran) -> None:
    assert ran.loop.plain == run_plain(CONFIG, ran.loop.rules)
    assert ran.loop.ours != ran.loop.plain
    plain, ours = (account.columns("prb")["demand"] for account in (ran.loop.plain, ran.loop.ours))
    assert plain.tolist() == ours.tolist()


def test_the_result_says_what_is_compared_with_what(ran: Ran) -> None:
    told = msgspec.json.decode((ran.home / RESULT_FILE).read_bytes())
    assert told["plain_rules"]["kpis"] == ran.loop.plain.kpis()
    assert "A3" in told["plain_rules"]["what"]
    for name in SHOWN:
        ours, plain = told["netpredict"]["kpis"][name], told["plain_rules"]["kpis"][name]
        change = told["change_against_plain_rules"][name]
        assert change is None if plain == 0 else change == pytest.approx(ours / plain - 1)


def test_what_is_worse_is_called_so(ran: Ran) -> None:
    turned = Loop(CONFIG, ran.loop.rules, ran.loop.static, ran.loop.ours, ran.loop.plain, 0, "ewma")
    for (name, better), (_, other) in zip(shown_kpis(ran.loop), shown_kpis(turned), strict=True):
        assert better or other, name
    same = Loop(CONFIG, ran.loop.rules, ran.loop.static, ran.loop.plain, ran.loop.plain, 0, "ewma")
    assert all(better for _, better in shown_kpis(same))


def test_actions_that_go_nowhere_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_loop, "TEMPLATE", demo_loop.TEMPLATE.replace('mode = "auto"', 'mode = "shadow"'))
    loop = run_loop(tmp_path, ControlledConfig(quiet_s=600, session_s=0))
    assert loop.late_steps <= 2
    assert loop.ours == loop.plain  # in shadow nothing is changed


def test_a_daemon_that_ends_ends_the_loop_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_daemon: Daemon) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Daemon, "run", run)
    with pytest.raises(StoreError, match="the disk is full"):
        run_loop(tmp_path, ControlledConfig(quiet_s=600, session_s=0))


def test_there_is_one_picture(ran: Ran, tmp_path: Path) -> None:
    path = demo_loop_figure.draw(tmp_path, ran.loop)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 30_000


def test_the_hold_out_report_counts_every_applied_and_withheld_action(ran: Ran) -> None:
    words = [
        "actions",
        "effect",
        "--hook",
        "bandwidth",
        "--json",
        "--url",
        f"sqlite:///{ran.home / FOLDER / 'netpredict.db'}",
    ]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    document = msgspec.json.decode(told.stdout)
    outcomes = [o for row in ran.history.firings(hook="bandwidth", limit=1000) for o in row["outcomes"]]
    counted = [o for o in outcomes if outcome_text(o) in ("applied", "skipped: holdout")]
    assert any(o["refreshes"] for o in counted)
    assert document["actions"] == sum(not o["refreshes"] for o in counted), "a refresh changes nothing"
    effects = {(row["attribute"], row["kpi"]): row for row in document["effects"]}
    quota = effects["rRMPolicyRatio", "prb_use_dl_percent"]
    assert quota["acted"]["firings"] > 0 < quota["held_out"]["firings"]
    assert quota["verdict"] == "too little data"  # four radio cells are held out
    assert "held out" in quota["why"]
    shown = CliRunner().invoke(app, [word for word in words if word != "--json"])
    assert "rRMPolicyRatio" in shown.stdout
    assert "at least 8" in shown.stderr


def test_the_hold_out_report_says_so_where_nothing_was_done(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    migrate.upgrade(url)
    told = CliRunner().invoke(app, ["actions", "effect", "--url", url])
    assert told.exit_code == 0
    assert "too little data" in told.stderr

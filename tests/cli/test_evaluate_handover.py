"""``netpredict evaluate handover``, with a training that is too short to be good."""

import json
from pathlib import Path

import pytest


@pytest.mark.data
@pytest.mark.slow
def test_a_quick_look_prints_choices_and_writes_a_report(cli, data_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    report = tmp_path / "handover.html"
    words = ("--scene", "v060", "--limit-traces", 2, "--train-epochs", 1, "--report", report)

    told = json.loads(cli("evaluate", "handover", "--dataset", "ns3-uma", *words, "--json").stdout)

    (scene,) = told["result"]["scenes"]
    assert [each["decision_delay_ms"] for each in scene["choices"]] == [0, 0, 0, 200, 200, 200]
    assert told["result"]["options"]["train_epochs"] == 1
    assert "netpredict evaluate handover" in report.read_text()


def test_another_data_set_and_a_missing_folder_are_refused(cli, tmp_path: Path):
    assert "there is ns3-uma" in cli("evaluate", "handover", "--dataset", "milan").stderr
    refused = cli("evaluate", "handover", "--dataset", "ns3-uma", "--report", tmp_path / "none" / "h.html")
    assert (refused.exit_code, "there is no folder" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "told"), [(("--scene", "v999"), "there is no scene v999"), (("--decision-delay-ms", 150), "multiple of")]
)
def test_what_the_data_set_has_not_is_refused(cli, tmp_path: Path, monkeypatch, words, told):
    monkeypatch.setenv("NETPREDICT_DATA", str(tmp_path))
    refused = cli("evaluate", "handover", "--dataset", "ns3-uma", *words)
    assert (refused.exit_code, told in refused.stderr) == (1, True)


@pytest.mark.slow
def test_simulated_scenes_need_no_data(cli, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DATA", str(tmp_path / "none"))
    report = tmp_path / "handover.html"
    words = ("--scene", "v060", "--limit-traces", 2, "--train-epochs", 1, "--report", report)

    told = json.loads(cli("evaluate", "handover", "--dataset", "simulate", *words, "--json").stdout)

    (scene,) = told["result"]["scenes"]
    assert (told["result"]["dataset"], scene["speed_kmh"]) == ("simulate", 60.0)
    assert scene["plain"]["handovers"] > 1
    assert "simulate" in report.read_text()


def test_the_simulated_radio_is_told_without_data(cli, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("netpredict.traces.simulated_scenes.STEPS", 300)
    told = cli("evaluate", "radio", "--scene", "v060", "--seeds", 1, "--json")
    assert "no data folder" in told.stderr
    rows = json.loads(told.stdout)["statistics"]
    assert {row["scene"] for row in rows} == {"v060"}
    assert all(row["recorded"] is None for row in rows)
    assert "there is no scene v999" in cli("evaluate", "radio", "--scene", "v999").stderr


def test_a_version_is_scored_only_where_there_is_one(cli, config: Path):
    words = ("--dataset", "simulate", "--config", config, "--stream")
    assert "no stream named 'links'" in cli("evaluate", "handover", *words, "links").stderr
    assert "no trained version serves stream traffic" in cli("evaluate", "handover", *words, "traffic").stderr
    refused = cli("evaluate", "handover", "--dataset", "wmnlab", "--config", config, "--stream", "traffic")
    assert "ns3-uma and simulate" in refused.stderr

"""``netpredict evaluate`` on real traces, with a training that is too short to be good."""

import json
from pathlib import Path

import pytest

from netpredict.cli.evaluate_mcs import read_recordings


@pytest.mark.data
def test_the_traces_are_read_without_sentinels_and_what_is_missing_stays_so(data_folder: Path):
    recordings = read_recordings(data_folder / "ucc5g", 4)
    assert sorted(each.group for each in recordings) == ["driving_down", "driving_strm", "static_down", "static_strm"]
    cqi = recordings[0].values[:, 0]
    assert cqi.min() != cqi.min()  # NaN
    assert set(cqi[cqi == cqi]) <= set(range(16))


@pytest.mark.data
@pytest.mark.slow
def test_a_quick_look_prints_rows_and_writes_a_report(cli, data_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    report = tmp_path / "mcs.html"
    words = ("--folds", 1, "--limit-traces", 10, "--train-epochs", 1, "--decision-delay-ms", 0, "--report", report)

    told = json.loads(cli("evaluate", "mcs", *words, "--json").stdout)

    assert (told["dataset"], told["result"]["folds"], told["options"]["train_epochs"]) == ("ucc5g", 1, 1)
    assert len(told["result"]["rows"]) == 16
    assert "netpredict evaluate mcs" in report.read_text()


def test_another_data_set_and_a_missing_folder_are_refused(cli, tmp_path: Path):
    assert "there is ucc5g" in cli("evaluate", "mcs", "--dataset", "milan").stderr
    refused = cli("evaluate", "mcs", "--report", tmp_path / "none" / "mcs.html")
    assert (refused.exit_code, "there is no folder" in refused.stderr) == (1, True)

"""The published protocol from the command line; the traces are real, the training is short."""

import json
from pathlib import Path

import numpy as np
import pytest

from netpredict.cli.backtest_published import read_recordings
from netpredict.evaluate import published

QUICK = """
units = 8
inputs = "history"
mixture = true
round_to_grain = true
calendar = false
train_epochs = 1
minibatch_size = 8
bptt_steps = 240
learning_rate = 0.01
"""
CAUSAL_NAIVE = {
    "rsrp_dbm": (0.8488, 3.3829, 0.6332, 3.4139),
    "cqi": (0.9351, 1.7442, 1.7222, 1.7149),
    "sinr_db": (2.8818, 4.7026, 3.0140, 4.5059),
}


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


@pytest.mark.data
def test_the_causal_naive_rows_of_all_traces_are_those_of_the_data_sets_readme(data_folder: Path):
    recordings = read_recordings(data_folder / "ucc5g", None)
    naive = [published.last_values(each.values)[published.issue_steps(len(each.values))] for each in recordings]

    table = published.table(recordings, [np.repeat(each[:, :, None], 10, axis=2) for each in naive])

    for kpi, errors in CAUSAL_NAIVE.items():
        found = [row.naive_mae for row in table.rows if row.kpi == kpi]
        assert found == pytest.approx(errors, abs=5e-5)
    assert table.mean_skill == pytest.approx(0.0)


@pytest.mark.data
def test_a_quick_look_prints_rows_beside_those_published(cli, data_folder: Path, quick: Path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    words = ("--dataset", "ucc5g", "--protocol", "published", "--folds", 1, "--limit-traces", 8, "--options", quick)

    told = json.loads(cli("backtest", *words, "--json").stdout)

    assert (told["protocol"], told["predictor"], told["folds"]) == ("published", "gru", 1)
    assert 1 <= told["traces"] < 8
    assert set(told["rows"][0]) == {"kpi", "group", "mae", "rmse", "naive_mae", "skill"}
    assert told["mean_skill"] == pytest.approx(np.mean([row["skill"] for row in told["rows"]]))
    assert [each["lead"] for each in told["skill_by_lead"]] == list(range(1, 11))
    assert len(told["reset_rows"]) == len(told["rows"])
    best = {row["mae"] for row in told["published"] if (row["kpi"], row["group"]) == ("rsrp_dbm", "driving_down")}
    assert min(best) == pytest.approx(3.3641, abs=5e-5)
    assert told["options"]["train_epochs"] == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--protocol", "published", "--dataset", "milan"), "ucc5g"),
        (("--protocol", "other", "--dataset", "ucc5g"), "published"),
        (("--dataset", "ucc5g", "--folds", 2), "--protocol"),
    ],
)
def test_words_that_do_not_fit_are_told(cli, words, reason):
    result = cli("backtest", *words)
    assert result.exit_code == 2
    assert reason in result.stderr


@pytest.mark.data
@pytest.mark.parametrize(
    ("text", "reason"), [("units = ", "not TOML"), ("unit = 3", "unit"), ("units = 0", "units"), (None, "cannot read")]
)
def test_options_that_cannot_be_used_are_told_before_any_training(
    cli, data_folder: Path, tmp_path: Path, monkeypatch, text, reason
):
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    path = tmp_path / "options.toml"
    if text is not None:
        path.write_text(text)
    words = ("--dataset", "ucc5g", "--protocol", "published", "--limit-traces", 4, "--options", path)
    result = cli("backtest", *words)
    assert result.exit_code == 78
    assert reason in result.stderr

"""``netpredict evaluate bandwidth`` on a little of the real data."""

import json

import pytest

from netpredict.errors import DataError
from netpredict.traces.datasets import data_folder


@pytest.fixture(autouse=True)
def _data(request):
    if request.node.get_closest_marker("data"):
        try:
            data_folder()
        except DataError as error:
            pytest.skip(str(error))


@pytest.mark.data
def test_two_weeks_of_milan_are_judged_at_every_lead_and_ratio_of_costs(cli, tmp_path):
    report = tmp_path / "bandwidth.html"
    words = ("--limit-traces", 3, "--train-epochs", 1, "--report", report, "--json")
    told = json.loads(cli("evaluate", "bandwidth", "--dataset", "milan-hourly", *words).stdout)["evaluation"]
    assert told["decision_delay_ms"] == [0, 1100]
    assert [period["period"] for period in told["periods"]] == ["ordinary week", "holiday week"]
    for period in told["periods"]:
        assert [(row["lead_steps"], row["c_under"]) for row in period["results"]] == [
            (lead, cost) for lead in (1, 6, 24) for cost in (1.0, 4.0, 10.0)
        ]
        for row in period["results"]:
            change = row["sooner"]["change"]
            assert change["low"] <= change["value"] <= change["high"]
            assert change["value"] == pytest.approx(row["sooner"]["cost"] / row["sooner"]["plain_cost"] - 1)
        assert len(period["results"][0]["daily"]) == 7
    page = report.read_text()
    assert "best plain rule" in page
    assert "src=" not in page[: page.index("<script>")]


@pytest.mark.data
def test_the_table_fits_a_terminal(cli):
    words = ("--limit-traces", 3, "--train-epochs", 1, "--predictor", "simple_rnn")
    result = cli("evaluate", "bandwidth", "--dataset", "nist-prosas", *words)
    assert result.exit_code == 0, result.output
    assert "best plain rule" in result.stdout
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80


def test_a_report_needs_a_folder_before_anything_is_trained(cli, tmp_path):
    result = cli("evaluate", "bandwidth", "--dataset", "nist-prosas", "--report", tmp_path / "none" / "x.html")
    assert result.exit_code != 0
    assert "no folder" in result.output

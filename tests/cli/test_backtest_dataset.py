import json

import pytest

from netpredict.cli import backtest_dataset
from netpredict.errors import ConfigError, DataError
from netpredict.traces.datasets import data_folder


@pytest.fixture(autouse=True)
def _data(request):
    if request.node.get_closest_marker("data"):
        try:
            data_folder()
        except DataError as error:
            pytest.skip(str(error))


@pytest.mark.data
def test_a_public_data_set_is_trained_on_and_scored_by_lead_time(cli):
    words = ("--predictors", "naive,seasonal_naive,gru", "--limit-traces", 3, "--train-epochs", 1, "--json")
    told = json.loads(cli("backtest", "--dataset", "milan-hourly", *words).stdout)
    assert [period["period"] for period in told["periods"]] == ["ordinary week", "holiday week"]
    for period in told["periods"]:
        by_name = {result["predictor"]: result["rows"][-1] for result in period["results"]}
        assert by_name["naive"]["skill"]["naive"] == pytest.approx(0.0, abs=1e-6)
        assert by_name["gru"]["mase"] < by_name["naive"]["mase"]
        assert [row["lead_steps"] for row in period["results"][0]["rows"]] == [*range(1, 25), 0]
    assert told["periods"][1]["targets_from"] == "2013-12-25T23:00:00Z"


@pytest.mark.data
def test_the_table_fits_a_terminal(cli):
    words = ("--predictors", "naive", "--limit-traces", 2)
    result = cli("backtest", "--dataset", "nist-prosas", *words)
    assert result.exit_code == 0, result.output
    assert "ewma" in result.stdout
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80


def test_predictors_are_for_a_data_set_of_its_own(cli):
    assert cli("backtest", "--file", "x", "--predictors", "gru").exit_code == 2
    with pytest.raises(ConfigError, match="no predictor"):
        backtest_dataset.named(" , ")

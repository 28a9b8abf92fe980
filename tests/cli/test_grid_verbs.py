"""A data set of squares as frames of one grid: replayed, backtested, and its forecasts printed."""

import gzip
from pathlib import Path

import msgspec
import pytest

from netpredict.traces import milan
from tests.cli.conftest import Cli, document

HOURS = 60
CONFIG = """
[streams.city]
topic = "ran.city"
schema = "grid"
series_by = ["grid_id"]
period_s = 3600.0
kpis = ["activity_count"]
grid = { rows = 2, columns = 3 }
horizon_steps = 4
series_ttl_s = 1209600.0
routes = [{ active = "naive" }]

[predictors.naive]
plugin = "naive"
"""


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five squares of two rows in a folder of data sets, and a config of their grid."""
    folder = tmp_path / "data" / "milan-hourly"
    folder.mkdir(parents=True)
    squares = (1001, 1002, 1003, 1101, 1103)
    lines = [",".join(str(number + hour % 24) for hour in range(HOURS)) for number in range(len(squares))]
    (folder / milan.FILE).write_bytes(gzip.compress("\n".join(lines).encode()))
    (folder / milan.LABELS).write_text("\n".join(map(str, squares)))
    monkeypatch.setattr(milan, "HOURS", HOURS)
    monkeypatch.setenv("NETPREDICT_DATA", str(folder.parent))
    config = tmp_path / "netpredict.toml"
    config.write_text(CONFIG)
    return config


def test_squares_are_replayed_as_frames_to_the_topic_of_the_grid(cli: Cli, city: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames.jsonl"
    told = document(cli("replay", "milan", "--grid", "--to", out, "-c", city, "--json"))
    first = msgspec.json.decode(out.read_bytes().splitlines()[0])
    assert told["sent"] == HOURS
    assert (first["topic"], first["key"]) == ("ran.city", "milan")
    assert first["value"]["activity_count"] == [[0, 1, 2], [3, None, 4]]


def test_a_checked_config_names_the_kpis_of_a_grid_and_not_its_places(cli: Cli, city: Path) -> None:
    (stream,) = document(cli("check-config", "-c", city, "--json"))["streams"]
    assert stream["kpis"] == ["activity_count"]


def test_only_a_data_set_of_squares_is_sent_as_a_grid(cli: Cli, city: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames.jsonl"
    assert "is no grid of radio cells" in cli("replay", "nist-prosas", "--grid", "--to", out).stderr
    assert cli("replay", out, "--grid", "--to", out).exit_code == 2


def test_forecasts_of_a_grid_are_printed_over_its_places_or_for_one_of_them(
    cli: Cli, city: Path, tmp_path: Path
) -> None:
    out, url = tmp_path / "frames.jsonl", f"sqlite:///{tmp_path}/city.db"
    assert cli("replay", "milan", "--grid", "--to", out, "-c", city).exit_code == 0
    scores = document(cli("backtest", "--file", out, "--store", url, "-c", city, "--json"))["scores"]
    assert {row["kpi"] for row in scores} == {"activity_count"}

    whole = cli("forecasts", "--url", url, "--limit", 1, "-c", city)
    assert "6 places, source model 5, none 1" in whole.stdout
    assert "13" in whole.stdout, "the mean over the places: squares 0 to 4 at hour 11"
    assert "15 at [1,2]" in whole.stdout
    assert len(whole.stdout.splitlines()) < 15

    one = cli("forecasts", "--url", url, "--kpi", "activity_count[1,0]", "-c", city)
    assert "last value 14.0, source model" in one.stdout
    asked = document(cli("forecasts", "--url", url, "--kpi", "activity_count[1,0]", "-c", city, "--json"))
    assert list(asked["forecasts"][0]["values"]) == ["activity_count[1,0]"]
    everywhere = document(cli("forecasts", "--url", url, "--kpi", "activity_count", "-c", city, "--json"))
    assert len(everywhere["forecasts"][0]["values"]) == 6

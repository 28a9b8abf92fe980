from pathlib import Path

import msgspec
import pytest

from netpredict.cli.sample import sample_config
from tests.cli.conftest import CONFIG, document


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CONFIG.format(folder=folder)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "netpredict.toml"
    path.write_text(text)
    return path


def test_a_right_config_is_described(cli, tmp_path: Path) -> None:
    path = write(tmp_path)
    found = document(cli("check-config", path, "--json"))
    assert found["ok"] is True
    assert found["error"] is None
    traffic, channel_state = found["streams"]
    assert traffic == {
        "stream": "traffic",
        "topic": "ran.traffic",
        "kpis": ["prb_use_dl_percent"],
        "levels": [0.1, 0.5, 0.9],
        "predictors": ["naive"],
        "hooks": [],
    }
    assert channel_state["hooks"] == ["mcs (shadow)"]
    assert "is right" in cli("check-config", path).stdout


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("horizon_steps = 4", "horizon = 4", "horizon"),
        ("horizon_steps = 4", "horizon_steps = 0", "horizon_steps"),
        ("[daemon]", "[deamon]", "deamon"),
        ('plugin = "mcs"', 'plugin = "msc"', "msc"),
        ('plugin = "log"', 'plugin = "log"\noptions = { level = "loud" }', "actuators.log.options"),
        ("units = 4", "units = -4", "predictors.rnn.options"),
        ('stream = "channel-state"', 'stream = "traffic"', "hooks.mcs"),
        ('active = "naive"', 'active = "nave"', "nave"),
        ('features = ["sinr_db"]', 'features = ["snir"]', "snir"),
        ("sqlite:///", "nonsense:", "store.url"),
        ("[store]", "[learn]\ncron = '61 * * * *'\n[store]", "learn.cron"),
        ('plugin = "mcs"', 'plugin = "mcs"\nblackout_utc = ["25:00-26:00"]', "blackout_utc"),
        ("[store]", "[store", "TOML"),
    ],
)
def test_a_wrong_config_is_refused_with_78_and_its_key(cli, tmp_path: Path, old: str, new: str, named: str) -> None:
    path = write(tmp_path, (old, new))
    result = cli("check-config", path)
    assert result.exit_code == 78
    assert named in result.stderr
    result = cli("check-config", path, "--json")
    assert result.exit_code == 78
    assert named in msgspec.json.decode(result.stdout)["error"]


def test_a_wrong_option_of_a_plugin_from_the_environment_names_the_variable(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETPREDICT__PREDICTORS__RNN__OPTIONS__UNITS", "-4")
    result = cli("check-config", write(tmp_path))
    assert result.exit_code == 78
    assert "predictors.rnn.options.units: Expected `int` >= 1" in result.stderr
    assert "NETPREDICT__PREDICTORS__RNN__OPTIONS__UNITS" in result.stderr


def test_a_config_of_no_streams_is_refused(cli, tmp_path: Path) -> None:
    path = tmp_path / "netpredict.toml"
    path.write_text("[kafka]\ngroup = 'a'\n")
    result = cli("check-config", path)
    assert result.exit_code == 78
    assert "streams: none is configured" in result.stderr


def test_a_config_that_is_not_there_is_told(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("check-config", "none.toml").exit_code == 78
    result = cli("check-config")
    assert result.exit_code == 78
    assert "netpredict sample-config" in result.stderr


def test_the_config_of_the_folder_is_the_default(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert document(cli("check-config", "--json"))["path"] == "netpredict.toml"
    assert cli("db", "check").exit_code == 78
    assert cli("db", "upgrade").exit_code == 0
    assert (tmp_path / "netpredict.db").exists()


def test_a_secret_in_a_store_url_is_not_printed(cli, tmp_path: Path) -> None:
    url = "postgresql://me:topsecret@far.example/db?sslmode=prefer"
    path = write(tmp_path, (f"sqlite:///{tmp_path}/netpredict.db", url))
    result = cli("check-config", path)
    assert result.exit_code == 78
    assert "topsecret" not in result.output


def test_the_sample_is_found_right_by_the_command(cli, tmp_path: Path) -> None:
    path = tmp_path / "sample.toml"
    path.write_text(sample_config())
    assert [row["stream"] for row in document(cli("check-config", path, "--json"))["streams"]] == [
        "traffic",
        "rsrp",
        "channel-state",
    ]


def test_plugins_are_listed_with_their_origin(cli) -> None:
    rows = document(cli("plugins", "--json"))["plugins"]
    found = {(row["kind"], row["name"]): row for row in rows}
    lstm = found["predictors", "lstm"]
    assert (lstm["package"], lstm["importable"], lstm["trainable"], lstm["problem"]) == ("netpredict", True, True, None)
    assert lstm["module"] == "netpredict_plugins.predictors.lstm"
    assert found["predictors", "naive"]["trainable"] is False
    assert {"json", "bandwidth", "handover", "mcs", "log", "webhook"} <= {name for _, name in found}

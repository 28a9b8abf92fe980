"""``netpredict doctor`` against a store, a config and a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netpredict.operate.publisher import KafkaSink
from netpredict.store import migrate
from tests.cli.conftest import CONFIG, Cli
from tests.services.kafka_broker import KafkaBroker


def config_file(folder: Path, **kafka: object) -> Path:
    lines = "\n".join(f"{key} = {value}" for key, value in kafka.items())
    path = folder / "netpredict.toml"
    path.write_text(f"[kafka]\n{lines}\n" + CONFIG.format(folder=folder))
    return path


def found(cli: Cli, path: Path) -> tuple[int, dict[str, Any]]:
    import msgspec

    result = cli("doctor", path, "--json")
    findings = msgspec.json.decode(result.stdout)["findings"]
    return result.exit_code, {each["about"]: (each["verdict"], each["detail"]) for each in findings}


def test_a_wrong_config_is_the_only_finding(cli: Cli, tmp_path: Path) -> None:
    code, told = found(cli, config_file(tmp_path, poll_records_max=0))
    assert (code, list(told)) == (1, ["config"])
    assert "kafka.poll_records_max" in told["config"][1]


def test_no_broker_is_a_failure_and_the_rest_is_looked_at(cli: Cli, tmp_path: Path) -> None:
    code, told = found(cli, config_file(tmp_path, bootstrap_servers='["127.0.0.1:1"]'))
    assert code == 1
    assert told["store"][0] == "warning"
    assert told["stream traffic"][0] == "failure"
    assert told["plugin naive"] == ("ok", told["plugin naive"][1])


def test_topics_that_lack_and_keys_that_are_of_another_field_are_told(
    cli: Cli, tmp_path: Path, broker: KafkaBroker
) -> None:
    path = config_file(tmp_path, bootstrap_servers=f'["{broker.bootstrap}"]')
    traffic, channel = broker.new_topic("doctor.traffic", 2), broker.new_topic("doctor.channel", 2)
    path.write_text(path.read_text().replace("ran.traffic", traffic).replace("ran.channel-state", channel))
    migrate.upgrade(f"sqlite:///{tmp_path}/netpredict.db")
    with KafkaSink(broker.bootstrap) as sink:
        for number in range(10):
            sink.send(traffic, b"cell-1", b'{"radio_cell_id": "cell-1"}')
            sink.send(channel, b"cell-1" if number else b"ue-1", b'{"ue_id": "ue-1", "radio_cell_id": "cell-1"}')
        sink.flush()
    code, told = found(cli, path)
    assert code == 0
    assert told["store"][0] == told["kafka"][0] == "ok"
    assert told["stream traffic"][0] == "ok"
    assert "keys of 10 records" in told["stream traffic"][1]
    assert told["stream channel-state"][0] == "warning"
    assert "9 of 10 records are not keyed by ue_id" in told["stream channel-state"][1]
    path.write_text(path.read_text().replace(traffic, "doctor.absent"))
    code, told = found(cli, path)
    assert (code, told["stream traffic"][0]) == (1, "failure")
    assert "no topic doctor.absent" in told["stream traffic"][1]


@pytest.mark.parametrize(("version", "verdict"), [((3, 40, 1), "warning"), ((3, 51, 3), "ok")])
def test_an_sqlite_that_may_damage_its_wal_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], verdict: str
) -> None:
    monkeypatch.setattr("netpredict.store.sqlite.VERSION", version)
    _, told = found(cli, config_file(tmp_path, bootstrap_servers='["127.0.0.1:1"]'))
    assert told["sqlite"][0] == verdict


HOOK = """
[hooks.bandwidth]
plugin = "bandwidth"
stream = "traffic"
effect_s = {effect_s}
"""


@pytest.mark.parametrize(("effect_s", "verdict"), [(119.0, "warning"), (120.0, "ok")])
def test_an_effect_that_ends_before_it_can_be_refreshed_is_told(
    cli: Cli, tmp_path: Path, effect_s: float, verdict: str
) -> None:
    path = config_file(tmp_path, bootstrap_servers='["127.0.0.1:1"]')
    path.write_text(path.read_text() + HOOK.format(effect_s=effect_s))
    _, told = found(cli, path)
    assert told["hook bandwidth"][0] == verdict, told


@pytest.mark.parametrize(
    ("settings", "verdict"), [("", "warning"), ("holdout_ratio = 0.1", "ok"), ('exclude = "none"', "ok")]
)
def test_a_hook_whose_actions_would_hide_every_truth_is_told(
    cli: Cli, tmp_path: Path, settings: str, verdict: str
) -> None:
    path = config_file(tmp_path, bootstrap_servers='["127.0.0.1:1"]')
    path.write_text(path.read_text() + HOOK.format(effect_s=900.0) + f'mode = "auto"\n{settings}\n')
    _, told = found(cli, path)
    assert told["hook bandwidth"][0] == verdict, told

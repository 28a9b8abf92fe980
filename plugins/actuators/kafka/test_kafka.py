from __future__ import annotations

import socket
import time
import tomllib
from pathlib import Path

import pytest

from netpredict.config import KafkaConfig
from netpredict.errors import ActuatorError, ConfigError
from netpredict.plugins import options_of
from netpredict.types import Firing, Mode, Outcome, OutcomeKind
from netpredict_plugins.actuators.kafka import PLUGIN, KafkaActuator, KafkaOptions

SAMPLE = Path(__file__).with_name("sample.toml")
FIRING = Firing("f1", "bandwidth", "traffic", "cell-1", "quota", {"quota": 40}, {}, Mode.AUTO, 1, 2, 3)


def test_a_broker_that_is_away_is_tried_again_and_costs_no_more_than_the_timeout() -> None:
    with socket.socket() as taken:  # bound, not listening: nobody answers and nobody else takes the port
        taken.bind(("127.0.0.1", 0))
        actuator = KafkaActuator(KafkaOptions(timeout_s=2.0), at(f"127.0.0.1:{taken.getsockname()[1]}"))
        began_s = time.monotonic()
        with pytest.raises(ActuatorError, match="no broker answers") as away:
            actuator.apply(FIRING)
        assert time.monotonic() - began_s < 20
    assert away.value.retriable
    actuator.close()


def test_a_broker_that_never_says_a_word_costs_no_more_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        actuator = KafkaActuator(KafkaOptions(timeout_s=2.0), at(f"127.0.0.1:{mute.getsockname()[1]}"))
        began_s = time.monotonic()
        with pytest.raises(ActuatorError) as silent:
            actuator.apply(FIRING)
        assert time.monotonic() - began_s < 20
    assert silent.value.retriable


def test_a_secret_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    """It may be on its way: files of secrets are read anew for each connection."""
    kafka = KafkaConfig(
        security_protocol="SASL_SSL", sasl_username="np", sasl_password_file=str(tmp_path / "not-there")
    )
    with pytest.raises(ActuatorError, match=r"kafka\.sasl_password_file: cannot read") as missing:
        KafkaActuator(KafkaOptions(), kafka).apply(FIRING)
    assert missing.value.retriable


def test_nothing_is_read_back() -> None:
    assert KafkaActuator(KafkaOptions(), at("x:1")).verify(FIRING) == Outcome(OutcomeKind.APPLIED, "not_verified")


@pytest.mark.parametrize(
    "wrong",
    [{"topic": ""}, {"topic": "a b"}, {"topic": ".."}, {"topic": "t" * 250}, {"timeout_s": 0.5}, {"timeout_s": 61.0}],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="is not allowed"):
        options_of(PLUGIN, wrong, "actuators.kafka.options")


def test_the_commented_defaults_are_the_real_ones() -> None:
    lines = (line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n"))
    section = tomllib.loads("\n".join(lines))["actuators"]["kafka"]
    assert options_of(PLUGIN, section["options"], "actuators.kafka") == KafkaOptions()
    assert set(section["options"]) == set(KafkaOptions.__struct_fields__)


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in KafkaOptions.__struct_fields__)


def at(server: str) -> KafkaConfig:
    return KafkaConfig(bootstrap_servers=[server])

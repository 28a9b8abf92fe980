from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netpredict.errors import ActuatorError, ConfigError
from netpredict.plugins import options_of
from netpredict.types import Firing, Mode, Outcome, OutcomeKind
from netpredict_plugins.actuators.log import PLUGIN, LogActuator, LogOptions

SAMPLE = Path(__file__).with_name("sample.toml")
FIRING = Firing(
    firing_id="f1",
    hook="bandwidth",
    stream="traffic",
    object_id="NRCellDU=a\nb",
    attribute="rRMPolicyRatio",
    value={"rRMPolicyMinRatio": 40},
    why={"demand_percent": float("nan")},
    mode=Mode.AUTO,
    slot_time_us=1,
    expires_at_us=2,
    effect_until_us=3,
)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().err.splitlines()]


def test_an_action_is_one_json_line_with_the_whole_firing(capsys: pytest.CaptureFixture[str]) -> None:
    assert LogActuator(LogOptions()).apply(FIRING) == Outcome(OutcomeKind.APPLIED, "logged")
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("action_applied", "info")
    assert line["value"] == {"rRMPolicyMinRatio": 40}
    assert line["object_id"] == "NRCellDU=a\nb"
    assert line["why"] == {"demand_percent": None}
    assert {field.name for field in msgspec.inspect.type_info(Firing).fields} <= set(line)  # type: ignore[attr-defined]


def test_a_revert_is_logged_under_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    LogActuator(LogOptions(level="warning")).revert(FIRING)
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("action_reverted", "warning")


def test_verify_and_close_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    actuator = LogActuator(LogOptions())
    assert actuator.verify(FIRING).kind is OutcomeKind.APPLIED
    actuator.close()
    assert lines(capsys) == []


def test_a_stderr_that_does_not_take_the_line_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        actuator = LogActuator(LogOptions())
        with pytest.raises(ActuatorError) as refused:
            actuator.apply(FIRING)
        assert refused.value.retriable
        monkeypatch.undo()
        with pytest.raises(OSError, match="space"):
            full.close()


def test_the_commented_defaults_are_the_real_ones() -> None:
    uncommented = "\n".join(
        line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n")
    )
    section = tomllib.loads(uncommented)["actuators"]["log"]
    assert options_of(PLUGIN, section["options"], "actuators.log") == LogOptions()
    assert set(section["options"]) == set(LogOptions.__struct_fields__)
    assert PLUGIN.name == section["plugin"]


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in LogOptions.__struct_fields__)


@pytest.mark.parametrize("wrong", [{"level": "loud"}, {"colour": True}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "actuators.log.options")

from __future__ import annotations

import os
import stat
import time
import tomllib
from pathlib import Path

import msgspec
import pytest

from netpredict.errors import ActuatorError, ConfigError
from netpredict.plugins import options_of
from netpredict.types import Firing, Mode, Outcome, OutcomeKind
from netpredict_plugins.actuators.exec import PLUGIN, ExecActuator, ExecOptions

SAMPLE = Path(__file__).with_name("sample.toml")
FIRING = Firing("f1", "bandwidth", "traffic", "cell; rm -rf /", "quota", {"quota": 40}, {}, Mode.AUTO, 1, 2, 3)


def program(folder: Path, script: str) -> ExecActuator:
    path = folder / "act"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return ExecActuator(ExecOptions(argv=[str(path), "first"], timeout_s=2.0, output_max_bytes=100))


def test_the_firing_comes_as_json_and_the_verb_as_last_argument(tmp_path: Path) -> None:
    actuator = program(tmp_path, f'cat > {tmp_path}/seen; echo "$*"; env > {tmp_path}/env')
    assert actuator.apply(FIRING) == Outcome(OutcomeKind.APPLIED, "accepted", "first apply\n")
    assert msgspec.json.decode((tmp_path / "seen").read_bytes(), type=Firing) == FIRING
    assert actuator.revert(FIRING).detail == "first revert\n"


def test_nothing_of_the_daemons_environment_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    program(tmp_path, f"env > {tmp_path}/env").apply(FIRING)
    assert "hush" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(("code", "retriable"), [(75, True), (1, False)])
def test_the_exit_code_says_whether_to_try_again(tmp_path: Path, code: int, retriable: bool) -> None:
    with pytest.raises(ActuatorError, match=f"exit code {code}: 'no") as refused:
        program(tmp_path, f"echo no >&2; exit {code}").apply(FIRING)
    assert refused.value.retriable is retriable


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(ActuatorError, match="did not end within 2 s") as late:
        program(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait").apply(FIRING)
    assert late.value.retriable
    assert time.monotonic() - began_s < 20
    child = int((tmp_path / "child").read_text())
    until_s = time.monotonic() + 10
    while _runs(child) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_it_prints_is_cut_and_does_not_stop_it(tmp_path: Path) -> None:
    said = program(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x").apply(FIRING).detail
    assert said == "x" * 100


def test_a_program_need_not_read_its_input(tmp_path: Path) -> None:
    big = Firing("f1", "h", "s", "o", "a", {"a": "x" * 1_000_000}, {}, Mode.AUTO, 1, 2, 3)
    assert program(tmp_path, "exec 0<&-").apply(big).kind is OutcomeKind.APPLIED


@pytest.mark.parametrize(
    ("printed", "reason"),
    [("", "not_verified"), ('{"value": {"quota": 40}}', "verified"), ('{"value": {}}', "mismatch")],
)
def test_a_read_back_is_compared(tmp_path: Path, printed: str, reason: str) -> None:
    assert program(tmp_path, f"printf '%s' '{printed}'").verify(FIRING).reason == reason


@pytest.mark.parametrize("printed", ["rubbish", "[]", "{}", '{"value": 3}'])
def test_a_read_back_of_another_form_is_an_error(tmp_path: Path, printed: str) -> None:
    with pytest.raises(ActuatorError, match="read-back"):
        program(tmp_path, f"printf '%s' '{printed}'").verify(FIRING)


def test_a_program_that_is_not_there_is_no_reason_to_try_again(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match="cannot run") as refused:
        ExecActuator(ExecOptions(argv=[str(tmp_path / "nothing")])).apply(FIRING)
    assert not refused.value.retriable


@pytest.mark.parametrize("argv", [[], ["relative"], [""]])
def test_only_an_absolute_path_is_run(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match="absolute path"):
        ExecActuator(ExecOptions(argv=argv))


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0.0}, {"timeout_s": 61.0}, {"output_max_bytes": 0}, {"environment": {"a=b": "c"}}, {"x": 1}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "actuators.exec.options")


def test_the_commented_defaults_are_the_real_ones() -> None:
    lines = (line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n"))
    section = tomllib.loads("\n".join(lines))["actuators"]["exec"]
    assert options_of(PLUGIN, section["options"], "actuators.exec") == ExecOptions()
    assert set(section["options"]) == set(ExecOptions.__struct_fields__)


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in ExecOptions.__struct_fields__)


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    actuator = program(tmp_path, "cat > /dev/null")
    actuator.apply(FIRING)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        actuator.apply(FIRING)
    assert len(os.listdir("/proc/self/fd")) == before

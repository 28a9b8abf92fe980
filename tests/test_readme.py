"""The README tells the truth: its commands run, its code keeps the contract, its config and messages are accepted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from netpredict.build import build_streams
from netpredict.config import parse_config
from netpredict.ingest.messages import SCHEMAS
from netpredict.testing import check_predictor
from netpredict.types import FeatureSpec, OutputSpec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RUN_ELSEWHERE = {
    "make demo": "tests/cli/test_demo.py runs the same verb, shorter",
    "make test": "this is it",
    "make lint": "CI runs it before the tests",
    "netpredict run": "tests/integration/test_main_job.py, with a broker",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.timeout(540)
def test_every_command_runs_in_order_in_an_empty_folder(tmp_path: Path) -> None:
    here = tmp_path
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands():
        if command in RUN_ELSEWHERE:
            continue
        if command.startswith("cd "):
            here = (here / command[3:]).resolve()
            continue
        folder = ROOT if command.startswith("make ") else here
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.stdout or done.stderr or ">" in command, f"{command} printed nothing"


def test_make_knows_the_targets_that_are_run_elsewhere() -> None:
    for command in RUN_ELSEWHERE:
        if command.startswith("make "):
            subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_every_verb_of_the_text_exists() -> None:
    from typer.main import get_command

    from netpredict.cli.app import app

    verbs = set(re.findall(r"netpredict ([a-z]+(?:-[a-z]+)*)(?=[ `\n])", " ".join(re.findall(r"`[^`]+`", README))))
    assert verbs <= set(get_command(app).commands), verbs  # type: ignore[attr-defined]


def test_the_predictor_of_the_readme_keeps_the_contract() -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {"__name__": "halfway"}
    exec(compile(code, "README.md", "exec"), names)
    features = FeatureSpec(("prb_use_dl_percent", "connected_ues"), 60_000_000)
    output = OutputSpec(("prb_use_dl_percent",), 12, (0.1, 0.5, 0.9))
    plugin = names["PLUGIN"]
    check_predictor(plugin.build(plugin.options(), features, output), features)  # type: ignore[attr-defined]


def test_the_config_of_the_readme_is_accepted() -> None:
    (text,) = blocks("toml")
    streams = build_streams(parse_config(tomllib.loads(text)))
    assert [stream.name for stream in streams] == ["traffic"]


def test_the_messages_of_the_readme_are_those_of_the_code() -> None:
    (example,) = blocks("json")
    msgspec.json.decode(example, type=SCHEMAS["netpredict.traffic/1"], strict=True)
    for schema, message in SCHEMAS.items():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{schema}`")]
        assert set(message.__struct_fields__) - {"schema"} <= set(re.findall(r"`([a-z_]+)`", row)), schema

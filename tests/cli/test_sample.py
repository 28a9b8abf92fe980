"""The sample config is the truth: it works, and its comments are the real defaults."""

import tomllib
from pathlib import Path

import jsonschema
import msgspec
import pytest

from netpredict.cli import sample
from netpredict.cli.configuration import checked_config
from netpredict.config import ChecksConfig, Config, HindsightConfig, StreamConfig, parse_config
from netpredict.plugins import load, options_of

ROOT = Path(__file__).parents[2]
PLUGINS = [
    *(("predictors", name) for name in sample.ACTIVE.values()),
    *(("hooks", name) for name in sample.HOOKS),
    *(("actuators", name) for name in sample.ACTUATORS),
]


@pytest.fixture(scope="module")
def text() -> str:
    return sample.sample_config()


def test_the_shipped_sample_is_current(text: str) -> None:
    shipped = (ROOT / "deploy" / "netpredict.toml").read_text()
    assert shipped == text, "run: netpredict sample-config > deploy/netpredict.toml"


def test_the_sample_is_a_working_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "netpredict.toml"
    path.write_text(text)
    config, streams = checked_config(path)
    assert [stream.config.topic for stream in streams] == ["ran.traffic", "ran.rsrp", "ran.channel-state"]
    assert {hook.mode.value for hook in config.hooks.values()} == {"shadow"}
    assert streams[0].bucket_slots > 0


def test_the_commented_defaults_are_the_real_ones(text: str) -> None:
    spoken = sample.uncomment_defaults(text)
    assert spoken.count("\n# ") == 0
    said, unsaid = tomllib.loads(spoken), tomllib.loads(text)
    for kind, name in PLUGINS:  # options are checked by the plugins, so they are compared as those read them
        plugin = load(kind, name)
        one, other = (options_of(plugin, raw[kind][name].pop("options"), name) for raw in (said, unsaid))
        assert one == other, f"{kind}.{name}.options"
    assert parse_config(said) == parse_config(unsaid)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_option_of_a_plugin_is_in_the_sample(kind: str, name: str) -> None:
    _, lines = sample.plugin_sample(kind, name)
    shown = tomllib.loads(sample.uncomment_defaults("\n".join(lines)))
    assert set(shown) == {field.encode_name for field in msgspec.structs.fields(load(kind, name).options)}


@pytest.mark.parametrize("section", [*sample.SECTIONS.values(), StreamConfig, ChecksConfig, HindsightConfig])
def test_every_setting_is_in_the_sample_and_explained(section: type[msgspec.Struct], text: str) -> None:
    for field in msgspec.structs.fields(section):
        if field.name not in ("routes", "checks", "hindsight"):
            assert f"{field.name} = " in text or f"## {field.name} is not set" in text
            assert sample._description(field), f"{section.__name__}.{field.name} has no description"


def test_sample_config_never_overwrites(cli, tmp_path: Path, text: str) -> None:
    path = tmp_path / "netpredict.toml"
    assert cli("sample-config").stdout == text
    assert cli("sample-config", "--output", path).exit_code == 0
    assert path.read_text() == text
    assert cli("sample-config", "--output", path).exit_code == 1


def test_the_sample_fits_the_json_schema_of_the_config(cli, text: str) -> None:
    result = cli("config-schema")
    schema = msgspec.json.decode(result.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(tomllib.loads(text))
    assert not validator.is_valid({"daemon": {"unknown": 1}})
    validator.validate(msgspec.to_builtins(Config()))

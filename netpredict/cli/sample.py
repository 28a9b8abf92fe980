"""The sample config, written from the definitions in ``netpredict.config`` and the samples of the plugins.

``##`` begins prose, ``#`` a setting with its default: uncommenting all of those changes nothing. What stands without
``#`` has no default, or differs from it. The sample is a working config of the three default streams.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import Any, get_args

import msgspec

from netpredict.config import (
    ActuatorConfig,
    BreakerConfig,
    ChecksConfig,
    DaemonConfig,
    HindsightConfig,
    HookConfig,
    HttpConfig,
    KafkaConfig,
    LearnConfig,
    PredictorConfig,
    PublishConfig,
    RevertConfig,
    RouteConfig,
    StoreConfig,
    StreamConfig,
)
from netpredict.errors import PluginError
from netpredict.plugins import installed

WIDTH = 118
HEAD = """\
## Configuration of netpredict, written by `netpredict sample-config`; check yours with `netpredict check-config`.
## A line that begins with one # is a setting with its default. An unknown key is an error.
## Every key can be given by the environment too: NETPREDICT__KAFKA__GROUP=lab (JSON or bare text; no secrets).
"""

SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    "daemon": DaemonConfig,
    "kafka": KafkaConfig,
    "store": StoreConfig,
    "http": HttpConfig,
    "learn": LearnConfig,
    "publish": PublishConfig,
}
BY_UE = ["ue_id", "radio_cell_id"]
STREAMS: Mapping[str, Mapping[str, Any]] = {
    "traffic": {
        "topic": "ran.traffic",
        "schema": "traffic",
        "series_by": ["radio_cell_id"],
        "period_s": 60.0,
        "kpis": ["prb_use_dl_percent", "dl_throughput_kbps"],
        "features": ["connected_ues"],
        "season_s": 86_400.0,
        "season_buckets": 24,
    },
    "rsrp": {
        "topic": "ran.rsrp",
        "schema": "rsrp",
        "series_by": BY_UE,
        "period_s": 1.0,
        "kpis": ["rsrp_dbm"],
        "features": ["serving"],
    },
    "channel-state": {
        "topic": "ran.channel-state",
        "schema": "channel-state",
        "series_by": BY_UE,
        "period_s": 1.0,
        "kpis": ["cqi"],
        "features": ["sinr_db"],
    },
}
ACTIVE = {"traffic": "lstm", "rsrp": "gru", "channel-state": "simple_rnn"}
HOOKS = {"bandwidth": "traffic", "handover": "rsrp", "cio": "rsrp", "mcs": "channel-state"}
ACTUATORS = ("log",)

_DEFAULT_LINE = re.compile(r"^# ?(?=[A-Za-z_][A-Za-z0-9_]* = )", re.MULTILINE)


def sample_config() -> str:
    """The whole file."""
    return HEAD + "\n" + "\n\n".join("\n".join(lines) for lines in _sections()) + "\n"


def uncomment_defaults(sample: str) -> str:
    """The same file with every default said aloud."""
    return _DEFAULT_LINE.sub("", sample)


def _sections() -> Iterator[list[str]]:
    for name, section in SECTIONS.items():
        yield [*_prose(_first_paragraph(section)), f"[{name}]", *_settings(section, {})]
    for number, (name, given) in enumerate(STREAMS.items()):
        yield [*_stream(name, given, explained=number == 0)]
    for number, name in enumerate(ACTIVE.values()):
        prose = _prose(_first_paragraph(PredictorConfig)) if number == 0 else []
        yield [*prose, *_plugin("predictors", name, PredictorConfig, {})]
    for number, (name, stream) in enumerate(HOOKS.items()):
        yield [*_plugin("hooks", name, HookConfig, {"stream": stream}, explained=number == 0)]
    for name in ACTUATORS:
        yield [*_plugin("actuators", name, ActuatorConfig, {})]


def _stream(name: str, given: Mapping[str, Any], *, explained: bool) -> Iterator[str]:
    yield from _prose(_first_paragraph(StreamConfig)) if explained else _prose("All other keys as in the first stream.")
    yield f"[streams.{name}]"
    yield from _settings(StreamConfig, given, explained=explained)
    yield ""
    if explained:
        for table, part in (("checks", ChecksConfig), ("hindsight", HindsightConfig)):
            yield from _prose(_first_paragraph(part))
            yield f"[streams.{name}.{table}]"
            yield from _settings(part, {})
            yield ""
    yield from _prose(_first_paragraph(RouteConfig)) if explained else ()
    yield f"[[streams.{name}.routes]]"
    yield from _settings(RouteConfig, {"active": ACTIVE[name]}, explained=explained)


def _plugin(
    kind: str, name: str, section: type[msgspec.Struct], given: Mapping[str, Any], *, explained: bool = True
) -> Iterator[str]:
    about, options = plugin_sample(kind, name)
    yield from about
    yield f"[{kind}.{name}]"
    yield from _settings(section, {"plugin": name, **given}, explained=explained)
    yield ""
    if section is HookConfig and explained:
        for table, part in (("breaker", BreakerConfig), ("revert", RevertConfig)):
            yield from _prose(_first_paragraph(part))
            yield f"[{kind}.{name}.{table}]"
            yield from _settings(part, {})
            yield ""
    yield f"[{kind}.{name}.options]"
    yield from options


def plugin_sample(kind: str, name: str) -> tuple[list[str], list[str]]:
    """Prose about a plugin, and its commented options, from the ``sample.toml`` in its folder. Nothing is imported."""
    lines = [line for line in _sample_file(kind, name).read_text(encoding="utf-8").splitlines() if line]
    settings = [index for index, line in enumerate(lines) if not line.startswith("##")]
    tables = [index for index in settings if lines[index].startswith("[")]
    if tables:  # it shows the whole plugin: prose, its table, its options
        return lines[: tables[0]], [_normal(line) for line in lines[tables[-1] + 1 :]]
    about = [line for line in lines[: settings[0]] if line.startswith("##")]
    return about[:-1], [_normal(line) for line in lines[len(about) - 1 :]]


def _sample_file(kind: str, name: str) -> Path:
    for point in installed(kind):
        spec = find_spec(point.module) if point.name == name else None
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)), "sample.toml")
    raise PluginError(f"no plugin {name!r} in netpredict.{kind} has a sample.toml")


def _normal(line: str) -> str:
    return line if line.startswith("##") else f"# {line.removeprefix('#').strip()}"


def _settings(section: type[msgspec.Struct], given: Mapping[str, Any], *, explained: bool = True) -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        name = field.encode_name
        if name in ("options", "routes", "checks", "hindsight", "breaker", "revert"):
            continue
        default = _default(field)
        if explained:
            yield from _prose(_description(field))
        if name in given and given[name] != default:
            yield f"{name} = {_toml(given[name])}"
        elif default is None:
            yield from _prose(f"{name} is not set by default.") if explained else ()
        elif explained:
            yield f"# {name} = {_toml(default)}"


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return msgspec.NODEFAULT if field.default is msgspec.NODEFAULT else msgspec.to_builtins(field.default)


def _description(field: msgspec.structs.FieldInfo) -> str:
    metas = [meta for meta in get_args(field.type) if isinstance(meta, msgspec.Meta)]
    return next((meta.description for meta in metas if meta.description), "")


def _first_paragraph(section: type) -> str:
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


def _prose(text: str) -> list[str]:
    return [f"## {line}" for line in wrap(text.replace("``", ""), WIDTH - 3)]


def _toml(value: Any) -> str:
    """JSON and TOML agree on booleans, numbers, basic strings and arrays of them."""
    return json.dumps(value, ensure_ascii=False)

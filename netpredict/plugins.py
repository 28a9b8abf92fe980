"""The PluginCatalog: a lookup by entry point and one function that builds. Only what is configured is imported."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from netpredict.config import keyed
from netpredict.errors import ConfigError, PluginError

API_VERSION = 1
KINDS = ("predictors", "decoders", "hooks", "actuators")


@dataclass(frozen=True)
class Plugin:
    """What ``PLUGIN`` of a plugin's module is: a name, an options Struct and a function that builds the thing.

    ``build`` takes the decoded options first; what follows depends on the kind (see the contracts of each kind).
    An actuator with ``needs_kafka`` is given ``[kafka]`` of the config.
    """

    name: str
    options: type[msgspec.Struct]
    build: Any
    trainable: bool = False
    needs_kafka: bool = False
    api_version: int = API_VERSION


def installed(kind: str) -> list[EntryPoint]:
    """Entry points of one kind, sorted by name, without importing any."""
    return sorted(entry_points(group=f"netpredict.{kind}"), key=lambda point: point.name)


@functools.cache
def load(kind: str, name: str) -> Plugin:
    """Import the one plugin of this kind and name; PluginError when there is none, two, or an unknown api_version.

    What was loaded stays: a package that is replaced beneath a running daemon has no entry points for a moment.
    """
    points = [point for point in installed(kind) if point.name == name]
    if len(points) != 1:
        known = ", ".join(sorted({point.name for point in installed(kind)})) or "none"
        raise PluginError(f"{len(points)} plugins named {name!r} in netpredict.{kind}; installed: {known}")
    try:
        plugin: Plugin = points[0].load()
    except Exception as error:
        raise PluginError(f"plugin {name!r} ({points[0].value}) cannot be imported: {error}") from error
    if getattr(plugin, "api_version", None) != API_VERSION:
        raise PluginError(f"plugin {name!r} has api_version {plugin.api_version!r}; this release knows {API_VERSION}")
    return plugin


def options_of(plugin: Plugin, raw: dict[str, Any], where: str) -> msgspec.Struct:
    """Decode a plugin's own settings; ConfigError names the key."""
    try:
        return msgspec.convert(raw, plugin.options, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(keyed(where, error)) from error

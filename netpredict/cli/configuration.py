"""``netpredict check-config``, ``sample-config`` and ``config-schema``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netpredict.cli.options import AsJson, config_path
from netpredict.cli.terminal import print_json, print_table
from netpredict.errors import ConfigError, DataError, NetpredictError

if TYPE_CHECKING:
    from netpredict.config import Config
    from netpredict.stream import Stream


def check_config(
    path: Annotated[
        Path | None, typer.Argument(help="Config file [default: netpredict.toml].", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The same.", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Check a config as the daemon would.

    Plugins and their options, routes and the needs of hooks are checked too. Exit code 78: the message names the key.
    """
    file = config_path(path or config)
    try:
        if file is None:
            raise ConfigError(
                "there is no netpredict.toml here; name the file, or begin with: netpredict sample-config"
            )
        checked, streams = checked_config(file)
    except NetpredictError as error:
        if as_json:
            print_json({"ok": False, "path": str(file) if file else None, "error": str(error), "streams": []})
        raise
    rows = [_described(stream, checked) for stream in streams]
    if as_json:
        print_json({"ok": True, "path": str(file), "error": None, "streams": rows})
        return
    columns = ("stream", "topic", "kpis", "predictors", "hooks")
    print_table(f"{file} is right", columns, [[_joined(row[name]) for name in columns] for row in rows])


def checked_config(path: Path) -> tuple[Config, list[Stream]]:
    """A config whose plugins, options, routes and hooks fit together; ConfigError names what does not."""
    from netpredict.config import naming_variables

    with naming_variables():
        return _checked_config(path)


def _checked_config(path: Path) -> tuple[Config, list[Stream]]:
    from netpredict.build import build_actuators, build_streams
    from netpredict.clock import parse_day_windows
    from netpredict.config import load_config
    from netpredict.credentials import CREDENTIALS
    from netpredict.ingest.kafka_access import client_access
    from netpredict.operate.scheduler import RetrainScheduler, ScheduledJob
    from netpredict.plugins import load, options_of
    from netpredict.store.database import database_of

    config = load_config(path)
    database_of(config.store_url)
    if os.environ.get("CREDENTIALS_DIRECTORY") or CREDENTIALS not in repr(config.kafka):
        client_access(config.kafka)  # else only the unit has the files
    RetrainScheduler([ScheduledJob("learn.cron", config.learn.cron, lambda: None)])  # not started
    for hook in config.hooks.values():
        parse_day_windows(hook.blackout_utc, "blackout_utc")
    streams = build_streams(config)
    for name, predictor in config.predictors.items():
        plugin = load("predictors", predictor.plugin)
        options_of(plugin, predictor.options, f"predictors.{name}.options")
    for actuator in build_actuators(config).values():
        actuator.close()
    return config, streams


def _described(stream: Stream, config: Config) -> dict[str, Any]:
    predictors = [name for route in stream.config.routes for name in (route.active, *route.shadows)]
    return {
        "stream": stream.name,
        "topic": stream.config.topic,
        "kpis": stream.config.kpis,
        "levels": list(stream.output.levels),
        "predictors": list(dict.fromkeys(predictors)),
        "hooks": [f"{bound.name} ({bound.config.mode})" for bound in stream.hooks],
    }


def _joined(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def sample_config(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write into this file, which must be new.")
    ] = None,
) -> None:
    """Print a working config with all settings.

    It holds the three default streams, every setting and its default.
    """
    from netpredict.cli.sample import sample_config as text

    if output is None:
        print(text(), end="")
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text())
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror}") from error


def config_schema() -> None:
    """Print the JSON Schema of the config file."""
    import msgspec

    from netpredict.config import Config

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Config)})

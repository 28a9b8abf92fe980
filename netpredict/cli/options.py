"""Options that many commands share, and what they stand for."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from netpredict.errors import ConfigError, DataError

if TYPE_CHECKING:
    from netpredict.config import Config
    from netpredict.store.history import History

DEFAULT_CONFIG = Path("netpredict.toml")
OFFSET_MAX = 2**63 - 1  # of a Kafka offset and of an integer of the store
PARTITION_MAX = 2**31 - 1

ConfigPath: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Config file [default: netpredict.toml when it exists].", show_default=False),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StoreUrl: TypeAlias = Annotated[
    str | None, typer.Option("--url", help="Store [default: store.url of the config].", show_default=False)
]
Limit: TypeAlias = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Most rows.")]
OfStream: TypeAlias = Annotated[str | None, typer.Option("--stream", help="Of this stream only.")]
OfPredictor: TypeAlias = Annotated[str | None, typer.Option("--predictor", help="Of this predictor only.")]
Table: TypeAlias = Annotated[
    Path | None,
    typer.Option("--table", help="Your own CSV or Parquet file; --mapping or --map say what its columns are."),
]
MappingFile: TypeAlias = Annotated[
    Path | None, typer.Option("--mapping", help="TOML file that says what the columns of the table are.")
]
MappingPairs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="KEY=VALUE",
        help="A line of such a file instead, or over it: time_column, time_format (ISO8601, unix_s, unix_ms, unix_us, "
        "%d.%m.%Y ...), time_zone, radio_cell_column, ue_column, kpis.KPI=COLUMN[:UNIT], missing, delimiter, stream.",
    ),
]


def at_most_one(**given: object) -> None:
    """BadParameter when more than one of these options was given."""
    names = [f"--{name}" for name in given]
    if sum(value is not None for value in given.values()) > 1:
        raise typer.BadParameter(f"give only one of {', '.join(names)}", param_hint=names[0])


def config_path(given: Path | None) -> Path | None:
    """The config file in use: the one given, else the default one when it exists."""
    if given is None and DEFAULT_CONFIG.is_file():
        return DEFAULT_CONFIG
    return given


def read_config(given: Path | None) -> Config:
    """The checked config; all defaults when there is no file."""
    from netpredict.config import load_config

    return load_config(config_path(given))


def read_config_of_streams(given: Path | None) -> Config:
    """Like ``read_config``, for commands that need streams."""
    config = read_config(given)
    if not config.streams:
        raise ConfigError(
            f"{config_path(given) or DEFAULT_CONFIG} configures no streams; begin with: netpredict sample-config"
        )
    return config


def store_url(config: Path | None, url: str | None) -> str:
    """Where the store is."""
    return url or read_config(config).store_url


def history(config: Path | None, url: str | None, stream: str | None = None) -> History:
    """The read side of the store; DataError when a stream is asked for that it does not know."""
    from netpredict.store.history import History

    store = History(store_url(config, url))
    if stream is not None:
        known = {row["stream"] for row in (*store.streams(), *store.models())}
        if stream not in known:
            raise DataError(f"the store has no stream {stream!r}; it has {', '.join(sorted(known)) or 'none yet'}")
    return store


def who() -> str:
    """Who runs this command, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"

"""``netpredict doctor``: what an operator wants to know before the first night, each checked against the real thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from netpredict.cli.options import DEFAULT_CONFIG, AsJson, config_path
from netpredict.cli.terminal import print_json, print_table
from netpredict.errors import NetpredictError

if TYPE_CHECKING:
    from netpredict.config import Config, StreamConfig

OK, WARNING, FAILURE = "ok", "warning", "failure"
SAMPLED = 50
SQLITE_MENDED = (3, 51, 3)

Finding = tuple[str, str, str]
"""What was looked at, how it is, and the detail."""


def doctor(
    config: Annotated[Path | None, typer.Argument(help="Config file [default: netpredict.toml].")] = None,
    as_json: AsJson = False,
) -> None:
    """Check config, store, Kafka, topics and plugins where they are; exit 1 when something will not work.

    It changes nothing, and the daemon may run.
    """
    findings = list(_findings(config_path(config) or DEFAULT_CONFIG))
    if as_json:
        print_json({"findings": [dict(zip(("about", "verdict", "detail"), each, strict=True)) for each in findings]})
    else:
        print_table("", ("about", "verdict", "detail"), findings)
    if any(verdict == FAILURE for _, verdict, _ in findings):
        raise typer.Exit(1)


def _findings(path: Path) -> Iterator[Finding]:
    from netpredict.cli.configuration import checked_config

    try:
        config, _ = checked_config(path)
    except NetpredictError as error:
        yield "config", FAILURE, str(error)
        return
    yield "config", OK, f"{path} is right"
    for about, look in _looks(config):
        try:
            yield (about, *look())
        except NetpredictError as error:
            yield about, FAILURE, str(error)


def _looks(config: Config) -> Iterator[tuple[str, Callable[[], tuple[str, str]]]]:
    yield "store", lambda: _schema(config.store_url)
    yield "writer", lambda: _writer(config.store_url)
    if config.store.url.startswith("sqlite"):
        yield "sqlite", _sqlite_version
    yield "kafka", lambda: _kafka(config)
    for name, stream in config.streams.items():
        yield f"stream {name}", lambda stream=stream: _topic(config, stream)  # type: ignore[misc]
    for name in config.hooks:
        yield f"hook {name}", lambda name=name: _lasting(config, name)  # type: ignore[misc]
    for kind, name in sorted(_plugins(config)):
        yield f"plugin {name}", lambda kind=kind, name=name: _origin(kind, name)  # type: ignore[misc]


def _schema(url: str) -> tuple[str, str]:
    from netpredict.store import migrate

    if migrate.current(url) is None:
        return WARNING, "there is no schema yet: run `netpredict db upgrade`, or let the daemon do it"
    migrate.check(url)
    return OK, f"schema {migrate.head()}"


def _writer(url: str) -> tuple[str, str]:
    from netpredict.operate.control import reachable
    from netpredict.store.database import database_of

    database = database_of(url)
    if database.shared:
        return OK, "every process writes for itself"
    path = database.control()
    if path is None:
        return OK, "no daemon has named a control socket; verbs write directly"
    try:
        return (OK, f"a daemon takes verbs at {path}") if reachable(path) else (OK, "no daemon runs")
    except PermissionError:
        return WARNING, f"a daemon runs as another user; verbs that change something need that user, for {path}"


def _sqlite_version() -> tuple[str, str]:
    from netpredict.store.sqlite import VERSION

    shown = ".".join(map(str, VERSION))
    if VERSION >= SQLITE_MENDED:
        return OK, shown
    return WARNING, f"{shown} may damage a WAL that two processes write (mended in 3.51.3): let the daemon write alone"


def _lasting(config: Config, name: str) -> tuple[str, str]:
    from netpredict.act.hook import MobilityPolicy
    from netpredict.build import bind_hook
    from netpredict.types import Mode

    bound = bind_hook(name, config, config.hooks[name].stream)
    policy = bound.hook if isinstance(bound.hook, MobilityPolicy) else None
    every_s = policy.window_s() if policy else config.streams[bound.config.stream].period_s
    effect_s = bound.config.effect_s
    if effect_s < 2 * every_s:
        what = f"it decides every {every_s:g} s, so nothing is refreshed in time: a value that is to stand falls back"
        return WARNING, f"effect_s = {effect_s:g}: {what}; use {2 * every_s:g} or more"
    acts = {bound.config.mode, *(group.mode for group in bound.config.groups)} != {Mode.SHADOW}
    if acts and bound.config.exclude == "effect" and not bound.config.holdout_ratio and not bound.config.groups:
        what = "while actions stand no radio cell is scored: retraining sees nothing new, and the breaker then disarms"
        return WARNING, f'{what}; set holdout_ratio, or exclude = "none" where actions change no observed value'
    return OK, f"what is to stand is refreshed at half of {effect_s:g} s"


def _kafka(config: Config) -> tuple[str, str]:
    from netpredict.ingest.kafka_probe import why_refused

    kafka = config.kafka
    if why := why_refused(kafka, kafka.bootstrap_servers):
        return FAILURE, why
    near = all(server.startswith(("127.0.0.1:", "localhost:", "[::1]:")) for server in kafka.bootstrap_servers)
    if kafka.uses_tls or near:
        return OK, f"{', '.join(kafka.bootstrap_servers)} by {kafka.security_protocol}"
    return WARNING, f"{kafka.security_protocol} beyond loopback: whoever is on the way may read and change records"


def _topic(config: Config, stream: StreamConfig) -> tuple[str, str]:
    with _quiet_clients():
        from netpredict.ingest.kafka_look import newest_records

        records = newest_records(config.kafka, stream.topic, SAMPLED)
    field = stream.series_by[0]
    keyed = [_is_keyed(key, value, field) for key, value in records]
    known = [answer for answer in keyed if answer is not None]
    if not known:
        return OK, f"{stream.topic} is there; {len(records)} records looked at, none of which tells its {field}"
    if all(known):
        return OK, f"{stream.topic}: the keys of {len(known)} records are their {field}"
    wrong = known.count(False)
    return WARNING, (
        f"{stream.topic}: {wrong} of {len(known)} records are not keyed by {field}: a series may change its partition,"
        " where it begins cold"
    )


def _is_keyed(key: bytes | None, value: bytes | None, field: str) -> bool | None:
    """Whether a record is keyed by a field of its own; None when it is no JSON object that has it."""
    try:
        named = msgspec.json.decode(value or b"")[field]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, IndexError):
        return None
    return key == str(named).encode()


@contextmanager
def _quiet_clients() -> Iterator[None]:
    import logging

    logger = logging.getLogger("kafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _plugins(config: Config) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = {("decoders", stream.decoder) for stream in config.streams.values()}
    sections: dict[str, dict[str, Any]] = {
        "predictors": dict(config.predictors),
        "hooks": dict(config.hooks),
        "actuators": dict(config.actuators),
    }
    return found | {(kind, bound.plugin) for kind, entries in sections.items() for bound in entries.values()}


def _origin(kind: str, name: str) -> tuple[str, str]:
    from netpredict.plugins import installed

    (point,) = [point for point in installed(kind) if point.name == name]
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "no package"
    if point.dist and point.dist.name == "netpredict":
        return OK, f"{kind}, of {package}"
    return WARNING, f"{kind}, {point.value} of {package}: it runs with all rights of the daemon; do you trust it?"

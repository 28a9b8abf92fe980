"""The direction of imports and the homes of the heavy libraries as the design has them, read from the source.

Imports inside functions count too: they run as well.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOUNDATION = ("crash", "types", "errors", "clock", "calendar", "config", "plugins", "credentials", "printing")
# lowest first; parts in one layer do not import each other, but the foundation's do
LAYERS = (
    FOUNDATION,
    ("radio",),
    ("ingest", "forecast", "act", "store"),
    ("lane",),
    ("decide",),
    ("stream",),
    ("rounds", "transplant", "exclusion"),
    ("takeover",),
    ("gather",),
    ("pipeline", "build"),
    ("learn", "traces"),
    ("evaluate",),
    ("operate",),
    ("cli",),
)
# the fakes and contract checks for plugin authors stand beside the layers: nothing in netpredict imports them
BESIDE = ("testing",)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

PUBLIC_TO_PLUGINS = (
    "netpredict.types",
    "netpredict.errors",
    "netpredict.credentials",
    "netpredict.radio",
    "netpredict.plugins",
    "netpredict.testing",
    "netpredict.forecast.adapt",
    "netpredict.forecast.recurrent",
    "netpredict.forecast.convolution",
    "netpredict.forecast.plain",
    "netpredict.forecast.predictor",
    "netpredict.act.hook",
    "netpredict.config.KafkaConfig",
    "netpredict.ingest.cloudevents",
    "netpredict.ingest.kafka.new_client",
    "netpredict.ingest.kafka.unavailable",
    "netpredict.ingest.kafka_access",
    "netpredict.ingest.messages",
    "netpredict.ingest.decode",
    "netpredict.ingest.document",
    "netpredict_plugins",
)

KERAS_HOMES = (
    "netpredict/forecast/backend.py",
    "netpredict/learn/train.py",
    "plugins/predictors/",
)
KAFKA_HOMES = (
    "netpredict/ingest/kafka.py",
    "netpredict/ingest/kafka_look.py",
    "netpredict/ingest/kafka_probe.py",
    "netpredict/operate/publisher.py",
    "plugins/actuators/kafka/",
)
SQL_HOMES = ("netpredict/store/", "alembic/")
HOMES = {
    "kafka": KAFKA_HOMES,
    "confluent_kafka": KAFKA_HOMES,
    "httpx": ("plugins/actuators/webhook/",),
    "keras": KERAS_HOMES,
    "tensorflow": KERAS_HOMES,
    "sqlalchemy": SQL_HOMES,
    "alembic": SQL_HOMES,
    "psycopg": SQL_HOMES,
    "sqlite3": SQL_HOMES,
    "apscheduler": ("netpredict/operate/scheduler.py",),
    "typer": ("netpredict/cli/",),
    "plotly": ("netpredict/evaluate/frame.py",),
}


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Every module that ships, with its path from the root; tests of plugins do not ship a rule of their own."""
    files = [file for top in ("netpredict", "plugins", "alembic") for file in sorted((ROOT / top).rglob("*.py"))]
    names = {
        file.relative_to(ROOT).as_posix(): file for file in files if "migrations" not in file.relative_to(ROOT).parts
    }
    return tuple((name, ast.parse(file.read_text(), name)) for name, file in names.items())


def imported(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of each import; ``from a import b`` yields a.b, as b may be a module."""
    package = path.replace("plugins/", "netpredict_plugins/", 1).split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{stem}.{alias.name}"


def part_of(dotted: str) -> str | None:
    """Return the part of netpredict that a dotted name lies in: ``netpredict.radio.tables`` is in ``radio``."""
    top, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if top == "netpredict" and rest else None


def wrong_way(path: str, tree: ast.Module) -> list[str]:
    own = path.removeprefix("netpredict/").removesuffix(".py").split("/")[0]
    found: list[str] = []
    if own not in RANK:  # told by test_every_module_has_its_layer
        return found
    for line, name in imported(path, tree):
        other = part_of(name)
        if other is None or other == own or other not in (*RANK, *BESIDE):
            continue
        allowed = other in RANK and (RANK[other] < RANK[own] or (own in FOUNDATION and other in FOUNDATION))
        if not allowed:
            found.append(f"{path}:{line} {own} imports {name}")
    return found


def away_from_home(path: str, tree: ast.Module) -> list[str]:
    found = []
    for line, name in imported(path, tree):
        homes = HOMES.get(name.partition(".")[0])
        if homes and not path.startswith(homes):
            found.append(f"{path}:{line} imports {name}, at home in {', '.join(homes)}")
    return found


def not_public(path: str, tree: ast.Module) -> list[str]:
    """A plugin's test may also use what any test uses, but of netpredict only the same names."""
    found = []
    for line, name in imported(path, tree):
        ours = name.partition(".")[0] in {"netpredict", "netpredict_plugins", "plugins", "tests"}
        public = any(name == module or name.startswith(f"{module}.") for module in PUBLIC_TO_PLUGINS)
        if ours and not public:
            found.append(f"{path}:{line} imports {name}")
    return found


def shipped() -> list[tuple[str, ast.Module]]:
    return [(path, tree) for path, tree in modules() if not path.rsplit("/", 1)[-1].startswith("test_")]


def test_imports_go_one_way() -> None:
    ours = [
        (path, tree) for path, tree in shipped() if path.startswith("netpredict/") and path != "netpredict/__init__.py"
    ]
    ours = [(path, tree) for path, tree in ours if path.split("/")[1].removesuffix(".py") not in BESIDE]
    assert [finding for path, tree in ours for finding in wrong_way(path, tree)] == []


def test_every_module_has_its_layer() -> None:
    parts = {path.split("/")[1].removesuffix(".py") for path, _ in modules() if path.startswith("netpredict/")}
    assert parts - RANK.keys() - set(BESIDE) - {"__init__", "__main__"} == set()


def test_heavy_libraries_stay_at_home() -> None:
    assert [finding for path, tree in shipped() for finding in away_from_home(path, tree)] == []


def test_plugins_import_public_names_only() -> None:
    plugins = [(path, tree) for path, tree in modules() if path.startswith("plugins/")]
    assert [finding for path, tree in plugins for finding in not_public(path, tree)] == []


def test_no_module_is_a_drawer() -> None:
    names = {part for path, _ in modules() for part in path.removesuffix(".py").split("/")}
    assert names & {"utils", "util", "helpers", "common", "core", "base", "misc"} == set()


@pytest.mark.parametrize(
    ("check", "path", "source", "caught"),
    [
        (wrong_way, "netpredict/ingest/align.py", "from netpredict.forecast.score import Scores", True),
        (wrong_way, "netpredict/ingest/align.py", "from netpredict import store", True),
        (wrong_way, "netpredict/ingest/align.py", "from ..act import hook", True),
        (wrong_way, "netpredict/radio/link.py", "def f():\n    import netpredict.pipeline", True),
        (wrong_way, "netpredict/pipeline.py", "from netpredict.testing import FakeStore", True),
        (wrong_way, "netpredict/ingest/align.py", "from netpredict.types import Slot\nfrom . import decode", False),
        (wrong_way, "netpredict/config.py", "from netpredict.errors import ConfigError", False),
        (away_from_home, "netpredict/ingest/source.py", "from kafka import KafkaConsumer", True),
        (away_from_home, "netpredict/ingest/kafka.py", "from kafka import KafkaConsumer", False),
        (away_from_home, "alembic/env.py", "from alembic import context", False),
        (not_public, "plugins/hooks/mcs/__init__.py", "from netpredict.store.schema import firing", True),
        (not_public, "plugins/hooks/mcs/test_mcs.py", "from plugins.hooks.mcs import PLUGIN", True),
        (not_public, "plugins/hooks/mcs/__init__.py", "from netpredict.radio import tables\nimport numpy", False),
    ],
)
def test_the_checks_catch_what_they_should(check, path: str, source: str, caught: bool) -> None:
    assert bool(check(path, ast.parse(source))) is caught

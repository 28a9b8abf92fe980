"""What every row of the fault catalogue uses; see README.md here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from netpredict.store import migrate
from tests.faults.supervisor import Supervisor, supervisor
from tests.faults.world import World
from tests.services.kafka_broker import KafkaBroker

LINE = pytest.StashKey["Line"]()
PROPERTY = "fault"
FIGURES = Path("build/faults.json")


@dataclass
class Line:
    """One line of the table: what a test of a row did, and what came of it."""

    row: str
    test: str
    seeds: list[int]
    events: str
    records: int
    seconds: float
    verdict: str


class Recorder:
    """Call it at the end of a test: ``record("F1", seeds, "100 kills", world.records, "O holds")``.

    A test that does not come to its end is a line with the verdict ``failed``; ``about`` says early what it is about.
    """

    def __init__(self, item: pytest.Item) -> None:
        self.line = Line("", item.name, [], "", 0, 0.0, "failed")
        self._began_s = time.monotonic()
        item.stash[LINE] = self.line

    def about(self, row: str, *seeds: int) -> None:
        """Name the row and the seeds before anything can fail."""
        self.line.row, self.line.seeds = row, list(seeds)

    def __call__(self, row: str, seeds: list[int], events: str, records: int, verdict: str) -> None:
        """``events``: killed or cut how often; ``records``: how many went through."""
        self.line.row, self.line.seeds, self.line.events = row, seeds, events
        self.line.records, self.line.verdict = records, verdict
        self.line.seconds = round(time.monotonic() - self._began_s, 1)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Writes this test's line of the table."""
    return Recorder(request.node)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """The line goes with the report: the test may run in another process than the one that writes the table."""
    if call.when == "call" and (line := item.stash.get(LINE, None)):
        item.user_properties.append((PROPERTY, asdict(line)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table, at the end of the run and in build/faults.json."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    found = [
        Line(**value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    lines = sorted(found, key=lambda line: (int(line.row.lstrip("F") or 0), line.test))
    if not lines:
        return
    terminalreporter.section("fault catalogue")
    terminalreporter.write_line(f"{'row':<4} {'seeds':<14} {'events':<44} {'records':>8} {'s':>6}  verdict")
    for line in lines:
        seeds = ",".join(map(str, line.seeds))
        cells = f"{line.row:<4} {seeds:<14} {line.events:<44} {line.records:>8} {line.seconds:>6}  {line.verdict}"
        terminalreporter.write_line(f"{cells}  ({line.test})")
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


def scales(name: str, short: Any, long: Any) -> pytest.MarkDecorator:
    """Parametrise a test by its length: ``short`` runs in `make test`, ``long`` in `make faults` only."""
    return pytest.mark.parametrize(
        name, [pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.faults)]
    )


@pytest.fixture
def daemons() -> Iterator[Supervisor]:
    """Starts real daemons; what still runs is ended with the test."""
    with supervisor() as made:
        yield made


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.faults])])
def dialect(request: pytest.FixtureRequest) -> str:
    """SQLite, in `make faults` PostgreSQL too, unless a test asks for one by ``indirect`` parametrisation."""
    return str(request.param)


@pytest.fixture
def store_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with the newest schema."""
    if dialect == "postgresql":
        url = str(request.getfixturevalue("postgres").new_database("faults"))
    else:
        url = f"sqlite:///{tmp_path}/store.db"
    migrate.upgrade(url)
    return url


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(broker: KafkaBroker, store_url: str, tmp_path: Path) -> Iterator[MakeWorld]:
    """``make_world(seed, …)`` gives a ``World`` on topics of its own over ``store_url``."""
    made: list[World] = []

    def make(seed: int, **options: Any) -> World:
        made.append(World(broker, tmp_path, store_url, seed, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()

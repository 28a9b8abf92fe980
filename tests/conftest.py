"""Fixtures with real servers, and the rule that CI may not skip them."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.services.kafka_broker import KafkaBroker
from tests.services.postgres import Postgres
from tests.services.process import ServiceMissing
from tests.services.wheel import build_wheel, install

SERVICES = ("broker", "postgres")

# A busy machine is no fault. Where a change is checked, its own examples are the same each time.
settings.register_profile(
    "netpredict",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("NETPREDICT_REQUIRE_SERVICES") == "1",
)
settings.load_profile("netpredict")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests by the servers that they use and by the folder that they lie in."""
    for item in items:
        for service in SERVICES:
            if service in getattr(item, "fixturenames", ()):
                item.add_marker(service)
        if "benchmarks" in item.path.parts:
            item.add_marker("benchmark")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NETPREDICT_REQUIRE_SERVICES=1 a skipped test that bears the mark of a service has failed."""
    report = yield
    needed = [service for service in SERVICES if item.get_closest_marker(service)]
    if report.skipped and needed and os.environ.get("NETPREDICT_REQUIRE_SERVICES") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"NETPREDICT_REQUIRE_SERVICES=1 forbids to skip a test of {', '.join(needed)}: {reason}"
    return report


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One Kafka broker for all tests; each test makes its own topics with ``broker.new_topic(stem, partitions)``."""
    try:
        server = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests; each test makes its own database with ``postgres.new_database()``."""
    try:
        server = Postgres()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real traces, ``$NETPREDICT_DATA``."""
    folder = Path(os.environ.get("NETPREDICT_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real traces in {folder} (set NETPREDICT_DATA)")
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built once."""
    return build_wheel(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def installed_wheel(wheel: Path) -> Iterator[Path]:
    """The ``netpredict`` executable of an empty environment that holds the wheel and its locked needs, nothing else."""
    with tempfile.TemporaryDirectory(prefix="netpredict-wheel-") as folder:
        yield install(wheel, Path(folder))

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netpredict.store import migrate
from netpredict.store.sql import SqlStore

DIALECTS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]

NewUrl = Callable[[], str]


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """Every test of a store runs on each database."""
    return str(request.param)


@pytest.fixture
def new_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """Makes URLs of databases that are still without a schema."""
    made = 0

    def new() -> str:
        nonlocal made
        made += 1
        if dialect == "postgresql":
            return str(request.getfixturevalue("postgres").new_database("store"))
        return f"sqlite:///{tmp_path}/store{made if made > 1 else ''}.db"

    return new


@pytest.fixture
def url(new_url: NewUrl) -> str:
    """A store with the newest schema."""
    url = new_url()
    migrate.upgrade(url)
    return url


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with SqlStore(url) as store:
        yield store

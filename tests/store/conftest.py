from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netpredict.store import migrate
from netpredict.store.sql import SqlStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store on disk with the newest schema."""
    url = f"sqlite:///{tmp_path}/store.db"
    migrate.upgrade(url)
    return url


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with SqlStore(url) as store:
        yield store

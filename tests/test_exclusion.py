"""What own actions changed is left out of scores and training: by the control journal, the same whatever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netpredict.store.commit import EXCLUDE
from netpredict.store.compare import difference, dump
from netpredict.store.history import History
from netpredict.types import Quality, TopicPartition
from tests.pipeline_world import MINUTE_US, START_US
from tests.test_transplant import P0, P1, Life, lived


def asked(*cells: str, begin: int = 20, end: int = 30) -> dict[str, Any]:
    at = START_US + 20_000_000
    return {
        "action": "f1",
        "radio_cells": list(cells),
        "from_us": at + begin * MINUTE_US,
        "until_us": at + end * MINUTE_US,
    }


def excluded(life: Life) -> set[tuple[str, int]]:
    """(radio cell, minute) of the observations that bear the flag."""
    rows = dump(life.url, ["observation"])["observation"]
    return {(row[5], (row[4] - START_US) // MINUTE_US) for row in rows if row[9] & Quality.EXCLUDED}


def scored(life: Life) -> int:
    return sum(row[10] for row in dump(life.url, ["score"])["score"] if row[8] == 1)


def test_slots_behind_an_action_are_flagged_and_not_scored(tmp_path: Path) -> None:
    alone = lived(tmp_path / "alone.db", {})
    life = lived(tmp_path / "a.db", {(P0, 60): (EXCLUDE, asked("cell-0", "late"))})
    minutes = {minute for _, minute in excluded(life)}
    assert {cell for cell, _ in excluded(life)} == {"cell-0", "late"}
    assert minutes == set(range(min(minutes), max(minutes) + 1))
    assert len(minutes) == 10
    assert scored(alone) > scored(life) > 0
    assert life.journal(EXCLUDE) == [(P0, 60, EXCLUDE, asked("cell-0", "late"))]
    assert life.waiting() == 0


def test_training_reads_over_what_was_excluded(tmp_path: Path) -> None:
    life = lived(tmp_path / "a.db", {(P0, 60): (EXCLUDE, asked("cell-0"))})
    column = ["prb_use_dl_percent"]
    found = History(life.url).observations("traffic", column, MINUTE_US, 20_000_000, 40, keys=["cell-0", "cell-1"])
    missing = dict(zip(found.keys, (found.values != found.values).sum(axis=(1, 2)).tolist(), strict=True))
    assert missing["cell-0"] == missing["cell-1"] + 10


def test_forecasts_go_on_from_what_is_really_there(tmp_path: Path) -> None:
    alone = lived(tmp_path / "alone.db", {})
    life = lived(tmp_path / "a.db", {(P0, 60): (EXCLUDE, asked("cell-0", end=10_000))})
    assert life.state("cell-0") == alone.state("cell-0")


@pytest.mark.parametrize("begins", [5, 21])
def test_a_radio_cell_that_appears_later_is_excluded_too(tmp_path: Path, begins: int) -> None:
    life = lived(tmp_path / "a.db", {(P0, 9): (EXCLUDE, asked("late", begin=begins, end=25))}, stops=(3, 2), poll=9)
    assert {cell for cell, _ in excluded(life)} == {"late"}


Asks = dict[tuple[TopicPartition, int], tuple[str, Any]]
INTERVALS = st.tuples(st.sampled_from(["cell-0", "cell-1", "late", "nobody"]), st.integers(0, 30), st.integers(1, 15))
PLACES = st.tuples(st.just(P0), st.integers(3, 120)) | st.tuples(st.just(P1), st.integers(3, 50))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.dictionaries(PLACES, INTERVALS, min_size=1, max_size=4),
    poll=st.integers(1, 40),
    stops=st.lists(st.integers(1, 9), max_size=3),
)
def test_a_replay_of_log_and_journal_gives_the_store_that_deaths_gave(
    tmp_path_factory: pytest.TempPathFactory, wanted: Any, poll: int, stops: list[int]
) -> None:
    """An exclusion that a death left waiting takes effect elsewhere: the journal says where."""
    folder = tmp_path_factory.mktemp("run")
    asks: Asks = {at: (EXCLUDE, asked(cell, begin=b, end=b + n)) for at, (cell, b, n) in wanted.items()}
    died = lived(folder / "died.db", asks, poll, stops=stops, commit_every=2)
    entered: Asks = {}
    for place, offset, kind, payload in died.journal(EXCLUDE):
        if (place, offset) in entered:
            return  # two at one place: the world asks for one
        entered[place, offset] = (kind, payload)
    replayed = lived(folder / "replayed.db", entered)
    assert difference(dump(died.url), dump(replayed.url)) == []

"""Every action of the hooks in the tree says what it was decided from, over a log with gaps and rubbish."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from netpredict.store import migrate
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from tests import pipeline_world
from tests.act.stories import assert_reasoned

COSTS = {"bandwidth": {"tau", "c_under", "c_over"}, "handover": {"quantile"}, "mcs": {"price_bps_hz", "worth_bps_hz"}}
"""What each hook weighs."""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path: Path = tmp_path_factory.mktemp("reasons") / "store.db"
    migrate.upgrade(url := f"sqlite:///{path}")
    rows = {
        "ran.traffic": pipeline_world.traffic_rows(),
        "ran.rsrp": pipeline_world.report_rows(),
        "ran.channel": pipeline_world.channel_rows(),
    }
    with SqlStore(url) as store:
        pipeline_world.World(pipeline_world.filled(rows)).run(store, poll=100)
    return History(url).firings(limit=100_000)


def test_every_action_tells_its_inputs_forecasts_with_interval_rule_and_costs(stories: list[dict[str, Any]]) -> None:
    assert Counter(story["hook"] for story in stories).keys() == COSTS.keys()
    for story in stories:
        assert_reasoned(story["why"])
        assert story["why"].keys() >= COSTS[story["hook"]], story["why"]
        assert story["series"]
    sources = {story["why"]["basis"]["source"] for story in stories}
    assert {"model", "naive"} <= sources, "both with a version and without one"

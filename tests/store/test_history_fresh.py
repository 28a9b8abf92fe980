"""The newest forecast of each series at once, as ``netpredict crossings`` ranks them."""

from __future__ import annotations

from netpredict.store.commit import Commit
from netpredict.store.history import History
from netpredict.store.sql import SqlStore
from tests.store.store_builders import STREAM, forecasts, ids, lane_commit, run, slot_time


def test_each_series_once_with_its_newest_forecast(store: SqlStore) -> None:
    run(store, slots=3)
    found = list(History(store.url).fresh_forecasts(STREAM, 10))
    assert sorted(row["series"] for row in found) == ["cell-0", "cell-1", "cell-2"]
    assert {row["slot_time_us"] for row in found} == {slot_time(3)}
    (alone,) = History(store.url).forecasts(STREAM, "cell-1", limit=1)
    (same,) = [row for row in found if row["series"] == "cell-1"]
    assert same["values"] == alone["values"]


def test_series_that_fell_silent_and_other_streams_are_left_out(store: SqlStore) -> None:
    lane, model_id = run(store, slots=2)
    store.commit(Commit([lane_commit(lane, 20, 30, forecasts=[forecasts(lane, model_id, 8, [1])])]))
    history = History(store.url)
    assert [row["series"] for row in history.fresh_forecasts(STREAM, 3)] == ["cell-1"]
    assert len(list(history.fresh_forecasts(STREAM, 7))) == 3
    assert list(history.fresh_forecasts("other", 7)) == []


def test_a_retired_series_is_left_out(store: SqlStore) -> None:
    lane, _ = run(store, slots=2)
    store.commit(Commit([lane_commit(lane, 20, 30, retired_series=[int(ids(lane, [2])[0])])]))
    assert [row["series"] for row in History(store.url).fresh_forecasts(STREAM, 3)] == ["cell-0", "cell-1"]

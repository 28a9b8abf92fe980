from __future__ import annotations

import json
import math

import numpy as np
import pytest

from netpredict.errors import StoreError
from netpredict.store.commit import Commit, RetrainRow
from netpredict.store.history import History
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import MISSING_TICKS, Outcome, OutcomeKind, TopicPartition
from tests.store.store_builders import (
    PERIOD_US,
    PHASE_US,
    STREAM,
    assign,
    forecasts,
    ids,
    lane_commit,
    letter,
    observations,
    record,
    register,
    run,
    score,
    slot_time,
)


@pytest.fixture
def history(store: SqlStore) -> History:
    return History(store.url)


def test_every_list_is_plain_json(store: SqlStore, history: History) -> None:
    run(store, slots=2)
    store.record_audit("root", "db upgrade", {"from": None})
    store.record_retrain(RetrainRow(STREAM, "gru", 1, "refused", None, {"loss": 1.5}))
    lists = [
        history.progress(),
        history.streams(),
        history.series(),
        history.forecasts(STREAM, "cell-0"),
        history.recent_observations(STREAM, "cell-0"),
        history.scores(),
        history.models(),
        history.firings(),
        history.dead_letters(),
        history.dead_letter_reasons(),
        history.gaps(),
        history.retrain_runs(),
        history.audit(),
        history.skill(),
    ]
    assert all(lists)
    json.dumps(lists)


def test_progress_and_streams(store: SqlStore, history: History) -> None:
    run(store, slots=2)
    assert history.progress("other") == []
    (row,) = history.progress("group")
    assert (row["topic"], row["partition"], row["next_offset"], row["accepted"]) == ("cells", 0, 20, 20)
    (stream,) = history.streams()
    assert (stream["stream"], stream["topic_partitions"], stream["series"]) == (STREAM, 1, 3)


def test_series_by_key_or_pattern(store: SqlStore, history: History) -> None:
    lane, _ = run(store, slots=2)
    store.commit(Commit([lane_commit(lane, 20, 30, retired_series=[int(ids(lane, [2])[0])])]))
    assert [row["series"] for row in history.series(key="cell-*")] == ["cell-0", "cell-1"]
    assert [row["series"] for row in history.series(retired=True)] == ["cell-0", "cell-1", "cell-2"]
    assert [row["last_slot"] for row in history.series(STREAM, key="cell-1")] == [2]
    assert len(history.series(limit=1)) == 1


def test_forecasts_come_newest_first_in_units(store: SqlStore, history: History) -> None:
    lane, model_id = run(store, slots=3)
    rows = history.forecasts(STREAM, "cell-1", limit=2)
    assert [row["slot_time_us"] for row in rows] == [slot_time(3), slot_time(2)]
    ticks = forecasts(lane, model_id, 3, range(3)).ticks[1].reshape(2, 4, 3)
    assert rows[0]["values"] == {"dl": (ticks[0] / 10).tolist(), "ul": (ticks[1] / 1000).tolist()}
    assert rows[0]["sources"] == {"dl": "model", "ul": "naive"}
    bounded = history.forecasts(STREAM, "cell-1", from_us=slot_time(2), to_us=slot_time(2))
    assert [row["slot_time_us"] for row in bounded] == [slot_time(2)]
    assert history.forecasts(STREAM, "cell-1", predictor="lstm") == []
    assert history.forecasts(STREAM, "nobody") == []
    assert history.forecasts("nothing", "cell-1") == []


def test_forecasts_of_a_retired_series_can_still_be_read(store: SqlStore, history: History) -> None:
    lane, _ = run(store, slots=2)
    store.commit(Commit([lane_commit(lane, 20, 30, retired_series=[int(ids(lane, [2])[0])])]))
    assert len(history.forecasts(STREAM, "cell-2")) == 2
    assert len(history.recent_observations(STREAM, "cell-2", limit=1)) == 1


def test_firings_bear_their_outcomes(store: SqlStore, history: History) -> None:
    run(store, slots=2)
    outbox = SqlOutbox(store)
    for entry in outbox.pending(1):
        record(outbox, entry.firing, entry.actuator_name, Outcome(OutcomeKind.FAILED, "refused", "403", 3), 9)
    newest, oldest = history.firings()
    assert [outcome["kind"] for outcome in newest["outcomes"]] == [None, None]
    assert [outcome["reason"] for outcome in oldest["outcomes"]] == ["refused", "refused"]
    assert oldest["value"] == {"quota": 11}
    assert [row["firing_id"] for row in history.firings(pending=True)] == ["firing-2"]
    assert history.firings(hook="mcs") == []


def test_dead_letters_by_reason_and_offset(store: SqlStore, history: History) -> None:
    lane = assign(store)
    letters = [letter(1, value=b"\xff{"), letter(2, "late"), letter(5, "late", value=None)]
    store.commit(Commit([lane_commit(lane, 0, 6, dead_letters=letters)]))
    assert [row["offset"] for row in history.dead_letters(reason="late")] == [2, 5]
    assert [row["offset"] for row in history.dead_letters(from_offset=2, limit=1)] == [2]
    assert history.dead_letters()[0]["value"] == "\\xff{"
    assert history.dead_letter_value("cells", 0, 1) == (b"k", b"\xff{")
    assert [(row["reason"], row["dead_letters"]) for row in history.dead_letter_reasons()] == [
        ("late", 2),
        ("undecodable", 1),
    ]
    with pytest.raises(StoreError, match="offset 99"):
        history.dead_letter_value("cells", 0, 99)


def test_skill_sums_topic_partitions_and_buckets_in_units(store: SqlStore, history: History) -> None:
    _, model_id = run(store, slots=1)
    other_partition = TopicPartition("cells", 1)
    other = assign(store, other_partition)
    more = score(model_id, bucket=2, n=6, abs_ticks=10, square_ticks=50, below=(1, 3, 5), pinball=(3000, 4000, 5000))
    store.commit(Commit([lane_commit(other, 0, 1, topic_partition=other_partition, scores=[more])]))
    (row,) = history.skill(STREAM)
    assert (row["n"], row["predictor"], row["source"], row["kpi"], row["lead_steps"]) == (10, "gru", "model", "dl", 1)
    assert row["mae"] == pytest.approx(0.3)
    assert row["rmse"] == pytest.approx(math.sqrt((2**70 + 50) / 10) / 10)
    assert row["naive_mae"] == pytest.approx(0.8)
    assert row["skill"] == pytest.approx(1 - 30 / 80)
    assert row["seasonal_mae"] == pytest.approx(0.6)
    assert row["skill_best"] == pytest.approx(1 - 30 / 60)
    assert row["wape"] == pytest.approx(30 / 800)
    assert row["mase"] is None
    assert row["coverage"] == {"0.1..0.9": pytest.approx(0.8)}
    assert row["pinball"] == pytest.approx((4 + 6 + 8) / 3 / 10 / 10)
    (newest,) = history.skill(STREAM, from_bucket=2)
    assert newest["n"] == 6


def test_skill_is_none_where_naive_never_errs(store: SqlStore, history: History) -> None:
    lane, model_id = run(store, slots=1)
    store.commit(Commit([lane_commit(lane, 10, 20, scores=[score(model_id, bucket=1, naive_abs_ticks=0)])]))
    assert history.skill()[0]["skill"] is None


def test_observations_for_training_are_dense_and_aligned(store: SqlStore, history: History) -> None:
    lane, _ = run(store, slots=5)
    late = observations(lane, 6, [1])
    late.ticks[0, 1] = MISSING_TICKS
    store.commit(Commit([lane_commit(lane, 50, 60, observations=[late])]))
    found = history.observations(STREAM, ["users", "ul"], PERIOD_US, PHASE_US, steps=3)
    assert found.keys == ["cell-0", "cell-1", "cell-2"]
    assert found.first_slot.tolist() == [4, 4, 4]
    assert found.values.shape == (3, 3, 2)
    assert found.values.dtype == np.float32
    expected = observations(lane, 5, range(3)).ticks
    np.testing.assert_allclose(found.values[:, 1, 0], expected[:, 2])
    np.testing.assert_allclose(found.values[:, 1, 1], expected[:, 1] / 1000, rtol=1e-6)
    assert np.isnan(found.values[[0, 2], 2]).all()
    assert found.values[1, 2, 0] == late.ticks[0, 2]
    assert np.isnan(found.values[1, 2, 1])


def test_observations_of_some_series(store: SqlStore, history: History) -> None:
    run(store, slots=2)
    assert history.observations(STREAM, ["dl"], PERIOD_US, PHASE_US, 2, series_max=2).keys == ["cell-0", "cell-1"]
    assert history.observations(STREAM, ["dl"], PERIOD_US, PHASE_US, 2, keys=["cell-2"]).keys == ["cell-2"]
    nothing = history.observations("nothing", ["dl"], PERIOD_US)
    assert (nothing.keys, nothing.values.shape) == ([], (0, 0, 1))


def test_sums_are_of_finished_buckets_also_beside_a_lane_that_was_never_committed(store: SqlStore) -> None:
    assert History(store.url).newest_bucket(STREAM) is None
    lane, model_id = assign(store), register(store)
    assign(store, TopicPartition("elsewhere", 7))
    scores = [score(model_id, bucket=bucket) for bucket in (3, 4)]
    commit = lane_commit(lane, 0, 1, scores=scores, state='{"bucket":4}')
    store.commit(Commit([commit]))
    (row,) = History(store.url).bucket_sums([model_id])
    assert (row["bucket"], row["n"], row["pinball"], row["covered"], row["spread"]) == (3, 4, 6000, 4, 4)
    assert History(store.url).bucket_sums([model_id], from_bucket=4) == []
    assert History(store.url).newest_bucket(STREAM) == 4

from __future__ import annotations

import numpy as np
import pytest

from netpredict.errors import ConfigError, DataError
from netpredict.store import mobility
from netpredict.store.commit import ColumnLayout, Commit, ObservationRows
from netpredict.store.history import History
from netpredict.store.mobility import MobilityHistory
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import MISSING_TICKS, LastSet, Lease, Mode, Outcome, OutcomeKind, Quality, Served, Settled
from tests.store.store_builders import PERIOD_US, STREAM, assign, firing, ids, lane_commit, slot_time, take_knowing

COLUMNS = ColumnLayout(STREAM, ("rsrp_dbm", "serving"), (1, 0))
APPLIED = Outcome(OutcomeKind.APPLIED, "verified")
KEYS = ["ue-1|cell-a", "ue-1|cell-b", "ue-2|cell-a"]


def put(store: SqlStore, layout: ColumnLayout = COLUMNS) -> None:
    """Two slots of two UEs; in the second UE 1 is in cell-b without a level, and UE 2 is suspect."""
    lane = assign(store)
    rows = ObservationRows(
        layout,
        np.repeat([slot_time(1), slot_time(2)], 3),
        np.tile(ids(lane, range(3)), 2),
        np.repeat([slot_time(1), slot_time(2)], 3),
        np.array([0, 0, 0, 0, 0, int(Quality.SUSPECT)], dtype=np.uint8),
        np.array([[-905, 1], [-950, 0], [-1001, 1], [-1100, 0], [MISSING_TICKS, 1], [-1002, 1]], dtype=np.int32),
    )
    keys = [(int(number), key, 1, True) for number, key in zip(ids(lane, range(3)), KEYS, strict=True)]
    store.commit(Commit([lane_commit(lane, 0, 6, observations=[rows], new_series=keys, state='{"bucket":7}')]))


@pytest.mark.parametrize("slots_per_read", [1, 64])
def test_who_served_whom_comes_by_slot_without_suspect_rows(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, slots_per_read: int
) -> None:
    monkeypatch.setattr(mobility, "SLOTS_PER_READ", slots_per_read)
    put(store)
    history = MobilityHistory(store.url)
    served = list(history.served(STREAM, PERIOD_US, slot_time(1), slot_time(3)))
    assert served == [
        Served(slot_time(1), "ue-1", "cell-a", -90.5),
        Served(slot_time(1), "ue-2", "cell-a", -100.1),
        Served(slot_time(2), "ue-1", "cell-b", None),
    ]
    assert list(history.served(STREAM, PERIOD_US, slot_time(2), slot_time(2))) == []
    assert history.buckets(STREAM) == [7]


def test_a_stream_that_stores_other_columns_is_refused(store: SqlStore) -> None:
    put(store, ColumnLayout(STREAM, ("rsrp_dbm", "rank"), (1, 0)))
    with pytest.raises(ConfigError, match="rsrp_dbm and serving"):
        list(MobilityHistory(store.url).served(STREAM, PERIOD_US, 0, 10))


def test_what_is_set_is_the_newest_that_was_applied_and_not_taken_back(store: SqlStore) -> None:
    assign(store)
    outbox, history = SqlOutbox(store), MobilityHistory(store.url)
    assert history.last_set("cell-1", "prb_quota", 0) is None
    for number in (1, 2):
        assert store.fire([firing(number)], ["log"], False)
        apply_next(outbox, number)
    assert history.last_set("cell-1", "prb_quota", 0) == LastSet({"quota": 12}, slot_time(2))
    store.begin_reversal("firing-2", "asked", "ann")
    store.end_reversal("firing-2", "log", Outcome(OutcomeKind.APPLIED, "reverted"))
    assert history.last_set("cell-1", "prb_quota", 0) == LastSet({"quota": 11}, slot_time(2)), "changed then"
    ended = history.last_set("cell-1", "prb_quota", firing(1).effect_until_us)
    assert ended == LastSet({}, slot_time(2)), "the older one has ended by itself"


def apply_next(outbox: SqlOutbox, at_us: int, refreshes: str = "") -> None:
    (item,) = outbox.pending(10)
    firing = item.firing
    take_knowing(outbox, item, Lease("bandwidth", firing.firing_id, 0, firing.effect_until_us), at_us)
    outbox.record([Settled(*item, APPLIED, at_us, refreshes=refreshes)])


def test_a_refresh_leaves_what_is_set_as_old_as_it_is_and_is_taken_back_with_it(store: SqlStore) -> None:
    assign(store)
    outbox, history = SqlOutbox(store), MobilityHistory(store.url)
    for number, value, refreshes in ((1, 5, ""), (2, 7, ""), (3, 7, "firing-2"), (4, 7, "firing-2")):
        why = {"refreshes": refreshes} if refreshes else {}
        store.fire([firing(number, value={"quota": value}, why=why)], ["log"], False)
        apply_next(outbox, number, refreshes)
    assert history.last_set("cell-1", "prb_quota", 0) == LastSet({"quota": 7}, slot_time(2))
    until_us = firing(4).effect_until_us
    ((found, origin),) = history.ending("bandwidth", 0, until_us)
    assert (found.firing_id, origin) == ("firing-4", "firing-2")
    assert history.ending("bandwidth", 0, until_us - 1) == history.ending("bandwidth", until_us, 2**60) == []
    assert history.ending("cio", 0, until_us) == []
    store.begin_reversal("firing-2", "asked", "ann")
    store.end_reversal("firing-4", "log", Outcome(OutcomeKind.APPLIED, "reverted"))
    assert history.last_set("cell-1", "prb_quota", 0) == LastSet({"quota": 5}, slot_time(2))
    assert history.ending("bandwidth", 0, until_us) == []


def test_a_policys_firing_is_stored_once_and_waits_as_its_mode_says(store: SqlStore) -> None:
    with pytest.raises(DataError, match="no topic partition"):
        store.fire([firing(1)], ["log"], False)
    assign(store)
    assert [store.fire([firing(1)], ["log"], False) for _ in range(2)] == [["firing-1"], []]
    more = [firing(1), firing(2, Mode.SHADOW), firing(3, Mode.ASSIST)]
    assert store.fire(more, ["log"], False) == ["firing-2", "firing-3"]
    assert [item.firing.firing_id for item in SqlOutbox(store).pending(10)] == ["firing-1"]
    told = {row["firing_id"]: len(row["outcomes"]) for row in History(store.url).firings()}
    assert told == {"firing-1": 1, "firing-2": 0, "firing-3": 1}

"""Small commits for the tests of the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netpredict.store.commit import (
    SERIES_PER_LANE,
    AnchorRows,
    ColumnLayout,
    Commit,
    DeadLetterRange,
    ForecastLayout,
    ForecastRows,
    GapRow,
    JournalRow,
    LaneCommit,
    LaneSnapshot,
    MarkRow,
    ObservationRows,
    ScoreRow,
    StateRows,
)
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import (
    DeadLetter,
    Firing,
    Lease,
    Mode,
    Outcome,
    PendingFiring,
    Settled,
    Since,
    Taken,
    TopicPartition,
)

PERIOD_US = 10_000_000
PHASE_US = 3_000_000
STREAM = "traffic"
TOPIC_PARTITION = TopicPartition("cells", 0)
LAYOUT = ForecastLayout(STREAM, ("dl", "ul"), (1, 3), (0.1, 0.5, 0.9), 4, PERIOD_US)
COLUMNS = ColumnLayout(STREAM, ("dl", "ul", "users"), (1, 3, 0))
WIDTH = len(LAYOUT.kpis) * LAYOUT.horizon_steps * len(LAYOUT.levels)
STATE_LAYOUT = '{"h":["float32",[8]]}'


def slot_time(slot: int) -> int:
    return slot * PERIOD_US + PHASE_US


def assign(store: SqlStore, topic_partition: TopicPartition = TOPIC_PARTITION, topic_id: str = "id-1") -> LaneSnapshot:
    return store.assign("group", topic_partition, STREAM, topic_id, "tester")


def register(store: SqlStore, version: str = "v1") -> int:
    return store.register_model(STREAM, "gru", version, "gru", f"models/{version}", {"mae": 1.5}, "active")


def ids(lane: LaneSnapshot, numbers: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return lane.lane_id * SERIES_PER_LANE + np.array(numbers, dtype=np.int64)


def forecasts(lane: LaneSnapshot, model_id: int, slot: int, numbers: Sequence[int]) -> ForecastRows:
    count = len(numbers)
    ticks = np.arange(count * WIDTH, dtype=np.int32).reshape(count, WIDTH) + slot * 1000
    return ForecastRows(
        model_id,
        LAYOUT,
        np.full(count, slot_time(slot), dtype=np.int64),
        ids(lane, numbers),
        np.tile(np.array([0, 2], dtype=np.uint8), (count, 1)),
        np.zeros(count, dtype=np.uint8),
        ticks,
        ticks[:, :2].copy(),
    )


def observations(lane: LaneSnapshot, slot: int, numbers: Sequence[int]) -> ObservationRows:
    count = len(numbers)
    ticks = np.arange(count * 3, dtype=np.int32).reshape(count, 3) + slot * 100
    return ObservationRows(
        COLUMNS,
        np.full(count, slot_time(slot), dtype=np.int64),
        ids(lane, numbers),
        np.full(count, slot_time(slot) + 5, dtype=np.int64),
        np.zeros(count, dtype=np.uint8),
        ticks,
    )


def states(lane: LaneSnapshot, slot: int, numbers: Sequence[int]) -> StateRows:
    count = len(numbers)
    blob = (np.arange(count * 32) + slot).astype(np.uint8).reshape(count, 32)
    return StateRows(STATE_LAYOUT, ids(lane, numbers), np.full(count, slot, dtype=np.int64), blob)


def score(model_id: int, bucket: int = 0, **changes: Any) -> ScoreRow:
    fields = {
        "model_id": model_id,
        "source": 0,
        "kpi": "dl",
        "lead_steps": 1,
        "bucket": bucket,
        "n": 4,
        "flat": 0,
        "abs_ticks": 20,
        "square_ticks": 2**70,
        "truth_abs_ticks": 400,
        "naive_abs_ticks": 40,
        "seasonal_abs_ticks": 30,
        "below": (0, 2, 4),
        "pinball": (1000, 2000, 3000),
    }
    return ScoreRow(**(fields | changes))


def firing(number: int = 1, mode: Mode = Mode.AUTO, **changes: Any) -> Firing:
    fields = {
        "firing_id": f"firing-{number}",
        "hook": "bandwidth",
        "stream": STREAM,
        "object_id": "cell-1",
        "attribute": "prb_quota",
        "value": {"quota": 10 + number},
        "why": {"peak_mbps": 1.25},
        "mode": mode,
        "slot_time_us": slot_time(number),
        "expires_at_us": slot_time(number + 1),
        "effect_until_us": slot_time(number + 9),
    }
    return Firing(**(fields | changes))


def letter(offset: int, reason: str = "undecodable", value: bytes | None = b"{", **changes: Any) -> DeadLetter:
    return DeadLetter(TOPIC_PARTITION, offset, 77, reason, changes.get("detail", "no JSON"), b"k", value)


def lane_commit(lane: LaneSnapshot, old: int, new: int, **parts: Any) -> LaneCommit:
    return LaneCommit(
        lane.lane_id,
        parts.pop("topic_partition", TOPIC_PARTITION),
        lane.epoch,
        old,
        new,
        parts.pop("counts", {"accepted": new - old}),
        parts.pop("state", f'{{"watermark":{new}}}'),
        **parts,
    )


def full_commit(lane: LaneSnapshot, model_id: int, slot: int = 1, series: int = 3, **parts: Any) -> LaneCommit:
    """One slot of some series with something in every table; offsets (slot - 1) * 10 to slot * 10."""
    numbers = range(series)
    kept = states(lane, slot, numbers)
    everything: dict[str, Any] = {
        "forecasts": [forecasts(lane, model_id, slot, numbers)],
        "observations": [observations(lane, slot, numbers)],
        "scores": [score(model_id, bucket=slot)],
        "series_states": [states(lane, slot, numbers)],
        "anchors": [AnchorRows(kept.layout, kept.series_id, kept.slot * PERIOD_US + PHASE_US, kept.blob)],
        "marks": [MarkRow(slot_time(slot), '{"versions":{}}')],
        "journal": [JournalRow((slot - 1) * 10, "activate", {"predictor": "gru", "version": f"v{slot}"})],
        "firings": [(firing(slot), ("log", "webhook"))],
        "dead_letters": [letter(slot * 10 - 1)],
        "dead_ranges": [DeadLetterRange(0, "late", slot * 10 - 5, slot * 10 - 4, 2, 70 - slot, 80 + slot)],
        "gaps": [GapRow(slot * 10 - 2, slot * 10 - 1, "expired")],
    }
    if slot == 1:
        keys = [(int(number), f"cell-{place}", 1, True) for place, number in enumerate(ids(lane, numbers))]
        everything["new_series"] = keys
    return lane_commit(lane, (slot - 1) * 10, slot * 10, **(everything | parts))


def run(store: SqlStore, slots: int = 2) -> tuple[LaneSnapshot, int]:
    """A store with ``slots`` full commits."""
    lane, model_id = assign(store), register(store)
    for slot in range(1, slots + 1):
        assert store.commit(Commit([full_commit(lane, model_id, slot)])) == set()
    return lane, model_id


def record(outbox: SqlOutbox, firing: Firing, actuator: str, outcome: Outcome, at_us: int) -> None:
    """Store what came of one firing."""
    outbox.record([Settled(firing, actuator, outcome, at_us)])


def take(outbox: SqlOutbox, entry: PendingFiring, now_us: int) -> bool:
    """Claim a firing and its attribute, of which nobody has applied anything."""
    lease = Lease(entry.firing.hook, entry.firing.firing_id, 0, now_us + 1)
    return outbox.take(entry, lease, None, now_us) is Taken.YES


def take_knowing(outbox: SqlOutbox, item: PendingFiring, lease: Lease, now_us: int) -> Taken:
    """Claim a firing by a runner that has just read what was applied to its attribute, and the lease on it."""
    place = (item.firing.object_id, item.firing.attribute)
    seen = outbox.standing([item], Since(0, 0, 0), []).leases.get(place)
    return outbox.take(item, lease, outbox.last_applied(*place), now_us, seen)

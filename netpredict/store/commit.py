"""What the pipeline hands to the store, and the port of a store.

A *lane* is one stream on one topic partition: the unit of order, of ownership (epoch) and of fencing. A ``Commit``
holds copies: the pipeline goes on while it is written. Stores are compared by natural keys, so every surrogate id here
(``lane_id``, ``series_id``, ``model_id``) only has to be stable inside one store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from netpredict.types import AnyArray, DeadLetter, Firing, Int32Array, IntArray, TopicPartition

SERIES_PER_LANE = 2**32
"""``series_id = lane_id * SERIES_PER_LANE + number``: numbers are given out in log order, without asking the store."""

COUNTS = ("accepted", "duplicate", "late", "dead", "control")
"""Every offset covered is exactly one of these; control = offsets that never were records (markers, compaction)."""


@dataclass(frozen=True, slots=True)
class ForecastLayout:
    """How the flat list of ticks of a forecast row is read: index = (kpi * horizon_steps + lead - 1) * levels + level.

    A value is ticks / 10**decimals[kpi] in the KPI's unit; the target time of a lead is slot time + lead * period_us.
    """

    stream: str
    kpis: tuple[str, ...]
    decimals: tuple[int, ...]
    levels: tuple[float, ...]
    horizon_steps: int
    period_us: int


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """How the ticks of an observation row are read: one number a column of the stream, null = missing."""

    stream: str
    columns: tuple[str, ...]
    decimals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One version of a predictor on a stream. ``version`` is the artefact's id, "-" for predictors without weights."""

    model_id: int
    stream: str
    predictor: str
    version: str
    plugin: str
    folder: str  # of the artefact; empty without weights
    stage: str  # candidate, challenger, active, retired, refused, deleted
    created_us: int
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RetrainRow:
    """One training, or one verdict on a challenger: what came of it, and in ``detail`` why."""

    stream: str
    predictor: str
    started_us: int
    result: str  # promoted, challenging, refused, failed, cancelled
    model_id: int | None
    detail: Mapping[str, Any]


@dataclass(slots=True)
class ForecastRows:
    """n forecasts of one predictor version: ticks int32 (n, kpis * horizon * levels), MISSING_TICKS = none.

    ``sources`` uint8 (n, kpis) of ``Source``; ``observed`` int32 (n, kpis): the truth at issue, the naive forecast;
    ``seasonal`` int32 (n, kpis * horizon): the seasonal naive forecast, None on a stream without a season.
    """

    model_id: int
    layout: ForecastLayout
    slot_time_us: IntArray
    series_id: IntArray
    sources: npt.NDArray[np.uint8]
    quality: npt.NDArray[np.uint16]
    ticks: Int32Array
    observed: Int32Array
    seasonal: Int32Array | None = None


@dataclass(slots=True)
class ObservationRows:
    """n observations: ticks int32 (n, columns), MISSING_TICKS = missing; flags, unsigned (n,), are ``Quality`` bits."""

    layout: ColumnLayout
    slot_time_us: IntArray
    series_id: IntArray
    event_time_us: IntArray
    flags: AnyArray
    ticks: Int32Array


@dataclass(slots=True)
class StateRows:
    """States of the n series touched: ``blob`` uint8 (n, itemsize), packed as ``layout`` (JSON text) says."""

    layout: str
    series_id: IntArray
    slot: IntArray
    blob: npt.NDArray[np.uint8]


@dataclass(slots=True)
class AnchorRows:
    """States of n sampled series as they were when a day of theirs had ended; ``slot_time_us`` is of its last slot."""

    layout: str
    series_id: IntArray
    slot_time_us: IntArray
    blob: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MarkRow:
    """What holds on a lane from the beginning of a score bucket on; ``mark`` is JSON text (``lane.Mark``)."""

    begins_us: int
    mark: str


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Sums of one score bucket (whole row, replaces the stored one). All sums are integers in ticks.

    ``flat`` counts pairs whose levels all equal the truth: they say nothing of the intervals and are left out of
    ``below``, which counts truths under each level, and on it from the middle one up. ``truth_abs_ticks`` sums the
    magnitude of the truth; ``seasonal_abs_ticks`` the error of seasonal naive, of naive where the season is not known.
    ``pinball`` sums pinball loss * 1000 in ticks, by level.
    """

    model_id: int
    source: int
    kpi: str
    lead_steps: int
    bucket: int
    n: int
    flat: int
    abs_ticks: int
    square_ticks: int
    truth_abs_ticks: int
    naive_abs_ticks: int
    seasonal_abs_ticks: int
    below: tuple[int, ...]
    pinball: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JournalRow:
    """Something that entered from outside the log, taking effect before the record at ``effective_offset``."""

    effective_offset: int
    kind: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """Something asked for from outside that waits to enter a lane: a journal row whose offset is still open."""

    request_id: int
    lane_id: int
    kind: str
    payload: Mapping[str, Any]


REPLAYED, REPLAY_REFUSED = "replayed", "replay_refused"
"""Kinds of journal rows: a dead letter entered again (its request has this kind too), or was refused once more."""


EXCLUDE = "exclude"
"""Kind of journal rows and requests: slots of radio cells that an own action may have changed."""


class Letter(msgspec.Struct, frozen=True):
    """Payload of a replay: the record behind a dead letter, whole. The journal row has its ``outcome`` beside it."""

    topic: str
    partition: int
    offset: int
    reason: str
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class ReplayedLetter(NamedTuple):
    """What came of a replay: a letter that ``entered`` leaves the dead ones, another stays and may be tried again."""

    offset: int
    reason: str
    entered: bool


@dataclass(frozen=True, slots=True)
class GapRow:
    """Offsets that were skipped, and why."""

    from_offset: int
    to_offset: int
    reason: str


@dataclass(slots=True)
class DeadLetterRange:
    """Dead letters of one reason in one stretch of a lane that are not kept whole, of this commit alone.

    Offsets are included; other records may lie between them.
    """

    begins_offset: int  # of the stretch
    reason: str
    first_offset: int
    last_offset: int
    letters: int
    first_ingest_us: int
    last_ingest_us: int


@dataclass(slots=True)
class LaneCommit:
    """One lane's share of a commit: ``old_offset`` must be what the store holds under ``epoch``, or it is fenced."""

    lane_id: int
    topic_partition: TopicPartition
    epoch: int
    old_offset: int
    new_offset: int
    counts: Mapping[str, int]  # by COUNTS, of this commit alone
    state: str  # JSON text: watermark, bucket, calibration, series counter
    new_series: list[tuple[int, str, int, bool]] = field(default_factory=list)  # series_id, key, first slot, scored
    retired_series: list[int] = field(default_factory=list)
    forecasts: list[ForecastRows] = field(default_factory=list)
    observations: list[ObservationRows] = field(default_factory=list)
    late_observations: list[ObservationRows] = field(default_factory=list)  # where none stands yet
    scores: list[ScoreRow] = field(default_factory=list)
    series_states: list[StateRows] = field(default_factory=list)
    anchors: list[AnchorRows] = field(default_factory=list)
    marks: list[MarkRow] = field(default_factory=list)
    journal: list[JournalRow] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)  # that took effect or were refused
    firings: list[tuple[Firing, tuple[str, ...]]] = field(default_factory=list)  # with the names of its actuators
    dead_letters: list[DeadLetter] = field(default_factory=list)
    dead_ranges: list[DeadLetterRange] = field(default_factory=list)
    replayed: list[ReplayedLetter] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)

    def window(self) -> tuple[int, int] | None:
        """First and last slot time of its forecasts and firings, µs; None when there are none."""
        slot_times = [rows.slot_time_us for rows in self.forecasts if len(rows.slot_time_us)]
        times = [int(end) for slots in slot_times for end in (slots.min(), slots.max())]
        times += [firing.slot_time_us for firing, _ in self.firings]
        return (min(times), max(times)) if times else None


@dataclass(slots=True)
class Commit:
    """Everything between two offsets of some lanes, in order of topic partition."""

    lanes: list[LaneCommit]


@dataclass(slots=True)
class LaneSnapshot:
    """A lane as the store holds it, read in one transaction after its epoch was taken.

    ``series`` rows: (series_id, key, last slot, scored, layout JSON, state bytes), None where there is no state.
    """

    lane_id: int
    epoch: int
    next_offset: int | None  # None: never committed
    topic_id: str
    counts: Mapping[str, int]
    state: str  # JSON text, "" when new
    series: Sequence[tuple[int, str, int, bool, str | None, bytes | None]]
    journal: Sequence[JournalRow]
    bucket_scores: Sequence[ScoreRow]  # of the bucket that ``state`` names, i.e. the sums in progress


@dataclass(frozen=True, slots=True)
class SeriesState:
    """A live series as the store holds it; ``layout`` and ``state`` are None when it has no state."""

    topic_partition: TopicPartition
    lane_id: int
    series_id: int
    key: str
    slot: int
    layout: str | None
    state: bytes | None


@dataclass(slots=True)
class PendingForecasts:
    """Stored forecasts whose truth is still to come, of one (lane, model): arrays of n rows like ``ForecastRows``.

    ``seasonal`` is MISSING_TICKS throughout where none was stored.
    """

    slot: IntArray
    series_id: IntArray
    sources: npt.NDArray[np.uint8]
    ticks: Int32Array
    observed: Int32Array
    seasonal: Int32Array


class Store(Protocol):
    """The SQL authority as the pipeline sees it."""

    def assign(
        self, group: str, topic_partition: TopicPartition, stream: str, topic_id: str, owner: str
    ) -> LaneSnapshot:
        """Take the next epoch of the topic partition and read the lane."""
        ...

    def pending_forecasts(self, lane_id: int, model_id: int, layout: ForecastLayout) -> PendingForecasts:
        """Of each scored series: forecasts issued at its last slot or less than a horizon before it."""
        ...

    def requests(self) -> Sequence[ControlRequest]:
        """What waits to enter any lane, oldest first."""
        ...

    def commit(self, commit: Commit) -> set[TopicPartition]:
        """One transaction, in the numbered order of DESIGN §2; gives the topic partitions that were fenced."""
        ...


class ModelNames(Protocol):
    """Versions of predictors and their ids."""

    def register_model(
        self,
        stream: str,
        predictor: str,
        version: str,
        plugin: str,
        folder: str,
        scores: Mapping[str, float],
        stage: str,
    ) -> int:
        """Id of a version; the same natural key again changes nothing and gives the same id."""
        ...

    def models(self, stream: str | None = None) -> list[ModelRow]:
        """All versions, oldest first."""
        ...


class ModelRegistry(ModelNames, Protocol):
    """Versions of predictors, and what was decided about them."""

    def move_model(
        self, model_id: int, stage: str, who: str, what: str, detail: Mapping[str, Any], run: RetrainRow | None = None
    ) -> str | None:
        """Move a version to another stage, with its audit and its run, in one transaction.

        One version of a predictor at most is active, and one a challenger: the one before becomes retired, or refused.
        Gives the version that was active before, unless it is this one.
        """
        ...

    def record_retrain(self, run: RetrainRow) -> int:
        """Note a run that ended now; gives its id."""
        ...

    def alone(self, job: str) -> AbstractContextManager[bool]:
        """Whether no other instance is inside a block of this name, as long as the block lasts."""
        ...

    def take_turn(self, job: str, due_us: int) -> bool:
        """Whether a job that is due on every instance at the same time is this one's to run."""
        ...

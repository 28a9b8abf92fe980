"""The values that travel between the parts. Times are integers in µs since the epoch, UTC; arrays are numpy.

A *series* is one key's sequence in a stream on one topic partition; a *report* is the rows that one UE measured at
one time; a *round* is one row per series, advanced together. See DESIGN §2 for the way of the data.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
Int32Array: TypeAlias = npt.NDArray[np.int32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
AnyArray: TypeAlias = npt.NDArray[Any]

NO_SLOT = -(2**62)
"""The last slot of a series that has seen none."""

MISSING_TICKS = -(2**31)
"""Marks a value that does not exist in an int32 array of ticks (fixed point, 10**-decimals of the KPI's unit)."""


class TopicPartition(NamedTuple):
    """One partition of a Kafka topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class LogRecord(Protocol):
    """One record of a topic partition as a source hands it over; kafka-python's ConsumerRecord fits."""

    @property
    def offset(self) -> int:
        """Place in the topic partition."""
        ...

    @property
    def timestamp(self) -> int:
        """ms since the epoch, set by Kafka: the ingest time."""
        ...

    @property
    def key(self) -> bytes | None:
        """Bytes that chose the partition."""
        ...

    @property
    def value(self) -> bytes | None:
        """The message; None is a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and bytes beside the message."""
        ...


@dataclass(frozen=True, slots=True)
class PolledPartition:
    """What one poll brought for one topic partition. Offsets may have gaps; ``next_offset`` is the position after."""

    topic_partition: TopicPartition
    records: Sequence[LogRecord]
    next_offset: int


class SeriesKey(NamedTuple):
    """Names one series inside a stream: the fields of ``series_by`` in order, e.g. (ue_id, radio_cell_id)."""

    fields: tuple[str, ...]

    def __str__(self) -> str:
        return "|".join(self.fields)


def radio_cell_of(key: str) -> str:
    """The radio cell of a series by the text of its key: the last field."""
    return key.rpartition("|")[2]


def ue_of(key: str) -> str:
    """The UE of a link (UE, radio cell): all of the key but the radio cell."""
    return key.rpartition("|")[0]


@dataclass(frozen=True, slots=True)
class StateArray:
    """Shape (without the leading series axis), dtype and first value of one named state array."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: float = 0.0


def place_columns(names: Sequence[str], rows: int, columns: int) -> tuple[str, ...]:
    """The columns of a grid: for each name all its places, row by row, as ``name[row,column]`` counted from 0."""
    return tuple(f"{name}[{row},{column}]" for name in names for row in range(rows) for column in range(columns))


def base_name(column: str) -> str:
    """What a column measures: its name without the place on a grid."""
    return column.partition("[")[0]


def grid_of(columns: Sequence[str]) -> tuple[int, int] | None:
    """(rows, columns) of the grid whose places these columns are, None when they are not exactly a grid."""
    place = re.fullmatch(r".+\[(\d+),(\d+)\]", columns[-1]) if columns else None
    if place is None:
        return None
    shape = (int(place[1]) + 1, int(place[2]) + 1)
    return shape if place_columns(tuple(dict.fromkeys(map(base_name, columns))), *shape) == tuple(columns) else None


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Columns of the feature matrix (n, f) that a predictor receives each step, in natural units, NaN = missing.

    ``observed`` are the KPI columns of the stream, on a grid those of ``place_columns``; behind them stand ``CALENDAR``
    columns of the slot that is advanced. A missing step of a gap has NaN in all observed columns.
    """

    observed: tuple[str, ...]
    period_us: int
    season_buckets: int = 0
    season_us: int = 0
    phase_us: int = 0
    holidays: tuple[str, ...] = field(default=(), compare=False)  # next year's list does not make another model
    time_zone: str = "UTC"

    CALENDAR = ("hour_of_day", "day_of_week", "season_bucket", "holidays")
    """Hour 0..24, weekday 0..6 (0 = Monday), index of the season's bucket (0 when there is no season);
    ``holidays`` is the sum of 2**d over the days d = 0 (today) … ``HOLIDAY_DAYS`` - 1 ahead that are holidays.

    All by the local time of ``time_zone`` (IANA); ``holidays`` are its ISO dates.
    """

    HOLIDAY_DAYS = 16

    @property
    def width(self) -> int:
        """Number of columns, f."""
        return len(self.observed) + len(self.CALENDAR)

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of the grid when the observed columns are its places, else None."""
        return grid_of(self.observed)


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a predictor answers: for each KPI an array float32 (n, horizon_steps, len(levels)) in natural units.

    ``kind`` is "quantiles" (levels are probabilities, rising) or "categorical" (levels are the class values).
    """

    kpis: tuple[str, ...]
    horizon_steps: int
    levels: tuple[float, ...]
    kind: str = "quantiles"


Hidden: TypeAlias = Mapping[str, AnyArray]
"""Name -> (n, …) array: the HiddenState of n series."""
Outputs: TypeAlias = Mapping[str, FloatArray]


class Source(enum.IntEnum):
    """Where a forecast came from: the rung of the ladder."""

    MODEL = 0
    SEASONAL = 1
    NAIVE = 2
    NONE = 3


class Quality(enum.IntFlag):
    """Flags of a forecast or an observation; 0 is one without reservations."""

    GOOD = 0
    WARMING = 1  # the active model has not seen warm_steps yet
    NOT_FINITE = 2  # the active model answered NaN or infinity for a KPI that the series has shown before
    FAILED = 4  # the active model raised
    NO_MODEL = 8  # no version of the active predictor is loaded
    INPUT_MISSING = 16  # the newest observation lacks a forecast KPI that the series has shown before
    SUSPECT = 32  # the sender flagged the newest observation
    APPROXIMATE = 64  # the identity of the series is a guess
    CHALLENGER = 128  # of a version on trial: nobody is served with it
    MOVED = 256  # warming because its history is on another topic partition
    LATE = 512  # of an observation: a replayed letter that no forecast has seen
    EXCLUDED = 1024  # of an observation: an own action may have changed it, so nothing is scored or trained by it


class Mode(enum.StrEnum):
    """Mode of a hook: shadow records firings, auto also applies them, assist those that a person approves in time."""

    SHADOW = "shadow"
    ASSIST = "assist"
    AUTO = "auto"


@dataclass(slots=True)
class ObservationBatch:
    """Rows of one stream as columns; ``record`` is shared by the rows of one report and rises in log order.

    ``values`` float32 (n, k) with NaN = missing; ``lane`` and ``series`` are dense indices of the pipeline.
    """

    series: Int32Array
    lane: Int32Array
    slot: IntArray
    event_time_us: IntArray
    values: FloatArray
    record: Int32Array
    flags: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.series)

    def take(self, rows: AnyArray) -> ObservationBatch:
        """The rows at these positions (or under this mask), in their order."""
        return ObservationBatch(
            self.series[rows],
            self.lane[rows],
            self.slot[rows],
            self.event_time_us[rows],
            self.values[rows],
            self.record[rows],
            self.flags[rows],
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record (or one row of it) that could not be used: its place, bytes and a reason from a closed set."""

    topic_partition: TopicPartition
    offset: int
    ingest_time_us: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class HookBatch:
    """One round of one stream as a hook sees it: n rows, each the newest observation and forecast of one series.

    ``forecasts[kpi]`` float32 (n, horizon_steps, m), NaN where the source is NONE; ``levels`` the m probabilities;
    ``observed`` float32 (n, k) by the columns ``columns``; rows of one report share ``record`` and stand together.
    ``key_of(i)`` names the series of row i, ``model_of(i)`` the version that served it, predictor@version; ``flags``
    are ``Quality`` bits; ``source`` is a ``Source``. A value that is to stand is due again ``refresh_slots`` behind the
    slot in which it was asked for last, 0 = never.
    """

    stream: str
    period_us: int
    slot: IntArray
    slot_time_us: IntArray
    record: Int32Array
    columns: tuple[str, ...]
    observed: FloatArray
    levels: tuple[float, ...]
    forecasts: Mapping[str, FloatArray]
    source: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint16]
    key_of: Callable[[int], SeriesKey]
    model_of: Callable[[int], str] = lambda row: ""
    refresh_slots: int = 0

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True, slots=True)
class DueAction:
    """One row of what a hook decided: set ``attribute`` of ``object_id`` to ``value``; ``row`` is its row in the batch.

    ``why`` holds what the decision was computed from, in plain JSON values with units in the names. ``set_slot`` is the
    slot of the action that asked for this value first where this one only repeats it, for it to last.
    """

    row: int
    object_id: str
    attribute: str
    value: Mapping[str, Any]
    why: Mapping[str, Any]
    valid_for_s: float
    set_slot: int | None = None


FiringBatch: TypeAlias = Sequence[DueAction]


class Served(NamedTuple):
    """Which radio cell served a UE in a slot, and at what level; None where that was not measured."""

    slot_time_us: int
    ue_id: str
    radio_cell_id: str
    rsrp_dbm: float | None


class Window(NamedTuple):
    """Slot times from ``from_us`` to before ``until_us``, µs since the epoch, UTC."""

    from_us: int
    until_us: int


class LastSet(NamedTuple):
    """What stands at an attribute because of own actions, {} when nothing does any more.

    ``slot_time_us`` is that of the newest action that changed it, be it taken back or over.
    """

    value: Mapping[str, Any]
    slot_time_us: int


class PolicyAction(NamedTuple):
    """What a policy decided for one object, which lies in ``radio_cell_id``; else as ``DueAction``."""

    radio_cell_id: str
    object_id: str
    attribute: str
    value: Mapping[str, Any]
    why: Mapping[str, Any]
    valid_for_s: float


@dataclass(frozen=True, slots=True)
class Firing:
    """One due action, stored in the same transaction as the forecast behind it.

    ``firing_id`` is a pure function of (hook, object, attribute, slot time): an idempotent receiver applies it once.
    ``series`` is the key of the series that it was decided for, ``group`` the name of its group of radio cells, "" when
    it is in none. It expires when its effect is over at the latest, however long its hook lets it wait: applied later
    it would be taken back at once, or never.
    """

    firing_id: str
    hook: str
    stream: str
    object_id: str
    attribute: str
    value: Mapping[str, Any]
    why: Mapping[str, Any]
    mode: Mode
    slot_time_us: int
    expires_at_us: int
    effect_until_us: int
    series: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "expires_at_us", min(self.expires_at_us, self.effect_until_us))

    @property
    def radio_cell_id(self) -> str:
        """The radio cell: the last field of the key of its series."""
        return radio_cell_of(self.series)

    @property
    def refreshes(self) -> str:
        """Id of the firing whose value this one only repeats, for it to last; "" when it asks for a new one."""
        return str(self.why.get(REFRESHES, ""))


REFRESHES = "refreshes"
"""Member of a firing's ``why`` that makes it a refresh."""


class OutcomeKind(enum.StrEnum):
    """What came of a firing."""

    APPLIED = "applied"
    SKIPPED = "skipped"  # a guard said no; ``reason`` names it
    FAILED = "failed"  # the actuator gave up
    RECORDED = "recorded"  # shadow mode: nothing was sent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one firing at one actuator; ``reason`` is a name from a closed set, ``detail`` is for people."""

    kind: OutcomeKind
    reason: str
    detail: str = ""
    attempts: int = 0


class PendingFiring(NamedTuple):
    """A firing that lacks the outcome of one actuator."""

    firing: Firing
    actuator_name: str


class LastApplied(NamedTuple):
    """The last firing applied to one attribute of one object, by whatever actuator; ``at_us`` is when.

    ``refreshes`` is the applied firing whose value it repeated, "" where it changed something; ``taken_back``: a person
    or a KPI has had it reverted; ``changed_us`` is when that value was set, 0 = ``at_us``.
    """

    firing_id: str
    slot_time_us: int
    at_us: int
    hook: str = ""
    value: Mapping[str, Any] = {}
    effect_until_us: int = 0
    refreshes: str = ""
    taken_back: bool = False
    changed_us: int = 0

    @property
    def origin(self) -> str:
        """The firing that set the value."""
        return self.refreshes or self.firing_id


class Lease(NamedTuple):
    """Who may set one attribute of one object until when; a hook of a higher ``priority`` takes it.

    ``taken_us`` is when it went to the firing: durable before anything is applied, so that it outlives a runner.
    """

    hook: str
    firing_id: str
    priority: int
    until_us: int
    taken_us: int = 0


Attribute: TypeAlias = tuple[str, str]
"""(object_id, attribute)."""


@dataclass(slots=True)
class Standing:
    """What the guards must know of the past to judge a page of firings, read at one moment.

    ``last`` and ``leases`` by attribute of an object; ``applied_last_minute`` counts distinct firings by hook;
    ``changed`` are the radio cells of a stream that were changed within the hour, ``radio_cells`` how many live.
    ``disarmed`` says why, by hook and group of radio cells. ``younger``: by firing, one that waits, of a later slot of
    the same hook for the same attribute.
    """

    last: dict[Attribute, LastApplied] = field(default_factory=dict)
    leases: dict[Attribute, Lease] = field(default_factory=dict)
    applied_last_minute: dict[str, int] = field(default_factory=dict)
    changed: dict[str, set[str]] = field(default_factory=dict)
    radio_cells: dict[str, int] = field(default_factory=dict)
    disarmed: dict[tuple[str, str], str] = field(default_factory=dict)
    younger: dict[str, str] = field(default_factory=dict)


class Since(NamedTuple):
    """The moment of a ``Standing``, and since when it counts what was applied and what was changed."""

    now_us: int
    rate_us: int
    blast_us: int


class Settled(NamedTuple):
    """An outcome to be stored: ``checks`` are what the guards said, ``reply`` what the actuator answered at first.

    ``maybe_set``: it failed, and yet something may have been set: it counts for the cooldown. ``refreshes`` is the
    applied firing whose value it only repeated; ``stands`` whose the attribute stays where it failed.
    """

    firing: Firing
    actuator_name: str
    outcome: Outcome
    at_us: int
    checks: Mapping[str, Any] = {}
    reply: str = ""
    maybe_set: bool = False
    refreshes: str = ""
    stands: Lease | None = None


class Taken(enum.StrEnum):
    """Whether a runner may apply a firing now."""

    YES = "yes"
    BUSY = "busy"  # another instance does, or has changed what it was judged by: look again
    LEASED = "leased"  # another hook holds the attribute
    DISARMED = "disarmed"  # its hook is, in its group of radio cells


class ArmState(enum.StrEnum):
    """Whether the forecasts behind a hook meet what acting on them asks for, after TS 29.520."""

    MEET = "meet"
    NOT_MEET = "not_meet"


class Evidence(NamedTuple):
    """Sums of scores of one KPI: errors in ticks, and how many of ``spread`` truths lay inside the outer levels.

    ``bucket`` is the newest score bucket among them.
    """

    kpi: str
    n: int
    abs_ticks: int
    naive_abs_ticks: int
    seasonal_abs_ticks: int
    spread: int
    covered: int
    bucket: int = 0


class Breaker(NamedTuple):
    """The circuit breaker of a hook in a group of radio cells, and what it was judged by last.

    ``heard_bucket`` is the newest score bucket up to which there was evidence enough, or the one in which the breaker
    was looked at first; None before the stream's first.
    """

    hook: str
    group: str
    state: ArmState
    said: str
    n: int
    skill: float | None
    coverage: float | None
    since_us: int
    at_us: int
    heard_bucket: int | None = None


@dataclass(frozen=True, slots=True)
class Hindsight:
    """How KPIs of hindsight are labelled: see ``StreamConfig.hindsight`` and ``learn.hindsight``.

    ``handover_cost`` in failures; ``piece_steps`` are the steps that are learnt from at a time, ``max_gap_steps`` those
    after which a silent series begins cold, ``warm_steps`` those that a series needs before a model serves it.
    """

    handover_cost: float
    load_ratio: float
    rounds: int
    piece_steps: int
    max_gap_steps: int
    warm_steps: int


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Aligned history: S series on a common grid of T slots, NaN = missing.

    ``values`` float32 (S, T, k) in natural units by the columns of ``features.observed``; ``first_slot`` int64 (S,);
    steps at or after ``validation_from`` (an index on the T axis) are held out in time. ``truth`` (S, T, kpis) are the
    targets where they are not the values themselves (gaps filled, say); ``weights`` (S, kpis) say how much a series
    counts in the training loss, None = all alike. ``hindsight``: some KPIs are known in hindsight only; their truth
    is found by the training, and what stands in ``values`` is a rule of thumb.
    """

    features: FeatureSpec
    output: OutputSpec
    values: FloatArray
    first_slot: IntArray
    validation_from: int
    series_names: Sequence[str] = ()
    truth: FloatArray | None = None
    weights: FloatArray | None = None
    hindsight: Hindsight | None = None

    @property
    def targets(self) -> FloatArray:
        """(S, T, kpis): the truth where it is given, else what was observed."""
        if self.truth is not None:
            return self.truth
        return self.values[:, :, [self.features.observed.index(kpi) for kpi in self.output.kpis]]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run says of itself; ``loss`` and ``validation_loss`` have one entry per train_epoch."""

    train_epochs: int
    training_s: float
    loss: Sequence[float]
    validation_loss: Sequence[float]
    scores: Mapping[str, float] = field(default_factory=dict)


class Progress(Protocol):
    """Told after each train_epoch: done and total epochs, losses, time left in s. May raise to cancel."""

    def __call__(self, done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
        """One train_epoch is done."""
        ...

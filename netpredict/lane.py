"""A lane: one stream on one topic partition. It is the unit of order, ownership and fencing."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from netpredict.forecast.score import sampled
from netpredict.store.commit import (
    COUNTS,
    AnchorRows,
    DeadLetterRange,
    GapRow,
    JournalRow,
    LaneSnapshot,
    MarkRow,
    ReplayedLetter,
    ScoreRow,
    StateRows,
)
from netpredict.types import NO_SLOT, DeadLetter, Firing, TopicPartition


class Mark(msgspec.Struct, frozen=True):
    """What decides about the forecasts of a lane beside its log and its series' states; as in ``LaneState``."""

    config: str
    versions: dict[str, list[tuple[str, int]]]
    challengers: dict[str, str]
    calibration: dict[str, Any]


class LaneState(msgspec.Struct, kw_only=True):
    """What a lane carries from commit to commit beside its series; JSON in the store.

    ``versions`` maps a predictor to its versions that serve here, newest first, each with the slot at which it began,
    ``challengers`` to the version that is on trial here.
    ``grid`` (period and phase in µs, slots of a bucket) and ``forecast`` (KPIs, leads, levels) say what slots, buckets
    and calibration mean: under another config they are not taken over. ``letters`` counts the dead letters kept whole
    in the stretch of offsets that begins at ``stretch``, by reason.
    """

    watermark: int = NO_SLOT
    bucket: int | None = None
    next_number: int = 0
    score_level: int = 0
    anchor_level: int = 0
    config: str = ""
    grid: tuple[int, int, int] = (0, 0, 0)
    forecast: str = ""
    versions: dict[str, list[tuple[str, int]]] = {}
    challengers: dict[str, str] = {}
    calibration: dict[str, Any] = {}
    stretch: int = -1
    letters: dict[str, int] = {}


@dataclass(slots=True)
class Lane:
    """The lane as this process owns it. ``index`` is dense inside the stream; ``rows`` maps a key to its table row.

    ``stored``: the store holds an offset of it. ``refused``: versions that could not be loaded, not tried again.
    ``requests_taken``: the store lists them until their commit is durable. ``newest_ingest_us``: Kafka's time of the
    newest record processed, 0 before the first; for monitors only.
    """

    index: int
    topic_partition: TopicPartition
    lane_id: int
    epoch: int
    next_offset: int
    state: LaneState
    committed_offset: int = 0
    stored: bool = False
    refused: set[tuple[str, str]] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, tuple[int, int]] = field(default_factory=dict)  # by radio cell: first and last slot
    scored: int = 0
    newest_ingest_us: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    new_series: list[tuple[int, str, int, bool]] = field(default_factory=list)
    retired_series: list[int] = field(default_factory=list)
    states: list[StateRows] = field(default_factory=list)
    anchors: list[AnchorRows] = field(default_factory=list)
    marks: list[MarkRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    journal: list[JournalRow] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    requests_taken: set[int] = field(default_factory=set)
    firings: list[tuple[Firing, tuple[str, ...]]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    dead_ranges: dict[tuple[int, str], DeadLetterRange] = field(default_factory=dict)  # by stretch and reason
    replayed: list[ReplayedLetter] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)

    @classmethod
    def owned(cls, index: int, topic_partition: TopicPartition, snapshot: LaneSnapshot) -> Lane:
        """The lane of a snapshot that was just read."""
        state = msgspec.json.decode(snapshot.state, type=LaneState) if snapshot.state else LaneState()
        offset = snapshot.next_offset or 0
        return cls(
            index,
            topic_partition,
            snapshot.lane_id,
            snapshot.epoch,
            offset,
            state,
            offset,
            snapshot.next_offset is not None,
        )

    def count(self, outcome: str, n: int) -> None:
        """Add to one of ``COUNTS``."""
        self.counts[outcome] += n

    def bury(self, letter: DeadLetter, most: int, stretch_offsets: int) -> None:
        """Keep a dead letter: whole up to ``most`` of its reason in a stretch of so many offsets, else as a count.

        Offsets decide, so that neither the size of a poll nor the moment of a commit does.
        """
        begins = letter.offset - letter.offset % stretch_offsets
        if begins != self.state.stretch:
            self.state.stretch, self.state.letters = begins, {}
        kept = self.state.letters.get(letter.reason, 0)
        if kept < most:
            self.state.letters[letter.reason] = kept + 1
            self.dead_letters.append(letter)
            return
        at_us = letter.ingest_time_us
        found = self.dead_ranges.get((begins, letter.reason))
        if found is None:
            self.dead_ranges[begins, letter.reason] = DeadLetterRange(
                begins, letter.reason, letter.offset, letter.offset, 1, at_us, at_us
            )
            return
        found.last_offset, found.letters = letter.offset, found.letters + 1
        found.first_ingest_us = min(found.first_ingest_us, at_us)
        found.last_ingest_us = max(found.last_ingest_us, at_us)

    def is_scored(self, key: str, score_series_max: int) -> bool:
        """Whether a new series joins the scored ones: a fixed hash sample, halved whenever a bucket ends too full."""
        return self.scored < 2 * score_series_max and self.is_sampled(key)

    def is_sampled(self, key: str) -> bool:
        """Whether the key is in the hash sample of the lane's score level."""
        return sampled(key_hash(key), 0.5**self.state.score_level)

    def is_anchored(self, key: str) -> bool:
        """Whether the key is in the hash sample of the lane's anchor level."""
        return sampled(key_hash(key), 0.5**self.state.anchor_level)


def key_hash(key: str) -> int:
    """A 32-bit hash of a key that is the same on every machine."""
    return zlib.crc32(key.encode())


def firing_id(hook: str, object_id: str, attribute: str, slot_time_us: int) -> str:
    """32 hex digits that depend on nothing else: the id of a firing."""
    text = "\x1f".join((hook, object_id, attribute, str(slot_time_us)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

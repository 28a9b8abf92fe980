"""Where records come from: the port of a source, and a log in this process that behaves as topics with partitions."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from netpredict.types import PolledPartition, TopicPartition


@dataclass(frozen=True, slots=True)
class AssignmentChange:
    """What a rebalance did since the last poll, to be handled in this order: revoked and lost, then assigned."""

    revoked: tuple[TopicPartition, ...] = ()
    lost: tuple[TopicPartition, ...] = ()
    assigned: tuple[TopicPartition, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.revoked or self.lost or self.assigned)


class Gap(NamedTuple):
    """Offsets of a topic partition that were not delivered: from ``first`` up to, not including, ``until``.

    ``reason``: corrupt (checksum), unreadable (sound checksum, no records in it), expired (older than what the broker
    keeps), truncated (the broker's log ends before ``first``; ``until`` is then the smaller one).
    """

    topic_partition: TopicPartition
    first: int
    until: int
    reason: str


class Source(Protocol):
    """A consumer of topic partitions whose offsets are kept elsewhere.

    A newly assigned topic partition brings no records until ``seek`` was called for it. ``stats`` are running totals
    for monitors: ``rebalances``, ``rebuilds`` and what else the source counts. ``trouble`` says, for people, what keeps
    records from coming; it is empty while they may.
    """

    stats: dict[str, int]
    trouble: str

    def start(self) -> None:
        """Connect and subscribe. Raises SourceUnavailable (retriable)."""
        ...

    def poll(self, timeout_s: float) -> Sequence[PolledPartition]:
        """Records of seeked topic partitions, at most the configured number; empty after ``timeout_s``."""
        ...

    def changes(self) -> AssignmentChange:
        """What changed in the assignment since the last call."""
        ...

    def seek(self, topic_partition: TopicPartition, offset: int | None) -> int:
        """Deliver from this offset on (None: from the configured start); gives the offset that comes first."""
        ...

    def pause(self) -> None:
        """Deliver nothing until ``resume``; polling goes on, so that the group membership is kept."""
        ...

    def resume(self) -> None:
        """Undo ``pause``."""
        ...

    def topic_id(self, topic: str) -> str:
        """Changes when a topic is deleted and made anew; empty when the source cannot tell."""
        ...

    def gaps(self) -> list[Gap]:
        """What was skipped since the last call; each becomes a row in the store."""
        ...

    def end_offsets(self) -> Mapping[TopicPartition, int]:
        """Newest known end of each assigned topic partition; never blocks on the network."""
        ...

    def report_progress(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell lag monitors what is durable; errors are swallowed and counted, since nothing depends on it."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class MemoryRecord(NamedTuple):
    """A record of a ``MemoryLog``."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class MemoryLog:
    """Topics with partitions and offsets in this process; keys choose the partition, ``trim`` forgets old records."""

    partitions: Mapping[str, int]
    _logs: dict[TopicPartition, list[MemoryRecord]] = field(default_factory=dict)
    _first: dict[TopicPartition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for topic, count in self.partitions.items():
            for partition in range(count):
                self._logs[TopicPartition(topic, partition)] = []
                self._first[TopicPartition(topic, partition)] = 0

    def topic_partitions(self) -> list[TopicPartition]:
        """All topic partitions, sorted."""
        return sorted(self._logs)

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[TopicPartition, int]:
        """Add a record; gives its place. Equal keys share a partition."""
        topic_partition = TopicPartition(topic, zlib.crc32(key or b"") % self.partitions[topic])
        return topic_partition, self.append_to(topic_partition, key, value, timestamp_ms, headers)

    def append_to(
        self,
        topic_partition: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> int:
        """Add a record to a chosen topic partition; gives its offset."""
        offset = self.end(topic_partition)
        self._logs[topic_partition].append(MemoryRecord(offset, timestamp_ms, key, value, headers))
        return offset

    def first(self, topic_partition: TopicPartition) -> int:
        """Offset of the oldest record still kept."""
        return self._first[topic_partition]

    def end(self, topic_partition: TopicPartition) -> int:
        """Offset that the next record will get."""
        return self._first[topic_partition] + len(self._logs[topic_partition])

    def read(self, topic_partition: TopicPartition, offset: int, count: int) -> list[MemoryRecord]:
        """At most ``count`` records from ``offset`` on."""
        start = max(offset - self._first[topic_partition], 0)
        return self._logs[topic_partition][start : start + count]

    def trim(self, topic_partition: TopicPartition, before: int) -> None:
        """Forget records below ``before``, as retention does."""
        gone = max(0, min(before, self.end(topic_partition)) - self._first[topic_partition])
        del self._logs[topic_partition][:gone]
        self._first[topic_partition] += gone


class MemorySource:
    """Reads some topic partitions (all by default) of a ``MemoryLog``, in turn, ``poll_records_max`` at a time."""

    def __init__(
        self,
        log: MemoryLog,
        poll_records_max: int = 5000,
        topic_partitions: Sequence[TopicPartition] | None = None,
    ) -> None:
        self.log = log
        self.poll_records_max = poll_records_max
        self.trouble = ""
        self.reported: dict[TopicPartition, int] = {}
        self.stats: dict[str, int] = {}
        self._mine = list(log.topic_partitions() if topic_partitions is None else topic_partitions)
        self._positions: dict[TopicPartition, int] = {}
        self._changes = AssignmentChange(assigned=tuple(self._mine))
        self._turn = 0
        self._paused = False
        self._gaps: list[Gap] = []

    def start(self) -> None:
        """Nothing to connect to."""

    def poll(self, timeout_s: float) -> Sequence[PolledPartition]:
        """Records of the topic partitions whose turn it is; returns at once."""
        polled: list[PolledPartition] = []
        room = 0 if self._paused else self.poll_records_max
        for step in range(len(self._mine)):
            topic_partition = self._mine[(self._turn + step) % len(self._mine)]
            position = self._positions.get(topic_partition)
            if room <= 0 or position is None:
                continue
            if position < (first := self.log.first(topic_partition)):
                self._gaps.append(Gap(topic_partition, position, first, "offset_out_of_range"))
            records = self.log.read(topic_partition, position, room)
            if records:
                room -= len(records)
                self._positions[topic_partition] = records[-1].offset + 1
                polled.append(PolledPartition(topic_partition, records, records[-1].offset + 1))
        self._turn += 1
        return polled

    def changes(self) -> AssignmentChange:
        """The first assignment, then nothing, unless ``reassign`` was called."""
        changes, self._changes = self._changes, AssignmentChange()
        return changes

    def reassign(self, change: AssignmentChange) -> None:
        """Play a rebalance, for tests."""
        for topic_partition in (*change.revoked, *change.lost):
            self._positions.pop(topic_partition, None)
            self._mine.remove(topic_partition)
        self._mine.extend(change.assigned)
        self._changes = change

    def seek(self, topic_partition: TopicPartition, offset: int | None) -> int:
        """Deliver from here on; never before the oldest record kept."""
        first = self.log.first(topic_partition)
        self._positions[topic_partition] = max(first, first if offset is None else offset)
        return self._positions[topic_partition]

    def pause(self) -> None:
        """Deliver nothing until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Undo ``pause``."""
        self._paused = False

    def topic_id(self, topic: str) -> str:
        """A log in this process is never made anew."""
        return ""

    def gaps(self) -> list[Gap]:
        """What was trimmed before it was read."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def end_offsets(self) -> Mapping[TopicPartition, int]:
        """End of each topic partition."""
        return {topic_partition: self.log.end(topic_partition) for topic_partition in self._mine}

    def report_progress(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Kept in ``reported`` for tests."""
        self.reported.update(offsets)

    def close(self) -> None:
        """Nothing to leave."""

"""A consumer of real Kafka topics behind the port ``Source``, and what it takes to keep kafka-python alive.

Four facts about kafka-python 3.0.12 shape this file. After a poll that raised, the same client spins for ever unless
it is seeked past the bad batch or made anew. Rebalance listeners run on its IO thread and stop the heartbeats while
they run. A client can lose a broker and never ask it again, so progress is watched per topic partition. A client that
was refused keeps the refusal and tells it to its log, if at all. Its private parts are touched in five places only
(``_position_of``, ``_buffered``, ``_fetch_raw``, ``topic_id``, ``Losses``).
"""

from __future__ import annotations

import importlib.util
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata
from kafka import TopicPartition as KafkaTopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailedError,
    UnsupportedCodecError,
)
from kafka.net.compat import KafkaNetClient
from kafka.record import MemoryRecords
from kafka.structs import MemberState

from netpredict.config import KafkaConfig
from netpredict.errors import ConfigError, SourceRefused, SourceUnavailable
from netpredict.ingest.kafka_access import client_access
from netpredict.ingest.kafka_probe import why_refused
from netpredict.ingest.source import AssignmentChange, Gap
from netpredict.types import PolledPartition, TopicPartition

LOG = structlog.get_logger(__name__)

BOOTSTRAP_S = 5.0
REQUEST_S = 30.0
ANSWER_S = 5.0
CLOSE_S = 3.0
SWEEP_S = 1.0
READ_ATTEMPTS = 3
RETRY_S = 0.2
RETRY_MAX_S = 10.0
METADATA_MAX_AGE_S = 60.0
FIRST_OFFSETS_KEPT_S = 5.0
V2_HEADER_BYTES = 61
LOSSES_MAX = 3
"""So many connections that did not become ready make us ask why."""


class KafkaSource:
    """Reads some topics as a member of a consumer group; the offsets are kept elsewhere.

    ``on_revoke`` is called on kafka-python's IO thread before topic partitions go to another member; it may wait for
    the commit in flight, for less than the session timeout. It is not called for lost ones, which are others' already.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Sequence[str],
        on_revoke: Callable[[tuple[TopicPartition, ...]], None] | None = None,
    ) -> None:
        if importlib.util.find_spec("crc32c") is None:
            raise ConfigError("install crc32c: without it checksums are computed in Python, 700 times slower")
        self.stats: dict[str, int] = dict.fromkeys(
            ("records", "rebalances", "rebuilds", "poll_errors", "gaps", "listener_errors", "progress_errors"), 0
        )
        self._config = config
        self._topics = tuple(topics)
        self._on_revoke = on_revoke
        self._consumer: Any = None
        self._losses = Losses()
        self.trouble = ""
        self._listener: _Listener | None = None
        self._paused = False
        self._retry_s = 0.0
        self._retry_at_s = 0.0
        self._swept_s = 0.0
        self._member_s = 0.0  # when the client was known to be in the group, or began
        self._gaps: list[Gap] = []
        self._topic_ids: dict[str, str] = {}
        self._first_offsets: tuple[float, dict[TopicPartition, int]] = (0.0, {})
        self._lock = threading.RLock()
        # Under the lock, as the listener runs on the IO thread:
        self._assigned: set[TopicPartition] = set()  # by Kafka
        self._told: set[TopicPartition] = set()  # by ``changes``
        self._revoked: dict[TopicPartition, None] = {}
        self._lost: dict[TopicPartition, None] = {}
        self._positions: dict[TopicPartition, int] = {}  # of the seeked ones: what the next record is expected to be
        self._skipped: set[TopicPartition] = set()  # positions that moved without a record and were not told yet
        self._moved_s: dict[TopicPartition, float] = {}

    def start(self) -> None:
        """Connect and subscribe. Raises SourceUnavailable (retriable)."""
        self._connect()

    def poll(self, timeout_s: float) -> Sequence[PolledPartition]:
        """Records of seeked topic partitions; empty after ``timeout_s``, and while the client is made anew.

        Raises ConfigError when a codec is missing: the data is sound, so it must not be skipped.
        """
        if self._consumer is None and not self._reconnected(timeout_s):
            return ()
        try:
            if self._refused():
                self._rebuild("refused")
                return ()
            if self.stalled():
                self._rebuild("stalled")
                return ()
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        except UnsupportedCodecError as error:
            self._disconnect(tell=False)
            raise ConfigError(f"install the codec extra (netpredict[codecs]): {error}") from error
        except Exception as error:
            self._recover(error)
            return ()
        self.trouble = ""
        self._see_what_is_left()
        self._see_what_was_made_anew()
        now_s = time.monotonic()
        if polled:
            self._retry_s = 0.0
        batches = [self._delivered(topic_partition, records, now_s) for topic_partition, records in polled.items()]
        if not batches or now_s - self._swept_s > SWEEP_S:
            batches += self._moved_without_records(now_s)
        return [batch for batch in batches if batch is not None]

    def changes(self) -> AssignmentChange:
        """What changed in the assignment since the last call."""
        with self._lock:
            gone = self._revoked.keys() | self._lost.keys()
            change = AssignmentChange(
                tuple(self._revoked), tuple(self._lost), tuple(sorted(self._assigned - (self._told - gone)))
            )
            self._revoked, self._lost, self._told = {}, {}, set(self._assigned)
        return change

    def seek(self, topic_partition: TopicPartition, offset: int | None) -> int:
        """Deliver from this offset on (None: from the configured start); gives the offset that comes first.

        What came before the oldest record kept is skipped, and told by the return value, not by ``gaps``. Without an
        answer of the broker a given offset is taken as it is, and None raises SourceUnavailable.
        """
        if offset is None and self._config.start == "latest":
            position = self._ask("end_offsets", [topic_partition])[topic_partition]
        elif offset is None:
            position = self._first_offset(topic_partition)
        else:
            position = offset
            with suppress(SourceUnavailable):
                position = max(offset, self._first_offset(topic_partition))
        with self._lock:
            untold = self._revoked.keys() | self._lost.keys()
            # else it went, and maybe came back, meanwhile; ``changes`` will tell, and then is the time to seek
            if topic_partition in (self._assigned & self._told) - untold:
                self._positions[topic_partition] = position
                self._moved_s[topic_partition] = time.monotonic()
                self._skipped.discard(topic_partition)
                self._place((topic_partition,))
        return position

    def pause(self) -> None:
        """Deliver nothing until ``resume``; polling goes on, so that the group membership is kept."""
        with self._lock:
            self._paused = True
            self._on_client("pause", self._assigned)

    def resume(self) -> None:
        """Undo ``pause``."""
        with self._lock:
            self._paused = False
            self._moved_s = dict.fromkeys(self._positions, time.monotonic())
            self._on_client("resume", self._positions)

    def topic_id(self, topic: str) -> str:
        """Changes when a topic is deleted and made anew; empty before the first answer of a broker of 2.8 or newer."""
        if self._consumer is not None:
            topic_id = self._consumer._cluster.topic_id(topic)
            if topic_id is not None and topic_id.int:
                return str(topic_id)
        return self._topic_ids.get(topic, "")

    def end_offsets(self) -> Mapping[TopicPartition, int]:
        """Newest known end of each assigned topic partition that was fetched from; never blocks on the network."""
        with self._lock:
            ends = self._on_client("highwater", self._positions)
            return {tp: max(end, self._positions[tp]) for tp, end in ends.items() if end is not None}

    def report_progress(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell lag monitors what is durable; errors are swallowed and counted, since nothing depends on it."""
        with self._lock:
            owned = {_theirs(tp): OffsetAndMetadata(at, "", -1) for tp, at in offsets.items() if tp in self._assigned}
            if not owned or not self._in_group:
                return
        try:
            self._consumer.commit_async(owned, callback=self._progress_told)
        except Exception:
            self.stats["progress_errors"] += 1

    def gaps(self) -> list[Gap]:
        """What was skipped since the last call; each is to become a row, never to be dropped."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def stalled(self) -> bool:
        """Whether a topic partition brought nothing for ``rebuild_after_s`` although the broker has more.

        The cached ends cannot tell, since a client that lost its broker gets no newer ones: the broker is asked, once
        per ``rebuild_after_s``. No answer counts as stalled, and so does a group that does not take the client in.
        """
        now_s = time.monotonic()
        if self._left_out(now_s):
            return True
        if self._paused or not self._in_group:
            return False
        with self._lock:
            late_s = now_s - self._config.rebuild_after_s
            late = [tp for tp, moved_s in self._moved_s.items() if moved_s < late_s and tp in self._positions]
            if not late:
                return False
            positions = {topic_partition: self._positions[topic_partition] for topic_partition in late}
            self._moved_s.update(dict.fromkeys(late, now_s))
        waiting = _buffered(self._consumer)
        try:
            ends = self._ask("end_offsets", [tp for tp in late if tp not in waiting])
        except SourceUnavailable:
            return True
        return any(end > positions[topic_partition] for topic_partition, end in ends.items())

    def _left_out(self, now_s: float) -> bool:
        """Whether the group did not take the client in for as long as it may wait for a member that has died."""
        if self._consumer is None or self._paused or self._consumer.group_metadata().state == MemberState.STABLE:
            self._member_s = now_s
        return now_s - self._member_s > max(self._config.rebuild_after_s, self._config.session_timeout_s)

    def close(self) -> None:
        """Leave the group."""
        self._disconnect(tell=True)

    @property
    def _in_group(self) -> bool:
        """Whether the client has what ``_assigned`` says; not between a rebuild and the next assignment."""
        return self._consumer is not None and self._listener is not None and not self._listener.rejoining

    # -- one poll

    def _delivered(self, theirs: Any, records: Sequence[Any], now_s: float) -> PolledPartition | None:
        topic_partition = TopicPartition(theirs.topic, theirs.partition)
        position = _position_of(self._consumer, theirs)
        with self._lock:
            if topic_partition not in self._positions:
                return None
            # the position is beyond the last record where transactions or compaction left holes
            next_offset = records[-1].offset + 1 if position is None else position
            self._positions[topic_partition] = next_offset
            self._moved_s[topic_partition] = now_s
            self._skipped.discard(topic_partition)
        self.stats["records"] += len(records)
        return PolledPartition(topic_partition, records, next_offset)

    def _moved_without_records(self, now_s: float) -> list[PolledPartition]:
        """Positions that passed aborted transactions or a gap, behind which no record has come yet."""
        self._swept_s = now_s
        with self._lock:
            for topic_partition, known in self._positions.items():
                position = _position_of(self._consumer, _theirs(topic_partition))
                if position is not None and position != known:
                    self._positions[topic_partition] = position
                    self._moved_s[topic_partition] = now_s
                    self._skipped.add(topic_partition)
            moved = [PolledPartition(tp, (), self._positions[tp]) for tp in self._skipped if tp in self._positions]
            self._skipped.clear()
        return moved

    def _see_what_is_left(self) -> None:
        """A client made anew whose group has no topic partition for it is not told so by kafka-python."""
        if self._in_group or self._consumer.group_metadata().state != MemberState.STABLE:
            return
        with self._lock:
            if self._listener is not None and self._listener.rejoining and not self._consumer.assignment():
                self._listener.rejoining = False
                self._came_back(self._consumer, set())

    def _see_what_was_made_anew(self) -> None:
        """Give back, and take anew, the partitions of a topic that was deleted and created again."""
        for topic in self._topics:
            topic_id = self.topic_id(topic)
            known = self._topic_ids.setdefault(topic, topic_id) if topic_id else ""
            if known == topic_id:
                continue
            self._topic_ids[topic] = topic_id
            LOG.warning("kafka_topic_made_anew", topic=topic, topic_id=topic_id, before=known)
            with self._lock:
                mine = {topic_partition for topic_partition in self._assigned if topic_partition.topic == topic}
                self._drop(mine, self._lost)
                self._take(self._consumer, mine)

    # -- the assignment; these run on the IO thread, under the lock

    def _take(self, consumer: Any, topic_partitions: Iterable[TopicPartition]) -> None:
        for topic_partition in topic_partitions:
            self._assigned.add(topic_partition)
            consumer.pause(_theirs(topic_partition))
            # any position keeps kafka-python from asking the group for one; nothing is fetched while paused
            consumer.seek(_theirs(topic_partition), 0)
        self._first_offsets = (0.0, {})

    def _drop(self, topic_partitions: Iterable[TopicPartition], into: dict[TopicPartition, None]) -> None:
        for topic_partition in sorted(topic_partitions):
            self._assigned.discard(topic_partition)
            self._positions.pop(topic_partition, None)
            self._moved_s.pop(topic_partition, None)
            self._skipped.discard(topic_partition)
            if topic_partition in self._told and topic_partition not in self._lost:
                self._revoked.pop(topic_partition, None)
                into[topic_partition] = None

    def _place(self, topic_partitions: Iterable[TopicPartition]) -> None:
        """Bring the client to the positions that are due."""
        for topic_partition in topic_partitions:
            self._on_client("seek", (topic_partition,), self._positions[topic_partition])
        if not self._paused:
            self._on_client("resume", topic_partitions)

    def _on_client(
        self, method: str, topic_partitions: Iterable[TopicPartition], *arguments: Any
    ) -> dict[TopicPartition, Any]:
        """Call a method of the client per topic partition; those that it has just given back are left out."""
        answers = {}
        if self._in_group:
            for topic_partition in topic_partitions:
                with suppress(KeyError, ValueError, KafkaError):
                    answers[topic_partition] = getattr(self._consumer, method)(_theirs(topic_partition), *arguments)
        return answers

    def _came_back(self, consumer: Any, topic_partitions: set[TopicPartition]) -> None:
        """The first assignment of a client made anew: what is still ours goes on where it stood."""
        before = set(self._assigned)
        self._drop(before - topic_partitions, self._lost)
        known = [topic_partition for topic_partition in before & topic_partitions if topic_partition in self._positions]
        self._take(consumer, topic_partitions)
        self._place(known)
        self._moved_s = dict.fromkeys(self._positions, time.monotonic())

    # -- errors

    def _recover(self, error: Exception) -> None:
        """Leave the client in a state in which it may be polled again."""
        self.stats["poll_errors"] += 1
        retriable = bool(getattr(error, "retriable", False))
        LOG.warning("kafka_poll_failed", error=_text(error), retriable=retriable)
        if isinstance(error, OffsetOutOfRangeError):
            self._back_in_range(_ours(error.args[0]))
        elif isinstance(error, LogTruncationError):
            ends = {theirs: end for theirs, end in error.divergent_offsets.items() if end is not None}
            for theirs, end in ends.items():
                self._skip(TopicPartition(theirs.topic, theirs.partition), end.offset, "truncated")
            self._back_in_range(_ours(error.divergent_offsets.keys() - ends.keys()))
        elif isinstance(error, NoOffsetForPartitionError):
            pass  # assigned this moment; the listener has given it a position by now
        elif isinstance(error, AuthorizationError | SaslAuthenticationFailedError):
            self.trouble = str(unavailable(self._config, self._config.bootstrap_servers, error))
            self._rebuild(_text(error))
        elif retriable:
            time.sleep(RETRY_S)  # it may raise at once again
        elif not self._stepped_over():
            self._rebuild(type(error).__name__)

    def _back_in_range(self, topic_partitions: Iterable[TopicPartition]) -> None:
        """Go on at the oldest record kept; without an answer the next poll raises again."""
        self._first_offsets = (0.0, {})
        for topic_partition in topic_partitions:
            try:
                first = self._first_offset(topic_partition)
            except SourceUnavailable:
                return
            known = self._positions.get(topic_partition)
            if known is not None:
                self._skip(topic_partition, first, "expired" if first > known else "truncated")

    def _skip(self, topic_partition: TopicPartition, until: int, reason: str) -> None:
        with self._lock:
            first = self._positions.get(topic_partition)
            if first is None:
                return
            self._gaps.append(Gap(topic_partition, first, until, reason))
            self.stats["gaps"] += 1
            self._positions[topic_partition] = until
            self._skipped.add(topic_partition)
            self._moved_s[topic_partition] = time.monotonic()
            self._place((topic_partition,))
        LOG.error(
            "kafka_offsets_skipped", topic_partition=str(topic_partition), first=first, until=until, reason=reason
        )

    def _stepped_over(self) -> bool:
        """Look, with another client, for what cannot be read at the positions, and skip what stays damaged."""
        with self._lock:
            positions = dict(self._positions)
        found = False
        for topic_partition, position in positions.items():
            damage = self._lasting_damage(topic_partition, position)
            if damage is None:
                continue
            found = True
            until, reason = damage
            try:  # a damaged header may claim more offsets than there are
                until = min(until, max(position + 1, self._ask("end_offsets", [topic_partition])[topic_partition]))
            except SourceUnavailable:
                return False
            self._skip(topic_partition, until, reason)
        return found

    def _lasting_damage(self, topic_partition: TopicPartition, position: int) -> tuple[int, str] | None:
        damage = None
        for attempt in range(READ_ATTEMPTS):
            if attempt:
                time.sleep(RETRY_S)  # a bit may have flipped on the way, not on the disk
            raw = self._fetch_raw(topic_partition, position)
            damage = first_damage(raw, position) if raw else None
            if damage is None:
                break
        return damage

    def _fetch_raw(self, topic_partition: TopicPartition, offset: int) -> bytes:
        """One fetch of undecoded batches by a client outside the group; empty when none came in time."""
        fetched: list[bytes] = []
        try:
            consumer = new_client(KafkaConsumer, self._settings() | {"group_id": None, "group_instance_id": None})
        except (KafkaError, OSError) as error:
            LOG.warning("kafka_damage_not_seen", topic_partition=str(topic_partition), error=_text(error))
            return b""
        try:
            # the parser is where a damaged batch would raise, and then spin
            consumer._fetcher._parse_fetched_data = lambda done: fetched.append(done.partition_data.records or b"")
            consumer.assign([_theirs(topic_partition)])
            consumer.seek(_theirs(topic_partition), offset)
            until_s = time.monotonic() + ANSWER_S
            while not any(fetched) and time.monotonic() < until_s:
                consumer.poll(timeout_ms=100)
        except KafkaError as error:
            LOG.warning("kafka_damage_not_seen", topic_partition=str(topic_partition), error=_text(error))
        finally:
            _close(consumer)
        return bytes(next(filter(None, fetched), b""))

    # -- the client

    def _settings(self) -> dict[str, Any]:
        config = self._config
        cooperative = config.assignment == "cooperative"
        return {
            **client_access(config),
            "bootstrap_servers": config.bootstrap_servers,
            "client_id": config.client_id,
            "group_id": config.group,
            "group_instance_id": config.group_instance_id,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",  # out of range raises; nothing is skipped in silence
            "isolation_level": "read_committed",
            "check_crcs": True,
            "allow_auto_create_topics": False,
            "partition_assignment_strategy": (CooperativeStickyAssignor if cooperative else RangePartitionAssignor,),
            "max_poll_records": config.poll_records_max,
            "fetch_min_bytes": config.fetch_min_bytes,
            "fetch_max_wait_ms": int(config.fetch_max_wait_s * 1000),
            "fetch_max_bytes": max(52_428_800, config.max_partition_fetch_bytes),
            "max_partition_fetch_bytes": config.max_partition_fetch_bytes,
            "session_timeout_ms": int(config.session_timeout_s * 1000),
            "heartbeat_interval_ms": int(min(3.0, config.session_timeout_s / 3) * 1000),
            "max_poll_interval_ms": int(config.max_poll_interval_s * 1000),
            "request_timeout_ms": int(REQUEST_S * 1000),
            "bootstrap_timeout_ms": int(BOOTSTRAP_S * 1000),
            "metadata_max_age_ms": int(METADATA_MAX_AGE_S * 1000),
            "reconnect_backoff_max_ms": 5000,
            "metrics_enabled": False,
        }

    def _connect(self) -> None:
        try:
            losses, consumer = Losses(), None
            consumer = new_client(KafkaConsumer, self._settings(), losses)
            listener = _Listener(self, consumer, rejoining=bool(self._assigned))
            consumer.subscribe(topics=list(self._topics), listener=listener)
            for topic in self._topics:
                # a leader that joins before it knows the topics assigns nothing, and then all again
                consumer.partitions_for_topic(topic)
        except (KafkaError, OSError) as error:
            if consumer is not None:
                _close(consumer)
            failure = unavailable(self._config, self._config.bootstrap_servers, error)
            self.trouble = str(failure)
            raise failure from error
        with self._lock:
            self._listener, self._consumer, self._member_s = listener, consumer, time.monotonic()
        self._losses = losses

    def _reconnected(self, timeout_s: float) -> bool:
        wait_s = self._retry_at_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            return False
        try:
            self._connect()
        except (SourceUnavailable, ConfigError) as error:  # a file of secrets may be under exchange
            self.trouble = str(error)
            self._retry_later()
            refused = isinstance(error, SourceRefused)
            LOG.warning("kafka_refused" if refused else "kafka_unavailable", error=str(error), retry_s=self._retry_s)
            return False
        return True

    def _refused(self) -> bool:
        """Whether the client cannot connect any more for lack of trust; it would not notice when that is mended."""
        if self._losses.count < LOSSES_MAX:
            return False
        self._losses.count = 0
        try:
            why = why_refused(self._config, self._config.bootstrap_servers)
        except ConfigError as error:
            why = str(error)
        self.trouble = why or self.trouble
        return bool(why)

    def _retry_later(self) -> None:
        """Wait twice as long as the last time, until records come."""
        self._retry_s = min(max(2 * self._retry_s, RETRY_S), RETRY_MAX_S)
        self._retry_at_s = time.monotonic() + self._retry_s

    def _rebuild(self, why: str) -> None:
        """Make the client anew; what the group still gives us goes on where it stood."""
        LOG.warning("kafka_client_rebuilt", why=why)
        self.stats["rebuilds"] += 1
        self._retry_later()
        self._disconnect(tell=False)

    def _disconnect(self, tell: bool) -> None:
        with self._lock:
            consumer, self._consumer = self._consumer, None
            if self._listener is not None and not tell:
                self._listener.source = None
        self._losses = Losses()
        if consumer is None:
            return
        # a wedged client may not close; then its thread is left behind rather than ours
        closing = threading.Thread(target=_close, args=(consumer,), name="kafka-close", daemon=True)
        closing.start()
        closing.join(2 * CLOSE_S)
        if closing.is_alive():
            LOG.warning("kafka_client_left_behind")

    def _first_offset(self, topic_partition: TopicPartition) -> int:
        """Oldest offset kept; all assigned ones are asked at once. SourceUnavailable when the broker is silent."""
        asked_s, known = self._first_offsets
        if topic_partition not in known or time.monotonic() - asked_s > FIRST_OFFSETS_KEPT_S:
            with self._lock:
                wanted = sorted(self._assigned | {topic_partition})
            known = self._ask("beginning_offsets", wanted)
            self._first_offsets = (time.monotonic(), known)
        return known[topic_partition]

    def _ask(self, what: str, topic_partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if not topic_partitions:
            return {}
        if self._consumer is None:
            raise SourceUnavailable("not connected to Kafka")
        try:
            offsets = getattr(self._consumer, what)(
                list(map(_theirs, topic_partitions)), timeout_ms=int(ANSWER_S * 1000)
            )
        except Exception as error:  # not only KafkaError: an unknown topic partition ends in AttributeError
            raise SourceUnavailable(f"{what} not answered: {_text(error)}") from error
        return {TopicPartition(theirs.topic, theirs.partition): offset for theirs, offset in offsets.items()}

    def _progress_told(self, _offsets: object, answer: object) -> None:
        if isinstance(answer, Exception):
            self.stats["progress_errors"] += 1


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Records what the group decided. Nothing here may raise: kafka-python would throw it out of poll."""

    def __init__(self, source: KafkaSource, consumer: Any, rejoining: bool) -> None:
        self.source: KafkaSource | None = source
        self._consumer = consumer
        self.rejoining = rejoining

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """New ones stay paused until they are seeked."""
        source = self.source
        if source is None:
            return
        try:
            with source._lock:
                ours = _ours(assigned)
                source.stats["rebalances"] += 1
                if self.rejoining:
                    self.rejoining = False
                    source._came_back(self._consumer, ours)
                else:
                    source._take(self._consumer, ours)
        except Exception as error:
            self._failed(source, "assigned", error)

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """The owner of the source may finish its commit first."""
        source = self.source
        ours = _ours(revoked)
        if source is None or not ours:
            return
        try:
            if source._on_revoke is not None:
                source._on_revoke(tuple(sorted(ours)))
        except Exception as error:
            self._failed(source, "on_revoke", error)
        with source._lock:
            source._drop(ours, source._revoked)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """Another member may have them already."""
        source = self.source
        if source is not None:
            with source._lock:
                source._drop(_ours(lost), source._lost)

    def _failed(self, source: KafkaSource, where: str, error: Exception) -> None:
        source.stats["listener_errors"] += 1
        LOG.error("kafka_listener_failed", where=where, error=_text(error))


class Losses:
    """Counts the connections of a client in a row that ended before they were ready. None is told by polls."""

    def __init__(self) -> None:
        self.count = 0

    def listen_to(self, client: Any) -> None:
        """Look at each connection that the client makes from now on."""
        manager = client._manager
        connect = manager._connect

        async def watched(node: Any, connection: Any, *arguments: Any, **settings: Any) -> Any:
            connection.init_future.add_both(self._ended)
            return await connect(node, connection, *arguments, **settings)

        manager._connect = watched

    def _ended(self, outcome: object) -> None:
        self.count = self.count + 1 if isinstance(outcome, Exception) else 0


def new_client(kind: Callable[..., Any], settings: Mapping[str, Any], losses: Losses | None = None) -> Any:
    """A consumer or producer of kafka-python whose IO thread also ends when its constructor raises."""
    made: list[Any] = []

    def remembered(**net_settings: Any) -> Any:
        made.append(KafkaNetClient(**net_settings))
        if losses is not None:
            losses.listen_to(made[-1])
        return made[-1]

    try:
        return kind(**settings, kafka_client=remembered)
    except BaseException:
        for client in made:
            client.close()
        raise


def unavailable(config: KafkaConfig, servers: Sequence[str], error: BaseException) -> SourceUnavailable:
    """The error of ours for a client that could not be made: SourceRefused where trust is what lacks."""
    place = ", ".join(servers)
    if isinstance(error, AuthorizationError):
        return SourceRefused(_forbidden(error, config))
    if why := why_refused(config, servers):
        return SourceRefused(f"{place}: {why}")
    return SourceUnavailable(f"no broker answers at {place}: {_text(error)}")


def _forbidden(error: BaseException, config: KafkaConfig) -> str:
    who = f"user {config.sasl_username!r}" if config.uses_sasl else "us"
    return f"Kafka's access rules do not allow {who} what is needed ({_text(error)}); see deploy/kafka/README.md"


def first_damage(raw: bytes, position: int) -> tuple[int, str] | None:
    """Look at undecoded batches; gives the offset behind the damaged ones that ``position`` lies in, and the reason."""
    until, reason = position, ""
    start = 0
    while start + V2_HEADER_BYTES <= len(raw):
        base, length = struct.unpack_from(">qi", raw, start)
        end = start + 12 + length
        if end < start + V2_HEADER_BYTES or end > len(raw):
            break  # the last batch of a fetch may be cut
        following = struct.unpack_from(">q", raw, end)[0] if end + 8 <= len(raw) else -1
        if not base < following <= until:
            why = _why_unreadable(raw[start:end])
            if not why:
                break
            # delta and count may be the damaged part; where the next batch begins is not
            (last_delta,), (count,) = (
                struct.unpack_from(">i", raw, start + 23),
                struct.unpack_from(">i", raw, start + 57),
            )
            until = following if following > base else base + max(last_delta, count - 1, until - base) + 1
            reason = reason or why
        start = end
    return (until, reason) if reason else None


def _why_unreadable(batch_bytes: bytes) -> str:
    try:
        batch = MemoryRecords(batch_bytes).next_batch()
        if not batch.validate_crc():
            return "corrupt"
        for _ in batch:
            pass
    except UnsupportedCodecError:
        return ""  # sound; poll says what is missing
    except Exception:
        return "unreadable"
    return ""


def _position_of(consumer: Any, theirs: Any) -> int | None:
    # consumer.position() may wait for the network and raise, after the records were already taken
    state = consumer._subscription.assignment.get(theirs)
    position = None if state is None else state.position
    return None if position is None else int(position.offset)


def _buffered(consumer: Any) -> set[TopicPartition]:
    """Topic partitions whose records have come and wait for their turn: slow, not stalled."""
    return _ours(fetch.topic_partition for fetch in list(consumer._fetcher._completed_fetches))


def _theirs(topic_partition: TopicPartition) -> Any:
    return KafkaTopicPartition(topic_partition.topic, topic_partition.partition)


def _ours(topic_partitions: Iterable[Any]) -> set[TopicPartition]:
    return {TopicPartition(theirs.topic, theirs.partition) for theirs in topic_partitions}


def _close(consumer: Any) -> None:
    try:
        consumer.close(autocommit=False, timeout_ms=int(CLOSE_S * 1000))
    except Exception as error:
        LOG.warning("kafka_client_close_failed", error=_text(error))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:500]}"

"""Which topic partitions are ours: gives up what Kafka takes, takes over what it gives, at the stored offset."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from netpredict.clock import Clock
from netpredict.errors import NetpredictError
from netpredict.ingest.source import AssignmentChange, Source
from netpredict.operate.metrics import Metrics
from netpredict.pipeline import Pipeline
from netpredict.types import TopicPartition

LOG = structlog.get_logger(__name__)
AGAIN_S = 1.0
"""What could not be taken over, because store or broker did not answer, is tried again after this time."""


class Ownership:
    """``pipeline`` is exchanged when the config is read again. ``moved`` is called after each topic partition."""

    def __init__(
        self, pipeline: Pipeline, source: Source, metrics: Metrics, clock: Clock, moved: Callable[[], None]
    ) -> None:
        self.pipeline = pipeline
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._moved = moved
        self._postponed: dict[TopicPartition, float] = {}  # ours by Kafka, not taken over: when to try

    def follow(self, change: AssignmentChange) -> set[TopicPartition]:
        """Give up what was revoked or lost, then take over what was assigned, at its stored offset; gives all of them.

        Records of these that were polled before are not to be used: they are delivered again from the seek on.
        """
        for topic_partition in (*change.revoked, *change.lost):
            self.pipeline.revoke(topic_partition)
            self._postponed.pop(topic_partition, None)
            self._metrics.forget_partition(topic_partition)
        for topic_partition in change.assigned:
            self.take_over(topic_partition)
        if change:
            counts = {name: len(getattr(change, name)) for name in ("revoked", "lost", "assigned")}
            LOG.info("assignment", owned=len(self.pipeline.lanes), **counts)
        return {*change.revoked, *change.lost, *change.assigned}

    def take_over(self, topic_partition: TopicPartition) -> None:
        """Own it, at its stored offset. While store or broker do not answer it brings nothing and is tried again."""
        self.pipeline.revoke(topic_partition)
        self._postponed.pop(topic_partition, None)
        try:
            lane, offset = self.pipeline.assign(topic_partition, self._source.topic_id(topic_partition.topic))
            self.pipeline.started(lane, self._source.seek(topic_partition, offset))
        except NetpredictError as error:
            if not error.retriable:
                raise
            self.pipeline.revoke(topic_partition)
            self._postponed[topic_partition] = self._clock.monotonic_s() + AGAIN_S
            LOG.warning("take_over_postponed", topic_partition=str(topic_partition), error=str(error))
        self._moved()

    def give_way(self, topic_partition: TopicPartition, epoch: int, wait_s: float) -> None:
        """A commit was fenced: drop what came of this epoch, and take the topic partition over again after ``wait_s``.

        A process that was away for long hears only from its next heartbeats that others own its topic partitions;
        if it took a new epoch at once, it would fence its successor.
        """
        LOG.warning("fenced", topic_partition=str(topic_partition), epoch=epoch)
        lane = self.pipeline.lanes.get(topic_partition)
        if lane is not None and lane.epoch == epoch:  # else it was given up or taken anew since
            self.pipeline.revoke(topic_partition)
            self._postponed[topic_partition] = self._clock.monotonic_s() + wait_s

    def try_again(self) -> None:
        """Take over what is due."""
        now_s = self._clock.monotonic_s()
        for topic_partition in sorted(key for key, due_s in self._postponed.items() if due_s <= now_s):
            self.take_over(topic_partition)

"""A log and its control journal run again: what entered from outside enters at the offset at which it entered then.

For whoever compares stores, or asks why one holds what it holds. The pipeline runs on a store of its own, with a
``BlindShelf``, so that nothing but the journal says which versions serve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from netpredict import exclusion
from netpredict.errors import DataError
from netpredict.forecast.predictor import Predictor
from netpredict.lane import Lane
from netpredict.pipeline import Pipeline
from netpredict.store.commit import EXCLUDE, ControlRequest, JournalRow
from netpredict.stream import Stream
from netpredict.takeover import ModelShelf, activate, challenge
from netpredict.transplant import MOVE, MOVED, TRANSPLANT, enter
from netpredict.types import PolledPartition, TopicPartition


class BlindShelf:
    """Loads versions, and does not know which of them is active or on trial."""

    def __init__(self, shelf: ModelShelf) -> None:
        self._shelf = shelf

    def load(self, stream: str, predictor: str, version: str) -> tuple[int, Predictor]:
        """See ``ModelShelf``."""
        return self._shelf.load(stream, predictor, version)

    def active(self, stream: str, predictor: str) -> str | None:
        """None."""
        return None

    def challenger(self, stream: str, predictor: str) -> str | None:
        """None."""
        return None

    def earlier(self, stream: str, predictor: str) -> Sequence[str]:
        """None."""
        return ()

    def placeholder(self, stream: str, predictor: str) -> int:
        """See ``ModelShelf``."""
        return self._shelf.placeholder(stream, predictor)


class Rerun:
    """Steps a pipeline through polls, cut where the journal says that something entered."""

    def __init__(
        self, pipeline: Pipeline, shelf: BlindShelf, journal: Mapping[TopicPartition, Iterable[JournalRow]]
    ) -> None:
        self.pipeline = pipeline
        self._shelf = shelf
        self._journal = {
            topic_partition: deque(row for row in rows if row.kind != MOVED)  # the pipeline sees those itself
            for topic_partition, rows in journal.items()
        }

    def step(self, polled: Sequence[PolledPartition]) -> None:
        """One poll. DataError when the journal holds what only a run with another config could repeat."""
        while polled:
            for part in polled:
                self._enter(self.pipeline.lanes[part.topic_partition])
            pieces = [self._cut(part) for part in polled]
            self.pipeline.step([piece for piece, _ in pieces])
            polled = [rest for _, rest in pieces if rest is not None]

    def _cut(self, part: PolledPartition) -> tuple[PolledPartition, PolledPartition | None]:
        """What comes before the next entry, and the rest."""
        rows = self._journal.get(part.topic_partition)
        at = rows[0].effective_offset if rows else part.next_offset
        if at >= part.next_offset:
            return part, None
        records = [record for record in part.records if record.offset < at]
        rest = part.records[len(records) :]
        return replace(part, records=records, next_offset=at), replace(part, records=rest)

    def _enter(self, lane: Lane) -> None:
        """Everything that took effect before the lane's next record."""
        rows = self._journal.get(lane.topic_partition)
        while rows and rows[0].effective_offset <= lane.next_offset:
            self._take(self.pipeline.streams[lane.topic_partition.topic], lane, rows.popleft())

    def _take(self, stream: Stream, lane: Lane, row: JournalRow) -> None:
        payload = row.payload
        match row.kind:
            case "config":
                if payload["fingerprint"] != stream.fingerprint:
                    raise DataError(
                        f"at offset {row.effective_offset} of {lane.topic_partition} another config took effect: run"
                        " the log again with that one from there on"
                    )
            case "activate":
                activate(stream, lane, self._shelf, payload["predictor"], payload["version"])
            case "challenge":
                challenge(stream, lane, self._shelf, payload["predictor"], payload["version"])
            case "dismiss":
                challenge(stream, lane, self._shelf, payload["predictor"], None)
            case "transplant" | "move":
                assert row.kind in (TRANSPLANT, MOVE)
                enter(stream, lane, ControlRequest(-1 - len(lane.requests_taken), lane.lane_id, row.kind, payload))
            case "exclude":
                assert row.kind == EXCLUDE
                exclusion.enter(stream, lane, ControlRequest(-1, lane.lane_id, row.kind, payload))
            case "refused":
                lane.journal.append(row)
            case _:
                raise DataError(f"this release does not know the journal entry {row.kind!r} of {lane.topic_partition}")

"""THE page: what one poll goes through. Replay, backtest and the daemon drive this same object.

Nothing here reads a clock, a random number, the size of a poll or the moment of a commit, so that the store is a
function of the log and the control journal alone.

Read on in ``rounds`` (score, advance, serve, decide), ``stream`` (series, lanes and versions), ``takeover`` (from the
store to memory), ``transplant`` (from one series to another) and ``gather`` (from memory to a commit).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np

from netpredict import crash, exclusion
from netpredict.gather import lane_commits
from netpredict.ingest.align import align, slots_of
from netpredict.ingest.decode import Decoded
from netpredict.ingest.firewall import bad_key
from netpredict.ingest.source import MemoryRecord
from netpredict.lane import Lane
from netpredict.rounds import Rounds
from netpredict.store.commit import (
    EXCLUDE,
    REPLAY_REFUSED,
    REPLAYED,
    SERIES_PER_LANE,
    Commit,
    GapRow,
    JournalRow,
    Letter,
    ReplayedLetter,
    Store,
)
from netpredict.stream import Stream
from netpredict.takeover import ModelShelf, activate, challenge, restore
from netpredict.transplant import MOVED, enter
from netpredict.types import (
    NO_SLOT,
    AnyArray,
    DeadLetter,
    Int32Array,
    IntArray,
    ObservationBatch,
    PolledPartition,
    TopicPartition,
)

STAMP_MAX_MS = 2**53
"""A producer may stamp records as it likes: beyond this a stamp in µs would not fit into 64 bits."""

DEAD, LATE, DUPLICATE, ACCEPTED = range(4)
OUTCOMES = ("dead", "late", "duplicate", "accepted")


@dataclass(slots=True)
class _Inflow:
    """One lane's records of a poll as rows, with the verdict on each record."""

    lane: Lane
    polled: PolledPartition
    decoded: Decoded
    rows: AnyArray  # positions in ``decoded`` of what passed the firewall
    slot: IntArray  # of those
    ends: list[int]  # where the rows before the end of each bucket end
    outcome: AnyArray  # of each record
    reasons: dict[int, tuple[str, str]]  # of records, the first reason found
    done: int = 0  # rows that went through
    first_record: int = 0  # number of the first record among those of the whole poll
    again: bool = False  # a dead letter that enters again: late rows join the observations
    joined: int = 0  # late rows that did


class Pipeline:
    """The way from polled records to commits, over all streams and owned topic partitions of one process."""

    def __init__(self, group: str, streams: Sequence[Stream], store: Store, shelf: ModelShelf, owner: str = "") -> None:
        self.streams = {stream.config.topic: stream for stream in streams}
        self.lanes: dict[TopicPartition, Lane] = {}
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.moved: Counter[str] = Counter()
        self.replayed: Counter[tuple[str, str]] = Counter()
        self.rows_pending = 0
        self._rounds = {stream.config.topic: Rounds(stream) for stream in streams}
        self._group = group
        self._store = store
        self._shelf = shelf
        self._owner = owner
        for stream in streams:
            for route in stream.config.routes:
                stream.placeholder[route.active] = shelf.placeholder(stream.name, route.active)

    # -- one step ------------------------------------------------------------------------------------------------

    def step(self, polled: Sequence[PolledPartition]) -> None:
        """The way of a poll.

        1 decode; 2 firewall; 3 cut where buckets end; piece by piece: 4 find the series; 5 align; 6 round by round
        score, advance, decide; after the last piece: 7 count.
        """
        by_topic: dict[str, list[_Inflow]] = {}
        for part in polled:
            lane = self.lanes.get(part.topic_partition)
            if lane is not None:  # else revoked between poll and now: its new owner reads these records
                topic = part.topic_partition.topic
                by_topic.setdefault(topic, []).append(self._enter(self.streams[topic], lane, part))  # 1, 2, 3
        crash.reached("after_decode")
        for topic, inflows in by_topic.items():
            rounds = self._rounds[topic]
            for before, inflow in pairwise(inflows):
                inflow.first_record = before.first_record + len(before.polled.records)
            while waiting := [inflow for inflow in inflows if inflow.ends]:
                self._run_piece(rounds, waiting)  # 4, 5, 6
            rounds.fired.hand_over(rounds.stream.lanes)
            for inflow in inflows:
                self._account(rounds.stream, inflow)  # 7

    def _enter(self, stream: Stream, lane: Lane, polled: PolledPartition) -> _Inflow:
        decoded = stream.decoder.decode(polled.records)
        reasons = {reject.record: (reject.reason, reject.detail) for reject in decoded.rejects}
        stamps = (min(max(record.timestamp, 0), STAMP_MAX_MS) for record in polled.records)
        ingest = np.fromiter(stamps, np.int64, len(polled.records)) * 1000
        lane.newest_ingest_us = int(ingest.max(initial=lane.newest_ingest_us))
        verdict = stream.firewall.inspect(decoded, ingest[decoded.record], watched=True)
        refused = self._bad_keys(stream, lane, decoded, reasons)
        for reason, mask in verdict.refused.items():
            refused |= mask
            records, first = np.unique(decoded.record[mask], return_index=True)
            for record, row in zip(records.tolist(), np.flatnonzero(mask)[first].tolist(), strict=True):
                if record not in reasons:
                    reasons[record] = reason, verdict.detail(reason, row)
        rows = np.flatnonzero(~refused)
        slot = slots_of(decoded.event_time_us[rows], stream.period_us, stream.phase_us)
        outcome = np.full(len(polled.records), DEAD, np.int8)
        return _Inflow(lane, polled, decoded, rows, slot, _bucket_ends(stream, lane, slot), outcome, reasons)

    def _bad_keys(self, stream: Stream, lane: Lane, decoded: Decoded, reasons: dict[int, tuple[str, str]]) -> AnyArray:
        """Mask of rows whose key can never name a series here."""
        bad: dict[str, tuple[str, str]] = {}
        for key in set(decoded.keys).difference(lane.rows):
            if why := bad_key(key, len(stream.config.series_by)):
                bad[key] = ("identity", why)
            elif stream.route_of(key) < 0:
                bad[key] = ("no_route", "no route of the stream matches the key")
        mask = np.zeros(len(decoded.keys), bool)
        for row in [row for row, key in enumerate(decoded.keys) if key in bad] if bad else []:
            mask[row] = True
            reasons.setdefault(int(decoded.record[row]), bad[decoded.keys[row]])
        return mask

    def _run_piece(self, rounds: Rounds, inflows: list[_Inflow]) -> None:
        """What each lane brings before its bucket ends. The first row beyond the bucket ends it."""
        stream = rounds.stream
        batch, places = self._batch(stream, inflows)  # 4
        stale = batch.slot < self._watermark_before(stream, batch) - stream.ttl_slots
        aligned = align(batch.series, batch.slot, batch.record, stream.table.last_slot[batch.series], stale)  # 5
        verdicts = np.select([aligned.accepted, aligned.duplicate], [ACCEPTED, DUPLICATE], LATE).astype(np.int8)
        for inflow, place in zip(inflows, places, strict=True):
            np.maximum.at(inflow.outcome, batch.record[place] - inflow.first_record, verdicts[place])
        if inflows[0].again and stream.keep_observations:
            late = np.flatnonzero(aligned.late & (batch.slot < aligned.previous))
            rounds.join(batch.take(late))
            inflows[0].joined += len(late)
        rows = np.flatnonzero(aligned.accepted)
        self.rows_pending += len(rows)
        batch, number, previous = batch.take(rows), aligned.round[rows], aligned.previous[rows]
        order = np.argsort(number, kind="stable")
        for start, end in _runs(number[order]):  # 6
            part = order[start:end]
            rounds.run(batch.take(part), previous[part])
        crash.reached("after_predict")
        for start, end in _runs(batch.lane):
            lane = stream.lanes[batch.lane[start]]
            assert lane is not None
            lane.state.watermark = max(lane.state.watermark, int(batch.slot[start:end].max()))

    def _batch(self, stream: Stream, inflows: list[_Inflow]) -> tuple[ObservationBatch, list[slice]]:
        """The next rows of all lanes, lane after lane, records numbered through, and where each lane's are."""
        pieces: list[tuple[_Inflow, AnyArray, IntArray, Int32Array]] = []
        for inflow in inflows:
            piece = slice(inflow.done, inflow.ends.pop(0))
            inflow.done = piece.stop
            self._enter_bucket(stream, inflow.lane, int(inflow.slot[piece.start]) // stream.bucket_slots)
            series = self._series(stream, inflow, inflow.rows[piece])
            found = series >= 0
            pieces.append((inflow, inflow.rows[piece][found], inflow.slot[piece][found], series[found]))
        ends = np.cumsum([0, *(len(rows) for _, rows, _, _ in pieces)]).tolist()
        batch = ObservationBatch(
            np.concatenate([series for *_, series in pieces]),
            np.concatenate([np.full(len(rows), inflow.lane.index, np.int32) for inflow, rows, *_ in pieces]),
            np.concatenate([slot for _, _, slot, _ in pieces]),
            np.concatenate([inflow.decoded.event_time_us[rows] for inflow, rows, *_ in pieces]),
            np.concatenate([inflow.decoded.values[rows] for inflow, rows, *_ in pieces]),
            np.concatenate([inflow.decoded.record[rows] + inflow.first_record for inflow, rows, *_ in pieces]),
            np.concatenate([inflow.decoded.flags[rows] for inflow, rows, *_ in pieces]),
        )
        return batch, [slice(start, end) for start, end in pairwise(ends)]

    def _enter_bucket(self, stream: Stream, lane: Lane, bucket: int) -> None:
        if lane.state.bucket is None:
            lane.state.bucket = bucket
        elif bucket > lane.state.bucket:
            lane.scores.extend(stream.score_rows(lane))
            stream.close_bucket(lane, bucket)

    def _series(self, stream: Stream, inflow: _Inflow, rows: AnyArray) -> Int32Array:
        """Table row of each of these decoded rows; a new key becomes a new series, -1 where it may not."""
        lane, decoded = inflow.lane, inflow.decoded
        keys = decoded.keys if len(rows) == len(decoded.keys) else [decoded.keys[row] for row in rows.tolist()]
        find = lane.rows.get
        found = [find(key) for key in keys]
        if None in found:
            for place, row in enumerate(found):
                if row is None:
                    record = int(decoded.record[rows[place]])
                    reason = self._admit(stream, lane, keys[place], inflow.polled.records[record].offset)
                    found[place] = -1 if reason else lane.rows[keys[place]]
                    if reason:
                        inflow.reasons.setdefault(record, reason)
        return np.array(found, np.int32)

    def _admit(self, stream: Stream, lane: Lane, key: str, offset: int) -> tuple[str, str] | None:
        if key in lane.rows:
            return None
        if len(lane.rows) >= stream.config.series_max:
            return "series_cap", f"{stream.config.series_max} series on {lane.topic_partition}"
        series_id = lane.lane_id * SERIES_PER_LANE + lane.state.next_number
        lane.state.next_number += 1
        scored = lane.is_scored(key, stream.config.score_series_max)
        row = stream.add_series(lane, key, series_id, NO_SLOT, scored)
        lane.new_series.append((series_id, key, 0, scored))
        if home := stream.lives_elsewhere(lane, key):
            stream.table.moved[row] = True
            self.moved[stream.name] += 1
            payload = {"series": key, "number": series_id % SERIES_PER_LANE, "from": str(home.topic_partition)}
            lane.journal.append(JournalRow(offset, MOVED, payload))
        return None

    def _watermark_before(self, stream: Stream, batch: ObservationBatch) -> IntArray:
        """The lane's watermark when each row arrives, int64 (n,)."""
        before = np.empty(len(batch), np.int64)
        for start, end in _runs(batch.lane):
            lane = stream.lanes[batch.lane[start]]
            assert lane is not None
            before[start] = lane.state.watermark
            before[start + 1 : end] = np.maximum(np.maximum.accumulate(batch.slot[start : end - 1]), before[start])
        return before

    def _account(self, stream: Stream, inflow: _Inflow) -> None:
        """Each record is one of ``OUTCOMES``; offsets without a record are ``control``."""
        lane, polled = inflow.lane, inflow.polled
        for outcome, n in enumerate(np.bincount(inflow.outcome, minlength=4).tolist()):
            lane.count(OUTCOMES[outcome], n)
            self.outcomes[stream.name, OUTCOMES[outcome]] += n
        lane.count("control", polled.next_offset - lane.next_offset - len(polled.records))
        lane.next_offset = polled.next_offset
        buried = np.flatnonzero(inflow.outcome <= LATE).tolist()
        self.rows_pending += len(buried)
        for record in buried:
            late = inflow.outcome[record] == LATE
            reason, detail = ("late", "") if late else inflow.reasons.get(record, ("no_value", "no row"))
            self._bury(stream, lane, polled, record, reason, detail)

    def _bury(self, stream: Stream, lane: Lane, polled: PolledPartition, index: int, reason: str, detail: str) -> None:
        record = polled.records[index]
        ingest_time_us = min(max(record.timestamp, 0), STAMP_MAX_MS) * 1000
        self.reasons[stream.name, reason] += 1
        letter = DeadLetter(
            polled.topic_partition, record.offset, ingest_time_us, reason, detail, record.key, record.value
        )
        lane.bury(letter, stream.config.dead_letters_max, stream.config.dead_letters_offsets)

    # -- ownership -----------------------------------------------------------------------------------------------

    def assign(self, topic_partition: TopicPartition, topic_id: str = "") -> tuple[Lane, int | None]:
        """Own a topic partition: take its epoch, read it; the lane and the stored offset (None: never committed)."""
        stream = self.streams[topic_partition.topic]
        snapshot = self._store.assign(self._group, topic_partition, stream.name, topic_id, self._owner)
        crash.reached("mid_assign")
        lane = stream.add_lane(lambda index: Lane.owned(index, topic_partition, snapshot))
        self.lanes[topic_partition] = lane
        try:
            restore(stream, lane, snapshot, self._store, self._shelf)
        except Exception:
            self.revoke(topic_partition)
            raise
        return lane, snapshot.next_offset

    def started(self, lane: Lane, offset: int) -> None:
        """The source delivers from ``offset`` on: what lies between it and the stored offset is a gap, never silent."""
        stream = self.streams[lane.topic_partition.topic]
        if not lane.stored:
            lane.committed_offset = offset
        elif offset != lane.next_offset:
            lane.gaps.append(GapRow(lane.next_offset, offset, "offset_out_of_range"))
        lane.next_offset = offset
        if lane.state.config != stream.fingerprint:
            lane.state.config = stream.fingerprint
            changed = JournalRow(offset, "config", {"stream": stream.name, "fingerprint": stream.fingerprint})
            lane.journal.insert(0, changed)  # before the versions that were taken up under it
        self._take_requests([lane])

    def revoke(self, topic_partition: TopicPartition) -> None:
        """Forget a topic partition, with everything of it that is not committed."""
        lane = self.lanes.pop(topic_partition, None)
        if lane is not None:
            self._rounds[topic_partition.topic].drop_lane(lane.index)
            self.streams[topic_partition.topic].drop_lane(lane)

    def activate(self, stream_name: str, name: str, version: str) -> None:
        """Let a version serve from the next record on in every owned lane; the old one stays until it is warm."""
        for stream, lane in self._lanes_of(stream_name):
            activate(stream, lane, self._shelf, name, version)

    def challenge(self, stream_name: str, name: str, version: str | None) -> None:
        """Let a version run on trial from the next record on in every owned lane; None ends the trial."""
        for stream, lane in self._lanes_of(stream_name):
            challenge(stream, lane, self._shelf, name, version)

    def _lanes_of(self, stream_name: str) -> list[tuple[Stream, Lane]]:
        lanes = [(self.streams[key.topic], lane) for key, lane in sorted(self.lanes.items())]
        return [(stream, lane) for stream, lane in lanes if stream.name == stream_name]

    def take_requests(self) -> None:
        """Let what was asked for from outside take effect before the next record of its lane."""
        self._take_requests(self.lanes.values())

    def _take_requests(self, lanes: Iterable[Lane]) -> None:
        by_id = {lane.lane_id: lane for lane in lanes}
        requests = self._store.requests()
        listed = {request.request_id for request in requests}
        for owned in by_id.values():
            owned.requests_taken &= listed
        for request in requests:
            lane = by_id.get(request.lane_id)
            if lane is None or request.request_id in lane.requests_taken:
                continue
            stream = self.streams[lane.topic_partition.topic]
            try:
                if request.kind == REPLAYED:
                    self._enter_again(stream, lane, msgspec.convert(request.payload, Letter))
                elif request.kind == EXCLUDE:
                    exclusion.enter(stream, lane, request)
                else:
                    enter(stream, lane, request)
            except msgspec.ValidationError as error:  # of another release: it would come back for ever
                refused = {"request": request.kind, "why": f"not understood: {error}"}
                lane.journal.append(JournalRow(lane.next_offset, "refused", refused))
            lane.requests.append(request.request_id)
            lane.requests_taken.add(request.request_id)

    def _enter_again(self, stream: Stream, lane: Lane, letter: Letter) -> None:
        """Let a dead letter enter before the lane's next record: it is judged as if it came now, at its own time.

        What is not late goes the way of every record. Of what is late the observations are kept, where the series was
        alive and has none of that slot: no state moves. It is counted with no offset, for its own was counted.
        """
        place = lane.next_offset
        record = MemoryRecord(place, letter.timestamp_ms, letter.key, letter.value)
        inflow = self._enter(stream, lane, PolledPartition(lane.topic_partition, [record], place))
        inflow.again = True
        self._leave_out_strangers(stream, inflow)
        rounds = self._rounds[stream.config.topic]
        while inflow.ends:
            self._run_piece(rounds, [inflow])
        rounds.fired.hand_over(stream.lanes)
        outcome = int(inflow.outcome[0])
        entered = outcome > LATE or inflow.joined > 0
        if entered:
            told = {**msgspec.to_builtins(letter), "outcome": OUTCOMES[outcome]}
        else:
            why = ("late", "") if outcome == LATE else inflow.reasons.get(0, ("no_value", "no row"))
            names = ("topic", "partition", "offset", "reason")
            told = {name: getattr(letter, name) for name in names} | {"why": ": ".join(filter(None, why))}
        lane.journal.append(JournalRow(place, REPLAYED if entered else REPLAY_REFUSED, told))
        lane.replayed.append(ReplayedLetter(letter.offset, letter.reason, entered))
        self.replayed[stream.name, OUTCOMES[outcome] if entered else "refused"] += 1

    def _leave_out_strangers(self, stream: Stream, inflow: _Inflow) -> None:
        """Take out rows that come too late to begin a series: nothing of theirs lives here any more."""
        stale = inflow.slot < inflow.lane.state.watermark - stream.ttl_slots
        for row in np.flatnonzero(stale).tolist():
            stale[row] = inflow.decoded.keys[inflow.rows[row]] not in inflow.lane.rows
        if stale.any():
            inflow.reasons.setdefault(0, ("late", "its series is not alive any more"))
            inflow.rows, inflow.slot = inflow.rows[~stale], inflow.slot[~stale]
            inflow.ends = _bucket_ends(stream, inflow.lane, inflow.slot)

    # -- commits -------------------------------------------------------------------------------------------------

    def take_commit(self) -> Commit | None:
        """Copies of everything since the last call, lane by lane; None when there is nothing to make durable."""
        lanes = [commit for rounds in self._rounds.values() for commit in lane_commits(rounds)]
        self.rows_pending = 0
        return Commit(sorted(lanes, key=lambda lane: lane.topic_partition)) if lanes else None

    def oldest_watermark_us(self) -> int | None:
        """Event time up to which every owned topic partition that has seen any has come, µs; None when none has."""
        times = [
            lane.state.watermark * self.streams[key.topic].period_us + self.streams[key.topic].phase_us
            for key, lane in list(self.lanes.items())
            if lane.state.watermark != NO_SLOT
        ]
        return min(times, default=None)

    def buckets_at(self, before_us: int) -> dict[int, int]:
        """By id of each owned lane that has seen any record: the score bucket so long before its watermark."""
        found = {}
        for key, lane in list(self.lanes.items()):
            if lane.state.watermark != NO_SLOT:
                stream = self.streams[key.topic]
                found[lane.lane_id] = (lane.state.watermark - before_us // stream.period_us) // stream.bucket_slots
        return found

    def needed_us(self) -> int:
        """How far back, µs, forecasts are needed to score those whose truth is to come, with a horizon to spare."""
        return max(2 * stream.config.horizon_steps * stream.period_us for stream in self.streams.values())

    def lag(self, end_offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Records behind the newest known end, by owned topic partition."""
        return {
            key: max(0, end_offsets[key] - lane.next_offset) for key, lane in self.lanes.items() if key in end_offsets
        }


def _bucket_ends(stream: Stream, lane: Lane, slot: IntArray) -> list[int]:
    """Ends of the pieces of these rows that lie between ends of buckets; [] when there are no rows."""
    if not len(slot):
        return []
    bucket = slot // stream.bucket_slots
    begin = bucket[0] if lane.state.bucket is None else lane.state.bucket
    newest = np.maximum.accumulate(np.maximum(bucket, begin))
    return [*(np.flatnonzero(np.diff(newest)) + 1).tolist(), len(slot)]


def _runs(column: AnyArray) -> Iterator[tuple[int, int]]:
    """(start, end) of each longest run of rows that are equal in this column."""
    changed = np.ones(len(column), bool)
    changed[1:] = column[1:] != column[:-1]
    starts = np.flatnonzero(changed).tolist()
    return zip(starts, [*starts[1:], len(column)], strict=False)

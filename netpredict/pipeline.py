"""THE page: what one poll goes through. Replay, backtest and the daemon drive this same object.

Nothing here reads a clock, a random number, the size of a poll or the moment of a commit, so that the store is a
function of the log and the control journal alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np

from netpredict.errors import NetpredictError
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.score import Sums
from netpredict.ingest.align import align, slots_of
from netpredict.ingest.decode import Decoded
from netpredict.ingest.firewall import bad_key
from netpredict.lane import Lane
from netpredict.store.commit import (
    SERIES_PER_LANE,
    Commit,
    ForecastRows,
    GapRow,
    JournalRow,
    LaneCommit,
    LaneSnapshot,
    ObservationRows,
    ScoreRow,
    StateRows,
    Store,
)
from netpredict.stream import Stream, Version
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


class ModelShelf(Protocol):
    """Where versions of predictors come from."""

    def load(self, stream: str, predictor: str, version: str) -> tuple[int, Predictor]:
        """(model id, predictor ready to serve). Raises ArtefactError."""
        ...

    def active(self, stream: str, predictor: str) -> str | None:
        """The version that is active now, None when there is none yet."""
        ...

    def placeholder(self, stream: str, predictor: str) -> int:
        """Model id under which the ladder's forecasts are stored while no version of the predictor serves."""
        ...


DEAD, LATE, DUPLICATE, ACCEPTED = range(4)
OUTCOMES = ("dead", "late", "duplicate", "accepted")


@dataclass(slots=True)
class _Inflow:
    """One lane's records of a poll as rows: those that passed the firewall, with their verdicts per record."""

    lane: Lane
    polled: PolledPartition
    decoded: Decoded
    rows: AnyArray  # positions in ``decoded`` that passed
    series: Int32Array  # table rows of those
    outcome: AnyArray  # of each record
    reasons: dict[int, tuple[str, str]]  # of records, the first reason found


class Pipeline:
    """The way from polled records to commits, over all streams and owned topic partitions of one process."""

    def __init__(self, group: str, streams: Sequence[Stream], store: Store, shelf: ModelShelf, owner: str = "") -> None:
        self.streams = {stream.config.topic: stream for stream in streams}
        self.lanes: dict[TopicPartition, Lane] = {}
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.repairs: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.rows_pending = 0
        self._group = group
        self._store = store
        self._shelf = shelf
        self._owner = owner
        for stream in streams:
            for route in stream.config.routes:
                stream.placeholder[route.active] = shelf.placeholder(stream.name, route.active)

    # -- one step ------------------------------------------------------------------------------------------------

    def step(self, polled: Sequence[PolledPartition]) -> None:
        """1 decode; 2 firewall; 3 find the series; 4 align; 5 count; 6 round by round: score, advance, decide."""
        by_stream: dict[str, list[_Inflow]] = {}
        for part in polled:
            lane = self.lanes.get(part.topic_partition)
            if lane is not None:  # else revoked between poll and now: its new owner reads these records
                stream = self.streams[part.topic_partition.topic]
                by_stream.setdefault(stream.config.topic, []).append(self._enter(stream, lane, part))  # 1, 2, 3
        for topic, inflows in by_stream.items():
            self._run(self.streams[topic], inflows)  # 4, 5, 6

    def _enter(self, stream: Stream, lane: Lane, polled: PolledPartition) -> _Inflow:
        decoded = stream.decoder.decode(polled.records)
        reasons = {reject.record: (reject.reason, reject.detail) for reject in decoded.rejects}
        ingest = np.fromiter((record.timestamp for record in polled.records), np.int64, len(polled.records)) * 1000
        verdict = stream.firewall.inspect(decoded, ingest[decoded.record])
        for column, n in verdict.repaired.items():
            self.repairs[stream.name, column] += n
        refused = np.zeros(len(decoded.keys), bool)
        for reason, mask in verdict.refused.items():
            refused |= mask
            for record in np.unique(decoded.record[mask]).tolist():
                reasons.setdefault(record, (reason, ""))
        rows = np.flatnonzero(~refused)
        series = self._series(stream, lane, decoded, rows, reasons)
        found = series >= 0
        outcome = np.full(len(polled.records), DEAD, np.int8)
        return _Inflow(lane, polled, decoded, rows[found], series[found], outcome, reasons)

    def _series(
        self, stream: Stream, lane: Lane, decoded: Decoded, rows: AnyArray, reasons: dict[int, tuple[str, str]]
    ) -> Int32Array:
        """Table row of each of these decoded rows; a new key becomes a new series, -1 where it may not."""
        keys = decoded.keys if len(rows) == len(decoded.keys) else [decoded.keys[row] for row in rows.tolist()]
        find = lane.rows.get
        found = [find(key) for key in keys]
        if None in found:
            for place, row in enumerate(found):
                if row is None:
                    reason = self._admit(stream, lane, keys[place])
                    found[place] = -1 if reason else lane.rows[keys[place]]
                    if reason:
                        reasons.setdefault(int(decoded.record[rows[place]]), reason)
        return np.array(found, np.int32)

    def _admit(self, stream: Stream, lane: Lane, key: str) -> tuple[str, str] | None:
        if key in lane.rows:
            return None
        if why := bad_key(key, len(stream.config.series_by)):
            return "identity", why
        if len(lane.rows) >= stream.config.series_max:
            return "series_cap", f"{stream.config.series_max} series on {lane.topic_partition}"
        if stream.route_of(key) < 0:
            return "no_route", "no route of the stream matches the key"
        series_id = lane.lane_id * SERIES_PER_LANE + lane.state.next_number
        lane.state.next_number += 1
        scored = lane.is_scored(key, stream.config.score_series_max)
        stream.add_series(lane, key, series_id, NO_SLOT, scored)
        lane.new_series.append((series_id, key, 0, scored))
        return None

    def _run(self, stream: Stream, inflows: list[_Inflow]) -> None:
        batch = self._batch(stream, inflows)
        stale = batch.slot < self._watermark_before(stream, batch) - stream.ttl_slots
        aligned = align(batch.series, batch.slot, batch.record, stream.table.last_slot[batch.series], stale)  # 4
        verdicts = np.select([aligned.accepted, aligned.duplicate], [ACCEPTED, DUPLICATE], LATE).astype(np.int8)
        self._account(stream, inflows, verdicts)  # 5
        stream.table.in_flight[batch.series] = True
        rows = np.flatnonzero(aligned.accepted)
        self.rows_pending += len(rows)
        batch, rounds, previous = batch.take(rows), aligned.round[rows], aligned.previous[rows]
        segment, closings = self._segments(stream, batch)
        order = np.lexsort((rounds, segment))
        done = 0
        for start, end in _runs(segment[order], rounds[order]):  # 6
            part = order[start:end]
            while done < segment[part[0]]:
                for lane, bucket in closings[done]:
                    self._close_bucket(stream, lane, bucket)
                done += 1
            stream.run_round(batch.take(part), previous[part])
            self._advance_watermarks(stream, batch, part)
        stream.table.in_flight[:] = False
        stream.hand_over_firings()

    def _watermark_before(self, stream: Stream, batch: ObservationBatch) -> IntArray:
        """The lane's watermark when each row arrives, int64 (n,)."""
        before = np.empty(len(batch), np.int64)
        for start, end in _runs(batch.lane):
            lane = stream.lanes[batch.lane[start]]
            assert lane is not None
            before[start] = lane.state.watermark
            before[start + 1 : end] = np.maximum(np.maximum.accumulate(batch.slot[start : end - 1]), before[start])
        return before

    def _batch(self, stream: Stream, inflows: list[_Inflow]) -> ObservationBatch:
        """The rows of all lanes, lane after lane, in log order; records are numbered through."""
        before = np.cumsum([0, *(len(inflow.polled.records) for inflow in inflows)])
        times = np.concatenate([inflow.decoded.event_time_us[inflow.rows] for inflow in inflows])
        lanes = [np.full(len(inflow.rows), inflow.lane.index, np.int32) for inflow in inflows]
        records = [
            inflow.decoded.record[inflow.rows] + shift for inflow, shift in zip(inflows, before[:-1], strict=True)
        ]
        return ObservationBatch(
            np.concatenate([inflow.series for inflow in inflows]),
            np.concatenate(lanes),
            slots_of(times, stream.period_us, stream.phase_us),
            times,
            np.concatenate([inflow.decoded.values[inflow.rows] for inflow in inflows]),
            np.concatenate(records).astype(np.int32),
            np.concatenate([inflow.decoded.flags[inflow.rows] for inflow in inflows]),
        )

    def _account(self, stream: Stream, inflows: list[_Inflow], verdicts: AnyArray) -> None:
        """Each record is one of ``OUTCOMES``; offsets without a record are ``control``."""
        start = 0
        for inflow in inflows:
            lane, polled = inflow.lane, inflow.polled
            end = start + len(inflow.rows)
            np.maximum.at(inflow.outcome, inflow.decoded.record[inflow.rows], verdicts[start:end])
            start = end
            for outcome, n in enumerate(np.bincount(inflow.outcome, minlength=4).tolist()):
                lane.count(OUTCOMES[outcome], n)
                self.outcomes[stream.name, OUTCOMES[outcome]] += n
            lane.count("control", polled.next_offset - lane.next_offset - len(polled.records))
            lane.next_offset = polled.next_offset
            for record in np.flatnonzero(inflow.outcome <= LATE).tolist():
                late = inflow.outcome[record] == LATE
                reason, detail = ("late", "") if late else inflow.reasons.get(record, ("no_value", ""))
                self._bury(stream, lane, polled, record, reason, detail)

    def _bury(self, stream: Stream, lane: Lane, polled: PolledPartition, index: int, reason: str, detail: str) -> None:
        record = polled.records[index]
        self.reasons[stream.name, reason] += 1
        lane.dead_letters.append(
            DeadLetter(
                polled.topic_partition, record.offset, record.timestamp * 1000, reason, detail, record.key, record.value
            )
        )

    def _segments(self, stream: Stream, batch: ObservationBatch) -> tuple[AnyArray, list[list[tuple[Lane, int]]]]:
        """Cut each lane's rows where its watermark enters a new bucket: cuts before each row, and the cuts."""
        segment = np.zeros(len(batch), np.int64)
        closings: list[list[tuple[Lane, int]]] = []
        for start, end in _runs(batch.lane):
            lane = stream.lanes[batch.lane[start]]
            assert lane is not None
            watermark = np.maximum(np.maximum.accumulate(batch.slot[start:end]), lane.state.watermark)
            bucket = watermark // stream.bucket_slots
            if lane.state.bucket is None:
                lane.state.bucket = int(bucket[0])
            entered = np.diff(bucket, prepend=lane.state.bucket) > 0
            segment[start:end] = np.cumsum(entered)
            for number, place in enumerate(np.flatnonzero(entered).tolist()):
                if number == len(closings):
                    closings.append([])
                closings[number].append((lane, int(bucket[place])))
        return segment, closings

    def _advance_watermarks(self, stream: Stream, batch: ObservationBatch, part: AnyArray) -> None:
        for start, end in _runs(batch.lane[part]):
            lane = stream.lanes[batch.lane[part[start]]]
            assert lane is not None
            lane.state.watermark = max(lane.state.watermark, int(batch.slot[part[start:end]].max()))

    def _close_bucket(self, stream: Stream, lane: Lane, bucket: int) -> None:
        lane.scores.extend(self._score_rows(stream, lane))
        stream.close_bucket(lane, bucket)

    def _score_rows(self, stream: Stream, lane: Lane) -> list[ScoreRow]:
        """The sums of the bucket in progress, as they are stored."""
        return [
            ScoreRow(
                version.running.model_id,
                sums.source,
                stream.output.kpis[sums.kpi],
                sums.lead_steps,
                lane.state.bucket or 0,
                *sums[3:],
            )
            for versions in stream.versions.values()
            for version in versions
            if lane.index in version.lanes
            for sums in version.board.sums(lane.index)
        ]

    # -- ownership -----------------------------------------------------------------------------------------------

    def assign(self, topic_partition: TopicPartition, topic_id: str = "") -> tuple[Lane, int | None]:
        """Own a topic partition: take its epoch, read it; the lane and the stored offset (None: never committed)."""
        stream = self.streams[topic_partition.topic]
        snapshot = self._store.assign(self._group, topic_partition, stream.name, topic_id, self._owner)
        lane = stream.add_lane(lambda index: Lane.owned(index, topic_partition, snapshot))
        self.lanes[topic_partition] = lane
        self._load_versions(stream, lane)
        self._load_series(stream, lane, snapshot)
        self._load_scores(stream, lane, snapshot)
        return lane, snapshot.next_offset

    def started(self, lane: Lane, offset: int) -> None:
        """The source delivers from ``offset`` on: what lies between it and the stored offset is a gap, never silent."""
        stream = self.streams[lane.topic_partition.topic]
        if lane.committed_offset and offset != lane.next_offset:
            lane.gaps.append(GapRow(lane.next_offset, offset, "offset_out_of_range"))
        if offset != lane.next_offset:
            lane.next_offset = lane.committed_offset = offset
        if lane.state.config != stream.fingerprint:
            lane.state.config = stream.fingerprint
            lane.journal.append(
                JournalRow(offset, "config", {"stream": stream.name, "fingerprint": stream.fingerprint})
            )

    def revoke(self, topic_partition: TopicPartition) -> None:
        """Forget a topic partition, with everything of it that is not committed."""
        lane = self.lanes.pop(topic_partition, None)
        if lane is not None:
            self.streams[topic_partition.topic].drop_lane(lane)

    def _load_versions(self, stream: Stream, lane: Lane) -> None:
        names = {name for route in stream.config.routes for name in (route.active, *route.shadows)}
        for name in sorted(names):
            stored = lane.state.versions.get(name, [])
            for version, _ in reversed(stored):
                self._load_version(stream, lane, name, version)
            active = self._shelf.active(stream.name, name)
            if active is not None and (not stored or stored[0][0] != active):
                self._activate(stream, lane, name, active)

    def _load_version(self, stream: Stream, lane: Lane, name: str, version: str) -> Version | None:
        try:
            model_id, predictor = self._shelf.load(stream.name, name, version)
        except NetpredictError as error:
            lane.journal.append(
                JournalRow(lane.next_offset, "refused", {"predictor": name, "version": version, "why": str(error)})
            )
            return None
        loaded = stream.version(name, version, model_id, predictor)
        loaded.lanes.add(lane.index)
        loaded.board.ensure_lanes(len(stream.lanes))
        return loaded

    def _activate(self, stream: Stream, lane: Lane, name: str, version: str) -> None:
        if self._load_version(stream, lane, name, version) is None:
            return
        serving = lane.state.versions.setdefault(name, [])
        serving.insert(0, (version, max(lane.state.watermark, 0)))
        lane.journal.append(JournalRow(lane.next_offset, "activate", {"predictor": name, "version": version}))

    def activate(self, stream_name: str, name: str, version: str) -> None:
        """Let a version serve from the next record on in every owned lane; the old one stays until it is warm."""
        for topic_partition, lane in sorted(self.lanes.items()):
            stream = self.streams[topic_partition.topic]
            stored = lane.state.versions.get(name, [])
            if stream.name == stream_name and (not stored or stored[0][0] != version):
                self._activate(stream, lane, name, version)

    def _load_series(self, stream: Stream, lane: Lane, snapshot: LaneSnapshot) -> None:
        by_layout: dict[str, tuple[list[int], list[bytes]]] = {}
        for series_id, key, last_slot, scored, layout, blob in snapshot.series:
            sampled = scored and lane.is_sampled(key)
            row = stream.add_series(lane, key, series_id, last_slot if blob is not None else NO_SLOT, sampled)
            if layout is not None and blob is not None:
                rows, blobs = by_layout.setdefault(layout, ([], []))
                rows.append(row)
                blobs.append(blob)
        for layout, (rows, blobs) in by_layout.items():
            stream.table.unpack(layout, np.array(rows, np.int64), b"".join(blobs))

    def _load_scores(self, stream: Stream, lane: Lane, snapshot: LaneSnapshot) -> None:
        for versions in stream.versions.values():
            for version in versions:
                if lane.index not in version.lanes:
                    continue
                stored = lane.state.calibration.get(version.label)
                if stored is not None:
                    version.board.factor[lane.index] = np.asarray(stored, np.float32)
                mine = [row for row in snapshot.bucket_scores if row.model_id == version.running.model_id]
                version.board.restore(
                    lane.index, [_sums(stream, row) for row in mine if row.bucket == lane.state.bucket]
                )
                self._load_pending(stream, lane, version)

    def _load_pending(self, stream: Stream, lane: Lane, version: Version) -> None:
        pending = self._store.pending_forecasts(lane.lane_id, version.running.model_id, stream.layout)
        if not len(pending.slot):
            return
        row_of = {int(stream.table.series_id[row]): row for row in lane.rows.values()}
        rows = np.array([row_of.get(series, -1) for series in pending.series_id.tolist()], np.int64)
        scored = np.where(rows >= 0, stream.table.scored[rows], -1)
        kept = np.flatnonzero(scored >= 0)
        shape = (len(kept), len(stream.output.kpis), stream.output.horizon_steps, len(stream.levels))
        version.board.pending.add(
            scored[kept],
            pending.slot[kept],
            pending.ticks[kept].reshape(shape),
            pending.observed[kept],
            pending.sources[kept],
        )

    # -- commits -------------------------------------------------------------------------------------------------

    def take_commit(self) -> Commit | None:
        """Copies of everything since the last call, lane by lane; None when there is nothing to make durable."""
        commits: dict[TopicPartition, LaneCommit] = {}
        for stream in self.streams.values():
            forecasts, observations = _by_lane(stream.forecasts), _by_lane(stream.observations)
            states = self._states(stream)
            stream.forecasts, stream.observations = [], []
            for lane in stream.lanes:
                if lane is not None and (lane.next_offset != lane.committed_offset or lane.journal or lane.gaps):
                    commit = self._lane_commit(stream, lane)
                    commit.forecasts = [_forecast_rows(stream, *part) for part in forecasts.get(lane.index, [])]
                    commit.observations = [
                        ObservationRows(stream.column_layout, *part[1:]) for part in observations.get(lane.index, [])
                    ]
                    commit.series_states = states.get(lane.index, [])
                    commits[lane.topic_partition] = commit
        self.rows_pending = 0
        return Commit([commits[key] for key in sorted(commits)]) if commits else None

    def _lane_commit(self, stream: Stream, lane: Lane) -> LaneCommit:
        lane.state.calibration = {
            version.label: version.board.factor[lane.index].tolist()
            for versions in stream.versions.values()
            for version in versions
            if lane.index in version.lanes
        }
        commit = LaneCommit(
            lane.lane_id,
            lane.topic_partition,
            lane.epoch,
            lane.committed_offset,
            lane.next_offset,
            dict(lane.counts),
            msgspec.json.encode(lane.state, order="deterministic").decode(),
            new_series=lane.new_series,
            retired_series=lane.retired_series,
            scores=[*lane.scores, *self._score_rows(stream, lane)],
            journal=lane.journal,
            firings=lane.firings,
            dead_letters=lane.dead_letters,
            gaps=lane.gaps,
        )
        lane.committed_offset = lane.next_offset
        lane.counts = dict.fromkeys(lane.counts, 0)
        lane.new_series, lane.retired_series, lane.scores = [], [], []
        lane.journal, lane.firings, lane.dead_letters, lane.gaps = [], [], [], []
        return commit

    def _states(self, stream: Stream) -> dict[int, list[StateRows]]:
        table = stream.table
        touched = np.flatnonzero(table.touched)
        table.touched[touched] = False
        touched = touched[np.argsort(table.lane[touched], kind="stable")]
        states: dict[int, list[StateRows]] = {}
        for start, end in _runs(table.lane[touched]):
            rows = touched[start:end]
            states[int(table.lane[rows[0]])] = [
                StateRows(table.layout, table.series_id[rows], table.last_slot[rows], table.pack(rows))
            ]
        return states

    def oldest_watermark_us(self) -> int | None:
        """Event time up to which every owned topic partition has come, µs; None while one has seen nothing."""
        times = [
            lane.state.watermark * self.streams[key.topic].period_us + self.streams[key.topic].phase_us
            for key, lane in list(self.lanes.items())
            if lane.state.watermark != NO_SLOT
        ]
        return min(times, default=None)

    def lag(self, end_offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Records behind the newest known end, by owned topic partition."""
        return {
            key: max(0, end_offsets[key] - lane.next_offset) for key, lane in self.lanes.items() if key in end_offsets
        }


def _runs(*columns: AnyArray) -> Iterator[tuple[int, int]]:
    """(start, end) of each longest run of rows that are equal in all these columns."""
    changed = np.zeros(len(columns[0]), bool)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(changed).tolist()
    return zip(starts, [*starts[1:], len(changed)], strict=False)


def _by_lane(chunks: Sequence[Any]) -> dict[int, list[tuple[Any, ...]]]:
    """Parts of chunks (NamedTuples with a ``lane`` column) by lane, in order."""
    parts: dict[int, list[tuple[Any, ...]]] = {}
    for chunk in chunks:
        lane: Int32Array = chunk.lane
        for index in np.unique(lane).tolist():
            mine = slice(None) if (lane == index).all() else lane == index
            parts.setdefault(index, []).append(
                tuple(field[mine] if isinstance(field, np.ndarray) else field for field in chunk)
            )
    return parts


def _forecast_rows(stream: Stream, model_id: int, _lane: Int32Array, *columns: Any) -> ForecastRows:
    return ForecastRows(model_id, stream.layout, *columns)


def _sums(stream: Stream, row: ScoreRow) -> Sums:
    kpi = stream.output.kpis.index(row.kpi)
    return Sums(
        row.source,
        kpi,
        row.lead_steps,
        row.n,
        row.abs_ticks,
        row.square_ticks,
        row.naive_abs_ticks,
        row.below,
        row.pinball,
    )

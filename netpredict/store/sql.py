"""The store in SQL: the one place where offsets, forecasts, states and firings become durable together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from netpredict import crash
from netpredict.clock import Clock, SystemClock
from netpredict.errors import DataError, StoreError
from netpredict.store import approval, letters, load, migrate, prune
from netpredict.store.commit import (
    COUNTS,
    ColumnLayout,
    Commit,
    ControlRequest,
    ForecastLayout,
    LaneCommit,
    LaneSnapshot,
    ModelRow,
    ObservationRows,
    PendingForecasts,
    RetrainRow,
)
from netpredict.store.database import Connection, database_of
from netpredict.store.encode import (
    blob_rows,
    column_layout_id,
    columns_of,
    forecast_layout_id,
    layout_id,
    merged,
    ordered,
    sources_texts,
    text,
    ticks_texts,
    time_order,
)
from netpredict.types import Firing, Mode, Outcome, TopicPartition

RECREATED = "topic_recreated"
"""Reason of the gap that ``assign`` writes when Kafka's topic id is not the stored one."""

_AFTER = {"active": "retired", "challenger": "refused"}
"""What becomes of the version that held a stage which only one may hold."""

_log = structlog.get_logger(__name__)


class SqlStore:
    """The SQL authority. ``start`` before use; safe to share between threads.

    ``damaged`` names the series whose state failed its checksum at the last ``assign``: they start without a state.
    With ``publishing`` each commit notes what is to be published, and pruning keeps what was not published yet.
    """

    def __init__(self, url: str, clock: Clock | None = None, *, publishing: bool = False) -> None:
        self.url = url
        self.publishing = publishing
        self.database = database_of(url)
        self.damaged: list[tuple[TopicPartition, str]] = []
        self._clock = clock or SystemClock()
        self._layouts: set[int] = set()  # known to be stored
        self._pruned_buckets: dict[int, int] = {}  # of a lane: no scores are left before this bucket

    def start(self) -> None:
        """Check the schema, connect; AlreadyRunning where one process only may write."""
        migrate.check(self.url)
        self.database.start()

    def announce(self, control: Path) -> None:
        """Tell other processes where they may ask for what only this one can write."""
        self.database.announce(control)

    def control(self) -> Path | None:
        """The control socket of the process that may write alone, when it named one."""
        return self.database.control()

    def close(self) -> None:
        """Finish the transaction in flight and disconnect."""
        self.database.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- commit -------------------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> set[TopicPartition]:
        """Write everything between two offsets of some lanes, or nothing; gives the topic partitions that were fenced.

        1. begin; in order of topic partition, advance each lane's offset if epoch and old offset are still ours,
           else leave its rows out; a lane whose new offset is already stored under its epoch was applied before
        2. forecasts
        3. observations
        4. scores
        5. new and retired series, series states, lane states, anchors and marks
        6. control journal, and the requests that entered it
        7. firings and their outbox, dead letters, gaps, what is to be published
        8. commit

        The same Commit may be passed again after any failure. StoreUnavailable: try again; StoreError: never works.
        """
        layouts: set[int] = set()
        with self.database.transaction() as connection:  # 1
            lanes, fenced = _advance_offsets(connection, commit.lanes)
            self._insert_forecasts(connection, lanes, layouts)  # 2
            crash.reached("mid_commit")
            self._insert_observations(connection, lanes, layouts)  # 3
            self._upsert_scores(connection, lanes)  # 4
            self._write_series(connection, lanes)  # 5
            self._upsert_states(connection, lanes, layouts)  # 5
            crash.reached("mid_snapshot")
            self._insert_anchors(connection, lanes, layouts)  # 5
            self._append_journal(connection, lanes)  # 6
            _end_requests(connection, lanes)  # 6
            self._insert_firings(connection, lanes)  # 7
            self._insert_dead_letters(connection, lanes)  # 7
            if self.publishing:
                _note_windows(connection, lanes)  # 7
            crash.reached("end_of_commit")
        self._layouts |= layouts  # 8: only what is durable may be taken for stored
        return fenced

    def _insert_forecasts(self, connection: Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
        groups = []
        for rows in (rows for lane in lanes for rows in lane.forecasts if len(rows.slot_time_us)):
            count, order = len(rows.slot_time_us), time_order(rows.slot_time_us, rows.series_id)
            short = (
                rows.slot_time_us.tolist(),
                rows.series_id.tolist(),
                [rows.model_id] * count,
                [self._forecast_layout(connection, rows.layout, layouts)] * count,
                sources_texts(rows.sources),
                rows.quality.tolist(),
                ticks_texts(rows.observed),
                [None] * count if rows.seasonal is None else ticks_texts(rows.seasonal),
            )
            groups.append([*ordered(short, order), ticks_texts(rows.ticks if order is None else rows.ticks[order])])
        into = "forecast(slot_time_us, series_id, model_id, layout_id, sources, quality, observed, seasonal, ticks)"
        connection.insert_rows(into, merged(groups))

    def _insert_observations(self, connection: Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
        into = "observation(slot_time_us, series_id, layout_id, event_time_us, flags, ticks)"
        parts = [rows for lane in lanes for rows in lane.observations]
        connection.insert_rows(into, merged(self._observation_groups(connection, parts, layouts)))
        parts = [rows for lane in lanes for rows in lane.late_observations]
        late = merged(self._observation_groups(connection, parts, layouts))
        if late:
            first = {row[:2]: row for row in reversed([*zip(*late, strict=True)])}  # of one slot the first counts
            rows = columns_of(sorted(first.values()))
            connection.insert_rows(into, rows, "ON CONFLICT (slot_time_us, series_id) DO NOTHING")

    def _observation_groups(
        self, connection: Connection, parts: list[ObservationRows], layouts: set[int]
    ) -> list[Sequence[Sequence[Any]]]:
        groups = []
        for rows in (rows for rows in parts if len(rows.slot_time_us)):
            columns = (
                rows.slot_time_us.tolist(),
                rows.series_id.tolist(),
                [self._column_layout(connection, rows.layout, layouts)] * len(rows.slot_time_us),
                rows.event_time_us.tolist(),
                rows.flags.tolist(),
                ticks_texts(rows.ticks),
            )
            groups.append(ordered(columns, time_order(rows.slot_time_us, rows.series_id)))
        return groups

    def _upsert_scores(self, connection: Connection, lanes: list[LaneCommit]) -> None:
        rows = {
            (lane.lane_id, row.bucket, row.model_id, row.source, row.kpi, row.lead_steps): (
                row.n,
                row.flat,
                row.abs_ticks,
                str(row.square_ticks),
                row.truth_abs_ticks,
                row.naive_abs_ticks,
                row.seasonal_abs_ticks,
                text(row.below),
                text(row.pinball),
            )
            for lane in lanes
            for row in lane.scores
        }
        if rows:
            into = (
                "score(lane_id, bucket, model_id, source, kpi, lead_steps,"
                " n, flat, abs_ticks, square_ticks, truth_abs_ticks, naive_abs_ticks, seasonal_abs_ticks,"
                " below, pinball)"
            )
            columns = columns_of(key + rest for key, rest in sorted(rows.items()))
            connection.insert_rows(into, columns, _replacing(into, 6))

    def _write_series(self, connection: Connection, lanes: list[LaneCommit]) -> None:
        now_us = self._clock.now_us()
        retired = {series_id for lane in lanes for series_id in lane.retired_series}
        new = [
            (series_id, lane.lane_id, key, first_slot, bool(scored), now_us if series_id in retired else None)
            for lane in lanes
            for series_id, key, first_slot, scored in lane.new_series
        ]
        if retired:  # before the new ones: a key may retire and come back in one commit
            gone = {"ids": sorted(retired), "now_us": now_us}
            ids = "(SELECT value FROM each_number(:ids) AS i)"
            connection.execute(f"UPDATE series SET retired_us = :now_us WHERE series_id IN {ids}", gone)
            connection.execute(f"DELETE FROM series_state WHERE series_id IN {ids}", gone)
        if new:
            into = "series(series_id, lane_id, key, first_slot, scored, retired_us)"
            connection.insert_rows(into, columns_of(new))
        for lane in lanes:
            connection.execute(
                "UPDATE topic_progress SET state = :state WHERE lane_id = :lane_id",
                {"state": lane.state, "lane_id": lane.lane_id},
            )

    def _upsert_states(self, connection: Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
        columns: list[list[Any]] = [[] for _ in range(5)]
        for rows in (rows for lane in lanes for rows in lane.series_states):
            layout = [self._state_layout(connection, rows.layout, layouts)] * len(rows.series_id)
            parts = (rows.series_id.tolist(), rows.slot.tolist(), layout, *blob_rows(rows.blob))
            for column, part in zip(columns, parts, strict=True):
                column += part
        last = {series_id: number for number, series_id in enumerate(columns[0])}
        for series_id in (series_id for lane in lanes for series_id in lane.retired_series):
            last.pop(series_id, None)
        order = [last[series_id] for series_id in sorted(last)]
        into = "series_state(series_id, slot, layout_id, checksum, state)"
        connection.insert_rows(into, ordered(columns, order), _replacing(into, 1))

    def _insert_anchors(self, connection: Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
        anchors: dict[tuple[int, int], tuple[Any, ...]] = {}
        for rows in (rows for lane in lanes for rows in lane.anchors):
            layout = [self._state_layout(connection, rows.layout, layouts)] * len(rows.series_id)
            keys = zip(rows.slot_time_us.tolist(), rows.series_id.tolist(), strict=True)
            anchors |= zip(keys, zip(layout, *blob_rows(rows.blob), strict=True), strict=True)
        if anchors:
            into = "state_anchor(slot_time_us, series_id, layout_id, checksum, state)"
            columns = columns_of(key + rest for key, rest in sorted(anchors.items()))
            connection.insert_rows(into, columns, _replacing(into, 2))
        marks = {(mark.begins_us, lane.lane_id): mark.mark for lane in lanes for mark in lane.marks}
        if marks:
            into = "bucket_mark(begins_us, lane_id, mark)"
            columns = columns_of((*key, mark) for key, mark in sorted(marks.items()))
            connection.insert_rows(into, columns, _replacing(into, 2))

    def _append_journal(self, connection: Connection, lanes: list[LaneCommit]) -> None:
        for lane in lanes:
            for row in lane.journal:
                connection.execute(
                    "INSERT INTO control_journal(lane_id, effective_offset, number, kind, payload)"
                    " SELECT :lane_id, :offset, coalesce(max(number) + 1, 0), :kind, :payload FROM control_journal"
                    " WHERE lane_id = :lane_id AND effective_offset = :offset",
                    {
                        "lane_id": lane.lane_id,
                        "offset": row.effective_offset,
                        "kind": row.kind,
                        "payload": text(row.payload),
                    },
                )

    def _insert_firings(self, connection: Connection, lanes: list[LaneCommit]) -> None:
        _insert_fired(
            connection, [(lane.lane_id, firing, actuators) for lane in lanes for firing, actuators in lane.firings]
        )

    def _insert_dead_letters(self, connection: Connection, lanes: list[LaneCommit]) -> None:
        now_us = self._clock.now_us()
        rows = [
            (
                letter.topic_partition.topic,
                letter.topic_partition.partition,
                letter.offset,
                letter.reason,
                letter.detail,
                letter.ingest_time_us,
                letter.key[: letters.VALUE_BYTES_MAX] if letter.key is not None else None,
                letter.value[: letters.VALUE_BYTES_MAX] if letter.value is not None else None,
                len(letter.value or b""),
                now_us,
            )
            for lane in lanes
            for letter in lane.dead_letters
        ]
        if rows:
            into = (
                'dead_letter(topic, partition, "offset", reason, detail, ingest_time_us, "key", value, value_bytes,'
                " at_us)"
            )
            connection.insert_rows(into, columns_of(rows), "ON CONFLICT DO NOTHING")
        letters.add_ranges(connection, lanes, now_us)
        letters.end_replays(connection, lanes)
        for lane in lanes:
            for gap in lane.gaps:
                _insert_gap(connection, lane.lane_id, gap.from_offset, gap.to_offset, gap.reason, now_us)

    def _forecast_layout(self, connection: Connection, layout: ForecastLayout, layouts: set[int]) -> int:
        number = forecast_layout_id(layout)
        if number not in self._layouts and number not in layouts:
            shape = (layout.kpis, layout.decimals, layout.levels)
            row = (number, layout.stream, *map(text, shape), layout.horizon_steps, layout.period_us)
            into = "forecast_layout(layout_id, stream, kpis, decimals, levels, horizon_steps, period_us, created_us)"
            _register(connection, into, (*row, self._clock.now_us()))
            layouts.add(number)
        return number

    def _column_layout(self, connection: Connection, layout: ColumnLayout, layouts: set[int]) -> int:
        number = column_layout_id(layout)
        if number not in self._layouts and number not in layouts:
            row = (number, layout.stream, text(layout.columns), text(layout.decimals), self._clock.now_us())
            _register(connection, "column_layout(layout_id, stream, columns, decimals, created_us)", row)
            layouts.add(number)
        return number

    def _state_layout(self, connection: Connection, layout: str, layouts: set[int]) -> int:
        number = layout_id(layout)
        if number not in self._layouts and number not in layouts:
            _register(connection, "state_layout(layout_id, layout)", (number, layout))
            layouts.add(number)
        return number

    # -- reading back -------------------------------------------------------------------------------------------------

    def assign(
        self, group: str, topic_partition: TopicPartition, stream: str, topic_id: str, owner: str
    ) -> LaneSnapshot:
        """Take the next epoch of the topic partition and read the lane, in one transaction.

        When the stored topic id is another one, the topic was recreated: a gap row is written, the next offset
        forgotten, and the snapshot bears the old topic id. An empty topic id is unknown and says nothing.
        """
        known = {
            "group": group,
            "topic": topic_partition.topic,
            "partition": topic_partition.partition,
            "stream": stream,
            "topic_id": topic_id,
            "owner": owner,
        }
        with self.database.transaction() as connection:
            connection.execute(
                "INSERT INTO topic_progress(group_name, topic, partition, stream, topic_id, epoch, owner)"
                " VALUES (:group, :topic, :partition, :stream, :topic_id, 0, '') ON CONFLICT DO NOTHING",
                known,
            )
            # one statement, so that no two owners take the same epoch
            lane_id, epoch, next_offset, held_id, state, *counts = connection.execute(
                "UPDATE topic_progress SET epoch = epoch + 1, owner = :owner, stream = :stream"
                " WHERE group_name = :group AND topic = :topic AND partition = :partition"
                f" RETURNING lane_id, epoch, next_offset, topic_id, state, {', '.join(COUNTS)}",
                known,
            ).fetchone()
            if topic_id and held_id and topic_id != held_id and next_offset is not None:
                _insert_gap(connection, lane_id, next_offset, 0, RECREATED, self._clock.now_us())
                next_offset = None
            connection.execute(
                "UPDATE topic_progress SET topic_id = :topic_id, next_offset = :next_offset WHERE lane_id = :lane_id",
                {"topic_id": topic_id or held_id, "next_offset": next_offset, "lane_id": lane_id},
            )
            return LaneSnapshot(
                lane_id=lane_id,
                epoch=epoch,
                next_offset=next_offset,
                topic_id=held_id,
                counts=dict(zip(COUNTS, counts, strict=True)),
                state=state,
                series=self._live_series(connection, lane_id, topic_partition),
                journal=load.journal(connection, lane_id),
                bucket_scores=load.scores_in_progress(connection, lane_id, state),
            )

    def _live_series(
        self, connection: Connection, lane_id: int, topic_partition: TopicPartition
    ) -> list[load.SeriesRow]:
        found, damaged = load.live_series(connection, lane_id)
        self.damaged = [entry for entry in self.damaged if entry[0] != topic_partition]
        if damaged:
            self.damaged += [(topic_partition, key) for key in damaged]
            _log.error(
                "series_state_damaged", topic_partition=str(topic_partition), series=len(damaged), first=damaged[0]
            )
        return found

    def pending_forecasts(self, lane_id: int, model_id: int, layout: ForecastLayout) -> PendingForecasts:
        """Of each scored series: forecasts issued at its last slot or less than a horizon before it.

        The phase of the time grid is read off the newest such forecast: it must be below the period.
        """
        with self.database.reader() as connection:
            return load.pending_forecasts(connection, lane_id, model_id, layout)

    def requests(self) -> list[ControlRequest]:
        """What waits to enter any lane, oldest first."""
        with self.database.reader() as connection:
            rows = connection.execute(
                "SELECT request_id, lane_id, kind, payload FROM control_request ORDER BY request_id"
            ).fetchall()
        return [ControlRequest(number, lane, kind, msgspec.json.decode(text)) for number, lane, kind, text in rows]

    def request(self, lane_id: int, kind: str, payload: Mapping[str, Any]) -> int:
        """Ask for something to enter a lane through its control journal; gives the id of the request."""
        with self.database.transaction() as connection:
            (number,) = connection.execute(
                "INSERT INTO control_request(lane_id, kind, payload) VALUES (:lane_id, :kind, :payload)"
                " RETURNING request_id",
                {"lane_id": lane_id, "kind": kind, "payload": text(payload)},
            ).fetchone()
        return int(number)

    def request_replay(
        self,
        who: str,
        topic: str | None = None,
        partition: int | None = None,
        reason: str | None = None,
        from_offset: int = 0,
        to_offset: int | None = None,
        group: str | None = None,
        limit: int = letters.REPLAYS_WAITING_MAX,
    ) -> dict[str, int]:
        """Ask for dead letters to enter again, each once, at an offset that its lane will choose.

        ``group`` says which lane where several groups read the topic partition.
        Gives how many are ``asked`` for now, were ``waiting`` already, are ``cut`` and therefore cannot, are ``left``
        for the next call; 0 of all when there is none. DataError when all of them are cut, or only counted.
        """
        place = (topic, partition, reason, from_offset, to_offset)
        where, touched = letters.chosen(*place), letters.chosen(*place, first="last_offset", last="first_offset")
        with self.database.transaction() as connection:
            found = letters.ask_replays(connection, where, touched, group, limit)
            if found["asked"]:
                detail = {**where[1], "asked": found["asked"]}
                _insert_audit(connection, self._clock.now_us(), who, "dead_letters_replay", detail)
        return found

    def drop_dead_letters(
        self,
        who: str,
        topic: str | None = None,
        partition: int | None = None,
        reason: str | None = None,
        from_offset: int = 0,
        to_offset: int | None = None,
    ) -> dict[str, int]:
        """Delete dead letters and ranges of them, and note who did; letters that wait for a replay stay.

        Gives how many letters and ranges went. A range goes when all of it is chosen.
        """
        place = (topic, partition, reason, from_offset, to_offset)
        where, of_ranges = letters.chosen(*place), letters.chosen(*place, first="first_offset", last="last_offset")
        dropped = 0
        with self.database.transaction() as connection:
            _insert_audit(connection, self._clock.now_us(), who, "dead_letters_drop", where[1])
            ranges = letters.drop_ranges(connection, of_ranges)
        while True:  # in chunks, so that commits come between
            with self.database.transaction() as connection:
                some = letters.drop_letters(connection, where)
            dropped += some
            if some < letters.DROPPED_AT_ONCE:
                return {"letters": dropped, "ranges": ranges}

    def decide_action(self, firing_id: str, verdict: str, who: str) -> str:
        """Approve or reject a firing that waits for a person, and note who did; gives its whole id.

        DataError when there is none of this id, or beginning with it, or it does not wait any more.
        """
        with self.database.transaction() as connection:
            return approval.decide(connection, firing_id, verdict, who, self._clock.now_us())

    def fire(self, firings: Sequence[Firing], actuators: Sequence[str], publish: bool) -> list[str]:
        """Store what a policy decided for one window over all topic partitions, for its actuators and to be published.

        All of one stream. They belong to its first lane, whose owner applies and publishes them. Gives the ids of those
        that were not there already. DataError when the stream has no lane.
        """
        stream = firings[0].stream
        with self.database.transaction() as connection:
            (lane_id,) = connection.execute(
                "SELECT min(lane_id) FROM topic_progress WHERE stream = :stream", {"stream": stream}
            ).fetchone()
            if lane_id is None:
                raise DataError(f"stream {stream} has no topic partition in this store")
            known = connection.execute(
                "SELECT f.firing_id FROM each_text(:ids) AS i JOIN firing AS f ON f.firing_id = i.value",
                {"ids": [firing.firing_id for firing in firings]},
            ).fetchall()
            ids = {firing_id for (firing_id,) in known}
            new = [firing for firing in firings if firing.firing_id not in ids]
            _insert_fired(connection, [(lane_id, firing, tuple(actuators)) for firing in new])
            if new and publish:
                _note_window_of_policy(connection, lane_id, new)
        return [firing.firing_id for firing in new]

    def begin_reversal(self, firing_id: str, cause: str, who: str) -> list[tuple[Firing, str]]:
        """Note that a firing is being taken back, and who did; gives what is to be reverted at which actuator.

        That is the firing, or where its value was refreshed since, the last refresh.
        DataError when it was not applied, does not hold any more, or was reverted or is being reverted already.
        """
        from netpredict.store import reversal  # it reads firings as the outbox does, which stands on this module

        with self.database.transaction() as connection:
            return reversal.begin(connection, firing_id, cause, who, self._clock.now_us())

    def end_reversal(self, firing_id: str, actuator: str, outcome: Outcome) -> None:
        """Store what came of taking a firing back at one actuator."""
        from netpredict.store import reversal

        said = {"kind": str(outcome.kind), "reason": outcome.reason, "detail": outcome.detail}
        with self.database.transaction() as connection:
            reversal.end(connection, firing_id, actuator, said, self._clock.now_us())

    # -- registry and housekeeping ------------------------------------------------------------------------------------

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
        """The id of a version of a predictor; the same natural key again changes nothing and gives the same id."""
        named = {"stream": stream, "predictor": predictor, "version": version}
        with self.database.transaction() as connection:
            connection.execute(
                "INSERT INTO model_version(stream, predictor, version, plugin, folder, stage, created_us, scores)"
                " VALUES (:stream, :predictor, :version, :plugin, :folder, :stage, :now_us, :scores)"
                " ON CONFLICT DO NOTHING",
                {
                    **named,
                    "plugin": plugin,
                    "folder": folder,
                    "stage": stage,
                    "now_us": self._clock.now_us(),
                    "scores": text(scores),
                },
            )
            (model_id,) = connection.execute(
                "SELECT model_id FROM model_version"
                " WHERE stream = :stream AND predictor = :predictor AND version = :version",
                named,
            ).fetchone()
        return int(model_id)

    def models(self, stream: str | None = None) -> list[ModelRow]:
        """All versions, oldest first."""
        with self.database.reader() as connection:
            rows = connection.execute(
                "SELECT model_id, stream, predictor, version, plugin, folder, stage, created_us, scores"
                " FROM model_version WHERE :stream IS NULL OR stream = :stream ORDER BY model_id",
                {"stream": stream},
            ).fetchall()
        return [ModelRow(*(*row, msgspec.json.decode(scores))) for *row, scores in rows]

    def move_model(
        self, model_id: int, stage: str, who: str, what: str, detail: Mapping[str, Any], run: RetrainRow | None = None
    ) -> str | None:
        """See ``ModelRegistry``."""
        with self.database.transaction() as connection:
            found = connection.execute(
                "SELECT stream, predictor, version FROM model_version WHERE model_id = :model_id",
                {"model_id": model_id},
            ).fetchone()
            if found is None:
                raise StoreError(f"no model version has the id {model_id}")
            stream, predictor, version = found
            _lock_versions(connection, stream, predictor)
            previous = _active_version(connection, stream, predictor, model_id)
            moved = {"stream": stream, "predictor": predictor, "stage": stage, "model_id": model_id}
            connection.execute(
                "UPDATE model_version SET stage = :after WHERE stream = :stream AND predictor = :predictor"
                " AND stage = :stage AND model_id <> :model_id",
                moved | {"after": _AFTER.get(stage, stage)},
            )
            connection.execute("UPDATE model_version SET stage = :stage WHERE model_id = :model_id", moved)
            known = {"stream": stream, "predictor": predictor, "version": version, "model_id": model_id}
            _insert_audit(connection, self._clock.now_us(), who, what, {**known, "previous": previous, **detail})
            if run is not None:
                _insert_run(connection, self._clock.now_us(), run)
        return previous

    def record_audit(self, who: str, what: str, detail: Mapping[str, Any]) -> None:
        """Note that a person or a job changed something."""
        with self.database.transaction() as connection:
            _insert_audit(connection, self._clock.now_us(), who, what, detail)

    def record_retrain(self, run: RetrainRow) -> int:
        """Note a training run that ended now; gives its id."""
        with self.database.transaction() as connection:
            return _insert_run(connection, self._clock.now_us(), run)

    def alone(self, job: str) -> AbstractContextManager[bool]:
        """See ``ModelRegistry``. The server takes the lock back from an instance that dies."""
        return self.database.alone(job)

    def take_turn(self, job: str, due_us: int) -> bool:
        """See ``ModelRegistry``: the first instance to ask has it."""
        if not self.database.shared:
            return True
        with self.database.transaction() as connection:
            done = connection.execute(
                "INSERT INTO job_turn(job, due_us) VALUES (:job, :due_us) ON CONFLICT (job) DO UPDATE"
                " SET due_us = excluded.due_us WHERE job_turn.due_us < excluded.due_us",
                {"job": job, "due_us": due_us},
            )
        return done.rowcount > 0

    def prune(self, before_us: int, rows: int) -> int:
        """Delete the oldest forecasts and observations before ``before_us``, at most ``rows``; gives how many.

        Anchors and marks, which are few, go with them.
        """
        pruned, before_us = 0, self._prunable_until_us(before_us)
        for table, most in (("forecast", rows - rows // 2), ("observation", rows), ("forecast", rows)):
            if most > pruned:
                with self.database.transaction() as connection:
                    if not connection.try_lock("prune"):  # another instance is at it
                        return pruned
                    pruned += prune.prune_history(connection, table, before_us, most - pruned)
        if pruned:
            with self.database.transaction() as connection:
                prune.prune_anchors(connection, before_us)
        return pruned

    def prune_notes(self, before_us: int, at_before_us: int, before_buckets: Mapping[int, int], rows: int) -> int:
        """Delete what explains forecasts that are gone, at most ``rows`` of a kind; gives how many rows.

        Firings with their outcomes before the slot time ``before_us``; scores before a bucket, by lane, and exclusions
        that ended before that time; dead letters, ranges of them and gaps stored before ``at_before_us``. What waits
        for its turn stays.
        """
        before_us = self._prunable_until_us(before_us)
        with self.database.transaction() as connection:
            if not connection.try_lock("prune"):
                return 0
            pruned = prune.prune_firings(connection, before_us, rows)
            pruned += prune.prune_aged(connection, at_before_us, rows)
            for lane_id, bucket in before_buckets.items():
                if self._pruned_buckets.get(lane_id) != bucket:
                    scores = prune.prune_scores(connection, lane_id, bucket, rows)
                    exclusions = prune.prune_exclusions(connection, lane_id, before_us, rows)
                    pruned += scores + exclusions
                    if max(scores, exclusions) < rows:
                        self._pruned_buckets[lane_id] = bucket
        return pruned

    def used_bytes(self) -> int:
        """Bytes that the rows of the store take up; what a deleted row leaves behind does not count."""
        with self.database.reader() as connection:
            return connection.used_bytes()

    def _prunable_until_us(self, before_us: int) -> int:
        if not self.publishing:
            return before_us
        with self.database.reader() as connection:
            (oldest,) = connection.execute("SELECT min(from_time_us) FROM publication").fetchone()
        return before_us if oldest is None else min(before_us, int(oldest))


def _insert_fired(connection: Connection, fired: Sequence[tuple[int, Firing, tuple[str, ...]]]) -> None:
    """Firings of lanes with the names of their actuators; in mode shadow nothing goes to these."""
    rows = [
        (
            firing.firing_id,
            lane_id,
            firing.hook,
            firing.stream,
            firing.object_id,
            firing.attribute,
            text(firing.value),
            text(firing.why),
            str(firing.mode),
            firing.slot_time_us,
            firing.expires_at_us,
            firing.effect_until_us,
            firing.series,
            firing.group,
        )
        for lane_id, firing, _ in fired
    ]
    outbox = [
        (
            firing.firing_id,
            actuator,
            firing.hook,
            firing.object_id,
            firing.attribute,
            firing.radio_cell_id,
            firing.expires_at_us,
            int(firing.mode is Mode.ASSIST),
            firing.refreshes,
        )
        for _, firing, actuators in fired
        if firing.mode is not Mode.SHADOW
        for actuator in actuators
    ]
    # An object may be seen on two topic partitions: its firing has one id, and the first one counts.
    if rows:
        into = (
            "firing(firing_id, lane_id, hook, stream, object_id, attribute, value, why, mode,"
            " slot_time_us, expires_at_us, effect_until_us, series, group_name)"
        )
        rows.sort(key=itemgetter(0))  # stable: of equal ids the first counts
        connection.insert_rows(into, columns_of(rows), "ON CONFLICT (firing_id) DO NOTHING")
    if outbox:
        into = "outbox(firing_id, actuator, hook, object_id, attribute, radio_cell_id, expires_at_us, held, refreshes)"
        connection.insert_rows(into, columns_of(outbox), "ON CONFLICT (firing_id, actuator) DO NOTHING")


def _advance_offsets(
    connection: Connection, lanes: Sequence[LaneCommit]
) -> tuple[list[LaneCommit], set[TopicPartition]]:
    counts = ", ".join(f"{name} = {name} + :{name}" for name in COUNTS)
    ours, fenced = [], set()
    for lane in sorted(lanes, key=lambda lane: (lane.topic_partition, lane.lane_id)):
        known = {"new": lane.new_offset, "old": lane.old_offset, "lane_id": lane.lane_id, "epoch": lane.epoch}
        done = connection.execute(
            f"UPDATE topic_progress SET next_offset = :new, {counts}"
            " WHERE lane_id = :lane_id AND epoch = :epoch AND (next_offset = :old OR next_offset IS NULL)",
            known | {name: lane.counts.get(name, 0) for name in COUNTS},
        )
        if done.rowcount:
            ours.append(lane)
            continue
        held = connection.execute(
            "SELECT epoch, next_offset FROM topic_progress WHERE lane_id = :lane_id", {"lane_id": lane.lane_id}
        ).fetchone()
        if held != (lane.epoch, lane.new_offset):
            fenced.add(lane.topic_partition)
    return ours, fenced


def _lock_versions(connection: Connection, stream: str, predictor: str) -> None:
    """Hold the oldest version of a predictor: of two that move a version of it, one comes after the other."""
    connection.execute(
        "UPDATE model_version SET stage = stage WHERE model_id IN (SELECT model_id FROM model_version"
        " WHERE stream = :stream AND predictor = :predictor ORDER BY model_id LIMIT 1)",
        {"stream": stream, "predictor": predictor},
    )


def _active_version(connection: Connection, stream: str, predictor: str, besides: int) -> str | None:
    row = connection.execute(
        "SELECT version FROM model_version WHERE stream = :stream AND predictor = :predictor AND stage = 'active'"
        " AND model_id <> :besides ORDER BY model_id DESC LIMIT 1",
        {"stream": stream, "predictor": predictor, "besides": besides},
    ).fetchone()
    return None if row is None else str(row[0])


def _insert_audit(connection: Connection, at_us: int, who: str, what: str, detail: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT INTO audit(at_us, who, what, detail) VALUES (:at_us, :who, :what, :detail)",
        {"at_us": at_us, "who": who, "what": what, "detail": text(detail)},
    )


def _insert_run(connection: Connection, ended_us: int, run: RetrainRow) -> int:
    (run_id,) = connection.execute(
        "INSERT INTO retrain_run(stream, predictor, started_us, ended_us, result, model_id, detail)"
        " VALUES (:stream, :predictor, :started_us, :ended_us, :result, :model_id, :detail) RETURNING run_id",
        {
            "stream": run.stream,
            "predictor": run.predictor,
            "started_us": run.started_us,
            "ended_us": ended_us,
            "result": run.result,
            "model_id": run.model_id,
            "detail": text(run.detail),
        },
    ).fetchone()
    return int(run_id)


def _end_requests(connection: Connection, lanes: Sequence[LaneCommit]) -> None:
    taken = [{"request_id": request_id} for lane in lanes for request_id in lane.requests]
    if taken:
        connection.execute_many("DELETE FROM control_request WHERE request_id = :request_id", taken)


def _register(connection: Connection, into: str, row: tuple[Any, ...]) -> None:
    connection.insert_rows(into, [[value] for value in row], "ON CONFLICT (layout_id) DO NOTHING")


@cache
def _replacing(into: str, keys: int) -> str:
    """The ON CONFLICT clause for "table(column, …)", of which the first ``keys`` are its primary key."""
    names = into.partition("(")[2].removesuffix(")").split(", ")
    values = ", ".join(f"{name} = excluded.{name}" for name in names[keys:])
    return f"ON CONFLICT ({', '.join(names[:keys])}) DO UPDATE SET {values}"


def _note_windows(connection: Connection, lanes: list[LaneCommit]) -> None:
    windows = [
        {"lane_id": lane.lane_id, "next_offset": lane.new_offset, "from_us": window[0], "until_us": window[1]}
        for lane in lanes
        if (window := lane.window()) is not None
    ]
    if windows:  # a recreated topic counts from 0 again
        connection.execute_many(
            "INSERT INTO publication(lane_id, next_offset, from_time_us, until_time_us)"
            " VALUES (:lane_id, :next_offset, :from_us, :until_us) ON CONFLICT (lane_id, next_offset) DO UPDATE SET"
            " from_time_us = CASE WHEN excluded.from_time_us < publication.from_time_us"
            " THEN excluded.from_time_us ELSE publication.from_time_us END,"
            " until_time_us = CASE WHEN excluded.until_time_us > publication.until_time_us"
            " THEN excluded.until_time_us ELSE publication.until_time_us END",
            windows,
        )


def policy_window(firing_id: str) -> int:
    """What stands for an offset in the window of a policy's firings, of which this is the first: below 0."""
    return -1 - int.from_bytes(hashlib.sha256(firing_id.encode()).digest()[:7])


def _note_window_of_policy(connection: Connection, lane_id: int, firings: Sequence[Firing]) -> None:
    times = [firing.slot_time_us for firing in firings]
    connection.execute(
        "INSERT INTO publication(lane_id, next_offset, from_time_us, until_time_us)"
        " VALUES (:lane_id, :number, :from_us, :until_us) ON CONFLICT DO NOTHING",
        {
            "lane_id": lane_id,
            "number": policy_window(firings[0].firing_id),
            "from_us": min(times),
            "until_us": max(times),
        },
    )


def _insert_gap(
    connection: Connection, lane_id: int, from_offset: int, to_offset: int, reason: str, now_us: int
) -> None:
    connection.execute(
        "INSERT INTO gap(lane_id, from_offset, reason, to_offset, at_us) VALUES (:lane_id, :from, :reason, :to, :at_us)"
        " ON CONFLICT DO NOTHING",
        {"lane_id": lane_id, "from": from_offset, "reason": reason, "to": to_offset, "at_us": now_us},
    )

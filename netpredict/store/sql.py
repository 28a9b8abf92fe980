"""The store in SQL: the one place where offsets, forecasts, states and firings become durable together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from netpredict.clock import Clock, SystemClock
from netpredict.errors import StoreError
from netpredict.store import load, migrate
from netpredict.store.commit import (
    COUNTS,
    ColumnLayout,
    Commit,
    ControlRequest,
    ForecastLayout,
    LaneCommit,
    LaneSnapshot,
    ModelRow,
    PendingForecasts,
    RetrainRow,
)
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
from netpredict.store.sqlite import Writer, insert_rows, path_of, reader
from netpredict.types import Mode, TopicPartition

VALUE_BYTES_MAX = 65_536
"""Bytes of a dead letter's key and value that are kept."""

RECREATED = "topic_recreated"
"""Reason of the gap that ``assign`` writes when Kafka's topic id is not the stored one."""

_AFTER = {"active": "retired", "challenger": "refused"}
"""What becomes of the version that held a stage which only one may hold."""

_log = structlog.get_logger(__name__)


class SqlStore:
    """The SQL authority on SQLite. ``start`` before use; safe to share between threads.

    ``damaged`` names the series whose state failed its checksum at the last ``assign``: they start without a state.
    With ``publishing`` each commit notes what is to be published, and pruning keeps what was not published yet.
    """

    def __init__(self, url: str, clock: Clock | None = None, *, publishing: bool = False) -> None:
        self.url = url
        self.publishing = publishing
        self.path = path_of(url)
        self.writer = Writer(self.path)
        self.damaged: list[tuple[TopicPartition, str]] = []
        self._clock = clock or SystemClock()
        self._layouts: set[int] = set()  # known to be stored

    def start(self) -> None:
        """Check the schema, take the lock file, connect."""
        migrate.check(self.url)
        self.writer.open()

    def close(self) -> None:
        """Finish the transaction in flight and let go of the lock file."""
        self.writer.close()

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
        with self.writer.transaction() as connection:  # 1
            lanes, fenced = _advance_offsets(connection, commit.lanes)
            self._insert_forecasts(connection, lanes, layouts)  # 2
            self._insert_observations(connection, lanes, layouts)  # 3
            self._upsert_scores(connection, lanes)  # 4
            self._write_series(connection, lanes)  # 5
            self._upsert_states(connection, lanes, layouts)  # 5
            self._insert_anchors(connection, lanes, layouts)  # 5
            self._append_journal(connection, lanes)  # 6
            _end_requests(connection, lanes)  # 6
            self._insert_firings(connection, lanes)  # 7
            self._insert_dead_letters(connection, lanes)  # 7
            if self.publishing:
                _note_windows(connection, lanes)  # 7
        self._layouts |= layouts  # 8: only what is durable may be taken for stored
        return fenced

    def _insert_forecasts(self, connection: sqlite3.Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
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
        into = (
            "INSERT INTO forecast(slot_time_us, series_id, model_id, layout_id, sources, quality, observed, seasonal,"
            " ticks)"
        )
        insert_rows(connection, into, merged(groups))

    def _insert_observations(self, connection: sqlite3.Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
        groups = []
        for rows in (rows for lane in lanes for rows in lane.observations if len(rows.slot_time_us)):
            columns = (
                rows.slot_time_us.tolist(),
                rows.series_id.tolist(),
                [self._column_layout(connection, rows.layout, layouts)] * len(rows.slot_time_us),
                rows.event_time_us.tolist(),
                rows.flags.tolist(),
                ticks_texts(rows.ticks),
            )
            groups.append(ordered(columns, time_order(rows.slot_time_us, rows.series_id)))
        into = "INSERT INTO observation(slot_time_us, series_id, layout_id, event_time_us, flags, ticks)"
        insert_rows(connection, into, merged(groups))

    def _upsert_scores(self, connection: sqlite3.Connection, lanes: list[LaneCommit]) -> None:
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
                "INSERT OR REPLACE INTO score(lane_id, bucket, model_id, source, kpi, lead_steps,"
                " n, flat, abs_ticks, square_ticks, truth_abs_ticks, naive_abs_ticks, seasonal_abs_ticks,"
                " below, pinball)"
            )
            insert_rows(connection, into, columns_of(key + rest for key, rest in sorted(rows.items())))

    def _write_series(self, connection: sqlite3.Connection, lanes: list[LaneCommit]) -> None:
        now_us = self._clock.now_us()
        retired = {series_id for lane in lanes for series_id in lane.retired_series}
        new = [
            (series_id, lane.lane_id, key, first_slot, int(scored), now_us if series_id in retired else None)
            for lane in lanes
            for series_id, key, first_slot, scored in lane.new_series
        ]
        for some in _chunks(sorted(retired)):  # before the new ones: a key may retire and come back in one commit
            places = ",".join("?" * len(some))
            connection.execute(f"UPDATE series SET retired_us = {now_us} WHERE series_id IN ({places})", some)
            connection.execute(f"DELETE FROM series_state WHERE series_id IN ({places})", some)
        if new:
            into = "INSERT INTO series(series_id, lane_id, key, first_slot, scored, retired_us)"
            insert_rows(connection, into, columns_of(new))
        for lane in lanes:
            connection.execute("UPDATE topic_progress SET state = ? WHERE lane_id = ?", (lane.state, lane.lane_id))

    def _upsert_states(self, connection: sqlite3.Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
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
        into = "INSERT OR REPLACE INTO series_state(series_id, slot, layout_id, checksum, state)"
        insert_rows(connection, into, ordered(columns, order))

    def _insert_anchors(self, connection: sqlite3.Connection, lanes: list[LaneCommit], layouts: set[int]) -> None:
        anchors: list[tuple[Any, ...]] = []
        for rows in (rows for lane in lanes for rows in lane.anchors):
            layout = [self._state_layout(connection, rows.layout, layouts)] * len(rows.series_id)
            parts = (rows.slot_time_us.tolist(), rows.series_id.tolist(), layout, *blob_rows(rows.blob))
            anchors += zip(*parts, strict=True)
        if anchors:
            into = "INSERT OR REPLACE INTO state_anchor(slot_time_us, series_id, layout_id, checksum, state)"
            insert_rows(connection, into, columns_of(sorted(anchors)))
        marks = [(mark.begins_us, lane.lane_id, mark.mark) for lane in lanes for mark in lane.marks]
        if marks:
            into = "INSERT OR REPLACE INTO bucket_mark(begins_us, lane_id, mark)"
            insert_rows(connection, into, columns_of(marks))

    def _append_journal(self, connection: sqlite3.Connection, lanes: list[LaneCommit]) -> None:
        for lane in lanes:
            for row in lane.journal:
                connection.execute(
                    "INSERT INTO control_journal(lane_id, effective_offset, number, kind, payload)"
                    " SELECT ?1, ?2, coalesce(max(number) + 1, 0), ?3, ?4 FROM control_journal"
                    " WHERE lane_id = ?1 AND effective_offset = ?2",
                    (lane.lane_id, row.effective_offset, row.kind, text(row.payload)),
                )

    def _insert_firings(self, connection: sqlite3.Connection, lanes: list[LaneCommit]) -> None:
        firings, outbox = [], []
        for lane in lanes:
            for firing, actuators in lane.firings:
                firings.append(
                    (
                        firing.firing_id,
                        lane.lane_id,
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
                    )
                )
                if firing.mode is Mode.AUTO:
                    outbox += [
                        (firing.firing_id, actuator, firing.hook, firing.object_id, firing.attribute)
                        for actuator in actuators
                    ]
        # An object may be seen on two topic partitions: its firing has one id, and the first one counts.
        if firings:
            into = (
                "INSERT INTO firing(firing_id, lane_id, hook, stream, object_id, attribute, value, why, mode,"
                " slot_time_us, expires_at_us, effect_until_us)"
            )
            insert_rows(connection, into, columns_of(firings), "ON CONFLICT (firing_id) DO NOTHING")
        if outbox:
            into = "INSERT INTO outbox(firing_id, actuator, hook, object_id, attribute)"
            insert_rows(connection, into, columns_of(outbox), "ON CONFLICT (firing_id, actuator) DO NOTHING")

    def _insert_dead_letters(self, connection: sqlite3.Connection, lanes: list[LaneCommit]) -> None:
        letters = [
            (
                letter.topic_partition.topic,
                letter.topic_partition.partition,
                letter.offset,
                letter.reason,
                letter.detail,
                letter.ingest_time_us,
                letter.key[:VALUE_BYTES_MAX] if letter.key is not None else None,
                letter.value[:VALUE_BYTES_MAX] if letter.value is not None else None,
                len(letter.value or b""),
            )
            for lane in lanes
            for letter in lane.dead_letters
        ]
        if letters:
            into = (
                'INSERT INTO dead_letter(topic, partition, "offset", reason, detail, ingest_time_us, "key", value,'
                " value_bytes)"
            )
            insert_rows(connection, into, columns_of(letters), "ON CONFLICT DO NOTHING")
        for lane in lanes:
            for gap in lane.gaps:
                _insert_gap(connection, lane.lane_id, gap.from_offset, gap.to_offset, gap.reason)

    def _forecast_layout(self, connection: sqlite3.Connection, layout: ForecastLayout, layouts: set[int]) -> int:
        number = forecast_layout_id(layout)
        if number not in self._layouts and number not in layouts:
            shape = (layout.kpis, layout.decimals, layout.levels)
            row = (number, layout.stream, *map(text, shape), layout.horizon_steps, layout.period_us)
            into = "forecast_layout(layout_id, stream, kpis, decimals, levels, horizon_steps, period_us, created_us)"
            _register(connection, into, (*row, self._clock.now_us()))
            layouts.add(number)
        return number

    def _column_layout(self, connection: sqlite3.Connection, layout: ColumnLayout, layouts: set[int]) -> int:
        number = column_layout_id(layout)
        if number not in self._layouts and number not in layouts:
            row = (number, layout.stream, text(layout.columns), text(layout.decimals), self._clock.now_us())
            _register(connection, "column_layout(layout_id, stream, columns, decimals, created_us)", row)
            layouts.add(number)
        return number

    def _state_layout(self, connection: sqlite3.Connection, layout: str, layouts: set[int]) -> int:
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
        place = (group, topic_partition.topic, topic_partition.partition)
        with self.writer.transaction() as connection:
            connection.execute(
                "INSERT INTO topic_progress(group_name, topic, partition, stream, topic_id, epoch, owner)"
                " VALUES (?, ?, ?, ?, ?, 0, '') ON CONFLICT DO NOTHING",
                (*place, stream, topic_id),
            )
            lane_id, epoch, next_offset, held_id, state, *counts = connection.execute(
                f"SELECT lane_id, epoch + 1, next_offset, topic_id, state, {', '.join(COUNTS)} FROM topic_progress"
                " WHERE group_name = ? AND topic = ? AND partition = ?",
                place,
            ).fetchone()
            if topic_id and held_id and topic_id != held_id and next_offset is not None:
                _insert_gap(connection, lane_id, next_offset, 0, RECREATED)
                next_offset = None
            connection.execute(
                "UPDATE topic_progress SET epoch = ?, owner = ?, stream = ?, topic_id = ?, next_offset = ?"
                " WHERE lane_id = ?",
                (epoch, owner, stream, topic_id or held_id, next_offset, lane_id),
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
        self, connection: sqlite3.Connection, lane_id: int, topic_partition: TopicPartition
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
        with reader(self.path) as connection:
            return load.pending_forecasts(connection, lane_id, model_id, layout)

    def requests(self) -> list[ControlRequest]:
        """What waits to enter any lane, oldest first."""
        with reader(self.path) as connection:
            rows = connection.execute(
                "SELECT request_id, lane_id, kind, payload FROM control_request ORDER BY request_id"
            ).fetchall()
        return [ControlRequest(number, lane, kind, msgspec.json.decode(text)) for number, lane, kind, text in rows]

    def request(self, lane_id: int, kind: str, payload: Mapping[str, Any]) -> int:
        """Ask for something to enter a lane through its control journal; gives the id of the request."""
        with self.writer.transaction() as connection:
            done = connection.execute(
                "INSERT INTO control_request(lane_id, kind, payload) VALUES (?, ?, ?)", (lane_id, kind, text(payload))
            )
        return int(done.lastrowid or 0)

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
        with self.writer.transaction() as connection:
            connection.execute(
                "INSERT INTO model_version(stream, predictor, version, plugin, folder, stage, created_us, scores)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (stream, predictor, version, plugin, folder, stage, self._clock.now_us(), text(scores)),
            )
            (model_id,) = connection.execute(
                "SELECT model_id FROM model_version WHERE stream = ? AND predictor = ? AND version = ?",
                (stream, predictor, version),
            ).fetchone()
        return int(model_id)

    def models(self, stream: str | None = None) -> list[ModelRow]:
        """All versions, oldest first."""
        with reader(self.path) as connection:
            rows = connection.execute(
                "SELECT model_id, stream, predictor, version, plugin, folder, stage, created_us, scores"
                " FROM model_version WHERE ?1 IS NULL OR stream = ?1 ORDER BY model_id",
                (stream,),
            ).fetchall()
        return [ModelRow(*(*row, msgspec.json.decode(scores))) for *row, scores in rows]

    def move_model(
        self, model_id: int, stage: str, who: str, what: str, detail: Mapping[str, Any], run: RetrainRow | None = None
    ) -> str | None:
        """See ``ModelRegistry``."""
        with self.writer.transaction() as connection:
            found = connection.execute(
                "SELECT stream, predictor, version FROM model_version WHERE model_id = ?", (model_id,)
            ).fetchone()
            if found is None:
                raise StoreError(f"no model version has the id {model_id}")
            stream, predictor, version = found
            previous = _active_version(connection, stream, predictor, model_id)
            connection.execute(
                "UPDATE model_version SET stage = ? WHERE stream = ? AND predictor = ? AND stage = ? AND model_id <> ?",
                (_AFTER.get(stage, stage), stream, predictor, stage, model_id),
            )
            connection.execute("UPDATE model_version SET stage = ? WHERE model_id = ?", (stage, model_id))
            known = {"stream": stream, "predictor": predictor, "version": version, "model_id": model_id}
            _insert_audit(connection, self._clock.now_us(), who, what, {**known, "previous": previous, **detail})
            if run is not None:
                _insert_run(connection, self._clock.now_us(), run)
        return previous

    def record_audit(self, who: str, what: str, detail: Mapping[str, Any]) -> None:
        """Note that a person or a job changed something."""
        with self.writer.transaction() as connection:
            _insert_audit(connection, self._clock.now_us(), who, what, detail)

    def record_retrain(self, run: RetrainRow) -> int:
        """Note a training run that ended now; gives its id."""
        with self.writer.transaction() as connection:
            return _insert_run(connection, self._clock.now_us(), run)

    def prune(self, before_us: int, rows: int) -> int:
        """Delete the oldest forecasts and observations before ``before_us``, at most ``rows``; gives how many.

        Anchors and marks, which are few, go with them.
        """
        pruned, before_us = 0, self._prunable_until_us(before_us)
        for table, most in (("forecast", rows - rows // 2), ("observation", rows), ("forecast", rows)):
            if most > pruned:
                with self.writer.transaction() as connection:
                    pruned += _prune(connection, table, before_us, most - pruned)
        if pruned:
            with self.writer.transaction() as connection:
                connection.execute("DELETE FROM state_anchor WHERE slot_time_us < ?", (before_us,))
                connection.execute("DELETE FROM bucket_mark WHERE begins_us < ?", (before_us,))
        return pruned

    def _prunable_until_us(self, before_us: int) -> int:
        if not self.publishing:
            return before_us
        with reader(self.path) as connection:
            (oldest,) = connection.execute("SELECT min(from_time_us) FROM publication").fetchone()
        return before_us if oldest is None else min(before_us, int(oldest))


def _advance_offsets(
    connection: sqlite3.Connection, lanes: Sequence[LaneCommit]
) -> tuple[list[LaneCommit], set[TopicPartition]]:
    counts = ", ".join(f"{name} = {name} + ?" for name in COUNTS)
    ours, fenced = [], set()
    for lane in sorted(lanes, key=lambda lane: (lane.topic_partition, lane.lane_id)):
        done = connection.execute(
            f"UPDATE topic_progress SET next_offset = ?, {counts}"
            " WHERE lane_id = ? AND epoch = ? AND (next_offset = ? OR next_offset IS NULL)",
            (
                lane.new_offset,
                *(lane.counts.get(name, 0) for name in COUNTS),
                lane.lane_id,
                lane.epoch,
                lane.old_offset,
            ),
        )
        if done.rowcount:
            ours.append(lane)
            continue
        held = connection.execute(
            "SELECT epoch, next_offset FROM topic_progress WHERE lane_id = ?", (lane.lane_id,)
        ).fetchone()
        if held != (lane.epoch, lane.new_offset):
            fenced.add(lane.topic_partition)
    return ours, fenced


def _active_version(connection: sqlite3.Connection, stream: str, predictor: str, besides: int) -> str | None:
    row = connection.execute(
        "SELECT version FROM model_version WHERE stream = ? AND predictor = ? AND stage = 'active' AND model_id <> ?"
        " ORDER BY model_id DESC LIMIT 1",
        (stream, predictor, besides),
    ).fetchone()
    return None if row is None else str(row[0])


def _insert_audit(connection: sqlite3.Connection, at_us: int, who: str, what: str, detail: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT INTO audit(at_us, who, what, detail) VALUES (?, ?, ?, ?)", (at_us, who, what, text(detail))
    )


def _insert_run(connection: sqlite3.Connection, ended_us: int, run: RetrainRow) -> int:
    done = connection.execute(
        "INSERT INTO retrain_run(stream, predictor, started_us, ended_us, result, model_id, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run.stream, run.predictor, run.started_us, ended_us, run.result, run.model_id, text(run.detail)),
    )
    return int(done.lastrowid or 0)


def _end_requests(connection: sqlite3.Connection, lanes: Sequence[LaneCommit]) -> None:
    taken = [(request_id,) for lane in lanes for request_id in lane.requests]
    if taken:
        connection.executemany("DELETE FROM control_request WHERE request_id = ?", taken)


def _register(connection: sqlite3.Connection, into: str, row: tuple[Any, ...]) -> None:
    insert_rows(connection, f"INSERT INTO {into}", [[value] for value in row], "ON CONFLICT (layout_id) DO NOTHING")


def _note_windows(connection: sqlite3.Connection, lanes: list[LaneCommit]) -> None:
    windows = [(lane.lane_id, lane.new_offset, *window) for lane in lanes if (window := lane.window()) is not None]
    connection.executemany(
        "INSERT INTO publication(lane_id, next_offset, from_time_us, until_time_us) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET from_time_us = min(from_time_us, excluded.from_time_us),"
        " until_time_us = max(until_time_us, excluded.until_time_us)",  # a recreated topic counts from 0 again
        windows,
    )


def _insert_gap(connection: sqlite3.Connection, lane_id: int, from_offset: int, to_offset: int, reason: str) -> None:
    connection.execute(
        "INSERT INTO gap(lane_id, from_offset, reason, to_offset) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (lane_id, from_offset, reason, to_offset),
    )


def _prune(connection: sqlite3.Connection, table: str, before_us: int, rows: int) -> int:
    key = "slot_time_us, series_id, model_id" if table == "forecast" else "slot_time_us, series_id"
    beyond = connection.execute(
        f"SELECT {key} FROM {table} WHERE slot_time_us < ? ORDER BY {key} LIMIT 1 OFFSET ?", (before_us, rows)
    ).fetchone()
    if beyond is None:
        return connection.execute(f"DELETE FROM {table} WHERE slot_time_us < ?", (before_us,)).rowcount
    places = ",".join("?" * len(beyond))
    return connection.execute(f"DELETE FROM {table} WHERE ({key}) < ({places})", beyond).rowcount


def _chunks(values: list[int], size: int = 4096) -> Iterable[list[int]]:
    return (values[start : start + size] for start in range(0, len(values), size))

"""The read side: what the CLI lists, the console shows and training learns from. Readers are short and never write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from netpredict.errors import StoreError
from netpredict.store import load
from netpredict.store.commit import COUNTS, SeriesState
from netpredict.store.database import Connection, Glob, database_of
from netpredict.store.encode import bucket_of, ticks_rows
from netpredict.store.letters import chosen
from netpredict.store.outbox import MAY_STAND
from netpredict.store.schema import SOURCE_NAMES
from netpredict.types import MISSING_TICKS, FloatArray, IntArray, Quality, base_name, ue_of

Row = dict[str, Any]

_SLOTS_PER_READ = 64
_SLOTS_SEARCHED = 20_000
_SLOTS_SAMPLED, _SLOTS_LISTED = 256, 16
_GOLDEN = (5**0.5 - 1) / 2


def evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` of so many indices."""
    chosen = min(count, most)
    return [number * count // chosen for number in range(chosen)]


def whole_ues(keys: Sequence[str], most: int) -> list[int]:
    """Indices of the links (UE, radio cell) of UEs that are spread evenly, each with all of its links.

    As many UEs as there is room for ``most`` links; one at least.
    """
    ues: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        ues.setdefault(ue_of(key), []).append(index)
    found = list(ues.values())
    chosen: list[int] = []
    left = most
    for place in sorted(range(len(found)), key=lambda place: place * _GOLDEN % 1):
        if len(found[place]) <= left or not chosen:
            chosen.append(place)
            left -= len(found[place])
    return [index for place in sorted(chosen) for index in found[place]]


class ObservedSeries(NamedTuple):
    """S series on one grid of T slots: ``values`` float32 (S, T, k) in natural units, NaN = missing."""

    keys: list[str]
    first_slot: IntArray
    values: FloatArray


class History:
    """Answers questions about a store; every method reads it in transactions of its own. Rows are plain values."""

    def __init__(self, url: str) -> None:
        self._database = database_of(url)

    # -- lists --------------------------------------------------------------------------------------------------------

    def progress(self, group: str | None = None) -> list[Row]:
        """Topic partitions: next offset, counts, epoch and owner."""
        return self._rows(
            "SELECT group_name, topic, partition, stream, topic_id, next_offset, epoch, owner, accepted, duplicate,"
            " late, dead, control FROM topic_progress WHERE :group IS NULL OR group_name = :group"
            " ORDER BY group_name, topic, partition",
            group=group,
        )

    def streams(self) -> list[Row]:
        """Streams: topic partitions, live series and counts."""
        sums = ", ".join(f"CAST(sum(p.{name}) AS BIGINT) AS {name}" for name in COUNTS[:-1])
        return self._rows(
            f"SELECT p.stream, p.topic, count(*) AS topic_partitions, {sums},"
            " CAST(sum((SELECT count(*) FROM series AS s"
            "   WHERE s.lane_id = p.lane_id AND s.retired_us IS NULL)) AS BIGINT) AS series"
            " FROM topic_progress AS p GROUP BY p.stream, p.topic ORDER BY p.stream, p.topic"
        )

    def series(
        self, stream: str | None = None, key: str | None = None, retired: bool = False, limit: int = 100
    ) -> list[Row]:
        """Series; ``key`` is the key or a shell pattern of it."""
        rows = self._rows(
            "SELECT p.stream, s.key AS series, p.topic, p.partition, s.first_slot, t.slot AS last_slot, s.scored,"
            " s.retired_us, s.series_id FROM series AS s JOIN topic_progress AS p ON p.lane_id = s.lane_id"
            " LEFT JOIN series_state AS t ON t.series_id = s.series_id"
            " WHERE (:stream IS NULL OR p.stream = :stream) AND (:key IS NULL OR s.key = :key OR s.key GLOB :pattern)"
            " AND (:retired OR s.retired_us IS NULL) ORDER BY s.series_id LIMIT :limit",
            stream=stream,
            key=key,
            pattern=Glob(key or ""),
            retired=retired,
            limit=limit,
        )
        return [row | {"scored": bool(row["scored"])} for row in rows]

    def series_states(self, stream: str, key: str) -> list[SeriesState]:
        """Where the series of this key live, with their states."""
        with self._database.reader() as connection:
            return load.series_states(connection, stream, key)

    def moved(self, stream: str | None = None) -> list[Row]:
        """Series that live on two topic partitions and did not get their state from the earlier one."""
        names = ("stream", "series", "topic", "from_partition", "partition", "from_slot", "slot", "asked")
        with self._database.reader() as connection:
            return [dict(zip(names, row, strict=True)) for row in load.moved(connection, stream)]

    def forecasts(
        self,
        stream: str,
        series: str,
        predictor: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        limit: int = 12,
    ) -> list[Row]:
        """Newest forecasts of a series first: ``values[kpi][lead][level]`` in the KPI's unit, None = missing."""
        rows = self._newest(
            "forecast",
            "SELECT p.stream, s.key AS series, m.predictor, m.version, x.slot_time_us, x.sources, x.quality, x.ticks,"
            " x.observed, l.kpis, l.decimals, l.levels, l.horizon_steps, l.period_us"
            f" FROM {_AT_SLOTS.format(table='forecast')} JOIN forecast_layout AS l ON l.layout_id = x.layout_id"
            " JOIN model_version AS m ON m.model_id = x.model_id"
            f" WHERE (:predictor IS NULL OR m.predictor = :predictor) AND {_OF_SLOTS}"
            " ORDER BY x.slot_time_us DESC, x.series_id, x.model_id LIMIT :limit",
            {"ids": self._series_ids(stream, series), "predictor": predictor},
            from_us,
            to_us,
            limit,
        )
        return [_forecast(row) for row in rows]

    def fresh_forecasts(self, stream: str, steps: int) -> Iterator[Row]:
        """The newest forecast of each series of a stream, as in ``forecasts``, one at a time.

        Only those issued in the last ``steps`` periods before the newest one; what a challenger says is left out.
        """
        newest = self._rows(
            "SELECT f.slot_time_us, l.period_us FROM forecast AS f JOIN forecast_layout AS l"
            " ON l.layout_id = f.layout_id WHERE l.stream = :stream ORDER BY f.slot_time_us DESC LIMIT 1",
            stream=stream,
        )
        if not newest:
            return
        seen: set[int] = set()
        names = (
            *("stream", "series", "series_id", "predictor", "version", "slot_time_us", "sources", "quality", "ticks"),
            *("observed", "kpis", "decimals", "levels", "horizon_steps", "period_us"),
        )
        with self._database.reader() as connection:
            rows = connection.stream(
                "SELECT l.stream, s.key, s.series_id, m.predictor, m.version, f.slot_time_us, f.sources,"
                " f.quality, f.ticks, f.observed, l.kpis, l.decimals, l.levels, l.horizon_steps, l.period_us"
                " FROM forecast AS f JOIN series AS s ON s.series_id = f.series_id"
                " JOIN forecast_layout AS l ON l.layout_id = f.layout_id"
                " JOIN model_version AS m ON m.model_id = f.model_id"
                " WHERE f.slot_time_us > :since AND l.stream = :stream AND s.retired_us IS NULL"
                " AND f.quality & :challenger = 0 ORDER BY f.slot_time_us DESC, f.series_id",
                {
                    "since": newest[0]["slot_time_us"] - steps * newest[0]["period_us"],
                    "stream": stream,
                    "challenger": int(Quality.CHALLENGER),
                },
            )
            for found in rows:
                row = dict(zip(names, found, strict=True))
                if row["series_id"] not in seen:
                    seen.add(row["series_id"])
                    yield _forecast(row)

    def recent_observations(
        self, stream: str, series: str, from_us: int | None = None, to_us: int | None = None, limit: int = 100
    ) -> list[Row]:
        """Newest observations of a series first: ``values[column]`` in natural units, None = missing."""
        return self._observations(self._series_ids(stream, series), from_us, to_us, limit)

    def _observations(self, ids: Sequence[int], from_us: int | None, to_us: int | None, limit: int) -> list[Row]:
        rows = self._newest(
            "observation",
            "SELECT p.stream, s.key AS series, x.slot_time_us, x.event_time_us, x.flags, x.ticks, l.columns, l.decimals"
            f" FROM {_AT_SLOTS.format(table='observation')} JOIN column_layout AS l ON l.layout_id = x.layout_id"
            f" WHERE {_OF_SLOTS} ORDER BY x.slot_time_us DESC, x.series_id LIMIT :limit",
            {"ids": ids},
            from_us,
            to_us,
            limit,
        )
        return [_observation(row) for row in rows]

    def mean(self, stream: str, series: str, column: str, from_us: int, to_us: int) -> float | None:
        """Mean of an observed column over slot times, both included; None when there is no value.

        Of a series, or of a radio cell's newest ``_SERIES_COMPARED`` where that is no series itself; the newest 10,000
        rows.
        """
        ids = self._series_ids(stream, series) or self._series_of_radio_cell(stream, series)
        rows = self._observations(ids, from_us, to_us, limit=10_000)
        known = [row["values"][column] for row in rows if row["values"].get(column) is not None]
        return sum(known) / len(known) if known else None

    def expired_actions(self, now_us: int) -> list[str]:
        """Firings that hold an attribute beyond their time, or may, longest first.

        Where nobody knows whether the last one was set, the one that was applied before it may hold still.
        """
        rows = self._rows(
            "SELECT f.effect_until_us, e.firing_id FROM lease AS e JOIN firing AS f ON f.firing_id = e.firing_id"
            " WHERE e.until_us <= :now_us AND f.effect_until_us <= :now_us AND EXISTS (SELECT 1 FROM outbox AS o"
            f" WHERE o.firing_id = e.firing_id AND {MAY_STAND})"
            " UNION SELECT f.effect_until_us, o.firing_id FROM lease AS e JOIN outbox AS o"
            " ON o.object_id = e.object_id AND o.attribute = e.attribute AND o.kind = 'applied'"
            " JOIN firing AS f ON f.firing_id = o.firing_id"
            " WHERE e.until_us <= :now_us AND f.effect_until_us <= :now_us"
            " AND o.firing_id <> e.firing_id AND o.number = (SELECT a.number FROM outbox AS a WHERE a.kind = 'applied'"
            " AND a.object_id = e.object_id AND a.attribute = e.attribute ORDER BY a.at_us DESC, a.number DESC LIMIT 1)"
            " AND NOT EXISTS (SELECT 1 FROM reversal AS r WHERE r.firing_id = o.firing_id AND r.kind = 'applied')"
            " ORDER BY 1, 2",
            now_us=now_us,
        )
        return [row["firing_id"] for row in rows]

    def scores(
        self, stream: str | None = None, predictor: str | None = None, kpi: str | None = None, limit: int = 1000
    ) -> list[Row]:
        """Score buckets as stored, newest first: sums in ticks."""
        rows = self._rows(
            "SELECT p.stream, p.topic, p.partition, m.predictor, m.version, c.source, c.kpi, c.lead_steps, c.bucket,"
            " c.n, c.flat, c.abs_ticks, c.square_ticks, c.truth_abs_ticks, c.naive_abs_ticks, c.seasonal_abs_ticks,"
            " c.below, c.pinball FROM score AS c"
            " JOIN topic_progress AS p ON p.lane_id = c.lane_id JOIN model_version AS m ON m.model_id = c.model_id"
            " WHERE (:stream IS NULL OR p.stream = :stream) AND (:predictor IS NULL OR m.predictor = :predictor)"
            " AND (:kpi IS NULL OR c.kpi = :kpi)"
            " ORDER BY c.bucket DESC, p.topic, p.partition, m.predictor, m.version, c.source, c.kpi, c.lead_steps"
            " LIMIT :limit",
            stream=stream,
            predictor=predictor,
            kpi=kpi,
            limit=limit,
        )
        for row in rows:
            row["source"] = SOURCE_NAMES[row["source"]]
            row["square_ticks"] = int(row["square_ticks"])
            row["below"], row["pinball"] = msgspec.json.decode(row["below"]), msgspec.json.decode(row["pinball"])
        return rows

    def models(self, stream: str | None = None, predictor: str | None = None) -> list[Row]:
        """Model versions, newest first."""
        rows = self._rows(
            "SELECT model_id, stream, predictor, version, plugin, folder, stage, created_us, scores FROM model_version"
            " WHERE (:stream IS NULL OR stream = :stream) AND (:predictor IS NULL OR predictor = :predictor)"
            " ORDER BY model_id DESC",
            stream=stream,
            predictor=predictor,
        )
        return [row | {"scores": msgspec.json.decode(row["scores"])} for row in rows]

    def firings(
        self,
        hook: str | None = None,
        object_id: str | None = None,
        pending: bool = False,
        limit: int = 100,
        firing_id: str | None = None,
    ) -> list[Row]:
        """Newest firings first, each with its ``outcomes``: one per actuator, kind None while it is pending.

        ``checks`` of an outcome is what the guards said, None while it is pending; ``approval`` is what a person
        said to it, None when nobody did; ``effect`` what a KPI did behind it, ``reversals`` where it was taken back, be
        it by its last refresh.
        ``firing_id`` may be the beginning of one.
        """
        rows = self._rows(
            "SELECT firing_id, hook, stream, series, group_name, object_id, attribute, value, why, mode, slot_time_us,"
            " expires_at_us, effect_until_us FROM firing AS f WHERE (:hook IS NULL OR hook = :hook)"
            " AND (:firing_id IS NULL OR (firing_id >= :firing_id AND firing_id < :id_end))"
            " AND (:object_id IS NULL OR object_id = :object_id) AND (NOT :pending OR EXISTS ("
            "   SELECT 1 FROM outbox AS o WHERE o.firing_id = f.firing_id AND o.kind IS NULL))"
            " ORDER BY slot_time_us DESC, firing_id LIMIT :limit",
            hook=hook,
            object_id=object_id,
            pending=pending,
            limit=limit,
            firing_id=firing_id,
            id_end=f"{firing_id}~",  # ids are hexadecimal
        )
        ids = [row["firing_id"] for row in rows]
        outcomes = self._rows(
            "SELECT o.firing_id, o.actuator, o.kind, o.reason, o.detail, o.attempts, o.at_us, o.checks, o.reply,"
            " o.refreshes"
            " FROM each_text(:ids) AS i JOIN outbox AS o ON o.firing_id = i.value ORDER BY o.number",
            ids=ids,
        )
        approvals = self._rows(
            "SELECT a.firing_id, a.verdict, a.who, a.at_us FROM each_text(:ids) AS i"
            " JOIN approval AS a ON a.firing_id = i.value",
            ids=ids,
        )
        effects = self._rows("SELECT e.* FROM each_text(:ids) AS i JOIN effect AS e ON e.firing_id = i.value", ids=ids)
        by_effect = {row.pop("firing_id"): row for row in effects}
        reversals: dict[str, list[Row]] = {}
        for row in self._rows(
            "SELECT r.*, i.value AS of_id FROM each_text(:ids) AS i JOIN reversal AS r ON r.firing_id = i.value"
            " UNION ALL SELECT r.*, i.value AS of_id FROM each_text(:ids) AS i"
            " JOIN outbox AS o ON o.refreshes = i.value"
            " JOIN reversal AS r ON r.firing_id = o.firing_id AND r.actuator = o.actuator"
            " WHERE o.kind = 'applied' AND o.refreshes <> '' ORDER BY begun_us",
            ids=ids,
        ):
            reversals.setdefault(row.pop("of_id"), []).append(row)
        approved = {row.pop("firing_id"): row for row in approvals}
        by_firing: dict[str, list[Row]] = {}
        for outcome in outcomes:
            outcome["checks"] = msgspec.json.decode(outcome["checks"]) if outcome["checks"] else None
            by_firing.setdefault(outcome.pop("firing_id"), []).append(outcome)
        for row in rows:
            row["value"], row["why"] = msgspec.json.decode(row["value"]), msgspec.json.decode(row["why"])
            row["outcomes"] = by_firing.get(row["firing_id"], [])
            row["approval"] = approved.get(row["firing_id"])
            row["effect"] = by_effect.get(row["firing_id"])
            row["reversals"] = reversals.get(row["firing_id"], [])
        return rows

    def acted(self, hook: str | None = None, from_us: int | None = None, limit: int = 10_000) -> list[Row]:
        """Newest firings first that were applied (``applied`` 1), or withheld from a radio cell held out (0).

        Those that only refreshed what held, or were to, are left out: they changed nothing.
        """
        done = "SELECT 1 FROM outbox AS o WHERE o.firing_id = f.firing_id AND o.refreshes = '' AND o.kind"
        return self._rows(
            "SELECT f.hook, f.attribute, f.stream, f.series, f.slot_time_us, f.effect_until_us,"
            f" CASE WHEN EXISTS ({done} = 'applied') THEN 1 ELSE 0 END AS applied FROM firing AS f"
            " WHERE (:hook IS NULL OR f.hook = :hook) AND (:from_us IS NULL OR f.slot_time_us >= :from_us)"
            f" AND (EXISTS ({done} = 'applied') OR EXISTS ({done} = 'skipped' AND o.reason = 'holdout'))"
            " ORDER BY f.slot_time_us DESC, f.firing_id LIMIT :limit",
            hook=hook,
            from_us=from_us,
            limit=limit,
        )

    def dead_letters(
        self,
        topic: str | None = None,
        partition: int | None = None,
        reason: str | None = None,
        from_offset: int = 0,
        limit: int = 100,
        to_offset: int | None = None,
    ) -> list[Row]:
        """Dead letters by offset; key and value as text, bytes that are no UTF-8 as \\xNN.

        ``waiting``: it is to enter again before the next record of its topic partition.
        """
        condition, parameters = chosen(topic, partition, reason, from_offset, to_offset)
        rows = self._rows(
            'SELECT topic, partition, "offset", reason, detail, ingest_time_us, "key", value, value_bytes,'
            f" request_id IS NOT NULL AS waiting FROM dead_letter WHERE {condition}"
            ' ORDER BY topic, partition, "offset", reason LIMIT :limit',
            limit=limit,
            **parameters,
        )
        readable = ({"key": _readable(row["key"]), "value": _readable(row["value"])} for row in rows)
        return [row | text | {"waiting": bool(row["waiting"])} for row, text in zip(rows, readable, strict=True)]

    def dead_letter_ranges(
        self,
        topic: str | None = None,
        partition: int | None = None,
        reason: str | None = None,
        from_offset: int = 0,
        limit: int = 100,
        to_offset: int | None = None,
    ) -> list[Row]:
        """Where letters were only counted: offsets of the first and the last of each stretch, and how many."""
        place = (topic, partition, reason, from_offset, to_offset)
        condition, parameters = chosen(*place, first="last_offset", last="first_offset")
        return self._rows(
            "SELECT p.group_name, p.topic, p.partition, r.reason, r.first_offset, r.last_offset, r.letters,"
            " r.first_ingest_us, r.last_ingest_us FROM dead_letter_range AS r"
            f" JOIN topic_progress AS p ON p.lane_id = r.lane_id WHERE {condition}"
            " ORDER BY p.topic, p.partition, r.first_offset, r.reason LIMIT :limit",
            limit=limit,
            **parameters,
        )

    def dead_letter_value(self, topic: str, partition: int, offset: int) -> tuple[bytes | None, bytes | None]:
        """Key and value of the record behind a dead letter, as they came (capped). StoreError when there is none."""
        rows = self._rows(
            'SELECT "key", value FROM dead_letter'
            ' WHERE topic = :topic AND partition = :partition AND "offset" = :offset LIMIT 1',
            topic=topic,
            partition=partition,
            offset=offset,
        )
        if not rows:
            raise StoreError(f"no dead letter at {topic}/{partition} offset {offset}")
        return rows[0]["key"], rows[0]["value"]

    def dead_letter_reasons(self) -> list[Row]:
        """By topic and reason: letters kept whole, letters only counted, the sum of both, the last offset."""
        return self._rows(
            "SELECT topic, reason, CAST(sum(kept) AS BIGINT) AS kept, CAST(sum(counted) AS BIGINT) AS counted,"
            " CAST(sum(kept + counted) AS BIGINT) AS dead_letters, max(last_offset) AS last_offset FROM ("
            'SELECT topic, reason, count(*) AS kept, 0 AS counted, max("offset") AS last_offset FROM dead_letter'
            " GROUP BY topic, reason UNION ALL"
            " SELECT p.topic, r.reason, 0, CAST(sum(r.letters) AS BIGINT), max(r.last_offset) FROM dead_letter_range"
            " AS r JOIN topic_progress AS p ON p.lane_id = r.lane_id GROUP BY p.topic, r.reason) AS parts"
            " GROUP BY topic, reason ORDER BY topic, dead_letters DESC"
        )

    def gaps(self, stream: str | None = None, limit: int = 100) -> list[Row]:
        """Offsets that were skipped."""
        return self._rows(
            "SELECT p.stream, p.topic, p.partition, g.from_offset, g.to_offset, g.reason FROM gap AS g"
            " JOIN topic_progress AS p ON p.lane_id = g.lane_id WHERE :stream IS NULL OR p.stream = :stream"
            " ORDER BY p.topic, p.partition, g.from_offset LIMIT :limit",
            stream=stream,
            limit=limit,
        )

    def journal(self, stream: str | None = None, kind: str | None = None, limit: int = 100) -> list[Row]:
        """What entered topic partitions from outside the log, newest first."""
        rows = self._rows(
            "SELECT p.stream, p.topic, p.partition, j.effective_offset, j.number, j.kind, j.payload"
            " FROM control_journal AS j JOIN topic_progress AS p ON p.lane_id = j.lane_id"
            " WHERE (:stream IS NULL OR p.stream = :stream) AND (:kind IS NULL OR j.kind = :kind)"
            " ORDER BY j.effective_offset DESC, j.number DESC, p.topic, p.partition LIMIT :limit",
            stream=stream,
            kind=kind,
            limit=limit,
        )
        return [row | {"payload": msgspec.json.decode(row["payload"])} for row in rows]

    def retrain_runs(
        self, stream: str | None = None, predictor: str | None = None, model_id: int | None = None, limit: int = 100
    ) -> list[Row]:
        """Training runs and verdicts on challengers, newest first."""
        rows = self._rows(
            "SELECT * FROM retrain_run WHERE (:stream IS NULL OR stream = :stream)"
            " AND (:predictor IS NULL OR predictor = :predictor) AND (:model_id IS NULL OR model_id = :model_id)"
            " ORDER BY run_id DESC LIMIT :limit",
            stream=stream,
            predictor=predictor,
            model_id=model_id,
            limit=limit,
        )
        return [row | {"detail": msgspec.json.decode(row["detail"])} for row in rows]

    def audit(self, limit: int = 100) -> list[Row]:
        """What people and jobs changed, newest first."""
        rows = self._rows("SELECT * FROM audit ORDER BY audit_id DESC LIMIT :limit", limit=limit)
        return [row | {"detail": msgspec.json.decode(row["detail"])} for row in rows]

    def outbox_depth(self) -> dict[str, int]:
        """Outcomes that are awaited, by hook: one for each actuator of an action."""
        rows = self._rows("SELECT hook, count(*) AS n FROM outbox WHERE kind IS NULL GROUP BY hook")
        return {row["hook"]: row["n"] for row in rows}

    # -- skill --------------------------------------------------------------------------------------------------------

    def skill(self, stream: str | None = None, from_bucket: int | None = None) -> list[Row]:
        """Accuracy by stream, predictor, source, KPI and lead time over topic partitions and buckets, in KPI units.

        Of what was served, and of shadows: versions on trial, or refused after one, are left out.
        ``skill`` = 1 - mae / naive_mae, ``skill_best`` against the better of naive and seasonal naive (None when that
        never errs); ``wape`` = sum of errors / sum of |truth|; ``mase`` = mae / the mean error of seasonal naive on the
        history that the version was trained on (None when it was not trained); ``coverage`` maps "0.1..0.9" to the
        share of truths in the closed interval, ``flat`` pairs (interval and truth all one value) left out, those of
        integer KPIs spread over their class (``netpredict.forecast.calibrate.Cells``); ``pinball`` is the mean over the
        levels. Formulas: Hyndman and Koehler 2006 (MASE), Gneiting and Raftery 2007 (pinball).
        """
        rows = self._rows(
            "SELECT p.stream, m.predictor, c.source, c.kpi, c.lead_steps, c.n, c.abs_ticks, c.square_ticks,"
            " c.naive_abs_ticks, c.seasonal_abs_ticks, c.truth_abs_ticks, c.flat, c.below, c.pinball,"
            " m.scores FROM score AS c"
            " JOIN topic_progress AS p ON p.lane_id = c.lane_id JOIN model_version AS m ON m.model_id = c.model_id"
            " WHERE (:stream IS NULL OR p.stream = :stream) AND (:from_bucket IS NULL OR c.bucket >= :from_bucket)"
            " AND m.stage NOT IN ('challenger', 'refused')",
            stream=stream,
            from_bucket=from_bucket,
        )
        layouts = self._rows("SELECT stream, kpis, decimals, levels FROM forecast_layout ORDER BY created_us DESC")
        sums: dict[tuple[str, str, int, str, int, int], _Sums] = {}
        for row in rows:
            below = msgspec.json.decode(row["below"])
            group = (row["stream"], row["predictor"], row["source"], row["kpi"], row["lead_steps"], len(below))
            sums.setdefault(group, _Sums(below=[0] * len(below))).add(row, below)
        return [sums[group].row(group, *_scale(layouts, group)) for group in sorted(sums)]

    def newest_bucket(self, stream: str) -> int | None:
        """The score bucket that the stream's most advanced topic partition is in; None before the first."""
        rows = self._rows("SELECT state FROM topic_progress WHERE stream = :stream", stream=stream)
        buckets = [bucket for row in rows if (bucket := bucket_of(row["state"])) is not None]
        return max(buckets, default=None)

    def bucket_sums(self, model_ids: Sequence[int], from_bucket: int | None = None) -> list[Row]:
        """Finished score buckets of what versions said themselves, over topic partitions and leads, by KPI and bucket.

        ``pinball`` is summed over levels in ticks / 1000; ``covered`` of ``spread`` truths lay inside the outer levels.
        """
        # a lane's bucket in progress still grows; one that was never committed has no state
        growing = {row["lane_id"]: bucket_of(row["state"]) for row in self._rows(_LANE_STATES)}
        rows = self._rows(
            "SELECT c.lane_id, c.model_id, c.kpi, c.bucket, c.n, c.abs_ticks, c.naive_abs_ticks, c.flat, c.below,"
            " c.pinball FROM score AS c WHERE c.source = 0"
            " AND c.model_id IN (SELECT value FROM each_number(:ids) AS i)"
            " AND (:from_bucket IS NULL OR c.bucket >= :from_bucket)",
            ids=list(model_ids),
            from_bucket=from_bucket,
        )
        sums: dict[tuple[int, str, int], Row] = {}
        for row in rows:
            until = growing.get(row["lane_id"])
            if until is None or row["bucket"] >= until:
                continue
            key = (row["model_id"], row["kpi"], row["bucket"])
            below = msgspec.json.decode(row["below"])
            part = {name: row[name] for name in ("n", "abs_ticks", "naive_abs_ticks")}
            part |= {"pinball": sum(msgspec.json.decode(row["pinball"])), "spread": row["n"] - row["flat"]}
            part |= {"covered": below[-1] - below[0]}
            total = sums.setdefault(key, dict.fromkeys(part, 0))
            for name, value in part.items():
                total[name] += value
        names = ("model_id", "kpi", "bucket")
        return [dict(zip(names, key, strict=True)) | sums[key] for key in sorted(sums)]

    # -- training -----------------------------------------------------------------------------------------------------

    def observations(
        self,
        stream: str,
        columns: Sequence[str],
        period_us: int,
        phase_us: int = 0,
        steps: int = 2000,
        series_max: int = 2000,
        keys: Sequence[str] | None = None,
        by_ue: bool = False,
    ) -> ObservedSeries:
        """The newest ``steps`` slots of up to ``series_max`` live series (evenly chosen, or those named).

        ``by_ue``: of UEs that were heard in that time, each with all its radio cells. What was suspect, or an own
        action may have changed, is missing.
        """
        newest = self._newest_slot_time_us(stream)
        last_slot = 0 if newest is None else (newest - phase_us) // period_us
        first_slot = last_slot - steps + 1
        if newest is None:
            chosen = []
        elif by_ue:
            sampled = np.linspace(first_slot, last_slot, min(steps, _SLOTS_SAMPLED)).astype(np.int64)
            chosen = self._of_ues(stream, series_max, [int(slot) * period_us + phase_us for slot in sampled])
        else:
            chosen = self._chosen(stream, series_max, keys)
        if not chosen:
            return ObservedSeries([], np.empty(0, np.int64), np.empty((0, 0, len(columns)), np.float32))
        values = np.full((len(chosen), steps, len(columns)), np.nan, dtype=np.float32)
        place = {series_id: number for number, (series_id, _) in enumerate(chosen)}
        layouts = self._columns_of(stream, columns)
        ids = list(place)
        for start in range(0, steps, _SLOTS_PER_READ):
            slots = range(first_slot + start, first_slot + min(start + _SLOTS_PER_READ, steps))
            with self._database.reader() as connection:
                rows = connection.execute(
                    "SELECT o.slot_time_us, o.series_id, o.layout_id, o.ticks FROM each_number(:slots) AS t"
                    " CROSS JOIN each_number(:ids) AS i CROSS JOIN observation AS o"
                    " WHERE o.slot_time_us = t.value AND o.series_id = i.value AND (o.flags & :suspect) = 0",
                    {
                        "slots": [slot * period_us + phase_us for slot in slots],
                        "ids": ids,
                        "suspect": int(Quality.SUSPECT | Quality.EXCLUDED),
                    },
                ).fetchall()
            for layout_id, (sources, targets, scales, width) in layouts.items():
                some = [row for row in rows if row[2] == layout_id]
                if not some:
                    continue
                ticks = ticks_rows([row[3] for row in some], width)[:, sources]
                natural = np.where(ticks == MISSING_TICKS, np.nan, ticks / scales).astype(np.float32)
                series = np.array([place[row[1]] for row in some])
                step = np.array([(row[0] - phase_us) // period_us - first_slot for row in some])
                values[series[:, None], step[:, None], targets] = natural
        return ObservedSeries([key for _, key in chosen], np.full(len(chosen), first_slot, dtype=np.int64), values)

    def _chosen(self, stream: str, most: int, keys: Sequence[str] | None) -> list[tuple[int, str]]:
        with self._database.reader() as connection:  # plain tuples: there may be a million
            found = connection.execute(
                "SELECT s.series_id, s.key FROM topic_progress AS p CROSS JOIN series AS s"
                " WHERE p.stream = :stream AND s.lane_id = p.lane_id AND s.retired_us IS NULL"
                " AND (:every OR s.key IN (SELECT value FROM each_text(:keys) AS i)) ORDER BY s.series_id",
                {"stream": stream, "every": keys is None, "keys": list(keys or ())},
            ).fetchall()
        return [found[index] for index in evenly(len(found), most)]

    def _of_ues(self, stream: str, most: int, slot_times_us: Sequence[int]) -> list[tuple[int, str]]:
        """The series seen in these slots, of UEs evenly chosen."""
        seen: set[tuple[str, int]] = set()
        for start in range(0, len(slot_times_us), _SLOTS_LISTED):
            with self._database.reader() as connection:
                rows = connection.execute(
                    "SELECT DISTINCT s.key, s.series_id FROM each_number(:slots) AS t CROSS JOIN observation AS o"
                    " CROSS JOIN series AS s CROSS JOIN topic_progress AS p"
                    " WHERE o.slot_time_us = t.value AND s.series_id = o.series_id AND s.retired_us IS NULL"
                    " AND p.lane_id = s.lane_id AND p.stream = :stream",
                    {"slots": list(slot_times_us[start : start + _SLOTS_LISTED]), "stream": stream},
                ).fetchall()
            seen.update((key, series_id) for key, series_id in rows)
        found = sorted(seen)
        chosen = whole_ues([key for key, _ in found], most)
        return [(found[index][1], found[index][0]) for index in chosen]

    def _series_ids(self, stream: str, key: str) -> list[int]:
        """Ids of the live series of this key, at most one a topic partition; of retired ones when none lives."""
        sql = (
            "SELECT s.series_id FROM topic_progress AS p CROSS JOIN series AS s"
            " WHERE p.stream = :stream AND s.lane_id = p.lane_id AND s.key = :key AND s.retired_us IS "
        )
        live = self._rows(sql + "NULL", stream=stream, key=key)
        return [row["series_id"] for row in live or self._rows(sql + "NOT NULL", stream=stream, key=key)]

    def _series_of_radio_cell(self, stream: str, radio_cell_id: str) -> list[int]:
        escaped = "".join(f"!{letter}" if letter in "!%_" else letter for letter in radio_cell_id)
        rows = self._rows(
            "SELECT s.series_id FROM topic_progress AS p CROSS JOIN series AS s WHERE p.stream = :stream"
            " AND s.lane_id = p.lane_id AND s.retired_us IS NULL AND s.key LIKE :pattern ESCAPE '!'"
            " ORDER BY s.series_id DESC LIMIT :most",
            stream=stream,
            pattern=f"%|{escaped}",
            most=_SERIES_COMPARED,
        )
        return [row["series_id"] for row in rows]

    def _newest_slot_time_us(self, stream: str) -> int | None:
        rows = self._rows(
            "SELECT slot_time_us FROM observation"
            " WHERE layout_id IN (SELECT layout_id FROM column_layout WHERE stream = :stream)"
            " ORDER BY slot_time_us DESC LIMIT 1",
            stream=stream,
        )
        return int(rows[0]["slot_time_us"]) if rows else None

    def _columns_of(
        self, stream: str, columns: Sequence[str]
    ) -> dict[int, tuple[list[int], list[int], FloatArray, int]]:
        """By layout: which of its columns are wanted, where they go, what a tick is worth, how many it has."""
        wanted = {name: number for number, name in enumerate(columns)}
        found = {}
        for row in self._rows("SELECT * FROM column_layout WHERE stream = :stream", stream=stream):
            names, decimals = msgspec.json.decode(row["columns"]), msgspec.json.decode(row["decimals"])
            sources = [number for number, name in enumerate(names) if name in wanted]
            scales = np.array([10.0 ** decimals[number] for number in sources])
            found[row["layout_id"]] = (sources, [wanted[names[number]] for number in sources], scales, len(names))
        return found

    # -- below --------------------------------------------------------------------------------------------------------

    def _newest(
        self, table: str, sql: str, parameters: Row, from_us: int | None, to_us: int | None, limit: int
    ) -> list[Row]:
        """``limit`` rows of a time-first table, the newest first: slot times by chunks, and at each the few series."""
        hop = _SLOT_TIMES.format(table=table)
        found: list[Row] = []
        searched, before = 0, None if to_us is None else to_us + 1
        with self._database.reader() as connection:
            while parameters["ids"] and len(found) < limit and searched < _SLOTS_SEARCHED:
                most = max(_SLOTS_PER_READ, searched)
                hops = {"from_us": from_us, "before_us": before, "most": most}
                slots = [slot for (slot,) in connection.execute(hop, hops).fetchall()]
                if not slots:
                    break
                found += _dicts(connection, sql, parameters | {"slots": slots, "limit": limit - len(found)})
                searched, before = searched + len(slots), slots[-1]
        return found

    def _rows(self, sql: str, **parameters: Any) -> list[Row]:
        with self._database.reader() as connection:
            return _dicts(connection, sql, parameters)


def _dicts(connection: Connection, sql: str, parameters: Row) -> list[Row]:
    rows = connection.execute(sql, parameters)
    names = rows.names
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


_LANE_STATES = "SELECT lane_id, state FROM topic_progress"

# Distinct slot times are found by hopping backwards through the primary key; a scan would read every series.
_SLOT_TIMES = """
WITH RECURSIVE slots(slot_time_us, number) AS (
  SELECT (SELECT max(slot_time_us) FROM {table} WHERE :before_us IS NULL OR slot_time_us < :before_us), 1
  UNION ALL
  SELECT (SELECT max(x.slot_time_us) FROM {table} AS x WHERE x.slot_time_us < slots.slot_time_us), number + 1
  FROM slots WHERE slots.slot_time_us IS NOT NULL AND number < :most
    AND (:from_us IS NULL OR slots.slot_time_us > :from_us)
)
SELECT slot_time_us FROM slots WHERE slot_time_us IS NOT NULL AND (:from_us IS NULL OR slot_time_us >= :from_us)
ORDER BY number
"""
_SERIES_COMPARED = 1000
_AT_SLOTS = (
    "each_number(:slots) AS slots CROSS JOIN each_number(:ids) AS i CROSS JOIN {table} AS x"
    " CROSS JOIN series AS s CROSS JOIN topic_progress AS p"
)
_OF_SLOTS = "x.slot_time_us = slots.value AND x.series_id = i.value AND s.series_id = i.value AND p.lane_id = s.lane_id"


@dataclass
class _Sums:
    below: list[int]
    n: int = 0
    flat: int = 0
    abs_ticks: int = 0
    square_ticks: int = 0
    truth_abs_ticks: int = 0
    naive_abs_ticks: int = 0
    seasonal_abs_ticks: int = 0
    pinball: list[int] = field(default_factory=list)
    mase_weight: float = 0.0
    mase_sum: float = 0.0

    def add(self, row: Mapping[str, Any], below: Sequence[int]) -> None:
        pinball = msgspec.json.decode(row["pinball"])
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + int(row[name]))
        if scale := msgspec.json.decode(row["scores"]).get(f"mase_scale.{row['kpi']}"):
            self.mase_weight += row["n"]
            self.mase_sum += row["abs_ticks"] / scale
        self.below = [a + b for a, b in zip(self.below, below, strict=True)]
        self.pinball = [a + b for a, b in zip(self.pinball or [0] * len(pinball), pinball, strict=True)]

    def row(self, group: tuple[str, str, int, str, int, int], levels: Sequence[float], scale: float) -> Row:
        stream, predictor, source, kpi, lead_steps, _ = group
        n, spread = max(self.n, 1), self.n - self.flat
        best = min(self.naive_abs_ticks, self.seasonal_abs_ticks)
        return {
            "stream": stream,
            "predictor": predictor,
            "source": SOURCE_NAMES[source],
            "kpi": kpi,
            "lead_steps": lead_steps,
            "n": self.n,
            "mae": self.abs_ticks / n / scale,
            "rmse": math.sqrt(self.square_ticks / n) / scale,
            "naive_mae": self.naive_abs_ticks / n / scale,
            "seasonal_mae": self.seasonal_abs_ticks / n / scale,
            "skill": 1 - self.abs_ticks / self.naive_abs_ticks if self.naive_abs_ticks else None,
            "skill_best": 1 - self.abs_ticks / best if best else None,
            "wape": self.abs_ticks / self.truth_abs_ticks if self.truth_abs_ticks else None,
            "mase": self.mase_sum / self.mase_weight / scale if self.mase_weight else None,
            "flat": self.flat,
            "coverage": {
                f"{levels[low]:g}..{levels[high]:g}": (self.below[high] - self.below[low]) / spread
                for low, high in _intervals(levels)
                if spread
            },
            "pinball": sum(self.pinball) / 1000 / n / max(len(self.pinball), 1) / scale,
        }


_SUMMED = ("n", "flat", "abs_ticks", "square_ticks", "truth_abs_ticks", "naive_abs_ticks", "seasonal_abs_ticks")


def _intervals(levels: Sequence[float]) -> list[tuple[int, int]]:
    """Places of the two levels of each central interval."""
    place = {round(level, 9): index for index, level in enumerate(levels)}
    return [(index, place[round(1 - p, 9)]) for p, index in place.items() if p < 0.5 and round(1 - p, 9) in place]


def _scale(layouts: Sequence[Row], group: tuple[str, str, int, str, int, int]) -> tuple[list[float], float]:
    """Levels and ticks per unit of a group of scores, by the newest layout that fits it."""
    stream, _, _, kpi, _, level_count = group
    for layout in layouts:
        kpis, levels = list(map(base_name, msgspec.json.decode(layout["kpis"]))), msgspec.json.decode(layout["levels"])
        if layout["stream"] == stream and kpi in kpis and len(levels) == level_count:
            return levels, 10.0 ** msgspec.json.decode(layout["decimals"])[kpis.index(kpi)]
    raise StoreError(f"scores of {stream}, {kpi} have no layout of {level_count} levels")


def _forecast(row: Row) -> Row:
    kpis, levels = msgspec.json.decode(row.pop("kpis")), msgspec.json.decode(row.pop("levels"))
    decimals, horizon = msgspec.json.decode(row.pop("decimals")), row["horizon_steps"]
    ticks, observed = msgspec.json.decode(row.pop("ticks")), msgspec.json.decode(row.pop("observed"))
    sources = row.pop("sources")
    values: dict[str, list[list[float | None]]] = {}
    for number, kpi in enumerate(kpis):
        starts = range(number * horizon * len(levels), (number + 1) * horizon * len(levels), len(levels))
        values[kpi] = [_natural(ticks[start : start + len(levels)], decimals[number]) for start in starts]
    names = {"m": "model", "s": "seasonal", "n": "naive", "-": "none"}
    return row | {
        "levels": levels,
        "sources": {kpi: names[letter] for kpi, letter in zip(kpis, sources, strict=True)},
        "observed": {
            kpi: _natural([value], places)[0] for kpi, value, places in zip(kpis, observed, decimals, strict=True)
        },
        "values": values,
    }


def _observation(row: Row) -> Row:
    columns, decimals = msgspec.json.decode(row.pop("columns")), msgspec.json.decode(row.pop("decimals"))
    ticks = msgspec.json.decode(row.pop("ticks"))
    values = {name: _natural([value], places)[0] for name, value, places in zip(columns, ticks, decimals, strict=True)}
    return row | {"values": values}


def _natural(ticks: Sequence[int | None], decimals: int) -> list[float | None]:
    return [None if value is None else value / 10**decimals for value in ticks]


def _readable(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")

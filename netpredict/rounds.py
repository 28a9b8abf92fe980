"""A round of one stream: one row per series is scored, advanced, served, decided on and remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from netpredict.calendar import calendar
from netpredict.decide import Fired
from netpredict.forecast.calibrate import middle_of, widen
from netpredict.forecast.fallback import climb_down
from netpredict.forecast.running import Answer, RunningPredictor
from netpredict.ingest.align import slot_time_us
from netpredict.radio.quantities import is_hindsight
from netpredict.stream import CHALLENGER, Stream, Version
from netpredict.types import (
    MISSING_TICKS,
    NO_SLOT,
    AnyArray,
    BoolArray,
    FloatArray,
    HookBatch,
    Int32Array,
    IntArray,
    ObservationBatch,
    Quality,
    SeriesKey,
    Source,
)

Answers = dict[str, Answer]


class ForecastChunk(NamedTuple):
    """Forecasts of one round and version, with the lane of each row."""

    model_id: int
    lane: Int32Array
    slot_time_us: IntArray
    series_id: IntArray
    sources: AnyArray
    quality: AnyArray
    ticks: Int32Array
    observed: Int32Array
    seasonal: Int32Array | None


class ObservationChunk(NamedTuple):
    """Accepted observations of one round."""

    lane: Int32Array
    slot_time_us: IntArray
    series_id: IntArray
    event_time_us: IntArray
    flags: AnyArray
    ticks: Int32Array


class Baselines(NamedTuple):
    """What a round's forecasts have to beat, in ticks: the truth at issue (n, kpis), seasonal naive (n, kpis, horizon).

    ``seasonal`` is None on a stream without a season, MISSING_TICKS where a series has not shown its season yet.
    """

    naive: Int32Array
    seasonal: Int32Array | None

    def of(self, rows: AnyArray) -> Baselines:
        """Those of some rows."""
        return Baselines(self.naive[rows], None if self.seasonal is None else self.seasonal[rows])


class Served(NamedTuple):
    """What the active predictors of a round said: ticks (n, kpis, horizon, levels), sources (n, kpis), quality (n,).

    ``model`` (n,) are the labels of the versions, predictor@version, None where only the ladder serves.
    """

    ticks: Int32Array
    sources: AnyArray
    quality: AnyArray
    model: AnyArray


class Rounds:
    """Runs the rounds of one stream and gathers what they bring for the next commit."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.forecasts: list[ForecastChunk] = []
        self.observations: list[ObservationChunk] = []
        self.late: list[ObservationChunk] = []
        self.fired = Fired()
        self._middle = middle_of(stream.levels)
        self._unscored = np.array([is_hindsight(kpi) for kpi in stream.output.kpis])
        routes = stream.config.routes
        self._routes_of = {
            name: [i for i, route in enumerate(routes) if name == route.active or name in route.shadows]
            for name in stream.predictor_names()
        }

    def drop_lane(self, lane: int) -> None:
        """Forget what was gathered of a lane."""
        self.forecasts = [_without_lane(chunk, lane) for chunk in self.forecasts]
        self.observations = [_without_lane(chunk, lane) for chunk in self.observations]
        self.late = [_without_lane(chunk, lane) for chunk in self.late]

    def run(self, batch: ObservationBatch, previous: IntArray) -> None:
        """One row per series: 0 anchor, watch; 1 score; 2 close gaps; 3 advance, calibrate; 4 decide; 5 remember.

        What is forecast from is what is stored: the observation rounded once, so that history can be replayed. Of a
        suspect row everything is stored, and nothing is learnt, forecast or decided from it.
        """
        stream, rows = self.stream, batch.series
        self._keep_anchors(batch, previous)  # 0
        self._restart_silent(batch, previous)
        batch = self._watched(batch)
        observed = stream.column_rounding.observed(batch.values)
        known = _believed(observed, batch.flags)
        truth = known[:, : len(stream.output.kpis)]
        self._score(batch, truth)  # 1
        self._close_gaps(batch, previous)  # 2
        seen = self._feature_rows(batch.slot, stream.column_rounding.natural(known))
        served = self._serve(batch, seen, truth)  # 3
        self._decide(batch, served)  # 4
        stream.table.last_slot[rows] = batch.slot  # 5
        stream.table.touched[rows] = True
        if stream.keep_observations:
            flags: AnyArray = batch.flags
            if (excluded := self._excluded(batch)).any():
                flags = flags | np.where(excluded, np.uint16(Quality.EXCLUDED), np.uint16(0))
            self.observations.append(self._observation_chunk(batch, flags, observed))

    def join(self, late: ObservationBatch) -> None:
        """Let rows behind the newest slot of their series join the observations, flagged: nothing else moves."""
        if len(late):
            observed = self.stream.column_rounding.observed(late.values)
            flags = late.flags.astype(np.uint16) | np.uint16(Quality.LATE)
            self.late.append(self._observation_chunk(late, flags, observed))

    def _observation_chunk(self, batch: ObservationBatch, flags: AnyArray, observed: Int32Array) -> ObservationChunk:
        return ObservationChunk(
            batch.lane,
            slot_time_us(batch.slot, self.stream.period_us, self.stream.phase_us),
            self.stream.table.series_id[batch.series],
            batch.event_time_us,
            flags,
            observed,
        )

    def _keep_anchors(self, batch: ObservationBatch, previous: IntArray) -> None:
        anchored = np.flatnonzero(self.stream.table.anchored[batch.series] & (previous != NO_SLOT))
        if len(anchored):
            days = self.stream.anchor_slots
            self.stream.anchor(batch.series[anchored[batch.slot[anchored] // days > previous[anchored] // days]])

    def _watched(self, batch: ObservationBatch) -> ObservationBatch:
        """The batch as the history of its series lets it be believed."""
        watch, table = self.stream.watch, self.stream.table
        if not (names := watch.state_spec()):
            return batch
        state = table.gather("", list(names), batch.series)
        values, doubted = watch.judge(batch.values, state)
        table.scatter("", batch.series, state)
        if doubted.any():
            batch = replace(batch, flags=batch.flags | np.where(doubted, np.uint8(Quality.SUSPECT), np.uint8(0)))
        return batch if values is batch.values else replace(batch, values=values)

    # -- score -------------------------------------------------------------------------------------------------

    def _score(self, batch: ObservationBatch, truth: Int32Array) -> None:
        scored = self.stream.table.scored[batch.series]
        if self._unscored.any():
            truth = np.where(self._unscored, np.int32(MISSING_TICKS), truth)
        rows = np.flatnonzero((scored >= 0) & (truth != MISSING_TICKS).any(axis=1) & ~self._excluded(batch))
        if len(rows):
            for version in self.stream.all_versions():
                version.board.score(scored[rows], batch.lane[rows], batch.slot[rows], truth[rows])

    def _excluded(self, batch: ObservationBatch) -> BoolArray:
        """Rows (n,) whose truth an own action may have changed."""
        table, rows = self.stream.table, batch.series
        excluded: BoolArray = (batch.slot >= table.excluded_from[rows]) & (batch.slot <= table.excluded_until[rows])
        return excluded

    # -- advance -----------------------------------------------------------------------------------------------

    def _feature_rows(self, slot: IntArray, values: FloatArray | None) -> FloatArray:
        spec = self.stream.features
        features = np.full((len(slot), spec.width), np.nan, np.float32)
        if values is not None:
            features[:, : values.shape[1]] = values
        times = slot_time_us(slot, spec.period_us, spec.phase_us)
        features[:, len(spec.observed) :] = calendar(times, spec)
        features.setflags(write=False)
        return features

    def _restart_silent(self, batch: ObservationBatch, previous: IntArray) -> None:
        long = _gap(batch, previous) > self.stream.config.max_gap_steps
        if long.any():
            self.stream.table.reset(batch.series[long])

    def _close_gaps(self, batch: ObservationBatch, previous: IntArray) -> None:
        gap = _gap(batch, previous)
        gap[gap > self.stream.config.max_gap_steps] = 0
        for step in range(1, int(gap.max(initial=0)) + 1):
            rows = np.flatnonzero(gap >= step)
            features = self._feature_rows(previous[rows] + step, None)
            self._advance(batch.series[rows], batch.lane[rows], features)

    def _advance(self, rows: AnyArray, lane: AnyArray, features: FloatArray) -> Answers:
        """Advance all that runs on these rows by one step; answers by label, NaN where a version does not run."""
        table = self.stream.table
        answers = {running.name: running.advance(table, rows, features) for _, running in self.stream.rungs}
        routes = table.route[rows]
        for name, versions in self.stream.versions.items():
            on_route = np.isin(routes, self._routes_of.get(name, []))
            for version in versions:
                here = on_route & (version.rank[lane] >= 0)
                if here.all():
                    answers[version.label] = version.running.advance(table, rows, features)
                elif here.any():
                    answers[version.label] = self._advance_some(version.running, rows, features, here)
        return answers

    def _advance_some(self, running: RunningPredictor, rows: AnyArray, features: FloatArray, here: BoolArray) -> Answer:
        part = running.advance(self.stream.table, rows[here], features[here])
        values = np.full((len(rows), *part.values.shape[1:]), np.nan, np.float32)
        failed = np.zeros(len(rows), bool)
        values[here], failed[here] = part
        return Answer(values, failed)

    # -- serve -------------------------------------------------------------------------------------------------

    def _serve(self, batch: ObservationBatch, features: FloatArray, truth: Int32Array) -> Served:
        stream = self.stream
        answers = self._advance(batch.series, batch.lane, features)
        shape = (len(batch), len(stream.output.kpis), stream.output.horizon_steps, len(stream.levels))
        served = Served(
            np.full(shape, MISSING_TICKS, np.int32),
            np.full(shape[:2], Source.NONE, np.uint8),
            batch.flags.astype(np.uint16)
            | np.where(self._lacks(truth, answers), Quality.INPUT_MISSING, 0).astype(np.uint16),
            np.full(len(batch), None, object),
        )
        baselines = Baselines(truth, self._seasonal(answers))
        routes = stream.table.route[batch.series]
        for index, route in enumerate(stream.config.routes):
            rows = np.flatnonzero(routes == index)
            if len(rows):
                self._serve_route(route.active, batch, rows, answers, baselines, served)
                for shadow in route.shadows:
                    self._record_beside(shadow, 0, batch, rows, answers, baselines)
                for name in (route.active, *route.shadows):
                    self._record_beside(name, CHALLENGER, batch, rows, answers, baselines)
        stream.forecasts_by_source += np.bincount(served.sources.ravel(), minlength=4)
        return served

    def _seasonal(self, answers: Answers) -> Int32Array | None:
        for source, rung in self.stream.rungs:
            if source == Source.SEASONAL:
                middle = answers[rung.name].values[..., self._middle : self._middle + 1]
                return self.stream.rounding.forecast(middle)[..., 0]
        return None

    def _shown(self, answers: Answers) -> BoolArray:
        """(n, kpis): what a series has shown at least once, for only then the last rung of the ladder has an answer.

        A KPI that it never shows, like a place of a grid without a radio cell, casts no doubt on the others.
        """
        _, naive = self.stream.rungs[-1]
        shown: BoolArray = np.asarray(np.isfinite(answers[naive.name].values).all(axis=(2, 3)))
        return shown

    def _lacks(self, truth: Int32Array, answers: Answers) -> BoolArray:
        """Rows (n,) that lack a KPI which their series has shown before."""
        missing = truth == MISSING_TICKS
        lacking: BoolArray = (missing & self._shown(answers)).any(axis=1) if missing.any() else missing.any(axis=1)
        return lacking

    def _serve_route(
        self,
        name: str,
        batch: ObservationBatch,
        rows: AnyArray,
        answers: Answers,
        baselines: Baselines,
        served: Served,
    ) -> None:
        """Rows of one route: each is served by the newest version that is warm for it, else by the ladder."""
        versions = self.stream.versions.get(name, [])
        ranks = [_serving(version.rank[batch.lane[rows]]) for version in versions]
        oldest = np.maximum.reduce(ranks) if ranks else np.full(len(rows), -1, np.int8)
        open_ = np.ones(len(rows), bool)
        for rank in range(int(oldest.max(initial=-1)) + 1):
            for version, rank_here in zip(versions, ranks, strict=True):
                runs = open_ & (rank_here == rank)
                if not runs.any():
                    continue
                warm = self._warm(version, batch.series[rows])
                mine = runs & (warm | (oldest == rank))
                if mine.any():
                    self._record(version, batch, rows[mine], answers, baselines, served, warm[mine])
                    open_ &= ~mine
        if open_.any():
            placeholder = self.stream.placeholder.get(name, 0)
            self._record(None, batch, rows[open_], answers, baselines, served, np.zeros(open_.sum(), bool), placeholder)

    def _warm(self, version: Version, series: AnyArray) -> BoolArray:
        warm: BoolArray = version.running.steps(self.stream.table, series) >= self.stream.config.warm_steps
        return warm

    def _record(
        self,
        version: Version | None,
        batch: ObservationBatch,
        rows: AnyArray,
        answers: Answers,
        baselines: Baselines,
        served: Served,
        warm: BoolArray,
        placeholder: int = 0,
    ) -> None:
        """Serve these rows: the ladder from ``version`` down, calibrated, rounded once."""
        whole = len(rows) == len(batch)
        rungs = [(source, _at(answers[rung.name].values, rows, whole), None) for source, rung in self.stream.rungs]
        answer = answers[version.label] if version else None
        model = _at(answer.values, rows, whole) if answer else None
        shape = (len(rows), *served.ticks.shape[1:])
        values, sources = climb_down([(Source.MODEL, model, None if warm.all() else warm), *rungs], shape)
        quality = served.quality[rows]
        if answer is None or model is None:
            quality |= np.uint16(Quality.NO_MODEL)
        else:
            failed, sound = answer.failed[rows], np.asarray(np.isfinite(model).all(axis=(2, 3)))
            finite = (sound if sound.all() else sound | ~self._shown(answers)[rows]).all(axis=1)
            quality |= np.where(warm, 0, Quality.WARMING).astype(np.uint16)
            quality |= np.where(failed, Quality.FAILED, np.where(finite, 0, Quality.NOT_FINITE)).astype(np.uint16)
        moved = self.stream.table.moved[batch.series[rows]] & ~warm
        quality |= np.where(moved, Quality.MOVED, 0).astype(np.uint16)
        if version is not None:
            values = self._calibrated(version, values, sources, batch.lane[rows])
        ticks = self.stream.rounding.forecast(values)
        served.ticks[rows], served.sources[rows], served.quality[rows] = ticks, sources, quality
        served.model[rows] = version.label if version else None
        self._store(version, batch, rows, ticks, sources, quality, baselines, placeholder)

    def _record_beside(
        self, name: str, rank: int, batch: ObservationBatch, rows: AnyArray, answers: Answers, baselines: Baselines
    ) -> None:
        """A version that serves nobody is stored and scored where it has an answer of its own.

        It is the newest one of a shadow (rank 0), or the challenger of any predictor.
        """
        reservation = np.uint16(Quality.CHALLENGER if rank == CHALLENGER else Quality.GOOD)
        for version in self.stream.versions.get(name, []):
            mine = rows[version.rank[batch.lane[rows]] == rank]
            answer = answers.get(version.label)
            if answer is None or not len(mine):
                continue
            good = mine[self._warm(version, batch.series[mine]) & np.isfinite(answer.values[mine]).any(axis=(1, 2, 3))]
            if len(good):
                model = answer.values[good]
                values, sources = climb_down([(Source.MODEL, model, None)], model.shape)
                ticks = self.stream.rounding.forecast(self._calibrated(version, values, sources, batch.lane[good]))
                self._store(version, batch, good, ticks, sources, batch.flags[good] | reservation, baselines, 0)

    def _calibrated(self, version: Version, values: FloatArray, sources: AnyArray, lane: AnyArray) -> FloatArray:
        corrected = widen(values, version.board.factors(lane), self._middle)
        if (sources == Source.MODEL).all():
            return corrected
        return np.where((sources == Source.MODEL)[..., None, None], corrected, values)

    def _store(
        self,
        version: Version | None,
        batch: ObservationBatch,
        rows: AnyArray,
        ticks: Int32Array,
        sources: AnyArray,
        quality: AnyArray,
        baselines: Baselines,
        placeholder: int,
    ) -> None:
        stream = self.stream
        series, slot = batch.series[rows], batch.slot[rows]
        naive, seasonal = baselines.of(rows)
        if version is not None:
            scored = stream.table.scored[series]
            kept = scored >= 0
            known = None if seasonal is None else seasonal[kept]
            version.board.pending.add(scored[kept], slot[kept], ticks[kept], naive[kept], sources[kept], known)
        self.forecasts.append(
            ForecastChunk(
                version.running.model_id if version else placeholder,
                batch.lane[rows],
                slot_time_us(slot, stream.period_us, stream.phase_us),
                stream.table.series_id[series],
                sources,
                quality,
                ticks.reshape(len(rows), -1),
                naive,
                None if seasonal is None else seasonal.reshape(len(rows), -1),
            )
        )

    # -- decide ------------------------------------------------------------------------------------------------

    def _decide(self, batch: ObservationBatch, served: Served) -> None:
        if not self.stream.hooks:
            return
        seen = self._hook_batch(batch, served)
        for bound in self.stream.hooks:
            fired = bound.decide(self.stream.table, seen, batch.series)
            self.fired.add(bound, fired, batch.record, batch.lane)

    def _hook_batch(self, batch: ObservationBatch, served: Served) -> HookBatch:
        stream = self.stream
        values = stream.rounding.values(served.ticks)
        known = np.where(served.sources == Source.NONE, 0, served.sources).max(axis=1)
        source = np.where((served.sources == Source.NONE).all(axis=1), np.uint8(Source.NONE), known).astype(np.uint8)
        times = slot_time_us(batch.slot, stream.period_us, stream.phase_us)
        for array in (batch.slot, batch.record, batch.values, served.quality, values, source, times):
            array.setflags(write=False)
        keys = stream.table.keys

        def key_of(row: int) -> SeriesKey:
            return SeriesKey(tuple(keys[batch.series[row]].split("|")))

        return HookBatch(
            stream.name,
            stream.period_us,
            batch.slot,
            times,
            batch.record,
            stream.columns,
            batch.values,
            stream.levels,
            {kpi: values[:, index] for index, kpi in enumerate(stream.output.kpis)},
            source,
            served.quality,
            key_of,
            lambda row: served.model[row] or "",
        )


def _gap(batch: ObservationBatch, previous: IntArray) -> IntArray:
    """Slots (n,) that each series has missed before its row."""
    return np.where(previous == NO_SLOT, 0, batch.slot - previous - 1)


def _believed(observed: Int32Array, flags: AnyArray) -> Int32Array:
    """Ticks without those of suspect rows."""
    suspect = (flags & np.uint8(Quality.SUSPECT)) != 0
    return np.where(suspect[:, None], np.int32(MISSING_TICKS), observed) if suspect.any() else observed


def _serving(rank: AnyArray) -> AnyArray:
    """Ranks in which a challenger counts as not running."""
    return np.where(rank == CHALLENGER, np.int8(-1), rank)


def _at(answer: FloatArray, rows: AnyArray, whole: bool) -> FloatArray:
    return answer if whole else answer[rows]


def _without_lane(chunk: Any, lane: int) -> Any:
    keep = chunk.lane != lane
    if keep.all():
        return chunk
    return chunk._replace(
        **{name: value[keep] for name, value in zip(chunk._fields, chunk, strict=True) if isinstance(value, np.ndarray)}
    )

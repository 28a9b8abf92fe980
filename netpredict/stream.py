"""One stream: its series, its predictors and hooks, and what happens in a round."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec
import numpy as np
import structlog

from netpredict.act.hook import AdaptationHook
from netpredict.config import HookConfig, StreamConfig
from netpredict.errors import PluginError
from netpredict.forecast.calibrate import Rounding, middle_of, widen
from netpredict.forecast.fallback import climb_down
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.running import RunningPredictor
from netpredict.forecast.score import Scoreboard
from netpredict.forecast.series import SeriesTable, calendar
from netpredict.ingest.align import slot_time_us
from netpredict.ingest.decode import Decoder
from netpredict.ingest.firewall import Firewall
from netpredict.lane import Lane, firing_id
from netpredict.radio.quantities import KPIS
from netpredict.store.commit import ColumnLayout, ForecastLayout
from netpredict.types import (
    MISSING_TICKS,
    NO_SLOT,
    AnyArray,
    DueAction,
    FeatureSpec,
    Firing,
    FloatArray,
    HookBatch,
    Int32Array,
    IntArray,
    ObservationBatch,
    OutputSpec,
    Quality,
    SeriesKey,
    Source,
    StateArray,
)

LOG = structlog.get_logger(__name__)


@dataclass(slots=True)
class Version:
    """A predictor version with its scores, and the lanes (by index) on which it runs."""

    running: RunningPredictor
    board: Scoreboard
    lanes: set[int] = field(default_factory=set)

    @property
    def label(self) -> str:
        """name@version: names its columns and its calibration."""
        return f"{self.running.name}@{self.running.version}"


@dataclass(slots=True)
class BoundHook:
    """A configured hook on this stream; its state is one row per series, in columns ``hook.<name>.``…"""

    name: str
    config: HookConfig
    hook: AdaptationHook
    arrays: tuple[str, ...]
    failures: int = 0

    @property
    def prefix(self) -> str:
        """Prefix of its columns."""
        return f"hook.{self.name}."

    def columns(self) -> dict[str, StateArray]:
        """What the SeriesTable must hold for it."""
        return {self.prefix + name: spec for name, spec in self.hook.state_spec().items()}


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


class ObservationChunk(NamedTuple):
    """Accepted observations of one round."""

    lane: Int32Array
    slot_time_us: IntArray
    series_id: IntArray
    event_time_us: IntArray
    flags: AnyArray
    ticks: Int32Array


class Served(NamedTuple):
    """What the active predictors of a round said: ticks (n, kpis, horizon, levels), sources (n, kpis), quality (n,)."""

    ticks: Int32Array
    sources: AnyArray
    quality: AnyArray


class Stream:
    """All lanes of one configured stream."""

    def __init__(
        self,
        name: str,
        config: StreamConfig,
        decoder: Decoder,
        hooks: Sequence[BoundHook],
        fallback: Callable[[str, FeatureSpec, OutputSpec], Predictor],
        keep_observations: bool,
    ) -> None:
        self.name = name
        self.config = config
        self.decoder = decoder
        self.hooks = list(hooks)
        self.keep_observations = keep_observations
        self.columns = (*config.kpis, *config.features)
        self.firewall = Firewall(self.columns, config.kpis, config.max_future_s)
        self.period_us = round(config.period_s * 1_000_000)
        self.phase_us = round(config.phase_s * 1_000_000)
        self.bucket_slots = _bucket_slots(config)
        self.ttl_slots = max(1, round(config.series_ttl_s / config.period_s))
        needed = {level for bound in self.hooks for level in bound.hook.levels_needed()}
        self.levels = tuple(sorted({*config.quantile_levels, *needed}))
        self.features = FeatureSpec(
            self.columns, self.period_us, config.season_buckets, round(config.season_s * 1_000_000), self.phase_us
        )
        self.output = OutputSpec(tuple(config.kpis), config.horizon_steps, self.levels)
        kpis = [KPIS[kpi] for kpi in config.kpis]
        self.layout = ForecastLayout(
            name, self.output.kpis, tuple(k.decimals for k in kpis), self.levels, config.horizon_steps, self.period_us
        )
        self.column_layout = ColumnLayout(name, self.columns, tuple(KPIS[c].decimals for c in self.columns))
        self.rounding = Rounding(self.layout.decimals, [k.low for k in kpis], [k.high for k in kpis])
        self.column_rounding = Rounding(
            self.column_layout.decimals, [KPIS[c].low for c in self.columns], [KPIS[c].high for c in self.columns]
        )
        self.fingerprint = hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()[:16]
        self.table = SeriesTable()
        self.lanes: list[Lane | None] = []
        self.versions: dict[str, list[Version]] = {}
        self.placeholder: dict[str, int] = {}  # model id of a predictor without a version: the ladder's rows
        self._free_scored: list[int] = []
        self._scored_rows = 0
        self.rungs = self._fallback_rungs(fallback)
        self.forecasts: list[ForecastChunk] = []
        self.observations: list[ObservationChunk] = []
        self._fired: list[tuple[int, int, Firing, tuple[str, ...]]] = []
        self.forecasts_by_source = np.zeros(4, np.int64)
        for bound in self.hooks:
            self.table.add_columns(bound.columns())

    def _fallback_rungs(
        self, fallback: Callable[[str, FeatureSpec, OutputSpec], Predictor]
    ) -> list[tuple[Source, RunningPredictor]]:
        wanted = [(Source.SEASONAL, "seasonal_naive")] if self.config.season_buckets else []
        wanted.append((Source.NAIVE, "naive"))
        rungs = []
        for source, plugin in wanted:
            running = RunningPredictor(f"fallback.{plugin}", "-", 0, fallback(plugin, self.features, self.output))
            self.table.add_columns(running.columns())
            rungs.append((source, running))
        return rungs

    # -- models ------------------------------------------------------------------------------------------------

    def version(self, name: str, version: str, model_id: int, predictor: Predictor) -> Version:
        """The version of a predictor on this stream, made when it is new. PluginError when its output does not fit."""
        for known in self.versions.get(name, ()):
            if known.running.version == version:
                return known
        spec = predictor.output_spec()
        if (spec.kpis, spec.horizon_steps, spec.levels) != (
            self.output.kpis,
            self.output.horizon_steps,
            self.output.levels,
        ):
            raise PluginError(f"predictor {name}@{version} answers {spec}, stream {self.name} needs {self.output}")
        running = RunningPredictor(name, version, model_id, predictor)
        made = Version(running, Scoreboard(len(spec.kpis), spec.horizon_steps, spec.levels))
        made.board.ensure_lanes(len(self.lanes))
        made.board.pending.ensure(self._scored_rows)
        self.table.add_columns(running.columns())
        self.versions.setdefault(name, []).insert(0, made)
        return made

    def versions_on(self, name: str, lane: int) -> list[Version]:
        """Versions of a predictor that run on a lane, newest first."""
        return [version for version in self.versions.get(name, ()) if lane in version.lanes]

    def drop_idle_versions(self) -> None:
        """Forget versions that run on no lane any more."""
        for name, versions in self.versions.items():
            idle = [version for version in versions if not version.lanes]
            for version in idle:
                self.table.drop_columns(version.running.columns())
            self.versions[name] = [version for version in versions if version.lanes]

    # -- lanes and series --------------------------------------------------------------------------------------

    def add_lane(self, make: Callable[[int], Lane]) -> Lane:
        """Give a lane the lowest free index."""
        index = self.lanes.index(None) if None in self.lanes else len(self.lanes)
        if index == len(self.lanes):
            self.lanes.append(None)
        lane = make(index)
        self.lanes[index] = lane
        for versions in self.versions.values():
            for version in versions:
                version.board.ensure_lanes(len(self.lanes))
        return lane

    def drop_lane(self, lane: Lane) -> None:
        """Forget a lane: its series, what they gathered, its share of scores and calibration."""
        rows = self.table.rows_of(lane.index)
        self._release_scored(rows)
        self.table.free(rows)
        for versions in self.versions.values():
            for version in versions:
                version.lanes.discard(lane.index)
                version.board.clear(lane.index)
        self.drop_idle_versions()
        self.forecasts = [_without_lane(chunk, lane.index) for chunk in self.forecasts]
        self.observations = [_without_lane(chunk, lane.index) for chunk in self.observations]
        self.lanes[lane.index] = None

    def add_series(self, lane: Lane, key: str, series_id: int, last_slot: int, scored: bool) -> int:
        """A row for a series of this lane, new or loaded."""
        row = self.table.allocate(lane.index, key, series_id)
        lane.rows[key] = row
        self.table.last_slot[row] = last_slot
        self.table.route[row] = self.route_of(key)
        if scored:
            self.table.scored[row] = self._take_scored_row()
            lane.scored += 1
        return row

    def route_of(self, key: str) -> int:
        """Index of the first route whose pattern matches, -1 for none."""
        for index, route in enumerate(self.config.routes):
            if route.match == "*" or fnmatchcase(key, route.match):
                return index
        return -1

    def _take_scored_row(self) -> int:
        if self._free_scored:
            return self._free_scored.pop()
        self._scored_rows += 1
        for versions in self.versions.values():
            for version in versions:
                version.board.pending.ensure(self._scored_rows)
        return self._scored_rows - 1

    def _release_scored(self, rows: AnyArray) -> None:
        scored = self.table.scored[rows]
        scored = scored[scored >= 0]
        for versions in self.versions.values():
            for version in versions:
                version.board.pending.forget(scored)
        self._free_scored.extend(scored.tolist())
        self.table.scored[rows] = -1

    def close_bucket(self, lane: Lane, bucket: int) -> None:
        """End the bucket in progress: scores become final, calibration moves, silent series and old versions leave."""
        for versions in self.versions.values():
            for version in versions:
                if lane.index in version.lanes:
                    version.board.close_bucket(lane.index)
        lane.state.bucket = bucket
        self._retire_silent(lane)
        self._thin_scored(lane)
        self._retire_versions(lane)

    def _retire_silent(self, lane: Lane) -> None:
        rows = self.table.rows_of(lane.index)
        overdue = self.table.last_slot[rows] < lane.state.watermark - self.ttl_slots
        silent = rows[overdue & ~self.table.in_flight[rows]]  # one with rows to come starts cold by its gap
        if len(silent):
            lane.retired_series.extend(self.table.series_id[silent].tolist())
            lane.scored -= int((self.table.scored[silent] >= 0).sum())
            for row in silent.tolist():
                del lane.rows[self.table.keys[row]]
            self._release_scored(silent)
            self.table.free(silent)

    def _thin_scored(self, lane: Lane) -> None:
        while lane.scored > self.config.score_series_max:
            lane.state.score_level += 1
            rows = self.table.rows_of(lane.index)
            rows = rows[self.table.scored[rows] >= 0]
            kept = [lane.is_sampled(self.table.keys[row]) for row in rows.tolist()]
            self._release_scored(rows[~np.asarray(kept, bool)])
            lane.scored = int(sum(kept))

    def _retire_versions(self, lane: Lane) -> None:
        for name, serving in lane.state.versions.items():
            if len(serving) > 1 and lane.state.watermark >= serving[0][1] + 2 * self.config.warm_steps:
                for old in self.versions_on(name, lane.index)[1:]:
                    old.lanes.discard(lane.index)
                    old.board.clear(lane.index)
                del serving[1:]
        self.drop_idle_versions()

    # -- a round -----------------------------------------------------------------------------------------------

    def run_round(self, batch: ObservationBatch, previous: IntArray) -> None:
        """One row per series: 1 score; 2 close gaps; 3 advance, calibrate; 4 decide; 5 remember."""
        table, rows = self.table, batch.series
        kpis = len(self.output.kpis)
        observed = self.column_rounding.observed(batch.values)
        truth = observed[:, :kpis]
        self._score(batch, truth)  # 1
        self._close_gaps(batch, previous)  # 2
        served = self._serve(batch, self._feature_rows(batch.slot, batch.values), truth)  # 3
        self._decide(batch, served)  # 4
        table.last_slot[rows] = batch.slot  # 5
        table.touched[rows] = True
        if self.keep_observations:
            times = slot_time_us(batch.slot, self.period_us, self.phase_us)
            ids = table.series_id[rows]
            self.observations.append(
                ObservationChunk(batch.lane, times, ids, batch.event_time_us, batch.flags, observed)
            )

    def _feature_rows(self, slot: IntArray, values: FloatArray | None) -> FloatArray:
        features = np.full((len(slot), self.features.width), np.nan, np.float32)
        if values is not None:
            features[:, : values.shape[1]] = values
        times = slot_time_us(slot, self.period_us, self.phase_us)
        features[:, len(self.columns) :] = calendar(times, self.features.season_us, self.features.season_buckets)
        return features

    def _score(self, batch: ObservationBatch, truth: Int32Array) -> None:
        scored = self.table.scored[batch.series]
        rows = np.flatnonzero((scored >= 0) & (truth != MISSING_TICKS).any(axis=1))
        if len(rows):
            for versions in self.versions.values():
                for version in versions:
                    version.board.score(scored[rows], batch.lane[rows], batch.slot[rows], truth[rows])

    def _close_gaps(self, batch: ObservationBatch, previous: IntArray) -> None:
        gap = np.where(previous == NO_SLOT, 0, batch.slot - previous - 1)
        long = gap > self.config.max_gap_steps
        if long.any():
            self.table.reset(batch.series[long])
        gap[long] = 0
        for step in range(1, int(gap.max(initial=0)) + 1):
            rows = np.flatnonzero(gap >= step)
            features = self._feature_rows(previous[rows] + step, None)
            self._advance(batch.series[rows], batch.lane[rows], features)

    def _advance(self, rows: AnyArray, lane: AnyArray, features: FloatArray) -> dict[str, FloatArray | None]:
        """Advance all that runs on these rows by one step; answers by label, NaN where a version does not run."""
        answers: dict[str, FloatArray | None] = {}
        for _, running in self.rungs:
            answers[running.name] = running.advance(self.table, rows, features)
        routes = self.table.route[rows]
        for name, versions in self.versions.items():
            on_route = self._routed(name, routes)
            for version in versions:
                here = on_route & self._runs_on(version, lane)
                if here.all():
                    answers[version.label] = version.running.advance(self.table, rows, features)
                elif here.any():
                    answers[version.label] = self._advance_some(version.running, rows, features, here)
        return answers

    def _advance_some(
        self, running: RunningPredictor, rows: AnyArray, features: FloatArray, here: AnyArray
    ) -> FloatArray | None:
        part = running.advance(self.table, rows[here], features[here])
        if part is None:
            return None
        whole = np.full((len(rows), *part.shape[1:]), np.nan, np.float32)
        whole[here] = part
        return whole

    def _routed(self, name: str, routes: AnyArray) -> AnyArray:
        mine = [i for i, route in enumerate(self.config.routes) if name == route.active or name in route.shadows]
        return np.isin(routes, mine)

    def _runs_on(self, version: Version, lane: AnyArray) -> AnyArray:
        if len(version.lanes) == sum(owned is not None for owned in self.lanes):
            return np.ones(len(lane), bool)
        return np.isin(lane, list(version.lanes))

    def _serve(self, batch: ObservationBatch, features: FloatArray, truth: Int32Array) -> Served:
        answers = self._advance(batch.series, batch.lane, features)
        shape = (len(batch), len(self.output.kpis), self.output.horizon_steps, len(self.levels))
        served = Served(
            np.full(shape, MISSING_TICKS, np.int32),
            np.full(shape[:2], Source.NONE, np.uint8),
            batch.flags | np.where((truth == MISSING_TICKS).any(axis=1), Quality.INPUT_MISSING, 0).astype(np.uint8),
        )
        routes = self.table.route[batch.series]
        for index, route in enumerate(self.config.routes):
            rows = np.flatnonzero(routes == index)
            if len(rows):
                self._serve_route(route.active, batch, rows, answers, truth, served)
                for shadow in route.shadows:
                    self._record_shadow(shadow, batch, rows, answers, truth)
        self.forecasts_by_source += np.bincount(served.sources.ravel(), minlength=4)
        return served

    def _serve_route(
        self,
        name: str,
        batch: ObservationBatch,
        rows: AnyArray,
        answers: dict[str, FloatArray | None],
        truth: Int32Array,
        served: Served,
    ) -> None:
        """Rows of one route: each is served by the newest version that is warm for it, else by the ladder."""
        versions = self.versions.get(name, [])
        open_ = np.ones(len(rows), bool)
        for place, version in enumerate(versions):
            runs = self._runs_on(version, batch.lane[rows]) & open_
            if not runs.any():
                continue
            warm = version.running.steps(self.table, batch.series[rows]) >= self.config.warm_steps
            older = np.zeros(len(rows), bool)
            for old in versions[place + 1 :]:
                older |= self._runs_on(old, batch.lane[rows])
            mine = runs & (warm | ~older)
            if mine.any():
                self._record(version, batch, rows[mine], answers, truth, served, warm[mine])
                open_ &= ~mine
        if open_.any():
            self._record(None, batch, rows[open_], answers, truth, served, np.zeros(int(open_.sum()), bool), name)

    def _record(
        self,
        version: Version | None,
        batch: ObservationBatch,
        rows: AnyArray,
        answers: dict[str, FloatArray | None],
        truth: Int32Array,
        served: Served,
        warm: AnyArray,
        name: str = "",
    ) -> None:
        whole = len(rows) == len(batch)
        answer = answers.get(version.label) if version else None
        rungs = [(Source.MODEL, _at(answer, rows, whole), None if warm.all() else warm)]
        rungs += [(source, _at(answers[rung.name], rows, whole), None) for source, rung in self.rungs]
        shape = (len(rows), *served.ticks.shape[1:])
        values, sources = climb_down(rungs, shape)
        quality = served.quality[rows] | self._quality(version, answer, rows, warm)
        if version is not None:
            values = self._calibrated(version, values, sources, batch.lane[rows])
        ticks = self.rounding.forecast(values)
        served.ticks[rows], served.sources[rows], served.quality[rows] = ticks, sources, quality
        self._store(version, batch, rows, ticks, sources, quality, truth, self.placeholder.get(name, 0))

    def _quality(self, version: Version | None, answer: FloatArray | None, rows: AnyArray, warm: AnyArray) -> AnyArray:
        if version is None:
            return np.full(len(rows), Quality.NO_MODEL, np.uint8)
        if answer is None:
            return np.full(len(rows), Quality.FAILED, np.uint8)
        finite = np.isfinite(answer[rows]).all(axis=(1, 2, 3))
        return (np.where(warm, 0, Quality.WARMING) | np.where(finite, 0, Quality.NOT_FINITE)).astype(np.uint8)

    def _calibrated(self, version: Version, values: FloatArray, sources: AnyArray, lane: AnyArray) -> FloatArray:
        corrected = widen(values, version.board.factors(lane), middle_of(self.levels))
        if (sources == Source.MODEL).all():
            return corrected
        return np.where((sources == Source.MODEL)[..., None, None], corrected, values)

    def _record_shadow(
        self,
        name: str,
        batch: ObservationBatch,
        rows: AnyArray,
        answers: dict[str, FloatArray | None],
        truth: Int32Array,
    ) -> None:
        for version in self.versions.get(name, [])[:1]:
            answer = answers.get(version.label)
            if answer is None:
                continue
            warm = version.running.steps(self.table, batch.series[rows]) >= self.config.warm_steps
            good = rows[warm & np.isfinite(answer[rows]).any(axis=(1, 2, 3))]
            if len(good):
                values, sources = climb_down([(Source.MODEL, answer[good], None)], answer[good].shape)
                ticks = self.rounding.forecast(self._calibrated(version, values, sources, batch.lane[good]))
                self._store(version, batch, good, ticks, sources, batch.flags[good], truth, 0)

    def _store(
        self,
        version: Version | None,
        batch: ObservationBatch,
        rows: AnyArray,
        ticks: Int32Array,
        sources: AnyArray,
        quality: AnyArray,
        truth: Int32Array,
        placeholder: int,
    ) -> None:
        series, slot, observed = batch.series[rows], batch.slot[rows], truth[rows]
        if version is not None:
            scored = self.table.scored[series]
            kept = scored >= 0
            version.board.pending.add(scored[kept], slot[kept], ticks[kept], observed[kept], sources[kept])
        self.forecasts.append(
            ForecastChunk(
                version.running.model_id if version else placeholder,
                batch.lane[rows],
                slot_time_us(slot, self.period_us, self.phase_us),
                self.table.series_id[series],
                sources,
                quality,
                ticks.reshape(len(rows), -1),
                observed,
            )
        )

    # -- hooks -------------------------------------------------------------------------------------------------

    def _decide(self, batch: ObservationBatch, served: Served) -> None:
        if not self.hooks:
            return
        hook_batch = self._hook_batch(batch, served)
        for bound in self.hooks:
            state = self.table.gather(bound.prefix, bound.arrays, batch.series)
            try:
                due, state_after = bound.hook.decide(hook_batch, state)
                fired = [self._firing(bound, batch, hook_batch, action) for action in due]
            except Exception as error:  # a hook may raise anything; it costs its own decisions only
                bound.failures += 1
                LOG.error("hook_failed", hook=bound.name, error=str(error)[:500])
                continue
            self.table.scatter(bound.prefix, batch.series, state_after)
            names = tuple(bound.config.actuators)
            self._fired += [
                (int(batch.record[action.row]), lane, firing, names)
                for action, (lane, firing) in zip(due, fired, strict=True)
            ]

    def hand_over_firings(self) -> None:
        """Give the firings of a poll to their lanes in the order of the log, not of the rounds."""
        for _, index, firing, actuators in sorted(self._fired, key=lambda fired: fired[0]):
            lane = self.lanes[index]
            if lane is not None:
                lane.firings.append((firing, actuators))
        self._fired.clear()

    def _hook_batch(self, batch: ObservationBatch, served: Served) -> HookBatch:
        values = self.rounding.values(served.ticks)
        known = np.where(served.sources == Source.NONE, 0, served.sources).max(axis=1)
        source = np.where((served.sources == Source.NONE).all(axis=1), np.uint8(Source.NONE), known).astype(np.uint8)
        keys = self.table.keys

        def key_of(row: int) -> SeriesKey:
            return SeriesKey(tuple(keys[batch.series[row]].split("|")))

        return HookBatch(
            self.name,
            self.period_us,
            batch.slot,
            slot_time_us(batch.slot, self.period_us, self.phase_us),
            batch.record,
            self.columns,
            batch.values,
            self.levels,
            {kpi: values[:, index] for index, kpi in enumerate(self.output.kpis)},
            source,
            served.quality,
            key_of,
        )

    def _firing(
        self, bound: BoundHook, batch: ObservationBatch, seen: HookBatch, action: DueAction
    ) -> tuple[int, Firing]:
        time_us = int(seen.slot_time_us[action.row])
        return int(batch.lane[action.row]), Firing(
            firing_id(bound.name, action.object_id, action.attribute, time_us),
            bound.name,
            self.name,
            action.object_id,
            action.attribute,
            action.value,
            action.why,
            bound.config.mode,
            time_us,
            time_us + round(action.valid_for_s * 1_000_000),
            time_us + round(bound.config.effect_s * 1_000_000),
        )


def _bucket_slots(config: StreamConfig) -> int:
    bucket_s = max(900.0, 15 * config.period_s) if config.bucket_s is None else config.bucket_s
    return max(1, round(bucket_s / config.period_s))


def _at(answer: FloatArray | None, rows: AnyArray, whole: bool) -> FloatArray | None:
    return answer if answer is None or whole else answer[rows]


def _without_lane(chunk: Any, lane: int) -> Any:
    keep = chunk.lane != lane
    if keep.all():
        return chunk
    return chunk._replace(
        **{name: value[keep] for name, value in zip(chunk._fields, chunk, strict=True) if isinstance(value, np.ndarray)}
    )

"""One configured stream: its grid and columns, its series and lanes, the predictor versions that run on each lane."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np

from netpredict.config import StreamConfig
from netpredict.decide import BoundHook
from netpredict.errors import ConfigError, PluginError
from netpredict.forecast.calibrate import Cells, Rounding
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.running import RunningPredictor
from netpredict.forecast.score import Scoreboard
from netpredict.forecast.series import Packing, SeriesTable
from netpredict.ingest.decode import Decoder
from netpredict.ingest.firewall import Firewall
from netpredict.ingest.watch import Watch
from netpredict.lane import Lane, Mark
from netpredict.radio import handover_cost
from netpredict.radio.link_failure import EXECUTION, PREPARATION, TICK_MS
from netpredict.radio.quantities import is_hindsight, kpi_of
from netpredict.store.commit import AnchorRows, ColumnLayout, ForecastLayout, MarkRow, ScoreRow, StateRows
from netpredict.types import AnyArray, FeatureSpec, Hindsight, OutputSpec, Source, StateArray, radio_cell_of

LEVEL_DECIMALS = 9
"""Levels that agree so far are one."""
SERIES_AT_FIRST = 1024
"""Series that there is room for from the beginning; a grid counts as many as it has places."""


CHALLENGER = 127
"""Rank of a version on trial: it runs, is stored and scored, and serves nobody."""


class Version:
    """A predictor version with its scores, and its rank on each lane.

    0 = the newest there, -1 = it does not run, CHALLENGER = on trial.
    """

    def __init__(self, running: RunningPredictor, board: Scoreboard, lanes: int) -> None:
        self.running = running
        self.board = board
        self.rank = np.full(0, -1, np.int8)
        self.ensure_lanes(lanes)

    @property
    def label(self) -> str:
        """name@version: names its columns and its calibration."""
        return f"{self.running.name}@{self.running.version}"

    def ensure_lanes(self, lanes: int) -> None:
        """Have room for this many lanes."""
        self.board.ensure_lanes(lanes)
        self.rank = np.append(self.rank, np.full(max(0, lanes - len(self.rank)), -1, np.int8))


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
        self.columns, forecast_kpis = config.observed_columns(), config.kpi_columns()
        self.hindsight = _hindsight(name, config)
        self.firewall = Firewall(
            self.columns, forecast_kpis, config.max_future_s, config.checks, decoder.units, config.period_s
        )
        self.watch = Watch(self.columns, config.checks, config.period_s, config.series_by, decoder.units)
        self.period_us = round(config.period_s * 1_000_000)
        self.phase_us = round(config.phase_s * 1_000_000)
        self.bucket_slots = _bucket_slots(config)
        self.anchor_slots = self.bucket_slots * max(1, round(config.anchor_s / config.period_s / self.bucket_slots))
        self.ttl_slots = max(1, round(config.series_ttl_s / config.period_s))
        needed = {level for bound in self.hooks for level in bound.hook.levels_needed()}
        self.levels = tuple(sorted({round(level, LEVEL_DECIMALS) for level in (*config.quantile_levels, *needed)}))
        self.features = FeatureSpec(
            self.columns,
            self.period_us,
            config.season_buckets,
            round(config.season_s * 1_000_000),
            self.phase_us,
            tuple(config.holidays),
            config.time_zone,
        )
        self.output = OutputSpec(forecast_kpis, config.horizon_steps, self.levels)
        observed = [kpi_of(column) for column in self.columns]
        kpis = observed[: len(forecast_kpis)]
        self.layout = ForecastLayout(
            name, self.output.kpis, tuple(k.decimals for k in kpis), self.levels, config.horizon_steps, self.period_us
        )
        self.column_layout = ColumnLayout(name, self.columns, tuple(k.decimals for k in observed))
        self.rounding = Rounding(self.layout.decimals, [k.low for k in kpis], [k.high for k in kpis])
        self.column_rounding = Rounding(
            self.column_layout.decimals, [k.low for k in observed], [k.high for k in observed]
        )
        self.fingerprint = _digest(config, [(bound.name, bound.config) for bound in self.hooks], self.levels)
        self.grid = (self.period_us, self.phase_us, self.bucket_slots)
        self.forecast_digest = _digest(self.layout)
        self.places = len(forecast_kpis) // len(config.kpis)
        self.table = SeriesTable(max(1, SERIES_AT_FIRST // self.places))
        self.lanes: list[Lane | None] = []
        self.versions: dict[str, list[Version]] = {}  # the one that was activated last comes first
        self.placeholder: dict[str, int] = {}  # model id of a predictor without a version: the ladder's rows
        self.forecasts_by_source = np.zeros(4, np.int64)
        self._free_scored: list[int] = []
        self._scored_rows = 0
        self._packings: dict[int, Packing] = {}
        self.rungs = self._fallback_rungs(fallback)
        self.table.add_columns(self.watch.state_spec())
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

    # -- versions ----------------------------------------------------------------------------------------------

    def predictor_names(self) -> list[str]:
        """Predictors that the routes use, sorted."""
        return self.config.predictor_names()

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
        seasonal = bool(self.config.season_buckets)
        cells = Cells([kpi_of(kpi) for kpi in spec.kpis])
        board = Scoreboard(len(spec.kpis), spec.horizon_steps, spec.levels, seasonal, self.places, cells)
        made = Version(running, board, len(self.lanes))
        made.board.pending.ensure(self._scored_rows)
        self.table.add_columns(running.columns())
        self.versions.setdefault(name, []).insert(0, made)
        return made

    def all_versions(self) -> list[Version]:
        """Every version of every predictor."""
        return [version for versions in self.versions.values() for version in versions]

    def versions_on(self, lane: Lane) -> list[Version]:
        """Versions that run on a lane."""
        return [version for version in self.all_versions() if version.rank[lane.index] >= 0]

    def rank_versions(self, lane: Lane, name: str) -> None:
        """Let exactly the versions that the lane's state names run on it; one that leaves leaves nothing behind."""
        serving = [version for version, _ in lane.state.versions.get(name, [])]
        ranks = {version: rank for rank, version in enumerate(serving)}
        if (challenger := lane.state.challengers.get(name)) is not None:
            ranks.setdefault(challenger, CHALLENGER)
        self.set_states_aside(lane)  # what was touched before is packed as it was then
        self._packings.pop(lane.index, None)
        for version in self.versions.get(name, []):
            if version.running.version in ranks:
                version.rank[lane.index] = ranks[version.running.version]
            elif version.rank[lane.index] >= 0:
                self._take_off(version, lane)
        self.versions.get(name, []).sort(key=lambda version: version.running.version not in serving[:1])
        self._drop_idle_versions()

    def _take_off(self, version: Version, lane: Lane) -> None:
        lane.scores.extend(self._score_rows(version, lane))  # else they would hang on when the last commit was
        rows = self.table.rows_of(lane.index)
        scored = self.table.scored[rows]
        version.rank[lane.index] = -1
        version.board.clear(lane.index)
        version.board.pending.forget(scored[scored >= 0])
        self.table.reset(rows, version.running.columns())

    def _drop_idle_versions(self) -> None:
        for name, versions in self.versions.items():
            idle = [version for version in versions if (version.rank < 0).all()]
            for version in idle:
                self.table.drop_columns(version.running.columns())
            self.versions[name] = [version for version in versions if version not in idle]

    # -- lanes and series --------------------------------------------------------------------------------------

    def add_lane(self, make: Callable[[int], Lane]) -> Lane:
        """Give a lane the lowest free index."""
        index = self.lanes.index(None) if None in self.lanes else len(self.lanes)
        if index == len(self.lanes):
            self.lanes.append(None)
        lane = make(index)
        self.lanes[index] = lane
        for version in self.all_versions():
            version.ensure_lanes(len(self.lanes))
        return lane

    def drop_lane(self, lane: Lane) -> None:
        """Forget a lane: its series, its share of scores and calibration."""
        rows = self.table.rows_of(lane.index)
        self._release_scored(rows)
        self.table.free(rows)
        for version in self.all_versions():
            version.rank[lane.index] = -1
            version.board.clear(lane.index)
        self._drop_idle_versions()
        self._packings.pop(lane.index, None)
        self.lanes[lane.index] = None

    def add_series(self, lane: Lane, key: str, series_id: int, last_slot: int, scored: bool) -> int:
        """A row for a series of this lane, new or loaded."""
        row = self.table.allocate(lane.index, key, series_id)
        lane.rows[key] = row
        self._mark_excluded(lane, key)
        self.table.last_slot[row] = last_slot
        self.table.route[row] = self.route_of(key)
        self.table.anchored[row] = self.config.anchor_series_max > 0 and lane.is_anchored(key)
        if scored:
            self.table.scored[row] = self._take_scored_row()
            lane.scored += 1
        return row

    def exclude(self, lane: Lane, radio_cells: Sequence[str], first: int, last: int) -> None:
        """Leave these slots of radio cells out of scores and training, on series that are there or come."""
        for name in radio_cells:
            before = lane.excluded.get(name, (first, last))
            lane.excluded[name] = (min(before[0], first), max(before[1], last))
        wanted = set(radio_cells)
        if len(self.config.series_by) == 1:
            keys = wanted & lane.rows.keys()
        else:
            keys = {key for key in lane.rows if radio_cell_of(key) in wanted}
        for key in keys:
            self._mark_excluded(lane, key)

    def _mark_excluded(self, lane: Lane, key: str) -> None:
        if (slots := lane.excluded.get(radio_cell_of(key))) is not None:
            row = lane.rows[key]
            self.table.excluded_from[row], self.table.excluded_until[row] = slots

    def route_of(self, key: str) -> int:
        """Index of the first route whose pattern matches, -1 for none."""
        for index, route in enumerate(self.config.routes):
            if route.match == "*" or fnmatchcase(key, route.match):
                return index
        return -1

    def predictors_of(self, key: str) -> set[str]:
        """Names of the predictors that serve and shadow a key."""
        index = self.route_of(key)
        return set() if index < 0 else {self.config.routes[index].active, *self.config.routes[index].shadows}

    def lives_elsewhere(self, lane: Lane, key: str) -> Lane | None:
        """The other lane on which a series with this key was seen last, None when it lives on no other."""
        found = [other for other in self.lanes if other is not None and other is not lane and key in other.rows]
        last_slot = self.table.last_slot
        return max(found, key=lambda other: (last_slot[other.rows[key]], other.topic_partition), default=None)

    def _take_scored_row(self) -> int:
        if self._free_scored:
            return self._free_scored.pop()
        self._scored_rows += 1
        for version in self.all_versions():
            version.board.pending.ensure(self._scored_rows)
        return self._scored_rows - 1

    def _release_scored(self, rows: AnyArray) -> None:
        scored = self.table.scored[rows]
        scored = scored[scored >= 0]
        for version in self.all_versions():
            version.board.pending.forget(scored)
        self._free_scored.extend(scored.tolist())
        self.table.scored[rows] = -1

    # -- what a lane keeps ---------------------------------------------------------------------------------------

    def set_states_aside(self, lane: Lane) -> None:
        """Pack the states of series touched since the last time, for the next commit.

        A state is packed with the versions that ran when it was touched: a commit's moment changes nothing in it.
        """
        rows = np.flatnonzero(self.table.touched)
        rows = rows[self.table.lane[rows] == lane.index]
        if not len(rows):
            return
        packing = self._packings.get(lane.index) or self._packing(lane)
        self.table.touched[rows] = False
        lane.states.append(
            StateRows(
                packing.layout,
                self.table.series_id[rows],
                self.table.last_slot[rows],
                self.table.pack(rows, packing),
            )
        )

    def anchor(self, rows: AnyArray) -> None:
        """Keep the states of these series as they are now, behind the last slot that each has seen."""
        for index in np.unique(self.table.lane[rows]).tolist():
            lane, mine = self.lanes[index], rows[self.table.lane[rows] == index]
            assert lane is not None
            packing = self._packings.get(index) or self._packing(lane)
            times = self.table.last_slot[mine] * self.period_us + self.phase_us
            lane.anchors.append(
                AnchorRows(packing.layout, self.table.series_id[mine], times, self.table.pack(mine, packing))
            )

    def calibration(self, lane: Lane) -> dict[str, Any]:
        """What calibrates each version on a lane, by its label, as plain values."""
        return {version.label: version.board.factor[lane.index].tolist() for version in self.versions_on(lane)}

    def calibrate(self, lane: Lane, calibration: Mapping[str, Any]) -> None:
        """Take what ``calibration`` gave; a version that it does not name keeps its own."""
        for version in self.versions_on(lane):
            if (stored := calibration.get(version.label)) is not None:
                version.board.factor[lane.index] = np.asarray(stored, np.float32)

    def _packing(self, lane: Lane) -> Packing:
        hooks = [name for bound in self.hooks for name in bound.columns()]
        packing = self.table.packing([*self.hidden_columns(lane), *self.watch.state_spec(), *hooks])
        self._packings[lane.index] = packing
        return packing

    def score_rows(self, lane: Lane) -> list[ScoreRow]:
        """The sums of the bucket in progress, as they are stored."""
        return [row for version in self.versions_on(lane) for row in self._score_rows(version, lane)]

    def _score_rows(self, version: Version, lane: Lane) -> list[ScoreRow]:
        model_id, bucket = version.running.model_id, lane.state.bucket or 0
        return [
            ScoreRow(model_id, sums.source, self.config.kpis[sums.kpi], sums.lead_steps, bucket, *sums[3:])
            for sums in version.board.sums(lane.index)
        ]

    def hidden_columns(self, lane: Lane) -> dict[str, StateArray]:
        """Columns of the predictors that run on a lane, the ladder's too."""
        parts = [running.columns() for _, running in self.rungs]
        parts += [version.running.columns() for version in self.versions_on(lane)]
        return {name: spec for part in parts for name, spec in part.items()}

    def close_bucket(self, lane: Lane, bucket: int) -> None:
        """Begin the next bucket: calibration moves, silent series and replaced versions leave."""
        for version in self.versions_on(lane):
            version.board.close_bucket(lane.index)
        lane.state.bucket = bucket
        self._retire_silent(lane)
        self._thin_scored(lane)
        self._retire_versions(lane)
        if self.config.anchor_series_max:
            self._thin_anchored(lane)
            mark = Mark(self.fingerprint, lane.state.versions, lane.state.challengers, self.calibration(lane))
            begins_us = bucket * self.bucket_slots * self.period_us + self.phase_us
            lane.marks.append(MarkRow(begins_us, msgspec.json.encode(mark, order="deterministic").decode()))

    def _retire_silent(self, lane: Lane) -> None:
        rows = self.table.rows_of(lane.index)
        silent = rows[self.table.last_slot[rows] < lane.state.watermark - self.ttl_slots]
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

    def _thin_anchored(self, lane: Lane) -> None:
        rows = np.flatnonzero(self.table.anchored)
        rows = rows[self.table.lane[rows] == lane.index]
        while len(rows) > self.config.anchor_series_max:
            lane.state.anchor_level += 1
            kept = np.array([lane.is_anchored(self.table.keys[row]) for row in rows.tolist()], bool)
            self.table.anchored[rows[~kept]] = False
            rows = rows[kept]

    def _retire_versions(self, lane: Lane) -> None:
        for name, serving in lane.state.versions.items():
            if len(serving) > 1 and lane.state.watermark >= serving[0][1] + 2 * self.config.warm_steps:
                del serving[1:]
                self.rank_versions(lane, name)


def _hindsight(name: str, config: StreamConfig) -> Hindsight | None:
    """How its KPIs of hindsight are labelled, None when it has none; ConfigError where they cannot be."""
    wanted = [kpi for kpi in (*config.kpis, *config.features) if is_hindsight(kpi)]
    if not wanted:
        return None
    period_ms, least_ms = config.period_s * 1000, TICK_MS * (PREPARATION + EXECUTION + 1)
    if missing := [kpi for kpi in (*handover_cost.KPIS, handover_cost.RSRP) if kpi not in config.kpis]:
        raise ConfigError(
            f"streams.{name}.kpis: {', '.join(wanted)} are known in hindsight only; forecast all of"
            f" {', '.join(handover_cost.KPIS)}, and {handover_cost.RSRP}, by which the forecasts are judged;"
            f" missing: {', '.join(missing)}"
        )
    if config.grid is not None or len(config.series_by) < 2 or config.series_by[-1] != "radio_cell_id":
        raise ConfigError(f'streams.{name}.series_by: {wanted[0]} is of a link, ["ue_id", "radio_cell_id"]')
    if period_ms < least_ms or period_ms % TICK_MS:
        raise ConfigError(
            f"streams.{name}.period_s: {wanted[0]} needs a multiple of 0.01 s, {least_ms / 1000} at least"
        )
    told = config.hindsight
    return Hindsight(
        handover_cost=told.handover_cost,
        load_ratio=told.load_ratio,
        rounds=told.rounds,
        piece_steps=told.piece_steps,
        max_gap_steps=config.max_gap_steps,
        warm_steps=config.warm_steps,
    )


def _bucket_slots(config: StreamConfig) -> int:
    bucket_s = max(900.0, 15 * config.period_s) if config.bucket_s is None else config.bucket_s
    return max(1, round(bucket_s / config.period_s))


def _digest(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]

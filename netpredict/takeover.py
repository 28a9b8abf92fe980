"""Taking over a topic partition: what the store holds of a lane becomes memory again, exactly as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from netpredict import crash, exclusion
from netpredict.errors import NetpredictError
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.score import Sums
from netpredict.lane import Lane
from netpredict.store.commit import JournalRow, LaneSnapshot, ScoreRow, Store
from netpredict.stream import Stream, Version
from netpredict.transplant import flag_moved
from netpredict.types import NO_SLOT


class ModelShelf(Protocol):
    """Where versions of predictors come from."""

    def load(self, stream: str, predictor: str, version: str) -> tuple[int, Predictor]:
        """(model id, predictor ready to serve). Raises ArtefactError."""
        ...

    def active(self, stream: str, predictor: str) -> str | None:
        """The version that is active now, None when there is none yet."""
        ...

    def challenger(self, stream: str, predictor: str) -> str | None:
        """The version that is to run on trial, None when there is none."""
        ...

    def earlier(self, stream: str, predictor: str) -> Sequence[str]:
        """Versions that served before and are retired, newest first: what there is to fall back on."""
        ...

    def placeholder(self, stream: str, predictor: str) -> int:
        """Model id under which the ladder's forecasts are stored while no version of the predictor serves."""
        ...


def restore(stream: Stream, lane: Lane, snapshot: LaneSnapshot, store: Store, shelf: ModelShelf) -> None:
    """What was: 1 the config; 2 versions; 3 series, their states; 4 scores, calibration, pending forecasts.

    Then 5 what the shelf says now: it takes effect as it would in the midst of a run.
    """
    same_grid = _follow_config(stream, lane)  # 1
    load_versions(stream, lane, shelf)  # 2
    exclusion.restore(stream, lane, snapshot.journal)
    if same_grid:
        _load_series(stream, lane, snapshot)  # 3
        _load_scores(stream, lane, snapshot, store)  # 4
    else:
        lane.retired_series = [series_id for series_id, *_ in snapshot.series]
    if not same_grid or lane.state.forecast != stream.forecast_digest:
        lane.scores = [_emptied(row) for row in snapshot.bucket_scores]
    for name in stream.predictor_names():
        follow(stream, lane, shelf, name)  # 5


def activate(stream: Stream, lane: Lane, shelf: ModelShelf, name: str, version: str) -> None:
    """Let a version serve from the next record on; the one before stays until it is warm. Journaled, also a refusal."""
    serving = lane.state.versions.get(name, [])
    if serving[:1] and serving[0][0] == version:
        return
    if (name, version) in lane.refused or _load_version(stream, lane, shelf, name, version) is None:
        return
    crash.reached("mid_model_swap")
    if lane.state.challengers.get(name) == version:
        del lane.state.challengers[name]
    others = [(known, began) for known, began in serving if known != version]
    lane.state.versions[name] = [(version, max(lane.state.watermark, 0)), *others]
    stream.rank_versions(lane, name)
    lane.journal.append(JournalRow(lane.next_offset, "activate", {"predictor": name, "version": version}))


def challenge(stream: Stream, lane: Lane, shelf: ModelShelf, name: str, version: str | None) -> None:
    """Let a version run on trial from the next record on, or, with None, end the trial. Journaled.

    It starts cold: it is stored and scored once it is warm for a series. A version that serves is no challenger.
    """
    running = lane.state.challengers.get(name)
    serving = [known for known, _ in lane.state.versions.get(name, [])]
    if version in serving or (name, version) in lane.refused:
        version = None
    if version == running:
        return
    if version is not None and _load_version(stream, lane, shelf, name, version) is None:
        version = None
    kind, of = ("dismiss", running) if version is None else ("challenge", version)
    lane.state.challengers.pop(name, None)
    if version is not None:
        lane.state.challengers[name] = version
    if of is None:
        return
    stream.rank_versions(lane, name)
    lane.journal.append(JournalRow(lane.next_offset, kind, {"predictor": name, "version": of}))


def _follow_config(stream: Stream, lane: Lane) -> bool:
    """Drop what a changed config has made meaningless; false when slots are others, so that every series is new."""
    state = lane.state
    unknown = state.grid == (0, 0, 0)
    same_grid = unknown or state.grid[:2] == stream.grid[:2]
    if not same_grid:
        state.watermark, state.bucket = NO_SLOT, None
        state.versions = {name: [(version, 0) for version, _ in kept] for name, kept in state.versions.items()}
    if not unknown and state.grid[2] != stream.grid[2]:
        state.bucket = None
    if state.forecast not in ("", stream.forecast_digest):
        state.calibration = {}
    return same_grid


def load_versions(stream: Stream, lane: Lane, shelf: ModelShelf) -> None:
    """Let run what the lane's state names; what cannot be loaded is dropped from it, journaled as refused."""
    for name in stream.predictor_names():
        stored = lane.state.versions.get(name, [])
        loaded = [entry for entry in stored if _load_version(stream, lane, shelf, name, entry[0])]
        if loaded or stored:
            lane.state.versions[name] = loaded
        on_trial = lane.state.challengers.get(name)
        if on_trial is not None and not _load_version(stream, lane, shelf, name, on_trial):
            del lane.state.challengers[name]
        stream.rank_versions(lane, name)


def follow(stream: Stream, lane: Lane, shelf: ModelShelf, name: str) -> None:
    """Take up what the shelf says of a predictor: the active version, else one that served before; the challenger."""
    active = shelf.active(stream.name, name)
    if active is not None:
        activate(stream, lane, shelf, name, active)
        for version in shelf.earlier(stream.name, name):
            if lane.state.versions.get(name):
                break
            activate(stream, lane, shelf, name, version)
    challenge(stream, lane, shelf, name, shelf.challenger(stream.name, name))


def _load_version(stream: Stream, lane: Lane, shelf: ModelShelf, name: str, version: str) -> Version | None:
    try:
        model_id, predictor = shelf.load(stream.name, name, version)
        return stream.version(name, version, model_id, predictor)
    except NetpredictError as error:
        if error.retriable:  # the store is away: that says nothing about the version
            raise
        lane.refused.add((name, version))
        refusal = {"predictor": name, "version": version, "why": str(error)}
        lane.journal.append(JournalRow(lane.next_offset, "refused", refusal))
        return None


def _load_series(stream: Stream, lane: Lane, snapshot: LaneSnapshot) -> None:
    by_layout: dict[str, tuple[list[int], list[bytes]]] = {}
    for series_id, key, last_slot, scored, layout, blob in snapshot.series:
        sampled = scored and lane.is_sampled(key)
        row = stream.add_series(lane, key, series_id, last_slot, sampled)
        if layout is not None and blob is not None:
            rows, blobs = by_layout.setdefault(layout, ([], []))
            rows.append(row)
            blobs.append(blob)
    for layout, (rows, blobs) in by_layout.items():
        stream.table.unpack(layout, np.array(rows, np.int64), b"".join(blobs))
    flag_moved(stream, lane, snapshot.journal)


def _load_scores(stream: Stream, lane: Lane, snapshot: LaneSnapshot, store: Store) -> None:
    same_forecast = lane.state.forecast == stream.forecast_digest
    stream.calibrate(lane, lane.state.calibration)
    for version in stream.versions_on(lane):
        if same_forecast:
            mine = [row for row in snapshot.bucket_scores if row.n and row.model_id == version.running.model_id]
            version.board.restore(lane.index, [_sums(stream, row) for row in mine if row.bucket == lane.state.bucket])
        _load_pending(stream, lane, version, store)


def _load_pending(stream: Stream, lane: Lane, version: Version, store: Store) -> None:
    pending = store.pending_forecasts(lane.lane_id, version.running.model_id, stream.layout)
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
        pending.seasonal[kept].reshape(shape[:3]),
    )


def _emptied(row: ScoreRow) -> ScoreRow:
    """The sums of a bucket that another config began: the next restart must not find them."""
    none = (0,) * len(row.below)
    return ScoreRow(row.model_id, row.source, row.kpi, row.lead_steps, row.bucket, *(0,) * 7, none, none)


def _sums(stream: Stream, row: ScoreRow) -> Sums:
    kpi = stream.config.kpis.index(row.kpi)
    errors = (row.abs_ticks, row.square_ticks, row.truth_abs_ticks, row.naive_abs_ticks, row.seasonal_abs_ticks)
    return Sums(row.source, kpi, row.lead_steps, row.n, row.flat, *errors, row.below, row.pinball)

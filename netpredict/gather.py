"""Gathering a commit: copies of everything that became of a stream's lanes since the last one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from netpredict.lane import Lane
from netpredict.rounds import Rounds
from netpredict.store.commit import ForecastRows, LaneCommit, ObservationRows
from netpredict.stream import Stream
from netpredict.types import AnyArray, Int32Array


def lane_commits(rounds: Rounds) -> list[LaneCommit]:
    """The share of each lane of a stream that has come on, or that the store does not know yet."""
    stream = rounds.stream
    forecasts, observations, late = _by_lane(rounds.forecasts), _by_lane(rounds.observations), _by_lane(rounds.late)
    rounds.forecasts, rounds.observations, rounds.late = [], [], []
    commits = []
    for lane in stream.lanes:
        if lane is None or (lane.stored and lane.next_offset == lane.committed_offset):
            continue
        commit = _lane_commit(stream, lane)
        commit.forecasts = [_forecast_rows(stream, *part) for part in forecasts.get(lane.index, [])]
        commit.observations, commit.late_observations = (
            [ObservationRows(stream.column_layout, *part[1:]) for part in parts.get(lane.index, [])]
            for parts in (observations, late)
        )
        commits.append(commit)
    return commits


def _lane_commit(stream: Stream, lane: Lane) -> LaneCommit:
    stream.set_states_aside(lane)
    lane.state.grid, lane.state.forecast = stream.grid, stream.forecast_digest
    lane.state.calibration = stream.calibration(lane)
    if lane.next_offset == lane.committed_offset:
        return _place_only(lane)
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
        scores=[*lane.scores, *stream.score_rows(lane)],
        series_states=lane.states,
        anchors=lane.anchors,
        marks=lane.marks,
        journal=lane.journal,
        requests=lane.requests,
        firings=lane.firings,
        dead_letters=lane.dead_letters,
        dead_ranges=list(lane.dead_ranges.values()),
        replayed=lane.replayed,
        gaps=lane.gaps,
    )
    lane.committed_offset, lane.stored = lane.next_offset, True
    lane.counts = dict.fromkeys(lane.counts, 0)
    lane.new_series, lane.retired_series, lane.scores, lane.states = [], [], [], []
    lane.anchors, lane.marks = [], []
    lane.journal, lane.requests, lane.firings, lane.gaps = [], [], [], []
    lane.dead_letters, lane.dead_ranges, lane.replayed = [], {}, []
    return commit


def _place_only(lane: Lane) -> LaneCommit:
    """Where a new lane begins, and nothing that must not be applied twice: its offsets cannot tell that it was."""
    lane.stored = True
    place = lane.next_offset
    return LaneCommit(lane.lane_id, lane.topic_partition, lane.epoch, place, place, dict(lane.counts), state="")


def _by_lane(chunks: Sequence[Any]) -> dict[int, list[tuple[Any, ...]]]:
    """Parts of chunks (NamedTuples with a ``lane`` column) by lane, in order."""
    parts: dict[int, list[tuple[Any, ...]]] = {}
    for chunk in chunks:
        lane: AnyArray = chunk.lane
        for index in np.unique(lane).tolist():
            mine = slice(None) if (lane == index).all() else lane == index
            parts.setdefault(index, []).append(
                tuple(field[mine] if isinstance(field, np.ndarray) else field for field in chunk)
            )
    return parts


def _forecast_rows(stream: Stream, model_id: int, _lane: Int32Array, *columns: Any) -> ForecastRows:
    return ForecastRows(model_id, stream.layout, *columns)

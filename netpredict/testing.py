"""Fakes and contract checks for plugin authors and tests: a store in memory, a small predictor, ``check_predictor``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from netpredict.errors import ArtefactError
from netpredict.forecast.predictor import Predictor
from netpredict.forecast.running import STEPS
from netpredict.store.commit import (
    Commit,
    ControlRequest,
    DeadLetterRange,
    ForecastLayout,
    JournalRow,
    LaneCommit,
    LaneSnapshot,
    PendingForecasts,
    ScoreRow,
)
from netpredict.types import (
    MISSING_TICKS,
    NO_SLOT,
    FeatureSpec,
    FloatArray,
    Hidden,
    Outputs,
    OutputSpec,
    StateArray,
    TopicPartition,
)


class LeakyMean:
    """A predictor without TensorFlow: a leaky mean per KPI, repeated over all leads, with a leaky mean error as width.

    It keeps state, fills gaps, and works element by element, so that no row can depend on its batch.
    """

    api_version = 1
    padded = False

    def __init__(self, features: FeatureSpec, output: OutputSpec, memory: float = 0.75) -> None:
        self._columns = [features.observed.index(kpi) for kpi in output.kpis]
        self._output = output
        self._memory = np.float32(memory)
        spread = np.asarray(output.levels, np.float32) - np.float32(0.5)
        self._spread = (
            spread[None, None, :] * np.sqrt(np.arange(1, output.horizon_steps + 1, dtype=np.float32))[:, None]
        )

    def state_spec(self) -> Mapping[str, StateArray]:
        """Mean, error and whether there was a first value, by KPI."""
        shape = (len(self._columns),)
        return {"mean": StateArray(shape), "error": StateArray(shape), "seen": StateArray(shape, "bool")}

    def output_spec(self) -> OutputSpec:
        """What it was built for."""
        return self._output

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        """See ``Predictor``."""
        observed = features[:, self._columns]
        known = ~np.isnan(observed)
        seen = hidden["seen"]
        value = np.where(known, observed, hidden["mean"])
        start = np.where(seen, hidden["mean"], value)
        mean = self._memory * start + (1 - self._memory) * value
        miss = self._memory * hidden["error"] + (1 - self._memory) * np.abs(value - start)
        error = np.where(known & seen, miss, hidden["error"])
        answer = (
            np.where(seen | known, mean, np.float32(np.nan))[:, :, None, None] + error[:, :, None, None] * self._spread
        )
        outputs = {kpi: answer[:, index] for index, kpi in enumerate(self._output.kpis)}
        return outputs, {"mean": mean, "error": error, "seen": seen | known}


class StaticShelf:
    """Versions of predictors given as functions: ``shelf.put("traffic", "leaky", "v1", lambda: LeakyMean(...))``."""

    def __init__(self) -> None:
        self._builders: dict[tuple[str, str, str], tuple[int, Any]] = {}
        self._active: dict[tuple[str, str], str] = {}
        self._challengers: dict[tuple[str, str], str | None] = {}
        self._placeholders: dict[tuple[str, str], int] = {}

    def put(self, stream: str, predictor: str, version: str, build: Any, active: bool = True) -> None:
        """Add a version; the last active one is what new lanes begin with."""
        self._builders[stream, predictor, version] = (len(self._builders) + 1, build)
        if active:
            self._active[stream, predictor] = version

    def load(self, stream: str, predictor: str, version: str) -> tuple[int, Predictor]:
        """See ``ModelShelf``."""
        if (stream, predictor, version) not in self._builders:
            raise ArtefactError(f"no version {version} of {predictor}")
        model_id, build = self._builders[stream, predictor, version]
        return model_id, build()

    def active(self, stream: str, predictor: str) -> str | None:
        """See ``ModelShelf``."""
        return self._active.get((stream, predictor))

    def challenger(self, stream: str, predictor: str) -> str | None:
        """See ``ModelShelf``."""
        return self._challengers.get((stream, predictor))

    def earlier(self, stream: str, predictor: str) -> list[str]:
        """See ``ModelShelf``."""
        return []

    def placeholder(self, stream: str, predictor: str) -> int:
        """See ``ModelShelf``."""
        return self._placeholders.setdefault((stream, predictor), 1000 + len(self._placeholders))


class MemoryStore:
    """The contract of a store, in dictionaries: fences by epoch and offset, refuses half commits, forgets on exit."""

    def __init__(self) -> None:
        self.lanes: dict[TopicPartition, dict[str, Any]] = {}
        self.series: dict[int, dict[str, Any]] = {}
        self.states: dict[int, tuple[str, int, bytes]] = {}
        self.forecasts: dict[tuple[int, int, int], tuple[bytes, bytes, bytes, int, bytes]] = {}
        self.layouts: dict[tuple[int, int, int], ForecastLayout] = {}
        self.observations: dict[tuple[int, int], tuple[bytes, int, int]] = {}
        self.scores: dict[tuple[Any, ...], ScoreRow] = {}
        self.firings: dict[str, Any] = {}
        self.dead_letters: dict[tuple[Any, ...], Any] = {}
        self.dead_ranges: dict[tuple[Any, ...], DeadLetterRange] = {}
        self.journal: dict[TopicPartition, list[JournalRow]] = {}
        self.anchors: dict[tuple[int, int], tuple[str, bytes]] = {}
        self.marks: dict[tuple[int, int], str] = {}
        self.gaps: dict[TopicPartition, list[Any]] = {}
        self._requests: list[ControlRequest] = []
        self._asked = 0

    def assign(
        self, group: str, topic_partition: TopicPartition, stream: str, topic_id: str, owner: str
    ) -> LaneSnapshot:
        """See ``Store``."""
        lane = self.lanes.setdefault(
            topic_partition,
            {"id": len(self.lanes) + 1, "epoch": 0, "next": None, "topic_id": topic_id, "state": "", "counts": {}},
        )
        lane["epoch"] += 1
        mine = {key: row for key, row in self.series.items() if row["lane"] == lane["id"] and "retired" not in row}
        series = []
        for series_id, row in mine.items():
            layout, slot, blob = self.states.get(series_id, (None, NO_SLOT, None))
            series.append((series_id, row["key"], slot, row["scored"], layout, blob))
        scores = [score for key, score in self.scores.items() if key[0] == topic_partition]
        newest = msgspec.json.decode(lane["state"]).get("bucket") if lane["state"] else None
        return LaneSnapshot(
            lane["id"],
            lane["epoch"],
            lane["next"],
            lane["topic_id"],
            dict(lane["counts"]),
            lane["state"],
            series,
            list(self.journal.get(topic_partition, [])),
            [score for score in scores if score.bucket == newest],
        )

    def pending_forecasts(self, lane_id: int, model_id: int, layout: ForecastLayout) -> PendingForecasts:
        """See ``Store``."""
        found = []
        for place, (ticks, observed, sources, slot, seasonal) in self.forecasts.items():
            _, series_id, model = place
            if self.layouts[place] != layout:
                continue
            series = self.series.get(series_id)
            wanted = model == model_id and series is not None and series["lane"] == lane_id and series["scored"]
            if wanted and series_id in self.states and slot > self.states[series_id][1] - layout.horizon_steps:
                found.append((slot, series_id, sources, ticks, observed, seasonal))
        found.sort(key=lambda row: row[:2])
        return PendingForecasts(
            np.array([row[0] for row in found], np.int64),
            np.array([row[1] for row in found], np.int64),
            np.array([list(row[2]) for row in found], np.uint8),
            np.array([np.frombuffer(row[3], np.int32) for row in found], np.int32),
            np.array([np.frombuffer(row[4], np.int32) for row in found], np.int32),
            np.array([np.frombuffer(row[5], np.int32) for row in found], np.int32),
        )

    def requests(self) -> list[ControlRequest]:
        """See ``Store``."""
        return list(self._requests)

    def request(self, lane_id: int, kind: str, payload: Mapping[str, Any]) -> int:
        """Ask for something to enter a lane, as the SQL store does."""
        self._asked += 1
        self._requests.append(ControlRequest(self._asked, lane_id, kind, payload))
        return self._asked

    def commit(self, commit: Commit) -> set[TopicPartition]:
        """See ``Store``."""
        fenced = set()
        for part in commit.lanes:
            lane = self.lanes[part.topic_partition]
            if lane["epoch"] != part.epoch or lane["next"] not in (None, part.old_offset):
                fenced.add(part.topic_partition)
            else:
                self._apply(part, lane)
        return fenced

    def _apply(self, part: LaneCommit, lane: dict[str, Any]) -> None:
        lane["next"], lane["state"] = part.new_offset, part.state
        for name, n in part.counts.items():
            lane["counts"][name] = lane["counts"].get(name, 0) + n
        for series_id, key, _, scored in part.new_series:
            self.series[series_id] = {"lane": part.lane_id, "key": key, "scored": scored}
        for states in part.series_states:
            for row, series_id in enumerate(states.series_id.tolist()):
                self.states[series_id] = (states.layout, int(states.slot[row]), states.blob[row].tobytes())
        for anchors in part.anchors:
            for row, series_id in enumerate(anchors.series_id.tolist()):
                self.anchors[int(anchors.slot_time_us[row]), series_id] = (anchors.layout, anchors.blob[row].tobytes())
        for mark in part.marks:
            self.marks[mark.begins_us, part.lane_id] = mark.mark
        for rows in part.forecasts:
            unknown = np.full((1, len(rows.layout.kpis) * rows.layout.horizon_steps), MISSING_TICKS, np.int32)
            seasonal = np.repeat(unknown, len(rows.series_id), axis=0) if rows.seasonal is None else rows.seasonal
            for row, series_id in enumerate(rows.series_id.tolist()):
                time_us = int(rows.slot_time_us[row])
                self.layouts[time_us, series_id, rows.model_id] = rows.layout
                self.forecasts[time_us, series_id, rows.model_id] = (
                    rows.ticks[row].tobytes(),
                    rows.observed[row].tobytes(),
                    rows.sources[row].tobytes(),
                    time_us // rows.layout.period_us,
                    seasonal[row].tobytes(),
                )
        for seen in part.observations:
            for row, series_id in enumerate(seen.series_id.tolist()):
                self.observations[int(seen.slot_time_us[row]), series_id] = (
                    seen.ticks[row].tobytes(),
                    int(seen.event_time_us[row]),
                    int(seen.flags[row]),
                )
        for seen in part.late_observations:
            for row, series_id in enumerate(seen.series_id.tolist()):
                observed = (seen.ticks[row].tobytes(), int(seen.event_time_us[row]), int(seen.flags[row]))
                self.observations.setdefault((int(seen.slot_time_us[row]), series_id), observed)
        for score in part.scores:
            place = (part.topic_partition, score.model_id, score.source, score.kpi, score.lead_steps, score.bucket)
            self.scores[place] = score
        for firing, actuators in part.firings:
            self.firings.setdefault(firing.firing_id, (firing, actuators))
        for letter in part.dead_letters:
            self.dead_letters.setdefault((letter.topic_partition, letter.offset, letter.reason), letter)
        for offset, reason, entered in part.replayed:
            if entered:
                self.dead_letters.pop((part.topic_partition, offset, reason), None)
        for found in part.dead_ranges:
            stretch = (part.topic_partition, found.begins_offset, found.reason)
            known = self.dead_ranges.get(stretch)
            self.dead_ranges[stretch] = _joined(known, found) if known else copy.copy(found)
        for series_id in part.retired_series:
            self.series[series_id]["retired"] = True
            self.states.pop(series_id, None)
        self.journal.setdefault(part.topic_partition, []).extend(part.journal)
        self.gaps.setdefault(part.topic_partition, []).extend(part.gaps)
        self._requests = [request for request in self._requests if request.request_id not in part.requests]

    def dump(self) -> dict[str, Any]:
        """Everything by natural keys, without epochs: two runs over the same log give equal dumps."""
        key_of = {series_id: (row["lane"], row["key"]) for series_id, row in self.series.items()}
        return {
            "progress": {tp: (lane["next"], lane["counts"], lane["state"]) for tp, lane in self.lanes.items()},
            "series": sorted(
                (row["lane"], row["key"], series_id, row["scored"], "retired" in row)
                for series_id, row in self.series.items()
            ),
            "anchors": {(k[0], key_of[k[1]]): row for k, row in self.anchors.items()},
            "marks": self.marks,
            "states": {key_of[series]: state for series, state in self.states.items()},
            "forecasts": {(k[0], key_of.get(k[1]), k[2]): row for k, row in self.forecasts.items()},
            "observations": {(k[0], key_of.get(k[1])): row for k, row in self.observations.items()},
            "scores": self.scores,
            "firings": self.firings,
            "dead_letters": self.dead_letters,
            "dead_ranges": self.dead_ranges,
            "journal": self.journal,
            "gaps": self.gaps,
        }


def _joined(one: DeadLetterRange, two: DeadLetterRange) -> DeadLetterRange:
    return DeadLetterRange(
        one.begins_offset,
        one.reason,
        min(one.first_offset, two.first_offset),
        max(one.last_offset, two.last_offset),
        one.letters + two.letters,
        min(one.first_ingest_us, two.first_ingest_us),
        max(one.last_ingest_us, two.last_ingest_us),
    )


def check_predictor(predictor: Predictor, features: FeatureSpec, seed: int = 0) -> None:
    """The contract of a predictor as assertions: shapes, purity, rows alone, missing steps. Raises AssertionError."""
    rng = np.random.default_rng(seed)
    assert STEPS not in predictor.state_spec(), f"a hidden state may not be called {STEPS}"
    hidden = {name: np.full((32, *spec.shape), spec.fill, spec.dtype) for name, spec in predictor.state_spec().items()}
    steps = [rng.uniform(1, 9, (32, features.width)).astype(np.float32) for _ in range(6)]
    steps[3][:, : len(features.observed)] = np.nan
    for step in steps:
        before = copy.deepcopy((step, hidden))
        outputs, after = predictor.advance(step, hidden)
        np.testing.assert_equal((step, hidden), before)
        _check_shapes(predictor, outputs, after)
        half = {name: array[::-1][:16] for name, array in hidden.items()}
        alone, _ = predictor.advance(step[::-1][:16].copy(), {name: array.copy() for name, array in half.items()})
        for kpi, values in outputs.items():
            np.testing.assert_array_equal(values[::-1][:16], alone[kpi], err_msg=f"{kpi} depends on its batch")
        hidden = dict(after)


def _check_shapes(predictor: Predictor, outputs: Outputs, hidden: Hidden) -> None:
    spec = predictor.output_spec()
    assert set(outputs) == set(spec.kpis), f"outputs {sorted(outputs)} are not the KPIs {spec.kpis}"
    for kpi, values in outputs.items():
        assert values.shape == (32, spec.horizon_steps, len(spec.levels)), f"{kpi} has shape {values.shape}"
        assert values.dtype == np.float32, f"{kpi} is {values.dtype}, not float32"
    for name, array in predictor.state_spec().items():
        assert hidden[name].shape == (32, *array.shape), f"hidden {name} has shape {hidden[name].shape}"
        assert hidden[name].dtype == np.dtype(array.dtype), f"hidden {name} is {hidden[name].dtype}"

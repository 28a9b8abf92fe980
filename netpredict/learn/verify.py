"""Is what stands in the store what this release forecasts? Anchored series are replayed and compared to the letter.

A replay begins with states that the daemon kept when a day of a sampled series had ended, and sends the stored
observations through the pipeline's own rounds. Calibration is shared by all series of a lane, so it cannot be replayed
from a few: it is taken from the marks, which say what held from the beginning of each score bucket on. Where versions
or config changed in the midst, the replay ends before the bucket of the change; the next anchor begins another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from netpredict.build import build_stream
from netpredict.config import Config
from netpredict.ingest.watch import Watch
from netpredict.lane import Lane, LaneState, Mark
from netpredict.learn.shelf import StoreShelf
from netpredict.rounds import ForecastChunk, Rounds
from netpredict.store.anchors import Anchor, Anchors, ForecastKey, Observed, StoredForecast, StoredLane, as_stored
from netpredict.store.commit import SERIES_PER_LANE, ForecastRows, ModelRow
from netpredict.store.history import History
from netpredict.stream import Stream
from netpredict.takeover import ModelShelf, load_versions
from netpredict.types import AnyArray, ObservationBatch, Quality

SENT_FLAGS = 0xFF
"""Of an observation: what its sender said or the watch found; what stands above was not seen by its forecast."""
_NEVER = 2**62
Stored = dict[ForecastKey, StoredForecast]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first forecast that is not what the replay gives; ``field`` is a column of the store, or ``missing``."""

    stream: str
    topic_partition: str
    series: str
    slot_time_us: int
    model_id: int
    field: str
    stored: str
    replayed: str


@dataclass(slots=True)
class Verified:
    """What was compared on a stream, and what was left out, by reason."""

    stream: str
    series: int = 0
    forecasts: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    difference: Difference | None = None

    def skip(self, reason: str, series: int = 1) -> None:
        """Count series that are not replayed, or no further."""
        if series:
            self.skipped[reason] = self.skipped.get(reason, 0) + series


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A mark with the bucket in which it began to hold."""

    number: int
    mark: Mark

    def serves_like(self, other: Mark) -> bool:
        mine = (self.mark.config, self.mark.versions, self.mark.challengers)
        return mine == (other.config, other.versions, other.challengers)


class KnownModels:
    """The versions of a store for a shelf that must not write: a version that the store does not know has the id 0."""

    def __init__(self, history: History) -> None:
        self._history = history

    def models(self, stream: str | None = None) -> list[ModelRow]:
        """See ``ModelNames``."""
        return [ModelRow(**row) for row in reversed(self._history.models(stream))]

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
        """The id that it has."""
        known = [row for row in self.models(stream) if (row.predictor, row.version) == (predictor, version)]
        return known[0].model_id if known else 0


def verify_all(config: Config, names: Sequence[str], days: int = 1) -> list[Verified]:
    """Verify these streams of a config, beside a daemon that writes its store or not."""
    models, store = KnownModels(History(config.store_url)), Anchors(config.store_url)
    streams = [build_stream(name, config) for name in names]
    shelf = StoreShelf(config, models, streams)
    return [verify(stream, store, shelf, days) for stream in streams]


def verify(stream: Stream, store: Anchors, shelf: ModelShelf, days: int = 1) -> Verified:
    """Replay a freshly built stream from its anchors of the newest ``days``; ends at the first difference.

    The hooks of the stream are taken off: they decide nothing about forecasts. So is the watch: what is stored is what
    it let pass.
    """
    stream.hooks.clear()
    stream.watch = Watch((), stream.config.checks, stream.config.period_s)
    for route in stream.config.routes:
        stream.placeholder[route.active] = shelf.placeholder(stream.name, route.active)
    found = Verified(stream.name)
    for lane in store.lanes(stream.name):
        anchors = store.anchors(lane.lane_id)
        for day in sorted({_day(stream, anchor) for anchor in anchors})[-days:]:
            mine = [anchor for anchor in anchors if _day(stream, anchor) == day]
            later = [anchor for anchor in anchors if _day(stream, anchor) > day]
            _Replay(stream, lane, store, shelf, found).run(mine, later)
            if found.difference is not None:
                return found
    return found


def _slot(stream: Stream, time_us: int) -> int:
    return (time_us - stream.phase_us) // stream.period_us


def _day(stream: Stream, anchor: Anchor) -> int:
    return _slot(stream, anchor.slot_time_us) // stream.anchor_slots


class _Replay:
    """One day of the anchored series of one lane."""

    def __init__(self, stream: Stream, at: StoredLane, store: Anchors, shelf: ModelShelf, found: Verified) -> None:
        self._stream, self._at, self._store, self._shelf, self._found = stream, at, store, shelf, found
        self._rounds = Rounds(stream)
        self._state = msgspec.json.decode(at.state, type=LaneState)
        self._buckets = [
            _Bucket(_slot(stream, row.begins_us) // stream.bucket_slots, msgspec.json.decode(row.mark, type=Mark))
            for row in store.marks(at.lane_id)
        ]

    def run(self, anchors: Sequence[Anchor], later: Sequence[Anchor]) -> None:
        """From these anchors to the next one of each series, or to where something else began to serve."""
        stream = self._stream
        oldest_us = self._store.oldest_forecast_us()
        chosen = [anchor for anchor in self._usable(anchors) if oldest_us is not None]
        ends = {anchor.series_id: anchor.slot_time_us for anchor in reversed(later)}
        if not chosen or not self._buckets:
            return
        after_us = min(anchor.slot_time_us for anchor in chosen)
        until_us = max((ends.get(anchor.series_id, _NEVER) for anchor in chosen), default=_NEVER)
        ids = [anchor.series_id for anchor in chosen]
        observed = [
            seen
            for seen in self._store.observations(ids, after_us, until_us, stream.column_layout)
            if seen.slot_time_us <= ends.get(seen.series_id, _NEVER) and not seen.flags & Quality.LATE
        ]
        observed = [seen for seen in observed if seen.slot_time_us > _of(chosen, seen.series_id).slot_time_us]
        if not observed:
            return
        if observed[0].slot_time_us < (oldest_us or 0):
            self._found.skip("older forecasts are pruned", len(chosen))
            return
        self._replay(chosen, observed, self._store.forecasts(ids, after_us, until_us))

    def _usable(self, anchors: Sequence[Anchor]) -> Iterator[Anchor]:
        implanted = self._store.implanted(self._at.lane_id)
        for anchor in anchors:
            if anchor.state is None:
                self._found.skip("the kept state is damaged")
            elif (anchor.key, anchor.series_id % SERIES_PER_LANE) in implanted:
                self._found.skip("the state came from another series")
            else:
                yield anchor

    def _replay(self, anchors: list[Anchor], observed: list[Observed], stored: Stored) -> None:
        stream = self._stream
        first = self._bucket(observed[0].slot_time_us)
        begun = max((n for n, bucket in enumerate(self._buckets) if bucket.number <= first), default=0)
        end = self._end(begun)
        lane, anchors = self._lane(self._buckets[begun].mark, anchors)
        if lane is None:
            return
        kept = {anchor.series_id for anchor in anchors}
        self._found.series += len(anchors)
        for time_us, part in groupby(observed, lambda seen: seen.slot_time_us):
            rows = [seen for seen in part if seen.series_id in kept]
            wrong = self._step(lane, rows, stored, begun) if rows and self._bucket(time_us) < end else None
            if self._bucket(time_us) >= end or (wrong is not None and wrong.field == "missing" and end < _NEVER):
                self._found.skip("something else began to serve", len(anchors))
                break
            if wrong is not None:
                self._found.difference = wrong
                break
        stream.drop_lane(lane)

    def _bucket(self, time_us: int) -> int:
        return _slot(self._stream, time_us) // self._stream.bucket_slots

    def _end(self, begun: int) -> int:
        """The bucket in which something else began to serve, seen from a mark on; beyond all when nothing did."""
        first = self._buckets[begun]
        for before, bucket in zip(self._buckets[begun:], self._buckets[begun + 1 :], strict=False):
            if not first.serves_like(bucket.mark):
                return before.number
        state = self._state
        now = Mark(state.config, state.versions, state.challengers, {})
        return _NEVER if first.serves_like(now) else self._buckets[-1].number

    def _lane(self, mark: Mark, anchors: list[Anchor]) -> tuple[Lane | None, list[Anchor]]:
        """The lane as it was at a mark, with the series of those anchors that hold all that runs on it."""
        stream, at = self._stream, self._at
        if mark.config != stream.fingerprint:
            self._found.skip("the config was another one", len(anchors))
            return None, []
        state = LaneState(versions=dict(mark.versions), challengers=dict(mark.challengers))
        lane = stream.add_lane(lambda index: Lane(index, at.topic_partition, at.lane_id, 0, 0, state))
        load_versions(stream, lane, self._shelf)
        needed = set(stream.hidden_columns(lane))
        whole = [anchor for anchor in anchors if needed <= {name for name, *_ in msgspec.json.decode(anchor.layout)}]
        if lane.refused or not whole:
            reason = "a version cannot be loaded" if lane.refused else "other versions ran at its anchor"
            self._found.skip(reason, len(anchors))
            stream.drop_lane(lane)
            return None, []
        self._found.skip("other versions ran at its anchor", len(anchors) - len(whole))
        for anchor in whole:
            slot = _slot(stream, anchor.slot_time_us)
            row = stream.add_series(lane, anchor.key, anchor.series_id, slot, scored=False)
            assert anchor.state is not None
            stream.table.unpack(anchor.layout, np.array([row]), anchor.state)
            stream.table.anchored[row] = False
        return lane, whole

    def _step(self, lane: Lane, rows: list[Observed], stored: Stored, begun: int) -> Difference | None:
        """One slot. A row that came when the lane had moved on was calibrated by a later mark: those are tried too."""
        stream, bucket = self._stream, self._bucket(rows[0].slot_time_us)
        held = max((n for n, b in enumerate(self._buckets) if n >= begun and b.number <= bucket), default=begun)
        first: Difference | None = None
        before = self._saved(lane, rows)
        for number in range(held, len(self._buckets)):
            stream.calibrate(lane, self._buckets[number].mark.calibration)
            replayed = self._run(lane, rows)
            unlike = {seen.series_id: self._difference(seen, stored, replayed) for seen in rows}
            rows = [seen for seen in rows if unlike[seen.series_id] is not None]
            self._found.forecasts += sum(unlike[series_id] is None for _, series_id, _ in replayed)
            if not rows:
                return None
            first = first or unlike[rows[0].series_id]
            self._restore(lane, rows, before)
        return first

    def _saved(self, lane: Lane, rows: list[Observed]) -> dict[int, tuple[int, bytes]]:
        table, packing = self._stream.table, self._packing(lane)
        places = self._places(lane, rows)
        blobs = table.pack(places, packing)
        slots = table.last_slot[places].tolist()
        return {seen.series_id: (slots[n], blobs[n].tobytes()) for n, seen in enumerate(rows)}

    def _restore(self, lane: Lane, rows: list[Observed], saved: dict[int, tuple[int, bytes]]) -> None:
        places = self._places(lane, rows)
        self._stream.table.last_slot[places] = [saved[seen.series_id][0] for seen in rows]
        blob = b"".join(saved[seen.series_id][1] for seen in rows)
        self._stream.table.unpack(self._packing(lane).layout, places, blob)

    def _packing(self, lane: Lane) -> Any:
        return self._stream.table.packing(self._stream.hidden_columns(lane))

    def _places(self, lane: Lane, rows: list[Observed]) -> AnyArray:
        row_of = {int(self._stream.table.series_id[row]): row for row in lane.rows.values()}
        return np.array([row_of[seen.series_id] for seen in rows], np.int32)

    def _run(self, lane: Lane, rows: list[Observed]) -> Stored:
        """The pipeline's own round over these observations; gives what it would store."""
        stream, places = self._stream, self._places(lane, rows)
        batch = ObservationBatch(
            places,
            np.full(len(rows), lane.index, np.int32),
            np.array([_slot(stream, seen.slot_time_us) for seen in rows], np.int64),
            np.array([seen.event_time_us for seen in rows], np.int64),
            stream.column_rounding.natural(np.array([seen.ticks for seen in rows], np.int32)),
            np.arange(len(rows), dtype=np.int32),
            np.array([seen.flags & SENT_FLAGS for seen in rows], np.uint8),
        )
        self._rounds.run(batch, stream.table.last_slot[places])
        chunks: list[ForecastChunk] = self._rounds.forecasts
        self._rounds.forecasts, self._rounds.observations = [], []
        replayed: Stored = {}
        for chunk in chunks:
            replayed |= as_stored(
                ForecastRows(
                    chunk.model_id,
                    stream.layout,
                    chunk.slot_time_us,
                    chunk.series_id,
                    chunk.sources,
                    chunk.quality,
                    chunk.ticks,
                    chunk.observed,
                    chunk.seasonal,
                )
            )
        return replayed

    def _difference(self, seen: Observed, stored: Stored, replayed: Stored) -> Difference | None:
        place = (seen.slot_time_us, seen.series_id)
        models = {key[2] for key in (*stored, *replayed) if key[:2] == place}
        for model_id in sorted(models):
            there, here = stored.get((*place, model_id)), replayed.get((*place, model_id))
            if there is None or here is None:
                return self._told(seen, model_id, "missing", there is not None, here is not None)
            # whether a history stands elsewhere is not known from an anchor
            there = there._replace(quality=there.quality & ~Quality.MOVED)
            for name, one, two in zip(StoredForecast._fields, there, here, strict=True):
                if one != two:
                    return self._told(seen, model_id, name, one, two)
        return None

    def _told(self, seen: Observed, model_id: int, name: str, stored: object, replayed: object) -> Difference:
        table = self._stream.table
        key = table.keys[int(np.flatnonzero(table.series_id == seen.series_id)[0])]
        place = (str(self._at.topic_partition), key, seen.slot_time_us, model_id)
        return Difference(self._stream.name, *place, name, str(stored), str(replayed))


def _of(anchors: Sequence[Anchor], series_id: int) -> Anchor:
    return next(anchor for anchor in anchors if anchor.series_id == series_id)

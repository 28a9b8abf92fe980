"""When what is retrained, and how trials end: called by the clock, every few minutes, in a thread of its own.

The window of hours holds for trainings, which cost; a trial is judged whenever it can be.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from netpredict.clock import Clock, in_day_windows, parse_day_windows
from netpredict.config import Config
from netpredict.errors import NetpredictError
from netpredict.learn.challenge import Verdict, differences, verdict
from netpredict.learn.check import damage
from netpredict.learn.drift import Alarm, alarms
from netpredict.learn.retrain import (
    PROMOTED,
    REFUSED,
    WHO,
    Retrained,
    active_version,
    challenger_of,
    retrain,
    trainable,
)
from netpredict.store.commit import ModelRegistry, ModelRow, RetrainRow
from netpredict.store.history import History
from netpredict.stream import Stream

LOG = structlog.get_logger(__name__)
MINUTE_US = 60_000_000
BASELINE_BUCKETS = 500
"""So many of a version's newest buckets are read: the window, and what it used to be."""


class Retrainer:
    """``scheduled`` by cron, ``turn`` every few minutes; a run at a time. ``results`` counts what came of runs."""

    def __init__(
        self,
        config: Config,
        streams: Mapping[str, Stream],
        store: ModelRegistry,
        clock: Clock,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.results: Counter[tuple[str, str, str]] = Counter()  # stream, predictor, result
        self.trials: dict[tuple[str, str], int] = {}  # buckets so far, by stream and predictor
        self._config, self._streams, self._store, self._clock = config, streams, store, clock
        self._history = History(config.store_url)
        self._window = parse_day_windows(config.learn.window_utc, "learn.window_utc")
        self._stopped = cancelled
        self._stopping = threading.Event()
        self._due = False
        self._lock = threading.Lock()

    def follow(self, config: Config, streams: Mapping[str, Stream]) -> None:
        """Take up a config that was read again; a training under way ends under the old one."""
        self._config, self._streams = config, streams

    def stop(self) -> None:
        """End the training under way, and begin no other."""
        self._stopping.set()

    def scheduled(self) -> list[Retrained]:
        """Everything is due: now, or when the window opens. Of instances that share a store one takes it up."""
        minute_us = self._clock.now_us() // MINUTE_US * MINUTE_US  # cron's: the same on all
        self._due = self._due or self._store.take_turn("retrain", minute_us)
        return self.turn()

    def turn(self) -> list[Retrained]:
        """Judge the trials; in the window retrain what is due, or what forecasts badly. One at a time."""
        with self._lock, self._store.alone("learn") as ours:
            if not ours:  # another instance judges and trains; what is due here waits for the next turn
                return []
            runs = self._judge_all()
            if not self._window or in_day_windows(self._clock.now_us(), self._window):
                due, self._due = self._due, False
                for stream, predictor in self._trainable():
                    runs += self._retrain(stream, predictor, due)
            for run in runs:
                self.results[run.stream, run.predictor, run.result] += 1
            return runs

    def _trainable(self) -> list[tuple[Stream, str]]:
        return [
            (self._streams[name], predictor)
            for name, stream in self._config.streams.items()
            for predictor in trainable(self._config, stream)
        ]

    def _retrain(self, stream: Stream, predictor: str, due: bool) -> list[Retrained]:
        """A trial under way is not disturbed: its verdict comes first."""
        if self._cancelled() or challenger_of(self._store, stream.name, predictor) is not None:
            return []
        cause = {"kind": "schedule"} if due else self._drift(stream, predictor)
        if cause is None:
            return []
        return [
            retrain(self._config, stream, predictor, self._store, self._clock, cause=cause, cancelled=self._cancelled)
        ]

    def _cancelled(self) -> bool:
        return self._stopping.is_set() or self._stopped()

    # -- drift ---------------------------------------------------------------------------------------------------

    def _drift(self, stream: Stream, predictor: str) -> dict[str, Any] | None:
        """Why the serving version should be trained anew, None when it should not."""
        active = active_version(self._store, stream.name, predictor)
        newest = self._history.newest_bucket(stream.name)
        if active is None or newest is None or not self._config.learn.trigger_buckets:
            return None
        found = self.alarms(stream, active, newest)
        if not found:
            return None
        LOG.warning("forecasts_degraded", stream=stream.name, predictor=predictor, why=found[0].why)
        return {"kind": "drift", "why": found[0].why, "newest_bucket": newest, "alarms": [a.detail() for a in found]}

    def alarms(self, stream: Stream, active: ModelRow, newest_bucket: int) -> list[Alarm]:
        """What is bad about a version now, the worst KPI first."""
        rows = self._history.bucket_sums([active.model_id], newest_bucket - BASELINE_BUCKETS)
        nominal = stream.levels[-1] - stream.levels[0]
        since = self._seen_bucket(stream.name, active.predictor)
        return alarms(rows, self._config.learn, nominal, active.scores, since)

    def _seen_bucket(self, stream: str, predictor: str) -> int:
        """Newest bucket of what led to a run before."""
        seen = [run["detail"].get("cause", {}) for run in self._history.retrain_runs(stream, predictor, limit=20)]
        return max((cause["newest_bucket"] for cause in seen if "newest_bucket" in cause), default=-(2**62))

    # -- trials --------------------------------------------------------------------------------------------------

    def _judge_all(self) -> list[Retrained]:
        self.trials = {}
        runs = []
        for stream, predictor in self._trainable():
            challenger = challenger_of(self._store, stream.name, predictor)
            if challenger is not None:
                runs += self._judge(stream.name, challenger)
        return runs

    def _judge(self, stream: str, challenger: ModelRow) -> list[Retrained]:
        """End a trial when it has a verdict; stage, audit and run change in one transaction."""
        try:
            found = self._verdict(stream, challenger)
        except NetpredictError as error:  # the store is busy or pruned meanwhile: the next turn judges
            LOG.warning("trial_not_judged", stream=stream, predictor=challenger.predictor, error=str(error))
            return []
        self.trials[stream, challenger.predictor] = int(found.detail.get("buckets", 0))
        if not found.result:
            return []
        stage, what = ("active", PROMOTED) if found.result == "promoted" else ("refused", REFUSED)
        detail = {"version": challenger.version, "why": found.why, "cause": {"kind": "trial"}, **found.detail}
        row = RetrainRow(stream, challenger.predictor, self._clock.now_us(), found.result, challenger.model_id, detail)
        self._store.move_model(challenger.model_id, stage, WHO, what, {"why": found.why}, row)
        run = Retrained(stream, challenger.predictor, found.result, found.why, challenger.version)
        LOG.info("trial_ended", stream=stream, predictor=run.predictor, result=run.result, why=run.why)
        return [run]

    def _verdict(self, stream: str, challenger: ModelRow) -> Verdict:
        begun = next(
            (run for run in self._history.retrain_runs(model_id=challenger.model_id) if run["result"] == "challenging"),
            None,
        )
        active = active_version(self._store, stream, challenger.predictor)
        if begun is None or active is None or begun["detail"]["incumbent_id"] != active.model_id:
            return Verdict("refused", "the version that it was compared with serves no more")
        if wrong := damage(Path(challenger.folder), challenger.version) or self._refused_live(stream, challenger):
            return Verdict("refused", f"it cannot run: {wrong}")
        rows = self._history.bucket_sums([challenger.model_id, active.model_id], begun["detail"]["since_bucket"])
        logs = differences(rows, challenger.model_id, active.model_id, self._config.learn.challenge_rows_min)
        found = verdict(logs, self._config.learn)
        too_long = self._clock.now_us() - begun["ended_us"] > self._config.learn.challenge_max_s * 1_000_000
        if not found.result and too_long:
            return Verdict("refused", f"only {len(logs)} buckets that count within challenge_max_s", found.detail)
        return found

    def _refused_live(self, stream: str, challenger: ModelRow) -> str:
        """Why a topic partition could not load it, empty when none said so."""
        for row in self._history.journal(stream, "refused"):
            if row["payload"].get("version") == challenger.version:
                return str(row["payload"].get("why", ""))
        return ""

"""A version that serves a stream, on scenes of known RSRP: by reports, the stream's decoder, steps as the daemon's."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from netpredict.errors import DataError
from netpredict.evaluate.recorded import numbered_ues, rows_of
from netpredict.forecast.predictor import Predictor
from netpredict.learn.dataset import build, newest
from netpredict.learn.hindsight import NOT_SERVED, walked
from netpredict.stream import Stream
from netpredict.traces import ns3_uma_reports
from netpredict.traces.ns3_uma import PERIOD_MS, Scene
from netpredict.types import FloatArray


class ServedModel:
    """See ``handover_wish.Served``. DataError for a stream that forecasts no costs, or not each period."""

    def __init__(self, stream: Stream, predictor: Predictor, label: str, options: dict[str, Any]) -> None:
        if stream.hindsight is None:
            raise DataError(f"stream {stream.name} does not forecast what links cost: see the README of hook handover")
        if stream.period_us != PERIOD_MS * 1000 or stream.phase_us:
            raise DataError(f"stream {stream.name}: the scenes need period_s = {PERIOD_MS / 1000} and phase_s = 0")
        self.label, self.options, self.leads = label, options, stream.output.horizon_steps
        self.taught_price = stream.hindsight.handover_cost  # as the stream is configured now
        self._stream, self._settings, self._predictor = stream, stream.hindsight, predictor

    def forecasts(self, scene: Scene, measured_dbm: FloatArray, lead_steps: int) -> FloatArray:
        """(periods, UEs, radio cells, 3); where it would not serve, what makes the rule leave a link alone."""
        traces = ns3_uma_reports.traces(scene, measured_dbm)
        keys, series, slots, values = rows_of(self._stream, chain.from_iterable(map(ns3_uma_reports.messages, traces)))
        ues, periods, cells = measured_dbm.shape
        first_slot, grid = newest(series, slots, values, len(keys), periods, numbered_ues(keys))
        dataset = build(
            self._stream.features,
            self._stream.output,
            series_names=keys,
            first_slot=first_slot,
            values=grid,
            columns=self._stream.columns,
            validation_ratio=0.0,
        )
        found = walked(self._predictor, dataset, self._settings, lead_steps)
        full = np.empty((periods, ues, cells, len(NOT_SERVED)), np.float32)
        full[:] = NOT_SERVED
        ue, cell = np.array([ns3_uma_reports.link_of(key) for key in keys]).T
        full[:, ue, cell] = np.where(np.isfinite(found), found, np.array(NOT_SERVED, np.float32))
        return full

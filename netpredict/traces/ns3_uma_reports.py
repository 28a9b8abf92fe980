"""ns3-uma as telemetry: a measurement report of each UE every 200 ms, as the handover evaluation has it.

Only the ``rsrp`` stream exists. A trace is one UE of one scene and seed: UE ``ns3-<scene>-s<seed>-ue<number>``. Radio
cells are ``ns3-<site>-<sector>``: ``site_pattern = "(.+)-\\d+"`` of the json decoder groups the sectors of a site. All
scenes share the radio cells, as if their UEs drove at once. The recording has no date: seed 1 begins when the simulator
does, on Monday 2026-01-05, seed 2 an hour later, so that what is tested on comes after what is trained on.

RSRP is that of ``ns3_uma.measure``, with its noise; SINR is made of the measured RSRP of all radio cells, which send
with a load of 0.3. A report names the serving radio cell however weak it is, and of those less than 16 dB below the
strongest one up to eight, the strongest first. There is no RSRQ. Values are rounded as forecasts of their KPIs are.

Who serves is not recorded. It is made up by plain A3 in the spirit of the data README: 3 dB, 480 ms, filter coefficient
4, evaluated at measurements and carried out at once: the report of that measurement is of the target already. Nothing
fails: a UE stays, however weak its radio cell is, until A3 says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd

from netpredict.radio.events import TttState, a3, advance_ttt, l3_filter, l3_weight, ttt_in_slots
from netpredict.radio.link_failure import REPORTED_DB, sinr_db
from netpredict.radio.quantities import KPIS
from netpredict.traces import ns3_uma
from netpredict.traces.fleet import NEIGHBOURS_MAX
from netpredict.traces.layout import SECTORS
from netpredict.traces.message import TraceMessage
from netpredict.traces.trace import Trace
from netpredict.traces.wire import rsrp_messages
from netpredict.types import AnyArray, FloatArray, IntArray

PERIOD_S = ns3_uma.PERIOD_MS / 1000
START_US = 1_767_571_200_000_000
SEEDS = (1, 2)
BETWEEN_SEEDS_US = 3_600_000_000
A3_OFFSET_DB, TIME_TO_TRIGGER_MS, FILTER_K = 3.0, 480, 4
RADIO_CELL_IDS = np.array([f"ns3-{n // SECTORS:02d}-{n % SECTORS}" for n in range(ns3_uma.RADIO_CELLS)], dtype=object)


def read(folder: Path, limit_traces: int | None = None) -> Iterator[Trace]:
    """Read the traces by seed, scene and UE; DataError when a file is not there or not such a file."""
    files = ((name, seed) for seed in SEEDS for name in ns3_uma.SCENES)
    scenes = (ns3_uma.read(folder, name, seed) for name, seed in files)
    yield from islice(chain.from_iterable(traces(scene, ns3_uma.measure(scene)) for scene in scenes), limit_traces)


def messages(trace: Trace) -> Iterator[TraceMessage]:
    """One measurement report a row."""
    return rsrp_messages(trace.frame, approximate=False)


def traces(scene: ns3_uma.Scene, measured_dbm: FloatArray) -> Iterator[Trace]:
    """The UEs of a scene by what they measured, (UEs, periods, radio cells)."""
    for ue, (level_dbm, serving) in enumerate(zip(measured_dbm, serving_by_a3(measured_dbm), strict=True)):
        frame = _reports(level_dbm, serving)
        begin_us = START_US + (scene.seed - 1) * BETWEEN_SEEDS_US
        frame.insert(0, "event_time_us", begin_us + 1000 * ns3_uma.PERIOD_MS * np.arange(len(frame), dtype=np.int64))
        frame.insert(1, "ue_id", f"ns3-{scene.name}-s{scene.seed}-ue{ue:02d}")
        yield Trace(f"{scene.name}_s{scene.seed}_ue{ue:02d}", frame, group=scene.name)


def serving_by_a3(measured_dbm: FloatArray) -> IntArray:
    """The serving radio cell by plain A3, (UEs, periods); first the strongest. A handover starts all timers anew."""
    ues, periods, _ = measured_dbm.shape
    weight, slots = l3_weight(FILTER_K), ttt_in_slots(TIME_TO_TRIGGER_MS, 1000 * ns3_uma.PERIOD_MS)
    level_dbm: AnyArray = measured_dbm[:, 0]
    serving = np.empty((ues, periods), np.int64)
    serving[:, 0] = level_dbm.argmax(axis=1)
    timers = TttState(np.zeros(level_dbm.shape, np.int64), np.zeros(level_dbm.shape, np.bool_))
    for period in range(1, periods):
        level_dbm = l3_filter(level_dbm, measured_dbm[:, period], weight)
        before = serving[:, period - 1, None]
        better = a3(np.take_along_axis(level_dbm, before, axis=1), level_dbm, A3_OFFSET_DB, 0.0)
        timers, due = advance_ttt(timers, better, slots)
        goes = due.any(axis=1, keepdims=True)
        target = np.where(due, level_dbm, -np.inf).argmax(axis=1, keepdims=True)
        serving[:, period] = np.where(goes, target, before)[:, 0]
        timers = TttState(np.where(goes, 0, timers.held_slots), timers.entered & ~goes)
    return serving


def link_of(key: str) -> tuple[int, int]:
    """Number of the UE and of the radio cell of a series (UE, radio cell)."""
    ue, _, radio_cell = key.partition("|")
    _, site, sector = radio_cell.split("-")
    return int(ue.rpartition("ue")[2]), SECTORS * int(site) + int(sector)


def _reports(level_dbm: FloatArray, serving: IntArray) -> pd.DataFrame:
    """Columns of the reports of one UE, a row each; ``level_dbm`` is (periods, radio cells)."""
    first = np.arange(level_dbm.shape[1]) == serving[:, None]
    order = np.argsort(np.where(first, -np.inf, -level_dbm), axis=1, kind="stable")[:, : 1 + NEIGHBOURS_MAX]
    measured = {"rsrp_dbm": level_dbm, "sinr_db": sinr_db(level_dbm)}
    values = {kpi: np.take_along_axis(_rounded(kpi, each), order, axis=1) for kpi, each in measured.items()}
    weakest_dbm = level_dbm.max(axis=1, keepdims=True) - REPORTED_DB
    near = np.take_along_axis(level_dbm, order, axis=1) > weakest_dbm
    names = RADIO_CELL_IDS[order]
    names[:, 1:][~near[:, 1:]] = None
    columns: dict[str, AnyArray] = {"radio_cell_id": names[:, 0]}
    columns |= {kpi: each[:, 0] for kpi, each in values.items()}
    for rank in range(1, order.shape[1]):
        columns[f"nbr{rank}_radio_cell_id"] = names[:, rank]
        columns |= {f"nbr{rank}_{kpi}": np.where(near, each, np.nan)[:, rank] for kpi, each in values.items()}
    return pd.DataFrame(columns)


def _rounded(kpi: str, values: FloatArray) -> AnyArray:
    """As float64, else what was cut off would reach JSON again with the noise of float32."""
    known = KPIS[kpi]
    decimal = np.round(np.round(values, known.decimals).astype(np.float64), known.decimals)
    return np.clip(decimal, known.low, known.high)

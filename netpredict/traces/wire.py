"""Rows of a trace's frame as wire messages, one function per stream; a row without a measured value gives none."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from netpredict.ingest.messages import ChannelState, Neighbour, Rsrp, Traffic
from netpredict.traces.message import SCHEMA_OF, TraceMessage, traffic_message, ue_message

TRAFFIC_KPIS = ("dl_throughput_kbps", "ul_throughput_kbps", "prb_use_dl_percent", "prb_use_ul_percent", "connected_ues")
RSRP_KPIS = ("rsrp_dbm", "rsrq_db", "sinr_db")
CHANNEL_STATE_KPIS = ("cqi", "sinr_db", "rank", "bler_ratio", "mcs")
STREAM_KPIS = {"traffic": TRAFFIC_KPIS, "rsrp": RSRP_KPIS, "channel-state": CHANNEL_STATE_KPIS}

ROWS_AT_ONCE = 256
"""Of reports: all traces of a data set are merged at once, and as Python objects they are ten times as large."""

_NEIGHBOUR_ID = re.compile(r"^(nbr\d+)_radio_cell_id$")


def traffic_messages(frame: pd.DataFrame, radio_cell_column: str = "radio_cell_id") -> Iterator[TraceMessage]:
    """The load of ``frame[radio_cell_column]``, one message a row."""
    frame = _measured(frame, TRAFFIC_KPIS)
    columns = _lists(frame, (radio_cell_column, "event_time_us", *TRAFFIC_KPIS))
    for values in zip(*columns, strict=True):
        yield traffic_message(Traffic(SCHEMA_OF["traffic"], *values))


def channel_state_messages(frame: pd.DataFrame) -> Iterator[TraceMessage]:
    """Channel state, one message a row."""
    frame = _measured(frame, CHANNEL_STATE_KPIS)
    columns = _lists(frame, ("radio_cell_id", "event_time_us", "ue_id", *CHANNEL_STATE_KPIS))
    for values in zip(*columns, strict=True):
        yield ue_message("channel-state", ChannelState(SCHEMA_OF["channel-state"], *values))


def rsrp_messages(frame: pd.DataFrame, *, approximate: bool = True) -> Iterator[TraceMessage]:
    """Measurement reports; columns ``nbr<n>_radio_cell_id``, ``_rsrp_dbm``, ``_rsrq_db``, ``_sinr_db`` are a neighbour.

    Most recordings name no neighbour by its identity: each is flagged ``approximate`` then.
    """
    blocks = [match[1] for column in frame.columns if (match := _NEIGHBOUR_ID.match(column))]
    neighbour_kpis = tuple(f"{block}_{kpi}" for block in blocks for kpi in RSRP_KPIS)
    frame = _measured(frame, (*RSRP_KPIS, *neighbour_kpis))
    for begin in range(0, len(frame), ROWS_AT_ONCE):
        yield from _reports(frame.iloc[begin : begin + ROWS_AT_ONCE], blocks, approximate)


def _reports(frame: pd.DataFrame, blocks: Sequence[str], approximate: bool) -> Iterator[TraceMessage]:
    columns = _lists(frame, ("radio_cell_id", "event_time_us", "ue_id", *RSRP_KPIS))
    neighbours = [
        list(zip(*_lists(frame, (f"{b}_radio_cell_id", *(f"{b}_{kpi}" for kpi in RSRP_KPIS))), strict=True))
        for b in blocks
    ]
    for row, values in enumerate(zip(*columns, strict=True)):
        heard = [
            Neighbour(radio_cell_id, rsrp_dbm, rsrq_db, sinr_db, approximate)
            for radio_cell_id, rsrp_dbm, rsrq_db, sinr_db in (block[row] for block in neighbours)
            if (rsrp_dbm, rsrq_db, sinr_db) != (None, None, None)
        ]
        yield ue_message("rsrp", Rsrp(SCHEMA_OF["rsrp"], *(*values, heard)))


def _measured(frame: pd.DataFrame, kpis: tuple[str, ...]) -> pd.DataFrame:
    present = [kpi for kpi in kpis if kpi in frame.columns]
    return frame[frame[present].notna().any(axis=1)] if present else frame.iloc[:0]


def _lists(frame: pd.DataFrame, names: tuple[str, ...]) -> list[list[Any]]:
    return [_nullable(frame[name]) if name in frame.columns else [None] * len(frame) for name in names]


def _nullable(column: pd.Series) -> list[Any]:
    values: list[Any] = column.tolist()
    return [None if value != value else value for value in values] if column.dtype.kind == "f" else values

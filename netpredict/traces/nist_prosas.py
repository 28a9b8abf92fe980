"""NIST ProSAS: mean allocated downlink PRBs of one live LTE radio cell, one row a minute for 34 days of 2023.

The bandwidth of the radio cell was not published. ``ASSUMED_PRBS`` is the smallest LTE bandwidth above the largest
value (28.8 of 50 PRBs, 10 MHz): ``prb_use_dl_percent`` = NRB / 50 * 100, and would come out above 100, unclamped and
noted, if the assumption were wrong. The column ``allocated_prbs`` keeps the published number. The time zone was not
published either; stamps are taken as UTC.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from netpredict.traces.archive import readable, require_columns
from netpredict.traces.message import TraceMessage
from netpredict.traces.trace import Cleaner, Trace
from netpredict.traces.wire import traffic_messages

FILE = "Output_min_LTE.tsv.gz"
TIME_ZONE = "UTC"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
PERIOD_S = 60.0
ASSUMED_PRBS = 50
RADIO_CELL_ID = "nist-lte"


def read(folder: Path, limit_traces: int | None = None) -> Iterator[Trace]:
    """Read the one series there is."""
    if limit_traces == 0:
        return
    cleaner = Cleaner()
    with readable(folder / FILE), gzip.open(folder / FILE, "rt", encoding="utf-8-sig") as lines:
        raw = cleaner.table(lines, delimiter="\t")
    require_columns(raw, ("Time", "NRB"), FILE)
    allocated_prbs = cleaner.numbers(raw["NRB"])
    columns = {
        "event_time_us": cleaner.local_times_us(raw["Time"], TIME_FORMAT, TIME_ZONE),
        "radio_cell_id": RADIO_CELL_ID,
        "prb_use_dl_percent": allocated_prbs / ASSUMED_PRBS * 100,
        "allocated_prbs": allocated_prbs,
    }
    trace = Trace("nist-lte", cleaner.keep_stamped(pd.DataFrame(columns)), cleaner.repairs)
    trace.note("prb_use_over_100_percent", (trace.frame["prb_use_dl_percent"] > 100).sum())
    yield trace


def messages(trace: Trace) -> Iterator[TraceMessage]:
    """One traffic row a minute."""
    return traffic_messages(trace.frame)

"""WMN-LAB drive tests, Taipei 2023: LTE with an NR leg (NSA), twelve phones side by side, 1 s a row.

The recording has no cell identity, so every radio cell is a role seen by one phone and approximate by nature:
``wmn-<phone>-lte`` serves, ``-lte-nbr1`` and ``-lte-nbr2`` are the strongest LTE cells of its carrier by rank (their
identity jumps when ranks cross), ``-nr``, ``-nr-nbr1`` and ``-nr-nbr2`` the NR leg and its neighbours. The wire flags
the neighbours; it has no flag for the serving radio cell. Only the ``rsrp`` stream exists.

0 means "not measured" in every level. Columns ``lte_handovers``, ``mn_handovers``, ``nr_handovers``, ``rlf`` and
``scg_rlf`` count the events of that second. About one serving level in ten is a stale repeat and cannot be told apart.
"""

from collections.abc import Iterator
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path

import pandas as pd

from netpredict.traces.archive import open_archive, require_columns
from netpredict.traces.message import TraceMessage
from netpredict.traces.trace import Cleaner, Trace
from netpredict.traces.wire import rsrp_messages

ARCHIVE = "single_2023-03-26_to_2023-06-12.zip"
TIME_ZONE = "Asia/Taipei"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
PERIOD_S = 1.0
NOT_MEASURED = (0.0,)

COPY_OF = {"2023-03-26_qc00-example_dataset.csv": "2023-03-26_qc00_#01_All.csv"}
EVENTS = {
    "lte_handovers": "LTE_HO",
    "mn_handovers": "MN_HO",
    "nr_handovers": "gNB_HO",
    "rlf": "RLF",
    "scg_rlf": "SCG_RLF",
}
NEIGHBOURS = {
    "lte-nbr1": ("RSRP1", "RSRQ1"),
    "lte-nbr2": ("RSRP2", "RSRQ2"),
    "nr": ("nr-RSRP", "nr-RSRQ"),
    "nr-nbr1": ("nr-RSRP1", "nr-RSRQ1"),
    "nr-nbr2": ("nr-RSRP2", "nr-RSRQ2"),
}


def read(folder: Path, limit_traces: int | None = None) -> Iterator[Trace]:
    """Read the traces by name (date, phone, run); the example file, a copy, is skipped and noted at its original."""
    with open_archive(folder / ARCHIVE) as archive:
        members = sorted(name for name in archive.namelist() if name.endswith(".csv"))
        copied = [COPY_OF[name] for name in members if COPY_OF.get(name) in members]
        originals = (name for name in members if COPY_OF.get(name) not in members)
        for member in islice(originals, limit_traces):
            with archive.open(member) as file:
                cleaner = Cleaner()
                frame = _clean(cleaner, TextIOWrapper(file, "utf-8-sig"), phone=member.split("_")[1])
            trace = Trace(member.removesuffix(".csv"), frame, cleaner.repairs)
            trace.note("skipped_copy", copied.count(member))
            yield trace


def messages(trace: Trace) -> Iterator[TraceMessage]:
    """One measurement report a row."""
    return rsrp_messages(trace.frame)


def _clean(cleaner: Cleaner, lines: TextIOWrapper, phone: str) -> pd.DataFrame:
    raw = cleaner.table(lines)
    levels = [("RSRP", "RSRQ"), *NEIGHBOURS.values()]
    require_columns(raw, ["Timestamp", *EVENTS.values(), *chain(*levels)], f"a trace of {phone}")
    columns: dict[str, object] = {
        "event_time_us": cleaner.local_times_us(raw["Timestamp"], TIME_FORMAT, TIME_ZONE),
        "ue_id": f"wmn-{phone}",
        "radio_cell_id": f"wmn-{phone}-lte",
        "rsrp_dbm": cleaner.numbers(raw["RSRP"], NOT_MEASURED),
        "rsrq_db": cleaner.numbers(raw["RSRQ"], NOT_MEASURED),
    }
    for number, (role, (rsrp, rsrq)) in enumerate(NEIGHBOURS.items(), start=1):
        columns[f"nbr{number}_radio_cell_id"] = f"wmn-{phone}-{role}"
        columns[f"nbr{number}_rsrp_dbm"] = cleaner.numbers(raw[rsrp], NOT_MEASURED)
        columns[f"nbr{number}_rsrq_db"] = cleaner.numbers(raw[rsrq], NOT_MEASURED)
    columns |= {name: cleaner.numbers(raw[published]) for name, published in EVENTS.items()}
    return cleaner.keep_stamped(pd.DataFrame(columns, index=raw.index))

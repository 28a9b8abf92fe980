"""TRACTOR: KPIs of srsRAN on the Colosseum emulator, 250 ms a row, one file per UE.

One base station per experiment: ``radio_cell_id`` is ``tractor-<trial>-<experiment>``, ``ue_id`` adds ``-ue<n>``.

- ``channel-state``: ``cqi`` and ``mcs`` are means over the row's downlink samples; ``sinr_db`` is that of the UPLINK,
  the only one measured. An idle row has no samples, hence no MCS and no SINR, though the file says 0; its CQI is the
  last known.
- ``traffic``: what one UE moves, under the UE's id as its radio cell (the wire has no traffic per UE).
  ``dl_throughput_kbps`` from tx_brate, ``ul_throughput_kbps`` from rx_brate (Mbit/s), idle zeros kept as true zeros.
  ``prb_use_dl_percent`` = granted PRBs over those of the UE's slice in 250 subframes, absent without slicing; up to 2 %
  above 100 where a row spans more than 250 ms, left so and noted. The column ``granted_prbs`` keeps the published sum.

BLER, rank and uplink PRBs are constant 0 in the files: not measured, left out. Columns are found by the name before
its unit, in any order, so the layouts with and without unnamed separator columns read alike.
"""

from collections.abc import Iterator
from io import TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath

import pandas as pd

from netpredict.traces.archive import open_archive, require_columns
from netpredict.traces.message import TraceMessage, merge
from netpredict.traces.trace import Cleaner, Trace
from netpredict.traces.wire import channel_state_messages, traffic_messages

ARCHIVE = "multi-ue-trial1-2.zip"
PERIOD_S = 0.25
SUBFRAMES = 250  # of 1 ms in one row
TIME_JUMP_S = 1.0
REQUIRED = ["Timestamp", "IMSI", "slice_prb", "dl_mcs", "dl_n_samples", "tx_brate downlink", "dl_cqi"]
REQUIRED += ["ul_n_samples", "rx_brate uplink", "ul_sinr", "sum_granted_prbs"]


def read(folder: Path, limit_traces: int | None = None) -> Iterator[Trace]:
    """Read the UEs by trial, experiment and IMSI."""
    with open_archive(folder / ARCHIVE) as archive:
        members = sorted(name for name in archive.namelist() if name.endswith("_metrics.csv"))
        for member in islice(members, limit_traces):
            with archive.open(member) as file:
                yield _trace(member, TextIOWrapper(file, "utf-8-sig"))


def messages(trace: Trace) -> Iterator[TraceMessage]:
    """Traffic of the UE and its channel state."""
    return merge([traffic_messages(trace.frame, radio_cell_column="ue_id"), channel_state_messages(trace.frame)])


def _trace(member: str, lines: TextIOWrapper) -> Trace:
    experiment = "-".join(part.lower() for part in PurePosixPath(member).parent.parts)
    cleaner = Cleaner()
    raw = cleaner.table(lines).rename(columns=_without_unit)
    require_columns(raw, REQUIRED, member)
    frame = cleaner.keep_stamped(_kpis(cleaner, raw, f"tractor-{experiment}"))
    trace = Trace(member.removesuffix("_metrics.csv"), frame, cleaner.repairs)
    trace.note("time_jump", trace.gaps(TIME_JUMP_S))
    trace.note("prb_use_over_100_percent", (frame["prb_use_dl_percent"] > 100).sum())
    return trace


def _without_unit(name: str) -> str:
    return name.split(" [")[0].split(" (")[0]


def _kpis(cleaner: Cleaner, raw: pd.DataFrame, radio_cell_id: str) -> pd.DataFrame:
    number = {name: cleaner.numbers(raw[name]) for name in REQUIRED}
    served_dl, served_ul = number["dl_n_samples"] > 0, number["ul_n_samples"] > 0
    idle_dl = ~served_dl & number["dl_mcs"].notna()
    no_ul = (~served_ul | (number["ul_sinr"] == 0)) & number["ul_sinr"].notna()
    cleaner.count("idle_zero:dl_mcs", idle_dl.sum())
    cleaner.count("idle_zero:ul_sinr", no_ul.sum())
    slice_prb = number["slice_prb"].where(number["slice_prb"] > 0)
    return pd.DataFrame(
        {
            "event_time_us": (number["Timestamp"] * 1000).astype("Int64"),
            "ue_id": radio_cell_id + "-ue" + raw["IMSI"].str[-3:],
            "radio_cell_id": radio_cell_id,
            "cqi": number["dl_cqi"],
            "mcs": number["dl_mcs"].mask(idle_dl),
            "sinr_db": number["ul_sinr"].mask(no_ul),
            "dl_throughput_kbps": number["tx_brate downlink"] * 1000,
            "ul_throughput_kbps": number["rx_brate uplink"] * 1000,
            "prb_use_dl_percent": 100 * number["sum_granted_prbs"] / (slice_prb * SUBFRAMES),
            "granted_prbs": number["sum_granted_prbs"],
        }
    )

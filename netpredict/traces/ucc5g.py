"""UCC "Beyond Throughput" 5G production traces: one phone, one operator, about 1 s a row (Raca et al., 2020).

Streams: ``traffic`` (the throughput of the one phone, kbit/s, under the radio cell that serves it: a stand-in, for the
load of the others is unknown), ``rsrp`` (serving radio cell and its strongest neighbour, whose identity was not
recorded: ``<serving>-nbr1``, approximate) and ``channel-state`` (CQI, and SNR as ``sinr_db``).

``CellID`` is only the last byte of the operator's cell identity, so sites share it; ``raw_cell_id`` keeps the whole.
``network_mode`` tells 5G, LTE and older rows apart: an older network's level is no RSRP but is published as one.
"""

import zipfile
from collections.abc import Collection, Iterator
from io import TextIOWrapper
from pathlib import Path, PurePosixPath

import pandas as pd

from netpredict.traces.archive import open_archive, require_columns
from netpredict.traces.message import TraceMessage, merge
from netpredict.traces.trace import Cleaner, Trace
from netpredict.traces.wire import channel_state_messages, rsrp_messages, traffic_messages

ARCHIVE = "5G-production-dataset.zip"
TIME_ZONE = "Europe/Dublin"  # stamps are the phone's wall clock; recorded in Ireland
TIME_FORMAT = "%Y.%m.%d_%H.%M.%S"
PERIOD_S = 1.0
GROUPS = ("static_strm", "driving_strm", "static_down", "driving_down")

REQUIRED = ["Timestamp", "Speed", "CellID", "NetworkMode", "RSRP", "RSRQ", "SNR", "CQI", "DL_bitrate", "UL_bitrate"]
REQUIRED += ["RAWCELLID", "NRxRSRP", "NRxRSRQ"]

NO_RSRP = (-200.0,)
NO_NEIGHBOUR_RSRP = (-205.0,)
NO_NEIGHBOUR_RSRQ = (-225.0, -204.0, 2147483647.0)


def list_traces(folder: Path) -> list[tuple[str, str]]:
    """All traces as (name, group of the published protocol), ordered by name; the order never changes."""
    with open_archive(folder / ARCHIVE) as archive:
        return [(_trace_name(member), _group(member)) for member in _members(archive)]


def read(
    folder: Path,
    limit_traces: int | None = None,
    *,
    keep_sentinels: bool = False,
    names: Collection[str] | None = None,
) -> Iterator[Trace]:
    """Read the traces in the order of ``list_traces``, those of ``names`` only where given.

    ``keep_sentinels`` leaves -200 dBm and its like in as values, which the published error table did: its RSRP row of
    ``static_strm`` is reproduced only so.
    """
    with open_archive(folder / ARCHIVE) as archive:
        members = [member for member in _members(archive) if names is None or _trace_name(member) in names]
        for member in members[:limit_traces]:
            with archive.open(member) as file:
                cleaner = Cleaner(keep_sentinels=keep_sentinels)
                frame = _clean(cleaner, TextIOWrapper(file, "utf-8-sig"), _trace_name(member))
            yield Trace(_trace_name(member), frame, cleaner.repairs, group=_group(member))


def messages(trace: Trace) -> Iterator[TraceMessage]:
    """The three streams of a trace, duplicates as published."""
    frame = trace.frame
    return merge([traffic_messages(frame), rsrp_messages(frame), channel_state_messages(frame)])


def _clean(cleaner: Cleaner, lines: TextIOWrapper, name: str) -> pd.DataFrame:
    raw = cleaner.table(lines)
    require_columns(raw, REQUIRED, name)
    radio_cell_id = "ucc-" + raw["CellID"]
    frame = pd.DataFrame(
        {
            "event_time_us": cleaner.local_times_us(raw["Timestamp"], TIME_FORMAT, TIME_ZONE),
            "ue_id": name,
            "radio_cell_id": radio_cell_id,
            "raw_cell_id": raw["RAWCELLID"],
            "network_mode": raw["NetworkMode"],
            "speed_kmh": cleaner.numbers(raw["Speed"]),
            "rsrp_dbm": cleaner.numbers(raw["RSRP"], NO_RSRP),
            "rsrq_db": cleaner.numbers(raw["RSRQ"]),
            "sinr_db": cleaner.numbers(raw["SNR"]),
            "cqi": cleaner.numbers(raw["CQI"]),
            "dl_throughput_kbps": cleaner.numbers(raw["DL_bitrate"]),
            "ul_throughput_kbps": cleaner.numbers(raw["UL_bitrate"]),
            "nbr1_radio_cell_id": radio_cell_id + "-nbr1",
            "nbr1_rsrp_dbm": cleaner.numbers(raw["NRxRSRP"], NO_NEIGHBOUR_RSRP),
            "nbr1_rsrq_db": cleaner.numbers(raw["NRxRSRQ"], NO_NEIGHBOUR_RSRQ),
        }
    )
    return cleaner.keep_stamped(frame)


def _members(archive: zipfile.ZipFile) -> list[str]:
    # Finder leaves a "__MACOSX/._name.csv" beside each real file.
    return sorted(name for name in archive.namelist() if name.endswith(".csv") and not name.startswith("__MACOSX/"))


def _trace_name(member: str) -> str:
    return str(PurePosixPath(*PurePosixPath(member).parts[1:]).with_suffix("")) if "/" in member else member[:-4]


def _group(member: str) -> str:
    parts = PurePosixPath(member).parts
    motion = "static" if "Static" in parts else "driving"
    return f"{motion}_{'down' if 'Download' in parts else 'strm'}"

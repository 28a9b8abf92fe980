"""The public data sets by name: where they lie, who reads them, how often they sample."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from netpredict.errors import DataError
from netpredict.traces import milan, nist_prosas, ns3_uma_reports, tractor, ucc5g, wmnlab
from netpredict.traces.message import TraceMessage
from netpredict.traces.trace import Trace

ENVIRONMENT = "NETPREDICT_DATA"
DEFAULT_FOLDER = Path("../shared/data")


class TraceReader(Protocol):
    """What every reader module offers."""

    def read(self, folder: Path, limit_traces: int | None = None) -> Iterator[Trace]:
        """Yield the cleaned traces of ``folder``."""

    def messages(self, trace: Trace) -> Iterator[TraceMessage]:
        """Yield the wire messages of one trace."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set: its reader, its folder below the data folder, and its sampling period."""

    name: str
    reader: TraceReader
    folder: str
    period_s: float
    frames: Callable[[Iterable[Trace]], Iterator[TraceMessage]] | None = None
    """All traces as frames of one grid of radio cells, for data sets of squares."""

    def read(self, root: Path | None = None, limit_traces: int | None = None) -> Iterator[Trace]:
        """Yield the traces below ``root`` (default: ``data_folder()``)."""
        return self.reader.read((root or data_folder()) / self.folder, limit_traces)

    def messages(self, trace: Trace) -> Iterator[TraceMessage]:
        """Yield the wire messages of one trace of this data set."""
        return self.reader.messages(trace)


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("ucc5g", ucc5g, "ucc5g", ucc5g.PERIOD_S),
        Dataset("wmnlab", wmnlab, "wmnlab", wmnlab.PERIOD_S),
        Dataset("tractor", tractor, "tractor", tractor.PERIOD_S),
        Dataset("nist-prosas", nist_prosas, "nist-prosas", nist_prosas.PERIOD_S),
        Dataset("milan", milan, "milan-hourly", milan.PERIOD_S, milan.frames),
        Dataset("ns3-uma", ns3_uma_reports, "ns3-uma", ns3_uma_reports.PERIOD_S),
    )
}


def data_folder() -> Path:
    """The folder of the public data sets: ``NETPREDICT_DATA``, else ``../shared/data`` from here.

    Raises DataError when it does not exist.
    """
    folder = Path(os.environ.get(ENVIRONMENT) or DEFAULT_FOLDER)
    if not folder.is_dir():
        raise DataError(
            f"no data folder at {folder.absolute()}: set {ENVIRONMENT} to the folder that holds ucc5g/ and so on"
        )
    return folder

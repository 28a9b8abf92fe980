"""What ``netpredict evaluate handover`` is asked for, and what the module of a data set offers for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from netpredict.traces.ns3_uma import Places, Scene
from netpredict.types import FloatArray

Tell = Callable[[str], None]
"""Called with a line on how far it is."""


class Served(Protocol):
    """A version that serves a stream of the config: scored instead of one that is trained for the evaluation."""

    label: str
    options: dict[str, Any]
    leads: int
    taught_price: float

    def forecasts(self, scene: Scene, measured_dbm: FloatArray, lead_steps: int) -> FloatArray:
        """(periods, UEs, radio cells, 3) of the KPIs of ``radio.handover_cost``, as the daemon would serve them."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Everything optional: ``limit_traces`` takes the first UEs or traces, ``scenes`` only parts of the data set."""

    decision_delay_ms: int
    limit_traces: int | None = None
    train_epochs: int | None = None
    scenes: tuple[str, ...] = ()
    served: Served | None = None


class SceneSource(Protocol):
    """A module with scenes of known RSRP: seed 1 to learn from, seed 2 to be scored on."""

    NAME: str
    SCENES: tuple[str, ...]
    LINE_OF_SIGHT: tuple[str, ...]

    def with_places(self, folder: Path, name: str, seed: int) -> tuple[Scene, Places]:
        """One scene and where its UEs were; DataError when it is not there."""


class Table(NamedTuple):
    """One table for the terminal."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


class DatasetEvaluation(Protocol):
    """A module that evaluates the handover hook on one data set; the result is a msgspec struct."""

    def run(self, folder: Path, wish: Wish, tell: Tell) -> Any:
        """Train, tune and score; DataError where the data set is not what it should be."""

    def tables(self, result: Any) -> Iterator[Table]:
        """The result for people."""

    def write_report(self, result: Any) -> str:
        """The result as one HTML page."""

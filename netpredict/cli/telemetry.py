"""Telemetry that the CLI moves about: where it comes from, where it goes, and how much of it there was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netpredict.cli.terminal import progress, say
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.config import Config, KafkaConfig
    from netpredict.traces.message import TraceMessage
    from netpredict.traces.replay import Sink
    from netpredict.traces.table import TableMapping
    from netpredict.traces.trace import Trace

DEFAULT_TOPICS = {schema: f"ran.{schema}" for schema in ("traffic", "rsrp", "channel-state", "grid")}
KAFKA = "kafka"
MILAN_WEEKS = 620
SHOWN_EVERY = 1000


@dataclass
class Telemetry:
    """Messages by event time, and what there is to say of their origin."""

    name: str
    messages: Iterable[TraceMessage]
    time_zone: str = "UTC"
    shifted_weeks: int = 0
    traces: int = 0
    repairs: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Everything but the messages, with stable keys."""
        return {
            "name": self.name,
            "time_zone": self.time_zone,
            "shifted_weeks": self.shifted_weeks,
            "traces": self.traces,
            "repairs": self.repairs,
            "noted": self.noted,
        }

    def watch(self, traces: Iterable[Trace]) -> Iterator[Trace]:
        """Pass traces on, counting them and what was repaired in them."""
        for trace in traces:
            self.traces += 1
            for reason, number in trace.repairs.items():
                self.repairs[reason] = self.repairs.get(reason, 0) + number
            for reason, number in trace.noted.items():
                self.noted[reason] = self.noted.get(reason, 0) + number
            yield trace


def topics_of(config: Config) -> dict[str, str]:
    """Topic of each schema: that of the first stream of the config that reads it, else the default one."""
    configured = {stream.schema: stream.topic for stream in reversed(config.streams.values())}
    return {**DEFAULT_TOPICS, **configured}


def recorded(path: Path) -> Telemetry:
    """A file written by ``simulate`` or ``replay``."""
    from netpredict.traces.replay import FileReader

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    return Telemetry(path.name, FileReader(path))


def side_by_side(traces: Iterable[Trace]) -> Iterator[Trace]:
    """All traces moved to the start of the first, as if they had been measured at once."""
    start_us: int | None = None
    for trace in traces:
        start_us = trace.start_us if start_us is None else start_us
        yield trace.starting_at(start_us)


def of_dataset(name: str, limit_traces: int | None = None, overlay: bool = False, grid: bool = False) -> Telemetry:
    """A public data set by name; ``grid``: as frames of one grid of radio cells."""
    from netpredict.traces.datasets import DATASETS
    from netpredict.traces.message import merge

    if name not in DATASETS:
        raise DataError(f"there is no data set {name!r}; known: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    weeks = MILAN_WEEKS if name == "milan" else 0
    telemetry = Telemetry(name, (), getattr(dataset.reader, "TIME_ZONE", "UTC"), weeks)
    traces = telemetry.watch(dataset.read(limit_traces=limit_traces))
    if overlay:
        traces = side_by_side(traces)
    moved = (trace.shifted(weeks) if weeks else trace for trace in traces)
    if not grid:
        telemetry.messages = merge(map(dataset.messages, moved))
    elif dataset.frames is not None:
        telemetry.messages = dataset.frames(moved)
    else:
        raise DataError(f"the data set {name!r} is no grid of radio cells")
    return telemetry


def of_table(
    path: Path,
    mapping_file: Path | None,
    pairs: Sequence[str] | None = None,
    *,
    stream: str | None = None,
    limit_traces: int | None = None,
    overlay: bool = False,
) -> Telemetry:
    """An operator's own CSV or Parquet file, by its mapping; ``stream`` is the schema where the mapping says none."""
    from itertools import islice

    from netpredict.traces.message import merge
    from netpredict.traces.table import read_table, table_messages

    mapping = mapping_of(path, mapping_file, pairs, stream)
    telemetry = Telemetry(path.name, (), mapping.time_zone)
    traces = telemetry.watch(islice(read_table(path, mapping), limit_traces))
    if overlay:
        traces = side_by_side(traces)
    telemetry.messages = merge(table_messages(trace, mapping.stream) for trace in traces)
    return telemetry


def mapping_of(
    path: Path, mapping_file: Path | None, pairs: Sequence[str] | None = None, stream: str | None = None
) -> TableMapping:
    """The mapping of a table as given by options; without any, a DataError that names the columns there are."""
    from netpredict.traces.table import header_of, read_mapping

    if mapping_file is None and not pairs:
        raise DataError(
            f"{path} has the columns {', '.join(header_of(path))}: say which is what with --mapping FILE, or with "
            "--map time_column=COLUMN --map radio_cell_column=COLUMN --map kpis.KPI=COLUMN:UNIT"
        )
    return read_mapping(mapping_file, pairs or (), stream)


def open_sink(to: str, config: Config, bootstrap: str | None) -> Sink:
    """``kafka``, or a file."""
    from netpredict.config import check_servers
    from netpredict.traces.replay import FileSink

    if to != KAFKA:
        return FileSink(Path(to))
    servers = bootstrap.split(",") if bootstrap else config.kafka.bootstrap_servers
    check_servers("--bootstrap", servers)
    return ToKafka(servers, config.kafka)


class ToKafka:
    """A sink of a replay that is a Kafka producer; Kafka's own time of arrival is the ingest time."""

    def __init__(self, servers: list[str], access: KafkaConfig) -> None:
        from netpredict.operate.publisher import KafkaSink

        self._sink = KafkaSink(servers, access=access)
        self._sink.start()

    def send(self, topic: str, message: TraceMessage) -> None:
        """Hand over one message; waits while too much is in flight."""
        self._sink.send(topic, message.key, message.value)

    def close(self) -> None:
        """Wait for every answer, then leave."""
        try:
            self._sink.flush()
        finally:
            self._sink.close()


def send(telemetry: Telemetry, sink: Sink, topics: Mapping[str, str], speed: float) -> int:
    """Send everything at its pace, with a counter on a terminal; gives the number of messages."""
    from rich.progress import TextColumn, TimeElapsedColumn

    from netpredict.traces.replay import replay

    shown = progress(TextColumn("{task.description}: {task.completed} messages", markup=False), TimeElapsedColumn())
    with closing(sink), shown:
        task = shown.add_task(telemetry.name, total=None)

        def counted() -> Iterator[TraceMessage]:
            for number, message in enumerate(telemetry.messages, start=1):
                if number % SHOWN_EVERY == 0:
                    shown.update(task, completed=number)
                yield message

        return replay(counted(), sink, speed=speed, topics=topics)


def tell(telemetry: Telemetry, sent: int, to: str) -> None:
    """What was sent, for people."""
    shift = f", shifted by {telemetry.shifted_weeks} weeks" if telemetry.shifted_weeks else ""
    say(f"{telemetry.name}: {sent} messages to {to}; stamps read in {telemetry.time_zone}{shift}")
    tell_repairs(telemetry)


def tell_repairs(telemetry: Telemetry) -> None:
    """What could not be taken as it was."""
    for heading, counts in (("repaired", telemetry.repairs), ("left as it was", telemetry.noted)):
        for reason, number in sorted(counts.items()):
            say(f"  {heading}: {reason} {number}")

"""Messages at the pace of their event times, to a sink; and the file that a replay can be kept in.

The file is JSON Lines, gzipped when its name ends in ``.gz``, one message a line, its value byte for byte::

    {"topic": "netpredict.traffic", "key": "sim-00000-0", "value": {"schema": "netpredict.traffic/1", ...}}
"""

import gzip
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Protocol, Self, cast

import msgspec

from netpredict.clock import Clock, SystemClock
from netpredict.errors import DataError
from netpredict.ingest.firewall import EARLIEST_US, LATEST_US
from netpredict.traces.message import SCHEMA_OF, TraceMessage

TOPICS: Mapping[str, str] = {stream: f"netpredict.{stream}" for stream in SCHEMA_OF}


class Sink(Protocol):
    """Where a replay goes: Kafka, a file, a list."""

    def send(self, topic: str, message: TraceMessage) -> None:
        """Hand over one message; may block while the other side is busy."""

    def close(self) -> None:
        """Deliver what is still held back, then release everything. Further calls do nothing."""


def replay(
    messages: Iterable[TraceMessage],
    sink: Sink,
    *,
    speed: float = 1.0,
    topics: Mapping[str, str] = TOPICS,
    clock: Clock | None = None,
) -> int:
    """Send the messages and return how many. The sink stays open.

    ``speed`` 2 replays an hour in half an hour; 0 or infinity as fast as the sink takes them. The pace is kept against
    the first message, so a slow sink is caught up with; a message whose event time lies back, or is none, is sent at
    once.
    """
    if math.isnan(speed) or speed < 0:
        raise ValueError(f"speed must be 0 or more, not {speed}")
    paced = 0 < speed < math.inf
    clock = clock or SystemClock()
    sent, started_s = 0, clock.monotonic_s()
    first_us: int | None = None
    for message in messages:
        if paced and EARLIEST_US <= message.event_time_us <= LATEST_US:
            first_us = message.event_time_us if first_us is None else first_us
            wait_s = started_s + (message.event_time_us - first_us) / 1e6 / speed - clock.monotonic_s()
            if wait_s > 0:
                clock.sleep(wait_s)
        sink.send(topics[message.stream], message)
        sent += 1
    return sent


class ListSink:
    """Keeps what it was sent, for tests and small runs."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, TraceMessage]] = []

    def send(self, topic: str, message: TraceMessage) -> None:
        """Append the pair."""
        self.sent.append((topic, message))

    def close(self) -> None:
        """Nothing is held back."""


class _Line(msgspec.Struct):
    topic: str
    key: str
    value: msgspec.Raw


class _Value(msgspec.Struct):
    schema: str
    event_time_us: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class FileSink:
    """Writes the file described above; equal messages give equal bytes, gzipped or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw = path.open("wb")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        # A gzip header carries a file name and a time unless told not to.
        self._gzip = gzip.GzipFile("", "wb", 6, self._raw, mtime=0) if path.suffix == ".gz" else None
        self._file = io.BufferedWriter(cast(io.RawIOBase, self._gzip)) if self._gzip else self._raw
        self._encode = msgspec.json.Encoder().encode

    def send(self, topic: str, message: TraceMessage) -> None:
        """Write one line."""
        line = _Line(topic, message.key.decode(), msgspec.Raw(message.value))
        with self._told():
            self._file.write(self._encode(line) + b"\n")

    def close(self) -> None:
        """Flush and close; DataError when not everything could be written."""
        with self._told(), ExitStack() as files:
            files.callback(self._raw.close)
            if self._gzip:
                files.callback(self._gzip.close)
            files.callback(self._file.close)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FileReader:
    """Reads such a file back, in its order; iterating again starts anew. Raises DataError with the line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._line = msgspec.json.Decoder(_Line)
        self._value = msgspec.json.Decoder(_Value)

    def __iter__(self) -> Iterator[TraceMessage]:
        for _, message in self.sent():
            yield message

    def sent(self) -> Iterator[tuple[str, TraceMessage]]:
        """The messages with the topics that they were sent to."""
        read = 0
        try:
            with self._open() as file:
                for text in file:
                    read += 1
                    yield self._message(text)
        except RecursionError as error:
            raise DataError(f"{self.path}, line {read}: arrays or objects are nested too deeply") from error
        except (msgspec.DecodeError, ValueError, OSError, EOFError) as error:
            raise DataError(f"{self.path}, line {max(read, 1)}: {error}") from error

    def _open(self) -> BinaryIO:
        return cast(BinaryIO, gzip.open(self.path, "rb")) if self.path.suffix == ".gz" else self.path.open("rb")

    def _message(self, text: bytes) -> tuple[str, TraceMessage]:
        line = self._line.decode(text)
        value = bytes(line.value)
        known = self._value.decode(value)
        stream = known.schema.removeprefix("netpredict.").split("/")[0]
        if stream not in SCHEMA_OF:
            raise ValueError(f"unknown schema {known.schema!r}")
        return line.topic, TraceMessage(stream, known.event_time_us, line.key.encode(), value)

"""The port through which messages leave: a fake and two Kafka clients fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from netpredict.ingest.cloudevents import Headers


class Message(NamedTuple):
    """What is published: the key chooses the partition."""

    key: bytes | None
    value: bytes
    headers: Headers


class Sink(Protocol):
    """Where messages go. What was handed over is in Kafka once ``flush`` has returned without raising.

    A message that is too large for any broker is left out and counted as ``too_large``: it would never pass.
    """

    stats: dict[str, int]

    def start(self) -> None:
        """Connect. Raises SourceUnavailable (retriable)."""
        ...

    def send_all(self, topic: str, messages: Sequence[Message]) -> None:
        """Hand messages over; waits for room. Raises SourceUnavailable when an earlier one was refused."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait until every message is answered; SourceUnavailable when one was refused or the time is over."""
        ...

    def close(self, timeout_s: float = 10.0) -> None:
        """Release the connection; never raises. What was not flushed may be lost."""
        ...

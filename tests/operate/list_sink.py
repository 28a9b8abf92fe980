"""A sink in memory that can be slow, refuse and hold back."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from netpredict.errors import SourceUnavailable
from netpredict.operate.sink import Message


class ListSink:
    """Appends to ``sent`` (topic, message) on ``flush`` only, as Kafka has a message only when it is acknowledged."""

    def __init__(self, sent: list[tuple[str, Message]] | None = None) -> None:
        self.sent = [] if sent is None else sent
        self.stats = {"sent": 0, "failed": 0, "too_large": 0}
        self.refuse = False
        self.open = threading.Event()
        self.open.set()
        self.closed = 0
        self._waiting: list[tuple[str, Message]] = []

    def start(self) -> None:
        pass

    def send_all(self, topic: str, messages: Sequence[Message]) -> None:
        self.open.wait(30)
        self._waiting += [(topic, message) for message in messages]

    def flush(self, timeout_s: float) -> None:
        if self.refuse:
            self._waiting = []
            raise SourceUnavailable("refused by the test")
        self.sent += self._waiting
        self._waiting = []

    def close(self, timeout_s: float = 10.0) -> None:
        self.closed += 1
        self._waiting = []

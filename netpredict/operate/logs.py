"""Log lines on stderr: one event name and its values, as JSON or for people, also for what libraries log.

Texts from outside never steer a terminal: control characters are escaped in both forms. Repeated lines of noisy
libraries are held back at the handler, so that a storm costs counting, not writing.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from netpredict.printing import printable, printable_json

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Of syslog, which systemd reads from a prefix <N>."""

NOISY = {"kafka": 20, "apscheduler": 20, "uvicorn": 20}
"""Lines per logger tree and ``INTERVAL_S``; the rest is counted."""

INTERVAL_S = 10.0

TEXT_MAX = 8192


class RateLimit(logging.Filter):
    """Lets ``lines`` records of a logger tree pass per interval; the next one that passes says how many did not."""

    def __init__(
        self, tree: str, lines: int, interval_s: float = INTERVAL_S, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._tree = tree
        self._lines = lines
        self._interval_s = interval_s
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._since_s = monotonic_s()
        self._passed = 0
        self._waiting = 0
        self.held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.name != self._tree and not record.name.startswith(f"{self._tree}."):
            return True
        with self._lock:
            now_s = self._monotonic_s()
            if now_s - self._since_s >= self._interval_s:
                self._since_s, self._passed = now_s, 0
            if self._passed >= self._lines:
                self._waiting += 1
                self.held_back += 1
                return False
            self._passed += 1
            if self._waiting:
                record.held_back, self._waiting = self._waiting, 0
        return True


def configure_logs(
    form: Literal["json", "console"] = "json",
    level: str = "info",
    *,
    out: TextIO | None = None,
    noisy: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[RateLimit]:
    """Route structlog and the standard library to one handler; gives the rate limits, for their counts."""
    out = sys.stderr if out is None else out
    limits = [RateLimit(tree, lines) for tree, lines in (NOISY if noisy is None else noisy).items()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _held_back],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _bounded if form == "json" else _harmless,
                _rendered(form, out, os.environ if environment is None else environment),
            ],
        )
    )
    for limit in limits:
        handler.addFilter(limit)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # what they tell at info is every request and every wake-up
    for name in ("kafka", "apscheduler", "uvicorn", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)
    return limits


def _rendered(form: str, out: TextIO, environment: Mapping[str, str]) -> Processor:
    if form == "json":
        encode = structlog.processors.JSONRenderer(sort_keys=False, default=str)
        render: Processor = lambda *event: printable_json(str(encode(*event)))  # noqa: E731 - it leaves DEL as it is
    else:
        colors = out.isatty() and not environment.get("NO_COLOR")
        render = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    if not _to_journal(out, environment):
        return render

    def prefixed(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        priority = PRIORITIES.get(str(event.get("level")), 6)
        return f"<{priority}>{render(logger, method, event)!s}"

    return prefixed


def _to_journal(out: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether this very stream is the journal's, and not one that a shell inside the unit redirected."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not inode:
        return False
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def _held_back(_logger: Any, _method: str, event: EventDict) -> EventDict:
    count = getattr(event.get("_record"), "held_back", 0)
    if count:
        event["held_back"] = count
    return event


def _bounded(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """For JSON, whose encoder escapes everything beyond ASCII itself."""
    return {_short(key): _walked(value, _short) for key, value in event.items()}


def _harmless(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """For people: one line, except for a traceback, whose lines are indented so that none passes for an event."""
    trace = event.pop("exception", None)
    shown = {_escaped(key): _walked(value, _escaped) for key, value in event.items()}
    if trace is not None:
        shown["exception"] = "\n    ".join(_escaped(line) for line in str(trace).split("\n"))
    return shown


def _walked(value: Any, text: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {text(str(key)): _walked(inner, text) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_walked(inner, text) for inner in value]
    return text(str(value))


def _short(value: str) -> str:
    return value if len(value) <= TEXT_MAX else f"{value[:TEXT_MAX]}... ({len(value)} characters)"


def _escaped(value: str) -> str:
    return printable(_short(value))

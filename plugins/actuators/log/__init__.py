"""Actuator ``log``: one JSON line on stderr per action; sets nothing."""

from __future__ import annotations

import sys
from typing import Any, Literal

import msgspec
import structlog

from netpredict.errors import ActuatorError
from netpredict.plugins import Plugin
from netpredict.types import Firing, Outcome, OutcomeKind


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the log actuator."""

    level: Literal["debug", "info", "warning"] = "info"


class LogActuator:
    """Writes ``action_applied`` and ``action_reverted`` events that carry the whole firing."""

    api_version = 1

    def __init__(self, options: LogOptions) -> None:
        self._level = options.level
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )

    def apply(self, firing: Firing) -> Outcome:
        """Write the event; ActuatorError (retriable) when stderr does not take it."""
        return self._write("action_applied", firing)

    def verify(self, firing: Firing) -> Outcome:
        """A written line has nothing to read back."""
        return Outcome(OutcomeKind.APPLIED, "logged")

    def revert(self, firing: Firing) -> Outcome:
        """Write that the action is taken back."""
        return self._write("action_reverted", firing)

    def close(self) -> None:
        """Stderr stays open: it is the daemon's."""

    def _write(self, event: str, firing: Firing) -> Outcome:
        try:
            getattr(self._logger, self._level)(event, **msgspec.to_builtins(firing))
        except OSError as error:
            raise ActuatorError(f"cannot write to stderr: {error}", retriable=True) from error
        return Outcome(OutcomeKind.APPLIED, "logged")


def _json(event: dict[str, Any], **_: object) -> str:
    # msgspec writes NaN as null, where json would write a NaN that is no JSON
    return msgspec.json.encode(event).decode()


PLUGIN = Plugin("log", options=LogOptions, build=LogActuator)

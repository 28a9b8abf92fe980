"""Actuator ``exec``: hands each firing to a program as JSON on its stdin; what it exits with decides."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from typing import IO, Any

import msgspec

from netpredict.errors import ActuatorError, ConfigError
from netpredict.plugins import Plugin
from netpredict.types import Firing, Outcome, OutcomeKind

TEMPFAIL = 75
"""EX_TEMPFAIL of sysexits.h: the program asks to be tried again."""

_CHUNK = 65_536


class ExecOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the exec actuator. ``argv`` has no default that works: ``build`` refuses an empty one."""

    argv: list[str] = []
    timeout_s: float = 10.0
    output_max_bytes: int = 65_536
    environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 60:
            raise ConfigError(f"timeout_s = {self.timeout_s!r} is not allowed: use above 0, up to 60 s")
        if not 0 < self.output_max_bytes <= 16 * 1024 * 1024:
            raise ConfigError(f"output_max_bytes = {self.output_max_bytes!r} is not allowed: use 1..16777216")
        if any("\0" in text for text in (*self.argv, *self.environment, *self.environment.values())):
            raise ConfigError("argv and environment may hold no zero bytes")
        if any("=" in name or not name for name in self.environment):
            raise ConfigError("environment: a name may hold no =")


class ExecActuator:
    """One program at a time, without a shell, in a process group of its own that never outlives the call."""

    api_version = 1

    def __init__(self, options: ExecOptions) -> None:
        if not options.argv or not os.path.isabs(options.argv[0]):
            raise ConfigError("argv must begin with the absolute path of a program: no shell and no PATH is used")
        self._options = options

    def apply(self, firing: Firing) -> Outcome:
        """Run with ``apply`` behind argv; exit 0 is applied, 75 may be tried again, all others are refusals."""
        return Outcome(OutcomeKind.APPLIED, "accepted", self._run("apply", firing))

    def verify(self, firing: Firing) -> Outcome:
        """Run with ``verify``: a program that reads back prints {"value": {…}}; one that prints nothing does not."""
        said = self._run("verify", firing)
        if not said:
            return Outcome(OutcomeKind.APPLIED, "not_verified")
        try:
            found = msgspec.json.decode(said)["value"]
            different = {name: found.get(name) for name, wanted in firing.value.items() if found.get(name) != wanted}
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise ActuatorError(f"the read-back is no JSON object with a member 'value': {said[:200]!r}") from error
        if different:
            return Outcome(OutcomeKind.FAILED, "mismatch", f"read back {different!r}, set {dict(firing.value)!r}")
        return Outcome(OutcomeKind.APPLIED, "verified")

    def revert(self, firing: Firing) -> Outcome:
        """Run with ``revert``."""
        return Outcome(OutcomeKind.APPLIED, "reverted", self._run("revert", firing))

    def close(self) -> None:
        """Nothing runs between calls."""

    def _run(self, verb: str, firing: Firing) -> str:
        """What the program printed, up to the limit. ActuatorError when it failed or took too long."""
        argv = [*self._options.argv, verb]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **self._options.environment}
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise ActuatorError(f"cannot run {argv[0]}: {error.strerror}") from error
        try:
            said, whole = _exchange(process, msgspec.json.encode(firing), self._options)
            code = process.wait() if whole else None
        finally:
            _end(process)
        if code is None:
            raise ActuatorError(f"{argv[0]} {verb} did not end within {self._options.timeout_s:g} s", retriable=True)
        if code:
            raise ActuatorError(f"{argv[0]} {verb}: exit code {code}: {said[:200]!r}", retriable=code == TEMPFAIL)
        return said


def _exchange(process: subprocess.Popen[bytes], given: bytes, options: ExecOptions) -> tuple[str, bool]:
    """Write to and read from the program until it ends; false when the time was over first.

    What it prints beyond the limit is read and dropped, so that it is not stopped by a full pipe.
    """
    until_s, said = time.monotonic() + options.timeout_s, b""
    assert process.stdin is not None
    assert process.stdout is not None
    with selectors.DefaultSelector() as pipes:
        for pipe, event in ((process.stdin, selectors.EVENT_WRITE), (process.stdout, selectors.EVENT_READ)):
            os.set_blocking(pipe.fileno(), False)
            pipes.register(pipe, event)
        while pipes.get_map() or process.poll() is None:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return said.decode("utf-8", "replace"), False
            if not pipes.get_map():  # it closed its output and runs on
                time.sleep(min(left_s, 0.01))
                continue
            for key, _ in pipes.select(left_s):
                if key.fileobj is process.stdin:
                    given = _written(process.stdin, given)
                    if not given:
                        _closed(pipes, process.stdin)
                elif chunk := os.read(process.stdout.fileno(), _CHUNK):
                    said += chunk[: options.output_max_bytes - len(said)]
                else:
                    _closed(pipes, process.stdout)
    return said.decode("utf-8", "replace"), True


def _written(pipe: IO[bytes], given: bytes) -> bytes:
    """What is left to write; nothing once the program reads no more."""
    try:
        return given[os.write(pipe.fileno(), given) :]
    except BrokenPipeError:
        return b""


def _closed(pipes: selectors.BaseSelector, pipe: IO[Any]) -> None:
    pipes.unregister(pipe)
    with suppress(BrokenPipeError):
        pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group, also children that outlive their parent."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


PLUGIN = Plugin("exec", options=ExecOptions, build=ExecActuator)

"""The daemon of the fault tests: ``netpredict run`` with faults armed at named points (``netpredict.crash``).

``python -m tests.faults.daemon --config FILE [FAULT…]``, where a FAULT is one of

- ``crash:POINT:N`` kill -9 of itself when POINT is passed for the N-th time (counted over all threads)
- ``sleep:POINT:N:SECONDS`` stay there for so long; N ``*`` is every time
- ``stop:POINT:N`` SIGSTOP of itself; somebody has to continue it
- ``fail:POINT:N:ERROR`` raise ERROR, a class of ``netpredict.errors`` or a builtin; N ``*`` is every time
- ``set:MODULE:NAME:NUMBER`` another value of a constant of the product, such as an interval

Each fault that struck is one line ``fault struck: FAULT`` on stderr; the last line says how many records it took from
Kafka, ``polled N records``. Nothing else differs from the real daemon.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netpredict import crash, errors
from netpredict.ingest.source import Source
from netpredict.operate import daemon as operate

PR_SET_PDEATHSIG = 1


class Faults:
    """What ``crash.reached`` calls: counts the passings of each point and strikes when one is due."""

    def __init__(self, faults: Sequence[str]) -> None:
        words = [fault.split(":") for fault in faults]
        for _, module, name, number in [fault for fault in words if fault[0] == "set"]:
            found = importlib.import_module(module)
            setattr(found, name, type(getattr(found, name))(float(number)))
        self._faults = [fault for fault in words if fault[0] != "set"]
        for kind, point, _, *rest in self._faults:
            if kind not in ("crash", "sleep", "stop", "fail") or point not in crash.POINTS:
                raise SystemExit(f"no such fault: {kind}:{point}; points: {', '.join(crash.POINTS)}")
            if len(rest) != (kind in ("sleep", "fail")):
                raise SystemExit(f"a fault {kind} takes another number of words; see the head of {__file__}")
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        with self._lock:
            self._passed[point] += 1
            passing = self._passed[point]
        for fault in self._faults:
            if fault[1] == point and fault[2] in ("*", str(passing)):
                self._strike(*fault)

    def _strike(self, kind: str, point: str, passing: str, *rest: str) -> None:
        os.write(2, f"fault struck: {':'.join((kind, point, passing, *rest))}\n".encode())
        if kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "stop":
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # to another thread this one would run on
        elif kind == "sleep":
            time.sleep(float(rest[0]))
        else:
            (name,) = rest
            raise (getattr(errors, name, None) or getattr(builtins, name))(f"raised by the test at {point}")


def run(config: str, faults: Sequence[str], log: str | None = None) -> None:
    """Run to the end in this process, with its output in ``log``; exits with the daemon's code."""
    if log is not None:
        write_to(log)
    crash.arm(Faults(faults) if faults else None)
    sources: list[Source] = []
    make_source = operate.kafka_source

    def remembered(*arguments: Any) -> Source:
        sources.append(make_source(*arguments))
        return sources[-1]

    operate.kafka_source = remembered
    code = operate.run_daemon(Path(config))
    print(f"polled {sum(source.stats['records'] for source in sources)} records", file=sys.stderr, flush=True)
    os._exit(code)


def write_to(log: str) -> None:
    """Let a forked child of the tests write there, and end with what forked it, also when pytest is killed."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("faults", nargs="*", metavar="FAULT")
    arguments = parser.parse_args()
    run(arguments.config, arguments.faults)


if __name__ == "__main__":
    main()

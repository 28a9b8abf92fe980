"""A daemon in a process of its own over a log in memory, which is the same at each start: no broker is needed.

``python -m tests.faults.memory_daemon CONFIG.json MINUTES`` ends by SIGTERM, with the exit codes of ``netpredict run``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from netpredict import crash
from netpredict.config import Config, parse_config
from netpredict.errors import NetpredictError
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.operate.daemon import Daemon
from netpredict.operate.logs import configure_logs
from netpredict.store import migrate
from netpredict.types import TopicPartition
from tests.faults import rig
from tests.faults.daemon import Faults, write_to

PARTITIONS = 3


def log_of(minutes: int, cells: int = 60) -> MemoryLog:
    """What the process reads."""
    log = MemoryLog({rig.TOPIC: PARTITIONS})
    rig.fill(log, rig.rows(range(minutes), cells=cells))
    return log


class Telling(MemorySource):
    """Writes down what the daemon acknowledges: what is told to lag monitors is durable."""

    told: Path | None = None

    def report_progress(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Into the file, whole or not at all."""
        super().report_progress(offsets)
        if self.told is not None:
            draft = self.told.with_suffix(".draft")
            draft.write_text(json.dumps({str(place): offset for place, offset in self.reported.items()}))
            draft.rename(self.told)


def main(config_file: Path, minutes: int, told: Path | None = None, cells: int = 60) -> int:
    """Run until SIGTERM."""
    config = parse_config(json.loads(config_file.read_text()))
    configure_logs("json", "info")
    log = log_of(minutes, cells)

    def make(config: Config, _: object) -> MemorySource:
        source = Telling(log, config.kafka.poll_records_max)
        source.told = told
        return source

    try:
        migrate.upgrade(config.store.url)
        daemon = Daemon(config, make)
        daemon.flags.install()
        daemon.run()
    except NetpredictError as error:
        print(json.dumps({"event": "ended", "error": str(error)}), file=sys.stderr)
        return error.exit_code
    return 0


def run(config_file: str, minutes: int, cells: int, faults: Sequence[str], log: str) -> None:
    """The same in a forked process with its output in ``log`` and faults armed (see ``tests.faults.daemon``)."""
    write_to(log)
    crash.arm(Faults(faults))
    os._exit(main(Path(config_file), minutes, cells=cells))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))

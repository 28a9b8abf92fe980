"""A daemon in a process of its own over a log in memory, which is the same at each start: no broker is needed.

``python -m tests.faults.memory_daemon CONFIG.json MINUTES`` ends by SIGTERM, with the exit codes of ``netpredict run``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from netpredict.config import parse_config
from netpredict.errors import NetpredictError
from netpredict.ingest.source import MemoryLog, MemorySource
from netpredict.operate.daemon import Daemon
from netpredict.operate.logs import configure_logs
from netpredict.store import migrate
from tests.faults import rig

PARTITIONS = 3


def log_of(minutes: int) -> MemoryLog:
    """What the process reads."""
    log = MemoryLog({rig.TOPIC: PARTITIONS})
    rig.fill(log, rig.rows(range(minutes)))
    return log


def main(config_file: Path, minutes: int) -> int:
    """Run until SIGTERM."""
    config = parse_config(json.loads(config_file.read_text()))
    configure_logs("json", "info")
    log = log_of(minutes)
    try:
        migrate.upgrade(config.store.url)
        daemon = Daemon(config, lambda config, _: MemorySource(log, config.kafka.poll_records_max))
        daemon.flags.install()
        daemon.run()
    except NetpredictError as error:
        print(json.dumps({"event": "ended", "error": str(error)}), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))

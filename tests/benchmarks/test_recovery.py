"""How soon the first forecast comes after a start with a million series in the store. Writes ``build/recovery.json``.

Sizes by environment: RECOVERY_SERIES, RECOVERY_PARTITIONS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SERIES = int(os.environ.get("RECOVERY_SERIES", "1000000"))
PARTITIONS = int(os.environ.get("RECOVERY_PARTITIONS", "4"))
OUT = Path("build/recovery.json")


def run(verb: str, url: str, folder: Path) -> dict[str, float]:
    """The last line that a process of ``tests.benchmarks.recovery`` prints."""
    words = [sys.executable, "-m", "tests.benchmarks.recovery", verb, url, str(folder), str(SERIES), str(PARTITIONS)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(4000)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_recovery(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/recovery.db"
    else:
        url = request.getfixturevalue("postgres").new_database()
    found = {"series": SERIES, "partitions": PARTITIONS, **run("fill", url, tmp_path), **run("start", url, tmp_path)}
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(known | {kind: found}, indent=1) + "\n")
    print(kind, found)

"""Folders of trainings under way. Each is locked by its daemon, and the kernel lets go when that dies."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX, _LOCK = ".job-", "lock"


@contextmanager
def job_folder(home: Path, now_us: int) -> Iterator[Path]:
    """A new folder below that of a predictor's artefacts, deleted at the end of the block. OSError."""
    folder = home / f"{_PREFIX}{now_us}"
    folder.mkdir(parents=True)
    try:
        with (folder / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(models: Path) -> int:
    """Delete what daemons that were killed have left below ``models/STREAM/PREDICTOR``; gives how many folders."""
    swept = 0
    for place in models.glob(f"*/*/{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), place.open("ab") as lock:  # held: its training is under way
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place.parent, ignore_errors=True)
            swept += 1
    return swept

"""Folders of trainings: gone with their end, and with the next start of a daemon when that was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netpredict.learn.jobs import job_folder, sweep

BEGIN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from netpredict.learn.jobs import job_folder
with job_folder(Path(sys.argv[1]), 7) as folder:
    (folder / "dataset.npz").write_bytes(bytes(100))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_gone_however_its_training_ends(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError), job_folder(tmp_path, 7) as folder:
        list((folder / "lock").iterdir())
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_daemon_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "traffic" / "gru"
    home.mkdir(parents=True)
    (home / "version-1").mkdir()
    subprocess.run([sys.executable, "-c", BEGIN_AND_DIE, str(home)], check=False)
    with job_folder(home, 8) as under_way:
        assert len(list(home.iterdir())) == 3
        assert sweep(tmp_path) == 1
        assert sorted(path.name for path in home.iterdir()) == [under_way.name, "version-1"]
    assert sweep(tmp_path) == 0

"""Debian's Chromium without a window and without a network: what it makes of a page, and what it complains about."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Opened:
    """The document after its scripts ran, and the lines of its console."""

    dom: str
    console: list[str]


def open_page(page: Path, profile: Path) -> Opened:
    """Load a local page; skips the test when there is no Chromium."""
    executable = next((found for name in NAMES if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1180,900"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--virtual-time-budget=20000"]
    flags += ["--enable-logging=stderr", "--log-level=0", "--dump-dom"]
    done = subprocess.run([executable, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    return Opened(done.stdout, re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", done.stderr))

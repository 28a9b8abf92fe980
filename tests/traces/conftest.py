import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the public data sets; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("NETPREDICT_DATA") or REPOSITORY / "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not at {folder}; set NETPREDICT_DATA")
    return folder


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[[str, Mapping[str, str]], Path]:
    """Write an archive of text files into the test's folder and return that folder."""

    def write(name: str, files: Mapping[str, str]) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, text in files.items():
                archive.writestr(member, text)
        return tmp_path

    return write

"""Opening what a trace is read from, with every way of being unreadable turned into one error."""

import csv
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from netpredict.errors import DataError


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise DataError with the path for whatever goes wrong while reading it inside."""
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file; damage that shows only in the middle is a DataError too."""
    with readable(path), zipfile.ZipFile(path) as archive:
        yield archive


def require_columns(frame: pd.DataFrame, names: Iterable[str], source: object) -> None:
    """Raise DataError when ``frame``, read from ``source``, lacks one of the columns."""
    if absent := [name for name in names if name not in frame.columns]:
        raise DataError(f"{source}: no column {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}")

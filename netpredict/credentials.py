"""Secrets come from files, never from the config, the environment or a command line.

A name that begins with ``$CREDENTIALS_DIRECTORY/`` lies where systemd puts what ``LoadCredential=`` names. A file is
read each time it is needed, so that a new secret counts without a restart.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from netpredict.errors import ConfigError

CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
SECRET_BYTES_MAX = 65_536
OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH


class Secret:
    """A text that no print, log or traceback shows; ``reveal`` gives it to the library that needs it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret stays in this process")


def credential_path(name: str, key: str, environment: Mapping[str, str] | None = None) -> Path:
    """The file that a config key names. ConfigError when it is one of systemd's and systemd gave us none."""
    if not name.startswith(CREDENTIALS):
        return Path(name)
    folder = (os.environ if environment is None else environment).get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigError(
            f"{key}: {name}: systemd gives this process no credentials; add LoadCredential= to the unit, or name a file"
        )
    return Path(folder, name.removeprefix(CREDENTIALS))


def readable_path(name: str, key: str) -> Path:
    """The file that a config key names, which can be read; ConfigError when not."""
    path = credential_path(name, key)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from error


def private_path(name: str, key: str) -> Path:
    """The same, and other users than its owner and group have no right on it."""
    path = readable_path(name, key)
    if path.stat().st_mode & OTHERS:
        raise ConfigError(f"{key}: {path} is open to every user of this machine: chmod o= {path}")
    return path


def read_secret(name: str, key: str) -> Secret:
    """The one line of a private file, without its end. ConfigError names key and file, never the content."""
    path = private_path(name, key)
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX + 1).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {path} is not UTF-8 text") from None
    if not text or not text.isprintable() or len(text) > SECRET_BYTES_MAX:
        raise ConfigError(f"{key}: {path} must hold one line of printable text")
    return Secret(text)

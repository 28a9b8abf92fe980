"""Secrets come from files, never from the config, the environment or a command line.

A name that begins with ``$CREDENTIALS_DIRECTORY/`` lies where systemd puts what ``LoadCredential=`` names. A file is
read each time it is needed, so that a new secret counts without a restart.
"""

from __future__ import annotations

import os
import ssl
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


def client_tls(
    keys: str, ca_file: str = "", cert_file: str = "", key_file: str = "", key_password_file: str = ""
) -> ssl.SSLContext:
    """TLS 1.2 or newer to a server whose certificate must be of a known authority, in date and bear the name we call.

    Without ``ca_file`` the authorities are the system's; ``cert_file`` and ``key_file`` are shown where it asks. All
    are PEM. ConfigError names the file that is wrong by its config key, which begins with ``keys``.
    """
    authorities = str(readable_path(ca_file, f"{keys}ca_file")) if ca_file else None
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authorities)
    except ssl.SSLError as error:
        raise ConfigError(f"{keys}ca_file: {authorities} holds no certificates in PEM: {error.reason}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not cert_file:
        return context
    certificate, key = readable_path(cert_file, f"{keys}cert_file"), private_path(key_file, f"{keys}key_file")
    password = read_secret(key_password_file, f"{keys}key_password_file").reveal() if key_password_file else ""
    try:
        # a callable, as else OpenSSL asks the terminal for the password of an encrypted key
        context.load_cert_chain(certificate, key, lambda: password)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or "wrong or missing password"
        raise ConfigError(
            f"{keys}key_file: {key} does not open, or is not the key of {certificate} ({why}); its password comes from"
            f" {keys}key_password_file"
        ) from error
    return context

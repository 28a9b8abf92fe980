"""How to get at a PostgreSQL server: what a store URL says, and what must not be said aloud or in clear."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL

from netpredict.credentials import read_secret
from netpredict.errors import ConfigError

CONNECT_S = 10
PATIENCE_S = 10.0
STATEMENT_S = 120
ENCRYPTED = ("require", "verify-ca", "verify-full")
_OURS = ("password_file", "patience_s")
_ALIVE = {"keepalives": "1", "keepalives_idle": "15", "keepalives_interval": "5", "keepalives_count": "3"}


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """What libpq is told. ``name`` is for messages; the password file is read at each connection."""

    name: str
    given: dict[str, str]
    password_file: Path | None
    patience_s: float

    def parameters(self) -> dict[str, Any]:
        """Connection parameters with the password. ConfigError when its file cannot or must not be read."""
        parameters: dict[str, Any] = {
            "application_name": "netpredict",
            "connect_timeout": str(CONNECT_S),
            "client_encoding": "UTF8",
            "tcp_user_timeout": "30000",
            **_ALIVE,
            **self.given,
        }
        wait_ms = round(1000 * self.patience_s)
        settings = {
            "lock_timeout": wait_ms,
            "idle_in_transaction_session_timeout": wait_ms,
            "statement_timeout": 1000 * STATEMENT_S,
            "synchronous_commit": "on",
            "client_min_messages": "warning",
            "timezone": "UTC",
        }
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        parameters["options"] = f"{ours} {self.given.get('options', '')}".strip()
        if self.password_file is not None:
            parameters["password"] = read_secret(str(self.password_file), "store.password_file").reveal()
        return parameters

    def redacted(self, text: str) -> str:
        """A message of the driver without the password."""
        password = self.given.get("password")
        return text.replace(password, "***") if password else text


def login_of(url: URL) -> Login:
    """The login of a store URL. ConfigError when it would send a password in clear over a network."""
    query = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in url.query.items()}
    ours = {key: query.pop(key) for key in _OURS if key in query}
    parts = {"user": url.username, "password": url.password, "host": url.host, "dbname": url.database}
    given = {key: str(value) for key, value in parts.items() if value} | query
    if url.port:
        given["port"] = str(url.port)
    place = f"{given.get('host', '')}{':' + given['port'] if 'port' in given else ''}"
    name = f"postgresql://{given.get('user', '')}@{place}/{given.get('dbname', '')}"
    file = Path(ours["password_file"]) if "password_file" in ours else None
    try:
        make_conninfo(**given)
    except ProgrammingError as error:
        raise ConfigError(f"store.url: {name}: {' '.join(str(error).split())}") from error
    _check_privacy(name, given, file)
    try:
        patience_s = float(ours.get("patience_s", PATIENCE_S))
    except ValueError as error:
        raise ConfigError("store.url: patience_s must be a number of seconds") from error
    return Login(name, given, file, patience_s)


def _check_privacy(name: str, given: dict[str, str], file: Path | None) -> None:
    mode = given.get("sslmode") or os.environ.get("PGSSLMODE", "")
    hosts = [given.get(key) or os.environ.get(f"PG{key.upper()}", "") for key in ("host", "hostaddr")]
    near = all(_is_near(host) for host in ",".join(filter(None, hosts)).split(","))
    if mode not in ENCRYPTED and not near and (file is not None or _has_password(given)):
        raise ConfigError(
            f"store.url: {name} is not on this host: a password goes there only with sslmode=verify-full (best),"
            " verify-ca or require in the URL's query"
        )


def _has_password(given: dict[str, str]) -> bool:
    """Whether libpq would find one: in the URL, in the environment or in its password file."""
    if "password" in given or "passfile" in given or {"PGPASSWORD", "PGPASSFILE"} & os.environ.keys():
        return True
    try:
        return (Path.home() / ".pgpass").exists()
    except (OSError, RuntimeError):
        return False


def _is_near(host: str) -> bool:
    """Whether it is a Unix socket or this host."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

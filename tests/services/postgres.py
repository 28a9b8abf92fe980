"""A real PostgreSQL server for tests: Debian's binaries, an own folder, loopback only, a password of its own.

It refuses to run as root, so root runs it as an unprivileged user.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.services.process import ServerProcess, ServiceFailed, ServiceMissing, free_ports

ATTEMPTS = 5
START_S = 60.0
STOP_S = 30.0
USER = "netpredict"


def server_binaries() -> Path:
    """Return the folder with initdb and postgres, the newest version of those installed."""
    folders = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    if folders:
        return max(folders, key=lambda folder: float(folder.parent.name))
    if found := shutil.which("initdb"):
        return Path(found).parent
    raise ServiceMissing("no PostgreSQL server binaries (Debian: the package postgresql)")


def _other_user() -> list[str]:
    """Return the start of a command line that leaves root behind; empty when we are not root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        raise ServiceMissing("PostgreSQL does not run as root, and setpriv is missing")
    user = _unprivileged()
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


class Postgres:
    """One server with its own folder. ``stop`` and ``start`` again keep the data and the address.

    ``files`` lie in its folder, by name, for it alone to read; ``settings`` may name them as ``{folder}/name``.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, files: Mapping[str, bytes] | None = None) -> None:
        self._settings, self._files = dict(settings or {}), dict(files or {})
        self._binaries = server_binaries()
        self._other_user = _other_user()
        # not inside pytest's folder, which the other user may not enter
        self.folder = Path(tempfile.mkdtemp(prefix="netpredict-postgres-"))
        self.log_file = self.folder / "server.log"
        self.port = 0
        self.password = secrets.token_hex(8)
        self._process: ServerProcess | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def dsn(self, database: str = "postgres") -> str:
        """Return the libpq URL of a database, for psycopg."""
        return self.url(database).replace("+psycopg", "")

    @property
    def process(self) -> ServerProcess:
        """The running postmaster, for tests that freeze or kill it by its id."""
        if self._process is None:
            raise ServiceFailed("PostgreSQL has not been started")
        return self._process

    def start(self) -> None:
        """Make the database cluster at the first start, start the server and wait until it answers."""
        if self.port:
            self._launch()
            return
        self._init()
        for attempt in range(ATTEMPTS):
            (self.port,) = free_ports(1)
            try:
                self._launch()
                return
            except ServiceFailed as failure:
                # another process was quicker on the port
                if "Address already in use" not in str(failure) or attempt == ATTEMPTS - 1:
                    raise

    def _init(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        for name, content in self._files.items():
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(0o600)
        if self._other_user:
            user = _unprivileged()
            for path in (self.folder, password_file, *(self.folder / name for name in self._files)):
                os.chown(path, user.pw_uid, user.pw_gid)
        options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8", "--locale=C", "-N"]
        argv = [*self._other_user, str(self._binaries / "initdb"), "-D", str(self.folder / "data"), *options]
        done = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceFailed(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _launch(self) -> None:
        # no fsync: the tests kill processes, not the machine
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "fsync": "off", "timezone": "UTC"}
        settings |= {"unix_socket_directories": "", "max_connections": 50}
        settings |= {name: value.format(folder=self.folder) for name, value in self._settings.items()}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        argv = [*self._other_user, str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *words]
        self._process = ServerProcess(argv, self.log_file, signal.SIGINT, cwd=self.folder)
        self._process.wait_until(self._answers, START_S)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Shut the server down, cutting its clients off."""
        if self._process is not None:
            self._process.stop(signal.SIGINT, STOP_S)

    def kill(self) -> None:
        """End the server without a word to its clients (its own immediate shutdown)."""
        self.process.stop(signal.SIGQUIT, STOP_S)

    def new_database(self, stem: str = "test") -> str:
        """Create an empty database that no other test uses, and return its SQLAlchemy URL."""
        name = f"{stem}_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self.dsn(), autocommit=True) as db:
            db.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return self.url(name)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

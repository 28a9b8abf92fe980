"""The control socket: verbs of the command line, done by the daemon on the one connection that may write its store.

It lies in a folder that only the daemon's user may enter, and answers that user and root only. Whoever holds the
folder's lock is the one daemon of the data directory. A socket's address has 108 bytes and a path may have more: both
sides go by a descriptor of the folder.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from netpredict.errors import AlreadyRunning, ConfigError, NetpredictError, StoreUnavailable
from netpredict.store.verbs import MESSAGE_BYTES_MAX, StoreVerbs, perform

LOG = structlog.get_logger(__name__)

NAME = "socket"
CONNECTIONS_MAX = 8
QUESTION_S = 5.0
"""How long a client may take to say what it wants, and then to take the answer."""
START_S = 10.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def control_folder(data_dir: str) -> Path:
    """Where the control socket of a data directory lies."""
    return Path(data_dir, "control").absolute()


class ControlSocket:
    """Listens in a folder and performs verbs on a store, one at a time, in a thread of its own.

    ``uids`` are the users that are answered; None stands for our own and root.
    """

    def __init__(self, folder: Path, store: StoreVerbs, uids: frozenset[int] | None = None) -> None:
        self.path = folder / NAME
        self._folder = folder
        self._store = store
        self._uids = frozenset({0, os.geteuid()}) if uids is None else uids
        self._open = 0
        self._held = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending: asyncio.Event | None = None

    def start(self) -> None:
        """Take the folder and listen. AlreadyRunning when another daemon has it, ConfigError when it is not ours."""
        try:
            self._held = _taken(self._folder)
            listener = self._listener()
        except NetpredictError:
            self._let_go()
            raise
        except OSError as error:
            self._let_go()
            raise ConfigError(f"daemon.data_dir: cannot listen on {self.path}: {error.strerror}") from error
        up = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, up)), name="control", daemon=True
        )
        self._thread.start()
        if not up.wait(START_S):
            raise StoreUnavailable(f"the control socket {self.path} did not open within {START_S:g} s")

    def stop(self) -> None:
        """Finish the verb under way; remove the socket."""
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)
        if self._thread is not None:
            self._thread.join(START_S)
        self._thread = None
        if self._held >= 0:
            with suppress(OSError):
                os.unlink(NAME, dir_fd=self._held)
        self._let_go()

    def _let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
        self._held = -1

    def _listener(self) -> socket.socket:
        with suppress(FileNotFoundError):  # of a daemon that was killed: we hold its lock
            os.unlink(NAME, dir_fd=self._held)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            address = _address(self._held)
            listener.bind(address)
            os.chmod(address, 0o600)
            listener.listen(CONNECTIONS_MAX)
        except OSError:
            listener.close()
            raise
        return listener

    async def _serve(self, listener: socket.socket, up: threading.Event) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_unix_server(self._client, sock=listener, limit=MESSAGE_BYTES_MAX)
        async with server:
            up.set()
            await self._ending.wait()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question, one answer. Whatever a client does, it costs this connection only."""
        self._open += 1
        try:
            if self._open > CONNECTIONS_MAX or not self._known(writer.get_extra_info("socket")):
                return
            async with asyncio.timeout(QUESTION_S):
                question = await reader.readuntil(b"\n")
            writer.write(perform(self._store, question))
            async with asyncio.timeout(QUESTION_S):
                await writer.drain()
        except asyncio.IncompleteReadError as error:
            if error.partial:
                LOG.warning("control_client_dropped", why="hung up in its question")
        except (asyncio.LimitOverrunError, TimeoutError, OSError) as error:
            LOG.warning("control_client_dropped", why=type(error).__name__)
        finally:
            self._open -= 1
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it does not read: nothing of it shall be kept
            writer.close()

    def _known(self, connection: socket.socket) -> bool:
        uid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
        if uid in self._uids:
            return True
        LOG.warning("control_client_refused", uid=uid)
        return False


def reachable(path: Path) -> bool:
    """Whether somebody listens; PermissionError when we may not ask."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _opened(path.parent) as folder:
            probe.settimeout(QUESTION_S)
            probe.connect(_address(folder))
    except PermissionError:
        raise
    except OSError:
        return False
    return True


def ask(path: Path, question: bytes, timeout_s: float) -> bytes:
    """Send one question to a control socket and give the answer.

    StoreUnavailable when none comes: it is not known then whether the daemon has done it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            with _opened(path.parent) as folder:
                client.connect(_address(folder))
            client.sendall(question)
            answer = b"".join(iter(lambda: client.recv(65_536), b""))
        except OSError as error:
            answer, why = b"", f"{type(error).__name__} after {timeout_s:g} s at most"
        else:
            why = "it hung up; its log tells why"
    if not answer.endswith(b"\n"):
        raise StoreUnavailable(f"no answer of the daemon at {path}: {why}. It may have done it: look before you repeat")
    return answer


def _address(folder: int) -> str:
    return f"/proc/self/fd/{folder}/{NAME}"


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(folder: Path) -> int:
    """The folder made private and locked, as a descriptor; the kernel lets go of the lock when the process dies."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise ConfigError(f"daemon.data_dir: {folder} belongs to another user: remove it, or run as that user")
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunning(
            f"{folder} is held by another daemon: give this one a daemon.data_dir of its own"
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

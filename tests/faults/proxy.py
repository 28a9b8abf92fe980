"""A TCP proxy on loopback that harms connections on purpose: it delays, starves, cuts and refuses, it rewrites nothing.

Each direction has a ``Way`` whose attributes may be changed at any time; they hold for the connections there are, too.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

CHUNK_BYTES = 65_536
WAIT_S = 0.02


@dataclass
class Way:
    """What happens to bytes in one direction. ``cut_after_bytes`` counts down over all connections, then resets."""

    latency_s: float = 0.0
    bytes_per_s: float = 0.0  # 0: as fast as they come
    blackhole: bool = False  # nothing is read any more, nothing is closed: what a lost route looks like
    drop_reply: bool = False  # everything is read and nothing is passed on: the peer believes that it was answered
    cut_after_bytes: int | None = None
    carried_bytes: int = 0
    cuts: int = 0


class Proxy:
    """Carries connections from ``port`` to ``target_port``. ``up`` is the way to the server, ``down`` the way back."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.target_port = target_port
        self.up, self.down = Way(), Way()
        self.refusing = False
        self.lose_answer_to: bytes | None = None
        """The next request with these bytes in it reaches the server; its answer does not come back, but a reset."""
        self.lost_answers = 0
        self._answer_lost: set[tuple[socket.socket, socket.socket]] = set()
        self._closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._pairs)

    def partition(self) -> None:
        """No byte passes in either direction, connections stay open, new ones are accepted and stay silent."""
        self.up.blackhole = self.down.blackhole = True

    def heal(self) -> None:
        """Carry everything again, as fast as it comes. What a way swallowed is lost, so its connections are reset."""
        swallowed = self.up.drop_reply or self.down.drop_reply
        for way in (self.up, self.down):
            way.latency_s = way.bytes_per_s = 0.0
            way.blackhole = way.drop_reply = False
            way.cut_after_bytes = None
        self.refusing = False
        if swallowed:
            self.reset_all()

    def reset_all(self) -> None:
        """Reset (RST, not FIN) every connection, wherever a frame stands."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._reset(pair)

    def close(self) -> None:
        """Refuse new connections and reset those there are."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.reset_all()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = None
            if not self.refusing:
                with contextlib.suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            if server is None:
                _abort(client)
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            for source, sink, way in ((client, server, self.up), (server, client, self.down)):
                threading.Thread(target=self._carry, args=(pair, source, sink, way), daemon=True).start()

    def _carry(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket, way: Way
    ) -> None:
        try:
            while True:
                self._wait_while(pair, way)
                chunk = source.recv(CHUNK_BYTES)
                if not chunk:
                    break
                self._wait_while(pair, way)
                if way.latency_s:
                    time.sleep(way.latency_s)
                if way.bytes_per_s:
                    time.sleep(len(chunk) / way.bytes_per_s)
                if way is self.up and self.lose_answer_to is not None and self.lose_answer_to in chunk:
                    self.lose_answer_to = None
                    self._answer_lost.add(pair)
                if way is self.down and pair in self._answer_lost:
                    self._answer_lost.discard(pair)
                    self.lost_answers += 1
                    break
                if way.drop_reply:
                    continue
                if self._cut_here(way, len(chunk)):
                    sink.sendall(chunk[: max(way.cut_after_bytes or 0, 0)])
                    way.cut_after_bytes = None
                    way.cuts += 1
                    break
                sink.sendall(chunk)
                way.carried_bytes += len(chunk)
        except OSError:
            pass
        self._reset(pair)

    def _wait_while(self, pair: tuple[socket.socket, socket.socket], way: Way) -> None:
        while way.blackhole and pair in self._pairs:
            time.sleep(WAIT_S)

    def _cut_here(self, way: Way, count: int) -> bool:
        with self._lock:
            if way.cut_after_bytes is None:
                return False
            if count >= way.cut_after_bytes:
                return True
            way.cut_after_bytes -= count
            return False

    def _reset(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.remove(pair)
        for end in pair:
            _abort(end)


def _abort(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for bytes
    end.close()

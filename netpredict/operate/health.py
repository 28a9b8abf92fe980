"""Health and metrics over HTTP, in a thread of their own: /livez, /readyz, /metrics. Nothing here changes anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from netpredict.config import HttpConfig
from netpredict.errors import AlreadyRunning
from netpredict.operate.metrics import CONTENT_TYPE, Metrics

START_S = 10.0


def health_app(late: Callable[[], list[str]], not_ready: Callable[[], list[str]], metrics: Metrics) -> Starlette:
    """The three pages. ``late`` names loops that stand still, ``not_ready`` what is still missing; empty is good."""

    def page(names: Callable[[], list[str]], word: str) -> Callable[[Request], Response]:
        def answer(_: Request) -> Response:
            try:
                found = names()
            except Exception as error:
                found = [f"{type(error).__name__}"]
            body = {"status": "ok" if not found else word, word: found}
            return JSONResponse(body, status_code=503 if found else 200, headers={"Cache-Control": "no-store"})

        return answer

    def metrics_page(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            Route("/livez", page(late, "late")),
            Route("/readyz", page(not_ready, "not_ready")),
            Route("/metrics", metrics_page),
        ]
    )


class HealthServer:
    """Serves an app until ``stop``. It installs no signal handlers: those belong to the daemon."""

    def __init__(self, app: Starlette, config: HttpConfig) -> None:
        self._config = config
        self._server = _Server(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                lifespan="off",
                server_header=False,
                limit_concurrency=64,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=2,
                ws="none",
            )
        )
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port in use; known after ``start``."""
        if self._socket is None:
            raise RuntimeError("not started")
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Listen, then serve in a thread. AlreadyRunning when the port is taken."""
        if not self._config.enabled:
            return
        # bound here, so that a taken port fails in the caller and not in the thread
        family = socket.AF_INET6 if ":" in self._config.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._config.host, self._config.port))
            listener.listen(64)
        except OSError as error:
            listener.close()
            place = f"{self._config.host}:{self._config.port}"
            raise AlreadyRunning(f"http: cannot listen on {place}: {error.strerror}; set http.port") from error
        self._socket = listener
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="health", daemon=True)
        self._thread.start()
        if not self._server.up.wait(START_S):
            raise AlreadyRunning("http: the server did not start")

    def stop(self) -> None:
        """Answer what is under way, for two seconds at most, and end."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(START_S)
        if self._socket is not None:
            self._socket.close()
        self._thread = self._socket = None

    def _serve(self, listener: socket.socket) -> None:
        # uvicorn takes over signals in the main thread only
        self._server.run([listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the starting thread that requests are answered."""
        await super().startup(sockets)
        self.up.set()

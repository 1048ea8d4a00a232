"""uvicorn with the stop that a server of long jobs needs.

On the first SIGTERM or Ctrl-C the application is told to refuse new work
(`app.state.begin_shutdown`) while the port stays open, so that callers get its 503 and not a
refused connection. When the running job is done (`app.state.drain`), or `--shutdown-timeout` is
over, connections are closed and the process ends with 0. A second Ctrl-C ends it at once.
Requests that only wait are let go before that (`app.state.end_waits`).
`app.state.is_busy` tells whether a job runs. The application may stop itself the same way with
`app.state.request_stop()`. `app.state.readiness()` tells whether it can work, and what is wrong.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sdapi.queue.sending import CONNECTION
from sdapi.serving.http_protocol import HttpProtocol
from sdapi.serving.outgoing import Outgoing
from sdapi.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn._types import ASGISendEvent

    from sdapi.services.system.readiness import Readiness

#: for answers that are on their way when the last job ends, then again for the application's end
CLOSE_TIMEOUT_S = 5
INTERRUPTED = 130
READINESS_LOOK_S = 0.2
#: where someone has to mend something first
LATER_LOOK_S = 2.0

logger = logging.getLogger("sdapi")


class WebSockets(WebSocketsSansIOProtocol):
    """uvicorn's, where a refused handshake is over and no error (Kludex/uvicorn#3138)."""

    async def run_asgi(self) -> None:
        """As uvicorn, with the connection for whoever must know what has arrived."""
        extensions = self.scope.setdefault("extensions", {})
        extensions[CONNECTION] = {CONNECTION: Outgoing(self.transport)}
        await super().run_asgi()

    async def send(self, message: "ASGISendEvent") -> None:
        """As uvicorn, which forgets to note that the answer to the handshake has been sent."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True


class Server(uvicorn.Server):
    """Serves one application on one listening socket."""

    def __init__(
        self,
        app: "FastAPI",
        settings: Settings,
        on_started: Callable[[], None],
        on_readiness: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """`on_started` is called when the port is served; `on_readiness` when the application is
        ready, with nothing, or cannot be, with what is wrong."""
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            root_path=settings.subpath,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
            ws=WebSockets,
            ws_max_size=settings.max_body_bytes,
            # A queue's client answers pings only while it waits, not while it works on an item.
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            ssl_keyfile=settings.tls_keyfile,
            ssl_certfile=settings.tls_certfile,
        )
        config.load()  # here, so that a bad certificate is a start that failed
        super().__init__(config)
        self._state: Any = app.state
        self._state.request_stop = self.request_stop
        self._timeout_s = settings.shutdown_timeout_s
        self._on_started = on_started
        self._on_readiness = on_readiness
        self._watching: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._is_asked_to_stop = False

    def serve_until_stopped(self, bound: socket.socket) -> bool:
        """Run the event loop; False when the application did not start."""
        try:
            self.run(sockets=[bound])
        except SystemExit:  # how uvicorn says that the application's start failed
            return False
        return self.started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, and then say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_started()
            self._watching = self._loop.create_task(self._watch_readiness())

    async def _watch_readiness(self) -> None:
        """Say once what keeps the application from its work, and once that it is ready."""
        readiness: Callable[[], Awaitable[Readiness]] | None = getattr(
            self._state, "readiness", None
        )
        if readiness is None:  # an application that is ready when it has started
            self._on_readiness(())
            return
        said: Sequence[str] = ()
        has_failed = False
        while not self.should_exit:
            pause_s = LATER_LOOK_S
            try:
                now = await readiness()
            except Exception:  # whatever it was: who waits for `is ready` needs the next look
                if not has_failed:
                    logger.exception("whether the application is ready cannot be told")
                has_failed = True
            else:
                has_failed = False
                if now.status == "ready":
                    self._on_readiness(())
                if now.status in ("ready", "stopping"):
                    return
                if now.status == "starting":
                    pause_s = READINESS_LOOK_S
                elif now.problems != said:
                    said = now.problems
                    self._on_readiness(said)
            await asyncio.sleep(pause_s)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal arrived; unlike uvicorn's own this does not raise it again at the end."""
        if self._is_asked_to_stop and sig == signal.SIGINT:
            os._exit(INTERRUPTED)
        self.request_stop()

    def request_stop(self) -> None:
        """Begin to stop, from any thread; more calls change nothing."""
        if self._is_asked_to_stop:
            return
        self._is_asked_to_stop = True
        if self._loop is None or not self.started:
            self.should_exit = True
            return
        self._leave_anyway_after(self._timeout_s + 2 * CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._begin_stop)

    def _begin_stop(self) -> None:
        self._stopping = asyncio.get_running_loop().create_task(self._stop())

    async def _stop(self) -> None:
        is_busy: Callable[[], bool] | None = getattr(self._state, "is_busy", None)
        if is_busy() if is_busy is not None else self.server_state.tasks:
            logger.info("stopping; the running job may take %g s more", self._timeout_s)
        else:
            logger.info("stopping")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._work_done()
        except TimeoutError:
            logger.warning("stopping what runs after %g s", self._timeout_s)
            await self._interrupt()
        except Exception:
            logger.exception("the application could not finish its work")
        finally:
            self._end_waits()
            self.should_exit = True

    def _end_waits(self) -> None:
        """Let requests end that wait for what does not come any more."""
        end_waits: Callable[[], None] | None = getattr(self._state, "end_waits", None)
        if end_waits is not None:
            end_waits()

    async def _interrupt(self) -> None:
        """Let jobs end with what they have, so that their callers get an answer."""
        interrupt: Callable[[], None] | None = getattr(self._state, "interrupt", None)
        if interrupt is None:
            return
        interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._work_done()

    async def _work_done(self) -> None:
        begin_shutdown: Callable[[], None] | None = getattr(self._state, "begin_shutdown", None)
        drain: Callable[[], Awaitable[None]] | None = getattr(self._state, "drain", None)
        running = set(self.server_state.tasks)
        if begin_shutdown is not None:
            begin_shutdown()
        if drain is not None:
            await drain()
        elif running:
            await asyncio.wait(running)

    @staticmethod
    def _leave_anyway_after(seconds: float) -> None:
        """A job that cannot be stopped sits in a thread, and would hold the process forever."""
        timer = threading.Timer(seconds, os._exit, args=(0,))
        timer.daemon = True
        timer.start()

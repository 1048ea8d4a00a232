"""Calling an application in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sdapi.queue.dispatching.inference import (
    INTERNAL,
    NOT_READY,
    Answer,
    App,
    Call,
    Message,
    NotUp,
    type_header,
)

#: an application that was told that its caller has gone gets this long to end by itself
_GOODBYE_S = 5.0


class InProcess:
    """An ASGI application in this process, called without a socket.

    `problem` tells in a few words why it cannot work now, None when it can.
    """

    def __init__(
        self,
        app: App,
        is_up: Callable[[], bool],
        problem: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        self._app = app
        self._is_up = is_up
        self._problem = problem

    async def is_ready(self) -> bool:
        return self._is_up() and await self._why_not() is None

    async def call(self, call: Call) -> Answer:
        if (problem := await self._why_not()) is not None:
            raise NotUp(problem)
        exchange = _Exchange(call.body)
        running = asyncio.ensure_future(self._app(_scope(call), exchange.receive, exchange.send))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            # As a client that closes its connection: the job stops within a step.
            exchange.gone.set()
            with suppress(Exception):
                await asyncio.wait_for(running, _GOODBYE_S)
            raise
        return exchange.answer()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if self._is_up() else PlainTextResponse(NOT_READY, 503)
        await app(scope, receive, send)

    async def close(self) -> None:
        """It ends with this process."""

    async def _why_not(self) -> str | None:
        return None if self._problem is None else await self._problem()


def _scope(call: Call) -> dict[str, Any]:
    size = str(len(call.body)).encode()
    headers = [(b"host", b"localhost"), (b"content-length", size), *type_header(call)]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": unquote(call.path),
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query.encode(),
        "headers": headers,
        "client": ("queue", 0),
        "server": ("localhost", 0),
        INTERNAL: True,
    }


class _Exchange:
    """One request and its answer, seen from outside the application."""

    def __init__(self, body: bytes) -> None:
        self.gone = asyncio.Event()
        self._request: bytes | None = body
        self._status = 0
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        if self._request is not None:
            body, self._request = self._request, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message.get("headers", [])
            }
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))

    def answer(self) -> Answer:
        if not self._status:
            raise ConnectionError("the application ended without an answer")
        content_type = self._headers.get("content-type", "")
        return Answer(self._status, b"".join(self._parts), content_type, self._headers)

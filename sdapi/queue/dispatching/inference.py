"""Calling what does the work: an application in this process, or a program on a port of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

import httpx
import orjson

#: marks a request as this process's own, which its gate lets through; no client can set it
INTERNAL = "sdapi.internal"
#: an application that was told that its caller has gone gets this long to end by itself
_GOODBYE_S = 5.0
_LOOK_S = 5.0

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


@dataclass(frozen=True, slots=True)
class Call:
    """`POST <path>?<query>` with a body; the path as it is on the wire, in percent escapes."""

    path: str
    query: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    body: bytes
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


def failure(status: int, text: str) -> Answer:
    """What stands for an answer that there is none of."""
    return Answer(status, orjson.dumps({"error": text}), "application/json")


class NotUp(ConnectionError):
    """Nothing takes calls there now; the call has not been made."""


class Inference(Protocol):
    """What a dispatcher calls. Cancelling a call ends the work."""

    async def is_up(self) -> bool:
        """Whether calls are answered now, if only by telling what is wrong."""
        ...

    async def is_ready(self) -> bool:
        """Whether its work can be done now; until then items wait."""
        ...

    async def call(self, call: Call) -> Answer:
        """Raises `NotUp`, and `ConnectionError` when the program went away before it answered."""
        ...


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

    async def is_up(self) -> bool:
        return self._is_up()

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

    async def _why_not(self) -> str | None:
        return None if self._problem is None else await self._problem()


def _scope(call: Call) -> dict[str, Any]:
    size = str(len(call.body)).encode()
    headers = [(b"host", b"localhost"), (b"content-length", size), *_type_header(call)]
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


def _type_header(call: Call) -> list[tuple[bytes, bytes]]:
    text = call.content_type.encode("latin-1", errors="replace")
    return [(b"content-type", text)] if text else []


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


class OnPort:
    """A program that listens on a loopback port, as a container of the service JSON does."""

    def __init__(self, port: int) -> None:
        self._port = port
        # The dispatcher limits calls, and their time.
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)

    async def is_up(self) -> bool:
        return await self.is_ready()

    async def is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_S):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # TimeoutError among them
            return False
        writer.close()
        return True

    async def call(self, call: Call) -> Answer:
        headers = _type_header(call)
        target = call.path + (f"?{call.query}" if call.query else "")
        try:
            answer = await self._client.post(
                f"http://127.0.0.1:{self._port}",
                content=call.body,
                headers=headers,
                extensions={"target": target.encode()},  # as it is: a URL would be normalized
            )
        except httpx.ConnectError as error:
            raise NotUp(f"nothing answers on port {self._port}: {error}") from error
        except httpx.TransportError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        except httpx.DecodingError as error:
            return failure(502, f"the program's answer cannot be decoded: {error}")
        content_type = answer.headers.get("content-type", "")
        return Answer(answer.status_code, answer.content, content_type, dict(answer.headers))

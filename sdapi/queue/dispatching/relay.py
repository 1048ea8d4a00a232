"""Synchronous calls of a program on a port: requests and answers go on as they are."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import httpx
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sdapi.queue.config.spec import ServiceSpec
from sdapi.queue.dispatching.inference import NOT_READY
from sdapi.queue.sending import connection_of, cut_off_when_stalled

log = logging.getLogger(__name__)

#: of one connection, not of the message (RFC 9110, 7.6.1)
_HOP_BY_HOP = frozenset(
    [
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization", b"transfer-encoding"),
    ]
)

Headers = list[tuple[bytes, bytes]]


class Relay:
    """An ASGI application in front of a program; `client` adds nothing and remembers nothing."""

    def __init__(self, spec: ServiceSpec, client: httpx.AsyncClient) -> None:
        self._spec = spec
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until the answer ends, or the caller goes: the program then loses its caller."""
        request = _request(scope, await _body(receive), self._spec.container.port)
        relaying = asyncio.ensure_future(self._relay(request, scope, receive, send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({relaying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if relaying.done():
                relaying.result()
        finally:
            relaying.cancel()
            leaving.cancel()
            await asyncio.gather(relaying, leaving, return_exceptions=True)

    async def _relay(
        self, request: httpx.Request, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            await _failure(error)(scope, receive, send)
            return
        try:
            # Who reads no more would keep the place of a call.
            async with cut_off_when_stalled(connection_of(scope), self._spec.keepalive_s):
                await self._answer(answer, send)
        except (TimeoutError, httpx.TransportError) as error:
            # The status has been sent: an answer without an end is what tells the client.
            log.warning("service %s: an answer broke off: %r", self._spec.name, error)
        finally:
            await answer.aclose()

    async def _answer(self, answer: httpx.Response, send: Send) -> None:
        headers = _answer_headers(answer)
        await send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )
        parts = aiter(answer.aiter_raw())
        is_more = True
        while is_more:
            async with asyncio.timeout(self._spec.keepalive_s):
                part = await anext(parts, None)
            is_more = part is not None
            await send({"type": "http.response.body", "body": part or b"", "more_body": is_more})


def _failure(error: httpx.TransportError) -> PlainTextResponse:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return PlainTextResponse(NOT_READY, 503)
    if isinstance(error, httpx.LocalProtocolError):  # a header that HTTP does not allow
        return PlainTextResponse(f"the request cannot be passed on: {error}", 400)
    return PlainTextResponse("the inference program went away", 502)


def _request(scope: Scope, body: bytes, port: int) -> httpx.Request:
    """Made directly: a client's own way of making one adds headers."""
    target: bytes = scope["raw_path"].removeprefix(scope.get("root_path", "").encode())
    if query := scope["query_string"]:
        target += b"?" + query
    extensions: dict[str, Any] = {"target": target}  # as it is: a URL would be normalized
    return httpx.Request(
        scope["method"],
        f"http://127.0.0.1:{port}",
        headers=_end_to_end(scope["headers"]),
        content=body,
        extensions=extensions,
    )


def _answer_headers(answer: httpx.Response) -> Headers:
    """A name may come several times, as Set-Cookie does; the date is written by our own server."""
    dropped = [b"date"]
    if answer.status_code == 304:  # the size of what is not sent
        dropped.append(b"content-length")
    return [(k, v) for k, v in _end_to_end(answer.headers.raw) if k not in dropped]


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Those that are not of one connection, their names in lower case."""
    lower = [(name.lower(), value) for name, value in headers]
    dropped = set(_HOP_BY_HOP)
    for name, value in lower:
        if name == b"connection":
            dropped |= {each.strip().lower() for each in value.split(b",")}
        if name == b"transfer-encoding":  # it goes before a length, and our side makes its own
            dropped.add(b"content-length")
    return [(name, value) for name, value in lower if name not in dropped]


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    is_more = True
    while is_more:
        message = await receive()
        parts.append(message.get("body", b""))
        is_more = message.get("more_body", False)
    return b"".join(parts)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

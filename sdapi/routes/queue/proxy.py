"""Synchronous services below /api/predict/<name>/…: requests and answers go on as they are."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from urllib.parse import unquote

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.inference import INTERNAL
from sdapi.queue.protocol.authorization import authorize_signed, is_signed
from sdapi.routes.queue.calls import Call

log = logging.getLogger(__name__)

#: the queue clients' HTTP layer would sleep on it and repeat by itself (contract 6.4)
_RETRY_AFTER = "retry-after"
#: of one connection, not of the message; the client library writes its own
_HOP_BY_HOP = frozenset(
    [
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host", "content-length"),
    ]
)


async def proxy(call: Call, spec: ServiceSpec, path: str) -> Response:
    """Call the service's program; 408 when it takes longer than the service allows."""
    if is_signed(call.headers):
        credentials, body = call.served.credentials, await call.body(None)
        authorize_signed(credentials, spec.name, call.headers, call.signed_paths(), body)
    request = Request(call.scope, await call.read_again())
    if spec.container.program is Program.OTHER:
        return await _over_http(request, spec, path)
    if not await call.served.queues.inferences[spec.name].is_up():
        return PlainTextResponse("the inference program is not ready", 503)
    return _InProcess(request.app, spec, path, request)


class _InProcess(Response):
    """The same application answers, under the rest of the path."""

    def __init__(self, app: Any, spec: ServiceSpec, path: str, request: Request) -> None:
        super().__init__()
        self._app = app
        self._spec = spec
        self._path = path
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("root_path", "") + self._path  # in its percent escapes
        # A scope of its own: what this application noted in the outer one does not hold for it.
        kept = {k: v for k, v in scope.items() if k not in ("state", "path_params", "route")}
        inner = kept | {"path": unquote(path), "raw_path": path.encode(), INTERNAL: True}
        is_late = asyncio.Event()
        has_begun = False

        async def received() -> Message:
            return await _unless(is_late, self._request.receive())

        async def sent(message: Message) -> None:
            nonlocal has_begun
            if not is_late.is_set():
                has_begun = True
                await send(_without_retry_after(message))

        answering = asyncio.ensure_future(self._app(inner, received, sent))
        try:
            await asyncio.wait({answering}, timeout=self._spec.keepalive_s)
            if not answering.done() and not has_begun:
                is_late.set()
                await _too_late(self._spec)(scope, receive, send)
            await answering
        finally:
            answering.cancel()


def _without_retry_after(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    headers = [(k, v) for k, v in message["headers"] if k.lower() != _RETRY_AFTER.encode()]
    return {**message, "headers": headers}


async def _unless(is_late: asyncio.Event, coming: Awaitable[Message]) -> Message:
    """What comes, or the end of the connection: an application stops its work then."""
    message = asyncio.ensure_future(coming)
    late = asyncio.ensure_future(is_late.wait())
    try:
        await asyncio.wait({message, late}, return_when=asyncio.FIRST_COMPLETED)
        return {"type": "http.disconnect"} if is_late.is_set() else await message
    finally:
        message.cancel()
        late.cancel()


def _too_late(spec: ServiceSpec) -> Response:
    return PlainTextResponse(f"not done within {spec.keepalive_s:g} s", 408)


async def _over_http(request: Request, spec: ServiceSpec, path: str) -> Response:
    target = path.encode()
    if query := request.scope["query_string"]:
        target += b"?" + query
    headers = [(k, v) for k, v in request.headers.items() if k not in _HOP_BY_HOP]
    client = httpx.AsyncClient(timeout=None, trust_env=False)
    outgoing = client.build_request(
        request.method,
        f"http://127.0.0.1:{spec.container.port}",
        headers=headers,
        content=await request.body(),
        extensions={"target": target},  # as it is: a URL would be normalized
    )
    try:
        async with asyncio.timeout(spec.keepalive_s):
            answer = await client.send(outgoing, stream=True)
    except BaseException as error:
        await client.aclose()
        return _failure(error, spec)
    return _Relayed(answer, client, spec)


def _failure(error: BaseException, spec: ServiceSpec) -> Response:
    if isinstance(error, httpx.ConnectError):
        return PlainTextResponse("the inference program is not ready", 503)
    if isinstance(error, TimeoutError):
        return _too_late(spec)
    if isinstance(error, httpx.TransportError):
        return PlainTextResponse("the inference program went away", 502)
    raise error


class _Relayed(StreamingResponse):
    """The program's answer as it comes; its connection is cut when the rest does not come."""

    def __init__(
        self, answer: httpx.Response, client: httpx.AsyncClient, spec: ServiceSpec
    ) -> None:
        super().__init__(_parts(answer, client, spec.keepalive_s), answer.status_code)
        self._spec = spec
        self.raw_headers = [  # a name may come several times, as Set-Cookie does
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode("latin-1") not in {*_HOP_BY_HOP, _RETRY_AFTER}
        ]

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except (TimeoutError, httpx.TransportError) as error:
            # The status has been sent: an answer without an end is what tells the client.
            log.warning("service %s: an answer broke off: %r", self._spec.name, error)


async def _parts(
    answer: httpx.Response, client: httpx.AsyncClient, longest_wait_s: float
) -> AsyncIterator[bytes]:
    parts = aiter(answer.aiter_raw())
    try:
        while True:
            async with asyncio.timeout(longest_wait_s):
                part = await anext(parts, None)
            if part is None:
                return
            yield part
    finally:
        await answer.aclose()
        await client.aclose()

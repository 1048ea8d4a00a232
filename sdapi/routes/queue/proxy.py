"""Synchronous services below /api/predict/<name>/…: calls of what they are, within their time."""

import asyncio
from collections.abc import Awaitable
from urllib.parse import unquote

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdapi.errors import Missing
from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.inference import INTERNAL
from sdapi.queue.protocol.authorization import authorize_signed, is_signed
from sdapi.routes.queue.calls import PREFIX, Call

#: the queue clients' HTTP layer would sleep on it and repeat by itself (contract 6.4)
_RETRY_AFTER = b"retry-after"


async def proxy(call: Call, spec: ServiceSpec, path: str) -> Response:
    """Call the service's program; 408 when it takes longer than the service allows."""
    if spec.container.program is Program.WEBUI and unquote(path).startswith(PREFIX):
        raise Missing("no service is called through another")  # nor through itself, without an end
    body = await call.body(None)  # the time of a slow upload is not the program's
    if is_signed(call.headers):
        credentials = call.served.credentials
        authorize_signed(credentials, spec.name, call.headers, call.signed_paths(), body)
    program = call.served.queues.inferences[spec.name]
    return _Limited(program.serve, spec, path, await call.read_again())


class _Limited(Response):
    """An application's answer to the rest of the path, which has to begin in time."""

    def __init__(self, app: ASGIApp, spec: ServiceSpec, path: str, receive: Receive) -> None:
        super().__init__()
        self._app = app
        self._spec = spec
        self._path = path
        self._receive = receive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("root_path", "") + self._path  # in its percent escapes
        # A scope of its own: what this application noted in the outer one does not hold for it.
        kept = {k: v for k, v in scope.items() if k not in ("state", "path_params", "route")}
        inner = kept | {"path": unquote(path), "raw_path": path.encode(), INTERNAL: True}
        is_late = asyncio.Event()
        has_begun = False

        async def received() -> Message:
            return await _unless(is_late, self._receive())

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
    headers = [(k, v) for k, v in message["headers"] if k.lower() != _RETRY_AFTER]
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

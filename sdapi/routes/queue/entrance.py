"""The way in to all queues: /api/predict/<service>, in plain ASGI."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from sdapi.errors import SDAPIError
from sdapi.queue.protocol.authorization import authorize, authorize_signed, is_signed
from sdapi.queue.protocol.parameters import Parameters
from sdapi.routes.queue.calls import (
    body_of,
    credentials_of,
    is_rear,
    query_of,
    queues_of,
    text_error,
)
from sdapi.routes.queue.proxy import proxy
from sdapi.routes.queue.verbs import VERBS
from sdapi.routes.queue.watching import watch

PREFIX = "/api/predict"


@dataclass(frozen=True, slots=True)
class _Route:
    """What a request log and the metrics call all queues."""

    path: str


_ROUTE = _Route(PREFIX + "/{name}/{rest:path}")


class QueueEntrance:
    """Answers what lies below `PREFIX` and lets everything else pass on.

    Queues live on many small requests, and finding and running a route of FastAPI takes longer than
    all of a put; so this is plain ASGI, inside the middleware that every request passes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        name, _, rest = path.removeprefix(f"{PREFIX}/").partition("/")
        if not path.startswith(f"{PREFIX}/") or not name:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await watch(WebSocket(scope, receive, send), name, rest)
        else:
            scope["route"] = _ROUTE
            response = await predict(Request(scope, receive, send), name, rest)
            await response(scope, receive, send)


async def predict(request: Request, name: str, rest: str) -> Response:
    """Every verb of a queue; on a synchronous service a call of its program."""
    try:
        return await _answer(request, name, rest)
    except SDAPIError as error:
        return text_error(error)


async def _answer(request: Request, name: str, rest: str) -> Response:
    queues = queues_of(request)
    spec = queues.service.spec(name)
    if not is_signed(request.headers):
        authorize(credentials_of(request), spec.name, request.headers)
    if not spec.is_async:
        return await proxy(request, queues, spec, f"/{rest}", credentials_of(request))
    address = queues.service.address(spec, rest, is_rear=is_rear(request))
    handler = VERBS.get(request.method)
    if handler is None:
        return PlainTextResponse(f"{request.method} is no verb of a queue", 405)
    if is_signed(request.headers):
        body = await body_of(request, spec.limits(address.queue).max_payload_bytes)
        headers, path = request.headers, request.url.path
        authorize_signed(credentials_of(request), spec.name, headers, path, body)
    parameters = Parameters.parse(query_of(request))
    return await handler(request, queues.service, address, parameters)

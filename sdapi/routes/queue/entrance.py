"""The way in to all queues: /api/predict/<service>, in plain ASGI."""

from dataclasses import dataclass

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from sdapi.errors import SDAPIError
from sdapi.queue.protocol.authorization import authorize, authorize_signed, is_signed
from sdapi.routes.queue.calls import PREFIX, Call, Served, text_error
from sdapi.routes.queue.proxy import proxy
from sdapi.routes.queue.verbs import VERBS
from sdapi.routes.queue.watching import watch


@dataclass(frozen=True, slots=True)
class _Route:
    """What a request log and the metrics call all queues."""

    path: str


_ROUTE = _Route(PREFIX + "{name}/{rest:path}")


def is_of_queue(scope: Scope) -> bool:
    """Whether a request or WebSocket names a service below `PREFIX`."""
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    return path.startswith(PREFIX) and path[len(PREFIX) :].partition("/")[0] != ""


class QueueEntrance:
    """Answers what `is_of_queue`.

    Queues live on many small requests, and finding and running a route of FastAPI takes longer than
    all of a put; so this is plain ASGI, and stands before FastAPI rather than in it.
    """

    def __init__(self, served: Served) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        name, _, rest = path[len(PREFIX) :].partition("/")
        call = Call(scope, receive, self._served)
        if scope["type"] == "websocket":
            await watch(call, WebSocket(scope, receive, send), name, rest)
            return
        scope["route"] = _ROUTE
        response = await predict(call, name, rest)
        await response(scope, receive, send)


async def predict(call: Call, name: str, rest: str) -> Response:
    """Every verb of a queue; on a synchronous service a call of its program."""
    try:
        return await _answer(call, name, rest)
    except SDAPIError as error:
        return text_error(error)


async def _answer(call: Call, name: str, rest: str) -> Response:
    served, headers = call.served, call.headers
    spec = call.service.spec(name)
    has_signature = is_signed(headers)
    if not has_signature:
        authorize(served.credentials, spec.name, headers)
    if not spec.is_async:
        return await proxy(call, spec, f"/{call.rest(rest)}")
    address = call.service.address(spec, call.rest(rest), is_rear=call.is_rear())
    handler = VERBS.get(call.method)
    if handler is None:
        return PlainTextResponse(f"{call.method} is no verb of a queue", 405)
    if has_signature:
        body = await call.body(spec.limits(address.queue).max_payload_bytes)
        authorize_signed(served.credentials, spec.name, headers, call.signed_paths(), body)
    return await handler(call, address, call.parameters())

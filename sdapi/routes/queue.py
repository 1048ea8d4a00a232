"""The EAS queue over HTTP and WebSocket: /api/predict/<service>, and endpoint discovery.

Answers and errors are plain text here, as its clients read them.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from sdapi.errors import SDAPIError, ShuttingDown
from sdapi.queue.protocol import wire
from sdapi.queue.protocol.attributes import PRIORITY_HEADER
from sdapi.queue.protocol.authorization import authorize, authorize_signed, is_signed
from sdapi.queue.protocol.parameters import BadParameter, Parameters
from sdapi.queue.server import QueueServer
from sdapi.queue.service import Address, Identity, PayloadTooLarge, QueueService
from sdapi.queue.stores.store import REQUEST_ID, Delivery, Item, Query, QueueName
from sdapi.routes.proxy import proxy
from sdapi.security import Credentials

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)

PREFIX = "/api/predict"
REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"
INDEX_HEADER = "X-Eas-Queueservice-Index"
REAR_HEADER = "X-EAS-QueueService-Access-Rear"
_USER_HEADERS = ("X-EAS-QueueService-Uid", "X-EAS-QueueService-Redis-Uid")
_GROUP_HEADERS = ("X-EAS-QueueService-Gid", "X-EAS-QueueService-Redis-Gid")
_DEFAULT_GROUP = "eas"
_MAX_IDENTITY = 256
_MAX_REQUEST_ID = 256
#: of a negative commit (contract 10.4)
_CODE = re.compile(r"([A-Z][a-z]*)+(.[A-Z][a-z]*)?|[0-9]+")
_MAX_CODE = 20
_MAX_FORM_BYTES = 64 << 10
_VERBS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"})


@dataclass(frozen=True, slots=True)
class _Route:
    """What a request log and the metrics call all queues."""

    path: str


_ROUTE = _Route(PREFIX + "/{name}/{rest:path}")


@router.get("/api/v1/servicediscovery/upstreams/{service}")
@router.get("/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/{service}")
async def discover(service: str, request: Request) -> Response:
    """Where a service answers: at the address that was asked."""
    try:
        queues_of(request).service.spec(service)
    except SDAPIError as error:
        return text_error(error)
    host, port = request.scope.get("server") or ("127.0.0.1", 80)
    ip = request.url.hostname or host
    item = {"ip": ip, "port": request.url.port or port, "weight": 100}
    return _json({"endpoints": {"items": [item]}})


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
        elif scope["method"] not in _VERBS:
            await self.app(scope, receive, send)
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
    address = queues.service.address(spec, rest, is_rear=_is_rear(request))
    handler = _HANDLERS.get(request.method)
    if handler is None:
        return PlainTextResponse(f"{request.method} is no verb of a queue", 405)
    if is_signed(request.headers):
        body = await _body(request, spec.limits(address.queue).max_payload_bytes)
        headers, path = request.headers, request.url.path
        authorize_signed(credentials_of(request), spec.name, headers, path, body)
    parameters = Parameters.parse(_query(request))
    return await handler(request, queues.service, address, parameters)


# --- verbs -----------------------------------------------------------------------------------


async def _post(
    request: Request, service: QueueService, address: Address, parameters: Parameters
) -> Response:
    if parameters.flag("_eos_"):
        if parameters.flag("_force_"):
            await service.store.drop_undelivered(address.queue)
        return _ok()
    if request.app.state.is_stopping:
        raise ShuttingDown("the server is shutting down")
    priority = parameters.priority(request.headers.get(PRIORITY_HEADER))
    if len(parameters.tags.get(REQUEST_ID, "")) > _MAX_REQUEST_ID:
        raise BadParameter(f"requestId has at most {_MAX_REQUEST_ID} characters")
    body = await _body(request, address.spec.limits(address.queue).max_payload_bytes)
    index, request_id = await service.put(
        address,
        body,
        parameters.tags,
        priority=priority,
        content_type=request.headers.get("content-type", ""),
    )
    return PlainTextResponse(str(index), headers={REQUEST_ID_HEADER: _header(request_id)})


async def _put(
    request: Request, service: QueueService, address: Address, parameters: Parameters
) -> Response:
    indexes, identity = parameters.indexes, _identity(request)
    if not parameters.flag("_negative_"):
        await service.commit(address.queue, identity, indexes)
        return _ok()
    form = dict(parse_qsl((await _body(request, _MAX_FORM_BYTES)).decode(errors="replace")))
    code = form.get("_code_", "")
    if not _CODE.fullmatch(code) or len(code) > _MAX_CODE:
        raise BadParameter(f"_code_ is a word such as Shutdown, or digits, not {code[:40]!r}")
    log.info("items %s came back: %s %s", indexes, code, form.get("_reason_", "")[:200])
    await service.reject(address.queue, identity, indexes, code)
    return _ok()


async def _delete(
    request: Request, service: QueueService, address: Address, parameters: Parameters
) -> Response:
    if parameters.flag("_trunc_"):
        if parameters.index < 0:
            raise BadParameter("_index_ of a truncation is 0 or more")
        await service.store.truncate(address.queue, parameters.index)
    else:
        await service.store.delete(address.queue, parameters.indexes)
    return _ok()


async def _get(
    request: Request, service: QueueService, address: Address, parameters: Parameters
) -> Response:
    if parameters.flag("_watch_"):
        return _watch_over_http(request, service, address, parameters)
    if parameters.flag("_attrs_"):
        return await _attributes(request, service, address)
    if parameters.flag("_search_"):
        return await _search(request, service, address, parameters)
    if parameters.flag("_count_"):
        given = "_priority_" in parameters.reserved
        priority = parameters.priority() if given else None
        count = await service.store.count(address.queue, parameters.tags, priority)
        return PlainTextResponse(str(count))
    return await _items(request, service, address.queue, parameters)


async def _attributes(request: Request, service: QueueService, address: Address) -> Response:
    attributes = await service.attributes(address)
    if _takes_protobuf(request):
        return Response(wire.encode_attributes(attributes), media_type=wire.PROTOBUF)
    return _json(attributes)


async def _search(
    request: Request, service: QueueService, address: Address, parameters: Parameters
) -> Response:
    place = await service.search(address.queue, _identity(request), parameters.index)
    return _json(
        {
            "ConsumerId": place.consumer,
            "IsPending": place.is_pending,
            "WaitCount": place.waiting_before,
        }
    )


# --- reading ---------------------------------------------------------------------------------


async def _items(
    request: Request, service: QueueService, queue: QueueName, parameters: Parameters
) -> Response:
    query = Query(parameters.index, parameters.length, tags=parameters.tags)
    timeout_s = parameters.timeout_s
    is_raw = parameters.flag("_raw_", True)
    claim = service.new_claim() if parameters.flag("_auto_delete_", True) else ""
    async with _gone(request) as gone:
        try:
            items = await service.get(queue, query, timeout_s, claim, gone)
        except asyncio.CancelledError:
            if claim:
                await service.settle(queue, claim, delete=False)
            raise
        if not items:
            if timeout_s > 0:
                await _hold(gone, request.app.state.services.settings.queue_hold_s)
            return Response(status_code=204)
    response = _encoded(request, items, is_raw=is_raw and query.length == 1, as_json=is_raw)
    return _Claimed(response, service, queue, claim) if claim else response


async def _hold(gone: asyncio.Event, seconds: float) -> None:
    """Let a client whose own limit is the same as `_timeout_` reach it first (contract 6.2)."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await gone.wait()


def _encoded(request: Request, items: list[Item], *, is_raw: bool, as_json: bool) -> Response:
    if is_raw:
        item = items[0]
        headers = {
            REQUEST_ID_HEADER: _header(item.request_id),
            INDEX_HEADER: str(item.index),
            "content-type": _header(item.content_type) or "application/octet-stream",
        }
        return Response(item.data, headers=headers)
    frames = [frame_of(item) for item in items]
    if _takes_protobuf(request) and not as_json:
        return Response(wire.encode_frames(frames), media_type=wire.PROTOBUF)
    return _json([wire.frame_json(frame) for frame in frames])


class _Claimed(Response):
    """Deletes the items between the last byte of the answer and its end.

    A client that has gone by then, or a process that dies before, leaves them in the queue. The
    next request on this connection finds them deleted.
    """

    def __init__(
        self, response: Response, service: QueueService, queue: QueueName, claim: str
    ) -> None:
        super().__init__()
        self._response = response
        self._service = service
        self._queue = queue
        self._claim = claim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        was_sent = False
        try:
            start = {"type": "http.response.start", "status": 200}
            await send(start | {"headers": self._response.raw_headers})
            body = {"type": "http.response.body", "body": self._response.body}
            await send(body | {"more_body": True})
            was_sent = not await Request(scope, receive).is_disconnected()
        finally:
            await self._service.settle(self._queue, self._claim, delete=was_sent)
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _gone(request: Request) -> AsyncGenerator[asyncio.Event]:
    """An event that is set when the client closes its connection."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    task = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        task.cancel()


# --- watching --------------------------------------------------------------------------------


async def watch(socket: WebSocket, name: str, rest: str) -> None:
    """Items as they come, one frame each."""
    try:
        service = queues_of(socket).service
        address, parameters = _watched(socket, service, name, rest)
    except SDAPIError as error:
        await socket.send_denial_response(text_error(error))
        return
    await socket.accept()
    takes_protobuf = _takes_protobuf(socket)

    async def send(delivery: Delivery) -> None:
        frame = frame_of(delivery.item)
        if takes_protobuf:
            await socket.send_bytes(wire.encode_frame(frame))
        else:
            await socket.send_text(orjson.dumps(wire.frame_json(frame)).decode())

    sending = asyncio.create_task(_deliver(socket, service, address, parameters, send))
    leaving = asyncio.create_task(_left(socket))
    done, pending = await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    error = sending.exception() if sending in done else None
    if error is not None and not isinstance(error, WebSocketDisconnect | SDAPIError):
        raise error
    if leaving not in done:
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(1001)


def _watched(
    connection: HTTPConnection, service: QueueService, name: str, rest: str
) -> tuple[Address, Parameters]:
    spec = service.spec(name)
    authorize(credentials_of(connection), spec.name, connection.headers)
    if not spec.is_async:
        raise BadParameter(f"{spec.name} is a synchronous service and has no queue")
    if connection.app.state.is_stopping:
        raise ShuttingDown("the server is shutting down")
    parameters = Parameters.parse(_query(connection))
    _ = (parameters.index, parameters.window)  # refused now rather than later
    _ = (parameters.flag("_auto_commit_"), parameters.flag("_index_only_"))
    return service.address(spec, rest, is_rear=_is_rear(connection)), parameters


async def _deliver(
    connection: HTTPConnection,
    service: QueueService,
    address: Address,
    parameters: Parameters,
    send: Callable[[Delivery], Awaitable[None]],
) -> None:
    """Be a consumer until replaced; with auto commit what is sent is committed before."""
    identity, is_auto = _identity(connection), parameters.flag("_auto_commit_")
    async with service.subscribe(
        address,
        identity,
        window=parameters.window,
        start=parameters.index,
        tags=parameters.tags,
        auto_commit=is_auto,
        index_only=parameters.flag("_index_only_"),
    ) as subscription:
        async for batch in subscription.batches():
            if is_auto:
                indexes = [delivery.item.index for delivery in batch]
                await service.commit(address.queue, identity, indexes)
            for delivery in batch:
                await send(delivery)


async def _left(socket: WebSocket) -> None:
    """Return when the client has gone; what it sends means nothing."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _watch_over_http(
    request: Request, service: QueueService, address: Address, parameters: Parameters
) -> Response:
    """The same as an endless answer: four bytes of length, then a frame, and so on."""
    _watched(request, service, address.spec.name, "")
    frames: asyncio.Queue[bytes] = asyncio.Queue(1)

    async def send(delivery: Delivery) -> None:
        frame = wire.encode_frame(frame_of(delivery.item))
        await frames.put(len(frame).to_bytes(4, "big") + frame)

    async def stream() -> AsyncGenerator[bytes]:
        sending = asyncio.create_task(_deliver(request, service, address, parameters, send))
        try:
            while not sending.done():
                coming = asyncio.create_task(frames.get())
                await asyncio.wait({coming, sending}, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    yield coming.result()
                else:
                    coming.cancel()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    return StreamingResponse(stream(), media_type=wire.PROTOBUF)


# --- what requests and answers have in common ------------------------------------------------

_Handler = Callable[[Request, QueueService, Address, Parameters], Awaitable[Response]]
_HANDLERS: dict[str, _Handler] = {"GET": _get, "POST": _post, "PUT": _put, "DELETE": _delete}


def queues_of(connection: HTTPConnection) -> QueueServer:
    return connection.app.state.queues


def credentials_of(connection: HTTPConnection) -> Credentials:
    return connection.app.state.services.credentials


def text_error(error: SDAPIError) -> Response:
    """One line of plain text; never with `Retry-After`, on which clients sleep (contract 6.4)."""
    return PlainTextResponse(error.detail, error.status)


def frame_of(item: Item) -> wire.Frame:
    return wire.Frame(item.index, item.tags, item.data, item.message)


def _query(connection: HTTPConnection) -> str:
    """The query string as it came; asking the URL for it takes as long as parsing it."""
    try:
        return connection.scope["query_string"].decode()
    except UnicodeDecodeError as error:
        raise BadParameter("the query string is no percent-encoded UTF-8") from error


def _identity(connection: HTTPConnection) -> Identity:
    """The caller's group and user; the short header names count before the older long ones."""

    def first(names: tuple[str, ...], default: str) -> str:
        found = next((v for name in names if (v := connection.headers.get(name))), default)
        if len(found) > _MAX_IDENTITY:
            raise BadParameter(f"{names[0]} has at most {_MAX_IDENTITY} characters")
        return found

    return Identity(first(_GROUP_HEADERS, _DEFAULT_GROUP), first(_USER_HEADERS, str(uuid.uuid4())))


def _is_rear(connection: HTTPConnection) -> bool:
    return connection.headers.get(REAR_HEADER, "").lower() == "true"


def _takes_protobuf(connection: HTTPConnection) -> bool:
    return wire.PROTOBUF in connection.headers.get("accept", "").lower()


async def _body(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit; kept, so that it can be asked for again."""
    kept: bytes | None = getattr(request.state, "queue_body", None)
    if kept is not None:
        return kept
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise PayloadTooLarge(f"the data is larger than {limit} bytes")
    except ClientDisconnect as error:
        raise BadParameter("the client went away in the middle of its body") from error
    request.state.queue_body = bytes(body)
    return request.state.queue_body


def _header(text: str) -> str:
    """A text as a header can carry it."""
    return text.encode("ascii", errors="replace").decode().replace("\r", " ").replace("\n", " ")


def _ok() -> Response:
    return PlainTextResponse("OK")


def _json(content: object) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")

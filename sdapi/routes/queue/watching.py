"""Watches: items as they come, over a WebSocket or as an endless answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from sdapi.errors import SDAPIError, ShuttingDown
from sdapi.queue.protocol import wire
from sdapi.queue.protocol.authorization import authorize
from sdapi.queue.protocol.parameters import BadParameter, Parameters
from sdapi.queue.sending import (
    connection_of,
    cut_off_when_stalled,
    until_arrived,
    until_left,
)
from sdapi.queue.service import Address
from sdapi.queue.stores.store import Delivery
from sdapi.queue.watching import Subscription
from sdapi.routes.queue.calls import Call, frame_of, text_error, until_disconnected

#: so much is committed ahead of its sending, to a consumer that commits nothing itself
_AHEAD_BYTES = 64 << 10

#: a watcher that commits by taking, and takes nothing for so long, gives its place to others;
#: long, since a reader may work on an item before it takes the next
STALL_S = 600.0

SendItem = Callable[[Delivery], Awaitable[None]]


async def watch(call: Call, socket: WebSocket, name: str, rest: str) -> None:
    """Items as they come, one frame each; what a caller did wrong is told before the handshake."""
    is_binary = call.takes_protobuf()

    async def send(delivery: Delivery) -> None:
        frame = frame_of(delivery.item)
        if is_binary:
            await socket.send_bytes(wire.encode_frame(frame))
        else:
            await socket.send_text(orjson.dumps(wire.frame_json(frame)).decode())

    async with AsyncExitStack() as until_end:
        try:
            address, parameters = watched(call, name, rest)
            subscribing = _subscribing(call, address, parameters)
            subscription = await until_end.enter_async_context(subscribing)
        except SDAPIError as error:
            await socket.send_denial_response(text_error(error))
            return
        await socket.accept()
        delivering = _deliver(call, address, subscription, send)
        has_left = await _until_either(delivering, _left(socket))
        if not has_left:
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(1001)


def watched(call: Call, name: str, rest: str) -> tuple[Address, Parameters]:
    """What a watch is of, checked; raises what its caller is told."""
    spec = call.service.spec(name)
    authorize(call.served.credentials, spec.name, call.headers)
    if not spec.is_async:
        raise BadParameter(f"{spec.name} is a synchronous service and has no queue")
    return call.service.address(spec, rest, is_rear=call.is_rear()), call.parameters()


def _subscribing(
    call: Call, address: Address, parameters: Parameters
) -> AbstractAsyncContextManager[Subscription]:
    """Become a consumer; raises `BadParameter`, and on entering what the store says."""
    if call.served.is_stopping():
        raise ShuttingDown("the server is shutting down")
    is_auto = parameters.flag("_auto_commit_")
    return call.service.subscribe(
        address,
        call.identity(),
        window=1 if is_auto else parameters.window,
        start=parameters.index,
        tags=parameters.tags,
        auto_commit=is_auto,
        index_only=parameters.flag("_index_only_"),
    )


async def _deliver(
    call: Call, address: Address, subscription: Subscription, send: SendItem
) -> None:
    """Send what comes until the subscription ends; raises `SDAPIError` when the store is away."""
    if not subscription.member.auto_commit:
        async for batch in subscription.batches():
            for delivery in batch:
                await send(delivery)
        return
    async with cut_off_when_stalled(connection_of(call.scope), STALL_S):
        async for batch in subscription.batches():
            for part in _parts(batch):
                if not await _deliver_for_good(call, address, part, send):
                    return


def _parts(batch: list[Delivery]) -> Iterator[list[Delivery]]:
    """Items in their order, together only where their data is no more than is sent ahead."""
    part, size = list[Delivery](), 0
    for delivery in batch:
        if part and size + len(delivery.item.data) > _AHEAD_BYTES:
            yield part
            part, size = [], 0
        part.append(delivery)
        size += len(delivery.item.data)
    yield part


async def _deliver_for_good(
    call: Call, address: Address, part: list[Delivery], send: SendItem
) -> bool:
    """Send items and commit them; False when the client has gone, which leaves them to others.

    Few bytes are committed first, once those before have left: then a reader finds them gone. Many
    are committed when they have arrived, since a reader may stop or go in the middle of them.
    """
    connection = connection_of(call.scope)
    is_short = sum(len(delivery.item.data) for delivery in part) <= _AHEAD_BYTES
    indexes = [delivery.item.index for delivery in part]
    if connection is not None and not await until_left(connection):
        return False
    if is_short:
        await call.service.commit(address.queue, call.identity(), indexes)
    for delivery in part:
        await send(delivery)
    if not is_short:
        if connection is not None and not await until_arrived(connection):
            return False
        await call.service.commit(address.queue, call.identity(), indexes)
    return True


async def _until_either(delivering: Awaitable[None], leaving: Awaitable[None]) -> bool:
    """Run both until one ends; whether it was the client that left."""
    tasks = [asyncio.ensure_future(delivering), asyncio.ensure_future(leaving)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        has_left = tasks[1].done()
    finally:
        for task in tasks:
            task.cancel()
        error, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect | SDAPIError):
        raise error
    return has_left


async def _left(socket: WebSocket) -> None:
    """Return when the client has gone; what it sends means nothing."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def watch_over_http(call: Call, address: Address, parameters: Parameters) -> Response:
    """The same as an endless answer: four bytes of length, then a frame, and so on."""
    return _Frames(call, address, _subscribing(call, address, parameters))


class _Frames(Response):
    """Begins once the caller is a consumer; until then an error has its status."""

    def __init__(
        self, call: Call, address: Address, subscribing: AbstractAsyncContextManager[Subscription]
    ) -> None:
        super().__init__(media_type=wire.PROTOBUF)
        self._call = call
        self._address = address
        self._subscribing = subscribing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        part = {"type": "http.response.body", "more_body": True}

        async def send_frame(delivery: Delivery) -> None:
            frame = wire.encode_frame(frame_of(delivery.item))
            await send(part | {"body": len(frame).to_bytes(4, "big") + frame})

        async with AsyncExitStack() as until_end:
            try:
                subscription = await until_end.enter_async_context(self._subscribing)
            except SDAPIError as error:
                await text_error(error)(scope, receive, send)
                return
            headers = [(b"content-type", wire.PROTOBUF.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            delivering = _deliver(self._call, self._address, subscription, send_frame)
            await _until_either(delivering, until_disconnected(receive))
        await send({"type": "http.response.body", "body": b""})

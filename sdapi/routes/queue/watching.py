"""Watches: items as they come, over a WebSocket or as an endless answer."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from sdapi.errors import SDAPIError, ShuttingDown
from sdapi.queue.protocol import wire
from sdapi.queue.protocol.authorization import authorize
from sdapi.queue.protocol.parameters import BadParameter, Parameters
from sdapi.queue.service import Address
from sdapi.queue.stores.store import Delivery
from sdapi.routes.queue.calls import Call, frame_of, text_error


async def watch(call: Call, socket: WebSocket, name: str, rest: str) -> None:
    """Items as they come, one frame each."""
    try:
        address, parameters = watched(call, name, rest)
    except SDAPIError as error:
        await socket.send_denial_response(text_error(error))
        return
    await socket.accept()
    is_binary = call.takes_protobuf()

    async def send(delivery: Delivery) -> None:
        frame = frame_of(delivery.item)
        if is_binary:
            await socket.send_bytes(wire.encode_frame(frame))
        else:
            await socket.send_text(orjson.dumps(wire.frame_json(frame)).decode())

    sending = asyncio.create_task(_deliver(call, address, parameters, send))
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


def watched(call: Call, name: str, rest: str) -> tuple[Address, Parameters]:
    """What a watch is of, checked; raises what its caller is told."""
    spec = call.service.spec(name)
    authorize(call.served.credentials, spec.name, call.headers)
    if not spec.is_async:
        raise BadParameter(f"{spec.name} is a synchronous service and has no queue")
    if call.served.is_stopping():
        raise ShuttingDown("the server is shutting down")
    parameters = call.parameters()
    _ = (parameters.index, parameters.window)  # refused now rather than later
    _ = (parameters.flag("_auto_commit_"), parameters.flag("_index_only_"))
    return call.service.address(spec, rest, is_rear=call.is_rear()), parameters


async def _deliver(
    call: Call,
    address: Address,
    parameters: Parameters,
    send: Callable[[Delivery], Awaitable[None]],
) -> None:
    """Be a consumer until replaced; with auto commit what is sent is committed before."""
    service, identity, is_auto = call.service, call.identity(), parameters.flag("_auto_commit_")
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


def watch_over_http(call: Call, address: Address, parameters: Parameters) -> Response:
    """The same as an endless answer: four bytes of length, then a frame, and so on."""
    watched(call, address.spec.name, "")
    frames: asyncio.Queue[bytes] = asyncio.Queue(1)

    async def send(delivery: Delivery) -> None:
        frame = wire.encode_frame(frame_of(delivery.item))
        await frames.put(len(frame).to_bytes(4, "big") + frame)

    async def stream() -> AsyncGenerator[bytes]:
        sending = asyncio.create_task(_deliver(call, address, parameters, send))
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

"""GET: items that are there, or come in time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sdapi.queue.protocol import wire
from sdapi.queue.protocol.parameters import Parameters
from sdapi.queue.sending import connection_of, until_arrived
from sdapi.queue.service import QueueService
from sdapi.queue.stores.store import Item, Query, QueueName
from sdapi.routes.queue.calls import (
    INDEX_HEADER,
    REQUEST_ID_HEADER,
    Call,
    frame_of,
    header_text,
    json_answer,
    until_disconnected,
)

#: an answer's end, whose arrival nothing waits for; small answers are no more than that
_END_BYTES = 16 << 10
#: a reader that takes nothing for so long gets no more, and the items stay
_STALL_S = 60.0


async def read_items(call: Call, queue: QueueName, parameters: Parameters) -> Response:
    """Items that match, as the caller wants them told; 204 when there are none in time."""
    service = call.service
    query = Query(parameters.index, parameters.length, tags=parameters.tags)
    timeout_s = parameters.timeout_s
    is_raw = parameters.flag("_raw_", True)
    claim = service.new_claim() if parameters.flag("_auto_delete_", True) else ""
    async with _gone(call) as gone:
        items = await service.get(queue, query, timeout_s, claim, gone)
        if not items:
            if timeout_s > 0:
                await _hold(gone, call.served.hold_s)
            return Response(status_code=204)
    response = _encoded(call, items, is_raw=is_raw and query.length == 1, as_json=is_raw)
    return _Claimed(response, service, queue, claim) if claim else response


async def _hold(gone: asyncio.Event, seconds: float) -> None:
    """Let a client whose own limit is the same as `_timeout_` reach it first (contract 6.2)."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await gone.wait()


def _encoded(call: Call, items: list[Item], *, is_raw: bool, as_json: bool) -> Response:
    if is_raw:
        item = items[0]
        headers = {
            REQUEST_ID_HEADER: header_text(item.request_id),
            INDEX_HEADER: str(item.index),
            "content-type": header_text(item.content_type) or "application/octet-stream",
        }
        return Response(item.data, headers=headers)
    frames = [frame_of(item) for item in items]
    if call.takes_protobuf() and not as_json:
        return Response(wire.encode_frames(frames), media_type=wire.PROTOBUF)
    return json_answer([wire.frame_json(frame) for frame in frames])


class _Claimed(Response):
    """Deletes the items between the last byte of the answer and its end.

    All but the end of a long answer must have arrived before: a client that has gone by then, or a
    process that dies before, leaves the items in the queue. The next request on this connection
    finds them deleted.
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
            was_sent = await self._send_body(scope, receive, send)
        finally:
            await self._service.settle(self._queue, self._claim, delete=was_sent)
        await send({"type": "http.response.body", "body": b""})

    async def _send_body(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the client was there for all of it."""
        body: bytes | memoryview = self._response.body
        part = {"type": "http.response.body", "more_body": True}
        connection = connection_of(scope)
        if connection is not None and len(body) > _END_BYTES:
            begin, body = memoryview(body)[:-_END_BYTES], body[-_END_BYTES:]
            await send(part | {"body": begin})
            if not await until_arrived(connection, _STALL_S):
                connection.abort()
                await until_disconnected(receive)
                return False
        await send(part | {"body": body})
        return not await Request(scope, receive).is_disconnected()


@asynccontextmanager
async def _gone(call: Call) -> AsyncGenerator[asyncio.Event]:
    """An event that is set when the client closes its connection."""
    gone = asyncio.Event()

    async def watch() -> None:
        await until_disconnected(call.receive)
        gone.set()

    task = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        task.cancel()

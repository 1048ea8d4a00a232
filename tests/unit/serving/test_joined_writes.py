"""Answers leave the server in one piece, whatever pieces they are made of."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvicorn
import websockets
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from sdapi.serving.joined_writes import JoinedWrites, JoiningProtocol

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Remembers what was written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.written.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def joined(wire: Wire) -> JoinedWrites:
    return JoinedWrites(wire, asyncio.get_running_loop())


async def test_what_is_written_within_a_turn_leaves_together(joined: JoinedWrites, wire: Wire):
    joined.write(b"head")
    joined.write(b"body")
    assert wire.written == []
    await asyncio.sleep(0)
    joined.write(b"next")
    await asyncio.sleep(0)
    assert wire.written == [b"headbody", b"next"]


async def test_much_does_not_wait_for_the_turns_end(joined: JoinedWrites, wire: Wire):
    for _ in range(10):
        joined.write(b"x" * 40_000)
    assert len(b"".join(wire.written)) == 400_000
    await asyncio.sleep(0)
    assert wire.written == [b"x" * 80_000] * 5


async def test_closing_sends_what_is_left_first(joined: JoinedWrites, wire: Wire):
    joined.write(b"last")
    joined.close()
    await asyncio.sleep(0)
    assert (wire.written, wire.is_closed) == ([b"last"], True)


async def test_a_connection_that_has_gone_takes_nothing(joined: JoinedWrites, wire: Wire):
    joined.write(b"late")
    wire.is_closed = True
    await asyncio.sleep(0)
    assert wire.written == []


class Greeting(asyncio.Protocol):
    """A WebSocket's side that writes as soon as it has the connection."""

    def __init__(self, **_: object) -> None:
        pass

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"greeting")

    def data_received(self, data: bytes) -> None:
        pass


async def test_an_answer_leaves_before_what_a_websocket_writes_after_it(wire: Wire):
    config = uvicorn.Config(app, http=JoiningProtocol, ws=Greeting, log_config=None)  # type: ignore[arg-type]
    config.load()
    protocol = JoiningProtocol(config, ServerState(), {})
    protocol.connection_made(wire)
    protocol.transport.write(b"answer")
    protocol.data_received(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert isinstance(wire.protocol, Greeting)
    await asyncio.sleep(0)
    assert wire.written == [b"answer", b"greeting"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes over a WebSocket; over HTTP answers a head, and later two parts of a body."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        text = (await receive())["text"]
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/slow":
        await receive()
        await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b"ab", "more_body": True})
    await send({"type": "http.response.body", "body": b"cd"})


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(app, http=JoiningProtocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield bound.getsockname()[1]
        server.should_exit = True
        await running


async def test_over_http_a_small_answer_is_one_packet_and_a_head_does_not_wait_for_its_body():
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read(1 << 16)).endswith(b"chunked\r\n\r\n")
        assert await reader.read() == b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
        writer.close()


async def test_a_websocket_begins_on_the_same_connection():
    async with serving() as port, websockets.connect(f"ws://127.0.0.1:{port}/") as peer:
        await peer.send("hello")
        assert await peer.recv() == "hello"

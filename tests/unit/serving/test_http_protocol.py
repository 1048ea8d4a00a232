"""Requests that do not come to their end."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from sdapi.serving import http_protocol
from sdapi.serving.http_protocol import HttpProtocol

pytestmark = pytest.mark.anyio


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a whole body with its size; `/early` before it came, `/late` when asked after it."""
    size, is_more = 0, scope["path"] != "/early"
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, is_more = size + len(message["body"]), message.get("more_body", False)
    if scope["path"] == "/late":
        with suppress(TimeoutError):
            await asyncio.wait_for(receive(), 1)
            return  # the client is said to have gone
    headers = [(b"content-length", str(len(str(size))).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode()})


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[uvicorn.Server, int]]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(app, http=HttpProtocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield server, bound.getsockname()[1]
        server.should_exit = True
        await running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute passes in a moment."""
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.2)
    monkeypatch.setattr(http_protocol, "BODY_S", 0.2)
    monkeypatch.setattr(http_protocol, "_LOOK_S", 0.05)


async def ask(port: int, text: bytes) -> bytes:
    """All that the server answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"", b""),
        (HEAD + b"X: half", b"HTTP/1.1 408 Request Timeout\r\n"),
        (HEAD + b"Content-Length: 9\r\n\r\nhalf", b"HTTP/1.1 408 Request Timeout\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nha", b"HTTP/1.1 408 Request Timeout\r\n"),
    ],
)
async def test_a_request_that_stops_is_ended(hasty: None, text: bytes, answer: bytes):
    async with serving() as (_, port):
        got = await ask(port, text)
    assert got.startswith(answer)
    assert bool(got) == bool(answer)


async def test_half_a_head_behind_a_request_does_not_end_that_request(hasty: None):
    late = b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
    async with serving() as (_, port):
        got = await ask(port, late + HEAD + b"X: half")
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.count(b"HTTP/1.1 408 ") == 1  # the half head's own, when its turn had come


async def test_half_a_body_behind_a_request_does_not_take_its_answer_when_the_server_stops():
    late = b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
    async with serving() as (server, port):
        asking = asyncio.create_task(ask(port, late + HEAD + b"Content-Length: 9\r\n\r\nhalf"))
        while not server.server_state.tasks:
            await asyncio.sleep(0.01)
        server.should_exit = True
        got = await asking
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.count(b"HTTP/1.1 ") == 1


async def test_a_line_end_after_an_answer_does_not_hold_the_connection(hasty: None):
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Content-Length: 4\r\n\r\nbody")
        assert (await reader.readuntil(b"\r\n\r\n4")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()


async def test_a_request_that_has_its_answer_gets_no_second_one(hasty: None):
    early = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
    async with serving() as (_, port):
        got = await ask(port, early)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.count(b"HTTP/1.1 ") == 1


async def test_a_body_that_comes_slowly_is_waited_for(hasty: None):
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.08)
            writer.write(b"x")
        assert (await reader.read(1 << 16)).endswith(b"\r\n\r\n8")
        writer.close()


@pytest.mark.parametrize(
    ("headers", "may_be_reset"),  # closed while most of it was still coming
    [
        (b"".join(b"X-%d: y\r\n" % number for number in range(20_000)), True),
        (b"X-Many: y\r\n" * 300, False),
        (b"X-Long: " + b"y" * (20 << 20) + b"\r\n", True),
    ],
    ids=["20,000 headers", "300 headers", "a header of 20 MB"],
)
async def test_a_head_without_measure_is_431(headers: bytes, may_be_reset: bool):
    async with serving() as (_, port):
        try:
            got = await ask(port, HEAD + headers + b"\r\n")
        except ConnectionResetError:
            assert may_be_reset
        else:
            assert got.startswith(b"HTTP/1.1 431 ")
        assert (await ask(port, HEAD + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_long_head_passes():
    async with serving() as (_, port):
        headers = b"X-Long: " + b"y" * 100_000 + b"\r\nConnection: close\r\n\r\n"
        assert (await ask(port, HEAD + headers)).startswith(b"HTTP/1.1 200 ")


async def test_requests_one_after_the_other_are_no_long_head():
    async with serving() as (_, port):
        one = HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000
        last = HEAD + b"Connection: close\r\n\r\n"
        got = await ask(port, one * 1000 + last)
    assert got.count(b"HTTP/1.1 200 ") == 1001


async def test_a_body_that_is_not_whole_when_the_server_stops_is_503():
    async with serving() as (server, port):
        asking = asyncio.create_task(ask(port, HEAD + b"Content-Length: 9\r\n\r\nhalf"))
        while not server.server_state.tasks:
            await asyncio.sleep(0.01)
        server.should_exit = True
        assert (await asking).startswith(b"HTTP/1.1 503 ")

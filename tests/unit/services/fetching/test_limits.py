"""Limits of time and size, and bodies that are not what they say."""

import asyncio
import gzip
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from sdapi.services.fetching.fetcher import Fetcher
from sdapi.settings import Settings
from tests.url_server import TRUSTING, answer, refusal, serving

pytestmark = pytest.mark.anyio


async def test_a_slow_body_ends_at_the_time_limit():
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(reply) as host:
        started = time.monotonic()
        text = await refusal(f"http://{host}/", timeout_s=0.3)
    assert time.monotonic() - started < 2
    assert text.endswith("no complete answer within 0.3 s")


async def test_a_slow_name_lookup_ends_at_the_time_limit():
    async def resolve(host: str, port: int) -> Sequence[str]:
        await anyio.sleep(60)
        return []

    by = Fetcher(Settings(data_dir=Path("/data")), resolve)
    assert "within 0.1 s" in await refusal("http://slow.example/", by, timeout_s=0.1)


async def test_an_announced_gigabyte_is_not_read():
    async with serving(answer(b"", content_length=str(1 << 30))) as host:
        assert "larger than 1000 bytes" in await refusal(f"http://{host}/")


@pytest.mark.parametrize("headers", ["", "transfer-encoding: chunked\r\n"])
async def test_a_gigabyte_that_nobody_announced_stops_at_the_limit(headers: str):
    sent = 0

    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode())
        block = bytes(1 << 16)
        framed = b"10000\r\n" + block + b"\r\n" if headers else block
        for _ in range(1 << 14):
            writer.write(framed)
            await writer.drain()
            sent += len(block)

    async with serving(reply) as host:
        assert "larger than" in await refusal(f"http://{host}/", max_bytes=1 << 20)
    assert sent < 64 << 20


async def test_a_content_length_that_lies_is_noticed():
    async with serving(answer(b"short", content_length="500")) as host:
        assert "the connection broke" in await refusal(f"http://{host}/")
    async with serving(answer(b"0123456789", content_length="4")) as host:
        body = await TRUSTING.get(f"http://{host}/", max_bytes=4, timeout_s=5)
    assert body == b"0123"


async def test_gzip_that_nobody_asked_for_is_unpacked():
    async with serving(answer(gzip.compress(b"x" * 900), content_encoding="gzip")) as host:
        assert await TRUSTING.get(f"http://{host}/", max_bytes=1000, timeout_s=5) == b"x" * 900


async def test_a_decompression_bomb_stops_at_the_limit():
    bomb = gzip.compress(bytes(200 << 20), compresslevel=1)
    async with serving(answer(bomb, content_encoding="gzip")) as host:
        started = time.monotonic()
        text = await refusal(f"http://{host}/", max_bytes=1 << 20)
    assert "larger than 1048576 bytes" in text
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_other_encodings_are_refused(encoding: str):
    async with serving(answer(b"x", content_encoding=encoding)) as host:
        assert "not asked for" in await refusal(f"http://{host}/")


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 500)[:-9]])
async def test_damaged_compression_is_refused(body: bytes):
    async with serving(answer(body, content_encoding="gzip")) as host:
        assert "compressed data" in await refusal(f"http://{host}/")

"""A loopback server of URLs, names that resolve to it, and fetchers to ask it with."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sdapi.errors import BadUrl
from sdapi.services.fetching.fetcher import Fetcher
from sdapi.settings import Settings

Reply = Callable[[bytes, asyncio.StreamWriter], Coroutine[object, object, None]]


class Names:
    """A resolver that knows what it is told and remembers what it was asked."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = {name.replace("_", "."): list(found) for name, found in known.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError("unknown name")
        return self.known[host]


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The host:port of a loopback server that reads a request's head and lets `reply` answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reply(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has seen enough
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Reply:
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        fields = {"content_length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body)

    return reply


def fetcher(names: Names | None = None, **overrides: object) -> Fetcher:
    return Fetcher(Settings(data_dir=Path("/data"), **overrides), names)  # type: ignore[arg-type]


TRUSTING = fetcher(allow_private_urls=True)


async def refusal(
    url: str, by: Fetcher = TRUSTING, max_bytes: int = 1000, timeout_s: float = 5.0
) -> str:
    with pytest.raises(BadUrl) as caught:
        await by.get(url, max_bytes=max_bytes, timeout_s=timeout_s)
    return caught.value.detail

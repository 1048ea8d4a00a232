"""What a host answers, read within bounds."""

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:  # it takes a while to import, and most requests name no URL
    import httpx

REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: bytes decoded at a time, so that a decompression bomb is noticed after this many too much
DECODE_STEP = 1 << 16


class Refused(Exception):
    """Why a URL was not fetched; the URL is put before it where it is known.

    `cause` is for the operator, who may learn more than the client.
    """

    def __init__(self, reason: str, cause: str | None = None) -> None:
        super().__init__(reason)
        self.cause = cause or reason


async def read_answer(
    url: "httpx.URL", response: "httpx.Response", max_bytes: int
) -> "bytes | httpx.URL":
    """The body, or where it has moved; raises `Refused`."""
    location = response.headers.get("location")
    if response.status_code in REDIRECTS and location:
        return _joined(url, location)
    if response.status_code != 200:
        raise Refused(f"the host answered {response.status_code}")
    body = bytearray()
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        _refuse_size(max_bytes)
    async with aclosing(_decoded(response)) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                _refuse_size(max_bytes)
    return bytes(body)


def _joined(url: "httpx.URL", location: str) -> "httpx.URL":
    import httpx

    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise Refused("the host redirects to an invalid URL") from error


def _refuse_size(max_bytes: int) -> Never:
    raise Refused(f"it is larger than {max_bytes} bytes")


async def _decoded(response: "httpx.Response") -> AsyncGenerator[bytes, None]:
    """The body in small steps; of encodings, which nobody asked for, only the bounded ones."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(f"the host sent it as {encoding[:40]!r}, which was not asked for")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by its header
    try:
        async for chunk in response.aiter_raw():
            while chunk and not decoder.eof:
                yield decoder.decompress(chunk, DECODE_STEP)
                chunk = decoder.unconsumed_tail
        yield decoder.flush(DECODE_STEP)
    except zlib.error as error:
        raise Refused("its compressed data is damaged") from error
    if not decoder.eof:
        raise Refused("its compressed data ends too early")

"""One write for one answer: what is sent within a turn of the event loop leaves together.

An HTTP server writes an answer's head and its body one after the other, and uvloop hands each to
the system at once. For small answers that second write, and the second packet that wakes the
client, cost as much as making the answer.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: more than this is written without waiting for the end of the turn: a stream may have no end
_AT_MOST_BYTES = 64 << 10


class JoinedWrites(asyncio.Transport):
    """A transport that keeps what is written until the event loop's next turn, in its order."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.inner = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(bytes(data))
        self._size += len(data)
        if self._size > _AT_MOST_BYTES:
            self._flush()

    def _flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self.inner.is_closing():
            self.inner.writelines(parts)

    def detach(self) -> asyncio.Transport:
        """The transport itself, for a protocol that follows; what is left is written first."""
        self._flush()
        return self.inner

    def close(self) -> None:
        self._flush()
        self.inner.close()

    def abort(self) -> None:
        self._parts.clear()
        self.inner.abort()

    def is_closing(self) -> bool:
        return self.inner.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._size + self.inner.get_write_buffer_size()

    def pause_reading(self) -> None:
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        self.inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.inner.get_extra_info(name, default)


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(JoinedWrites(transport, self.loop))

    def handle_websocket_upgrade(self) -> None:
        self.transport = cast(JoinedWrites, self.transport).detach()
        super().handle_websocket_upgrade()

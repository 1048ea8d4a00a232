"""Programs on ports of their own, as containers of a service are, that answer as they are told."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.queues.queue_stores import free_port

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone"
BROKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all"
UNAVAILABLE = (
    b"HTTP/1.1 503 No\r\nretry-after: 1\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy"
)


@dataclass
class RawProgram:
    """Writes bytes for each request and closes, unless it stalls.

    `asked` are the request lines, `heads` all lines before the body; of those that `left` the
    caller ended the connection while it stalled.
    """

    port: int = field(default_factory=free_port)
    answer: Callable[[str], bytes] = lambda line: OK
    stalls: bool = False
    asked: list[str] = field(default_factory=list[str])
    heads: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])
    _over: threading.Event = field(default_factory=threading.Event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError):  # who only looks whether the port answers
                await self._answer(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        sizes = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
        if sizes:
            await reader.readexactly(int(sizes[0].partition(":")[2]))
        line = head.partition(" HTTP/")[0]
        self.asked.append(line)
        self.heads.append(head)
        writer.write(self.answer(line))
        while self.stalls and not self._over.is_set():
            await asyncio.sleep(0.02)
            if reader.at_eof():
                self.left.append(line)
                return

    def _run(self, begun: threading.Event) -> None:
        async def serve() -> None:
            async with await asyncio.start_server(self._serve, "127.0.0.1", self.port):
                begun.set()
                while not self._over.is_set():
                    await asyncio.sleep(0.02)
            if answering := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(answering, timeout=10)

        asyncio.run(serve())

    @contextmanager
    def running(self) -> Iterator["RawProgram"]:
        """It listens for as long as the context lasts."""
        self._over.clear()
        begun = threading.Event()
        thread = threading.Thread(target=self._run, args=(begun,))
        thread.start()
        assert begun.wait(10)
        try:
            yield self
        finally:
            self._over.set()
            thread.join(10)

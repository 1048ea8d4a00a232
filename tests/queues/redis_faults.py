"""What can happen on the way to a Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass
class Way:
    """A port in front of a Redis. The answers of the next calls that hold `word` are lost.

    Such a call is executed; then its connection is cut.
    """

    redis_port: int
    port: int = 0
    word: bytes = b""
    losses: int = 0
    #: connections that have sent one of these words get no answer any more
    silent_words: tuple[bytes, ...] = ()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose(self, word: bytes, losses: int = 1) -> None:
        self.word, self.losses = word, losses

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self.redis_port)
        is_lost, sent = False, b""

        async def there() -> None:
            nonlocal is_lost, sent
            while data := await reader.read(1 << 16):
                sent += data[:1000]
                if self.losses and self.word in data:
                    self.losses -= 1
                    is_lost = True
                to_redis.write(data)
                await to_redis.drain()
            to_redis.close()

        async def back() -> None:
            while data := await from_redis.read(1 << 16):
                if is_lost:
                    break
                if not any(word in sent for word in self.silent_words):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        with suppress(OSError):
            await asyncio.gather(there(), back())


@asynccontextmanager
async def way_to(redis_url: str) -> AsyncIterator[Way]:
    way = Way(int(redis_url.rpartition(":")[2].partition("/")[0]))
    server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()

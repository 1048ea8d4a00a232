"""What can happen on the way to a Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class _Connection:
    sent: bytes = b""
    is_lost: bool = False
    is_silent: bool = False


@dataclass
class Way:
    """A port in front of a Redis, on which answers can be lost, and connections fall silent."""

    redis_port: int
    port: int = 0
    _word: bytes = b""
    _losses: int = 0
    _held_word: bytes = b""
    is_holding: bool = False
    _may_go: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: list[_Connection] = field(default_factory=list[_Connection])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose(self, word: bytes, losses: int = 1) -> None:
        """Let the next calls that hold a word be executed, and cut their connections."""
        self._word, self._losses = word, losses

    def hold(self, word: bytes) -> None:
        """Keep the next call that holds a word, until it is let go."""
        self._held_word = word

    def let_go(self) -> None:
        self._may_go.set()

    def silence(self, word: bytes) -> None:
        """Pass nothing on any more, there or back, on connections that have sent a word."""
        for each in self._connections:
            each.is_silent |= word in each.sent

    def connections_with(self, word: bytes) -> int:
        """How many there were on which it was sent."""
        return sum(word in each.sent for each in self._connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self.redis_port)
        connection = _Connection()
        self._connections.append(connection)

        async def there() -> None:
            while data := await reader.read(1 << 16):
                connection.sent += data[:1000]
                if self._losses and self._word in data:
                    self._losses -= 1
                    connection.is_lost = True
                if self._held_word and self._held_word in data:
                    self._held_word, self.is_holding = b"", True
                    await self._may_go.wait()
                if not connection.is_silent:
                    to_redis.write(data)
                    await to_redis.drain()
            to_redis.close()

        async def back() -> None:
            while data := await from_redis.read(1 << 16):
                if connection.is_lost:
                    break
                if not connection.is_silent:
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


async def cancel_at_every_step(make_call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Cancel a call after each number of steps it may have made: it ends cancelled, and soon."""
    for steps in range(60):
        call = asyncio.create_task(make_call())
        for _ in range(steps):
            await asyncio.sleep(0)
        if call.done():
            break
        call.cancel()
        await asyncio.wait([call], timeout=5)
        assert call.cancelled(), f"after {steps} steps"

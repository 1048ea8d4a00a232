"""A line in which creations wait for their turn."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sdapi.errors import QueueFull


class Line:
    """A few at a time; of the others so many wait, and so long, at most."""

    def __init__(self, what: str, at_once: int, most_waiting: int, patience_s: float) -> None:
        self._what = what
        self._few = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._patience_s = patience_s
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Among those that go on; raises QueueFull when too many wait, or too long."""
        if self._few.locked() and self._waiting >= self._most_waiting:
            raise QueueFull(f"{self._waiting} {self._what} are waiting already, which is the limit")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await self._few.acquire()
        except TimeoutError as error:
            raise QueueFull(
                f"none of the {self._what} that wait could begin within {self._patience_s:g} s"
            ) from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._few.release()

"""Puts of many callers in one call of the script, as a group commit has them.

Redis writes its append-only file once a call. While one call is under way the next one's puts
gather, so that under load they share the call, its writing and its news.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeout

#: of one call; a script holds up everybody else's
_BATCH = 64
_BATCH_BYTES = 8 << 20

Answer = Mapping[str, Any]
#: sends fields and data of some puts, and returns an answer for each
Send = Callable[[Sequence[Mapping[str, Any]], Sequence[bytes]], Awaitable[Sequence[Answer]]]


@dataclass(frozen=True, slots=True)
class _Put:
    fields: Mapping[str, Any]
    data: bytes
    answer: "asyncio.Future[Answer]"


class GatheredPuts:
    """Sends one batch at a time, in the order of the calls."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[_Put] = []
        self._sending: asyncio.Task[None] | None = None

    async def put(self, fields: Mapping[str, Any], data: bytes) -> Answer:
        """The script's answer to this put; raises what its call raised."""
        put = _Put(fields, data, asyncio.get_running_loop().create_future())
        self._waiting.append(put)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await put.answer

    async def _send_all(self) -> None:
        try:
            while batch := self._next():
                await self._send_one(batch)
        finally:
            self._sending = None

    def _next(self) -> list[_Put]:
        count = size = 0
        for put in self._waiting[:_BATCH]:
            size += len(put.data)
            if count and size > _BATCH_BYTES:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _send_one(self, batch: list[_Put]) -> None:
        try:
            answers = await self._send([put.fields for put in batch], [put.data for put in batch])
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:
            if _is_timeout(error):  # the others would wait as long, in turn
                batch += self._waiting
                self._waiting = []
            for put in batch:
                if not put.answer.done():
                    put.answer.set_exception(error)
            return
        for put, answer in answered:
            if not put.answer.done():  # else its caller has gone
                put.answer.set_result(answer)


def _is_timeout(error: BaseException | None) -> bool:
    """Whether one is at the bottom of it; a connection that was lost says nothing of the next."""
    while error is not None:
        if isinstance(error, TimeoutError | RedisTimeout):
            return True
        error = error.__cause__
    return False

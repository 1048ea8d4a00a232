"""Puts of many callers in one call."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import redis.exceptions

from sdapi.queue.stores.redis.puts import GatheredPuts
from sdapi.queue.stores.store import QueueStoreUnavailable

pytestmark = pytest.mark.anyio


def unavailable(cause: Exception) -> QueueStoreUnavailable:
    error = QueueStoreUnavailable("away")
    error.__cause__ = cause
    return error


NO_CONNECTION_IN_TIME = redis.exceptions.ConnectionError("No connection available.")
NO_CONNECTION_IN_TIME.__cause__ = TimeoutError()


@pytest.mark.parametrize(
    ("cause", "sent"),
    [
        (redis.exceptions.TimeoutError("Timeout reading from redis:6379"), 1),
        (TimeoutError(), 1),
        (NO_CONNECTION_IN_TIME, 1),
        (redis.exceptions.ConnectionError("Connection closed by server."), 10),
        (ConnectionResetError("reset"), 10),
    ],
)
async def test_only_a_call_that_was_not_answered_in_time_fails_all_that_wait(
    cause: Exception, sent: int
):
    calls, may_fail = list[int](), asyncio.Event()

    async def send(
        puts: Sequence[Mapping[str, Any]], data: Sequence[bytes]
    ) -> Sequence[Mapping[str, Any]]:
        calls.append(len(puts))
        await may_fail.wait()
        if len(calls) == 1:
            raise unavailable(cause)
        return [{} for _ in puts]

    gathered = GatheredPuts(send)
    puts = [asyncio.create_task(gathered.put({}, b"")) for _ in range(640)]
    while not calls:
        await asyncio.sleep(0)
    may_fail.set()
    answers = await asyncio.gather(*puts, return_exceptions=True)
    failed = sum(isinstance(answer, QueueStoreUnavailable) for answer in answers)
    assert (len(calls), failed) == (sent, 640 if sent == 1 else calls[0])

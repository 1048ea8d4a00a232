"""Puts of many callers in one call."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sdapi.queue.stores.redis.puts import GatheredPuts
from sdapi.queue.stores.store import QueueStoreUnavailable

pytestmark = pytest.mark.anyio


async def test_all_that_wait_for_a_store_that_is_away_fail_with_the_first_call():
    calls, may_fail = list[int](), asyncio.Event()

    async def send(
        puts: Sequence[Mapping[str, Any]], data: Sequence[bytes]
    ) -> Sequence[Mapping[str, Any]]:
        calls.append(len(puts))
        await may_fail.wait()
        raise QueueStoreUnavailable("away")

    gathered = GatheredPuts(send)
    puts = [asyncio.create_task(gathered.put({}, b"")) for _ in range(640)]
    while not calls:
        await asyncio.sleep(0)
    may_fail.set()
    answers = await asyncio.gather(*puts, return_exceptions=True)
    assert {type(answer) for answer in answers} == {QueueStoreUnavailable}
    assert len(calls) == 1

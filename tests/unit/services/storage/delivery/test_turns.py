"""Places that buckets share."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.services.storage.delivery.turns import Turns, free_places

pytestmark = pytest.mark.anyio


@given(st.integers(1, 64), st.integers(0, 64), st.integers(0, 64))
def test_no_more_places_are_given_than_there_are(places: int, own: int, others: int):
    free = free_places(places, own, others)
    assert free == 0 or own + others + free <= places
    assert free > 0 or own > 0 or others >= places  # nobody is left with none while one is free


def test_a_bucket_alone_leaves_half_of_the_places():
    assert [free_places(32, 0, others) for others in (0, 16, 24, 30, 31, 32)] == [16, 8, 4, 1, 1, 0]


async def test_uploads_of_a_bucket_wait_for_its_places_and_go_in_their_order():
    turns, went, goes_on = Turns(4), list[int](), asyncio.Event()

    async def upload(number: int) -> None:
        async with turns.turn("a", 10):
            went.append(number)
            await goes_on.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(upload(number))
        await asyncio.sleep(0.01)
        assert went == [0, 1]
        goes_on.set()
    assert went == [0, 1, 2, 3, 4, 5]


async def test_a_freed_place_goes_to_the_bucket_with_the_fewest():
    turns, held, ends = Turns(2), Counter[str](), asyncio.Semaphore(0)

    async def upload(bucket: str) -> None:
        async with turns.turn(bucket, 10):
            held[bucket] += 1
            await ends.acquire()
        held[bucket] -= 1

    async with asyncio.TaskGroup() as group:
        for bucket in ("a", "a", "b", "b", "c"):
            group.create_task(upload(bucket))
        await asyncio.sleep(0.01)
        assert +held == Counter("ab")
        ends.release()  # that of a
        await asyncio.sleep(0.01)
        assert +held in (Counter("bc"), Counter("ab"))
        for _ in range(4):
            ends.release()
            await asyncio.sleep(0.01)
    assert not +held


async def test_an_upload_without_a_place_gives_up_in_time_and_holds_nobody_up():
    turns = Turns(2)
    async with turns.turn("a", 0):
        with pytest.raises(TimeoutError):
            async with turns.turn("a", 0.01):
                pass
    async with asyncio.timeout(1), turns.turn("a", 1):
        pass


async def test_cancelled_uploads_leave_no_place_taken():
    turns, goes_on = Turns(8), asyncio.Event()

    async def upload() -> None:
        async with turns.turn("a", 10):
            await goes_on.wait()

    tasks = [asyncio.create_task(upload()) for _ in range(20)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(1), AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(turns.turn("a", 1))


async def test_an_upload_cancelled_as_it_is_given_its_place_passes_it_on():
    turns, first_ends = Turns(2), asyncio.Event()

    async def upload(ends: asyncio.Event) -> None:
        async with turns.turn("a", 10):
            await ends.wait()

    never = asyncio.Event()
    first, second = (asyncio.create_task(upload(e)) for e in (first_ends, never))
    await asyncio.sleep(0.01)
    first_ends.set()
    await first  # which has given its place to the second, not yet awake
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    async with asyncio.timeout(1), turns.turn("a", 1):
        pass

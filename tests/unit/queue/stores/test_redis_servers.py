"""Several servers on one Redis, and connections that end."""

import asyncio
from typing import Any

import pytest
import redis
import redis.asyncio

from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.store import (
    Change,
    Event,
    QueueStoreUnavailable,
)
from tests.queues.queue_stores import redis_servers
from tests.queues.store_calls import (
    SOURCE,
    item,
    wait_for,
)

pytestmark = pytest.mark.anyio
SERVERS = redis_servers()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_put_is_told_once_to_every_server_of_a_redis(name: str, redis_urls: dict[str, str]):
    async with redis.asyncio.Redis.from_url(redis_urls[name]) as client:
        await client.flushall()
    heard: tuple[list[Event], list[Event]] = ([], [])
    first, second = RedisStore(redis_urls[name]), RedisStore(redis_urls[name])
    put = Event(Change.PUT, SOURCE, {"requestId": "r-a"})

    async def hear(*counts: int) -> None:
        async with asyncio.timeout(5):
            while [events.count(put) for events in heard] != list(counts):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert [events.count(put) for events in heard] == list(counts)

    await first.open(heard[0].append)
    await first.put(SOURCE, item("a"))
    await hear(1, 0)
    await second.open(heard[1].append)
    await first.put(SOURCE, item("a"))  # a repeated put is told again: it may be a lost answer's
    await hear(2, 1)
    await second.put(SOURCE, item("a"))
    await hear(3, 2)
    await first.close()
    await second.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_whose_subscription_is_cut_tells_the_others_of_its_put(
    name: str, redis_urls: dict[str, str]
):
    # this client blocks the loop, so that the first store cannot know of the cut when it puts
    with redis.Redis.from_url(redis_urls[name]) as client:
        client.flushall()
        heard: tuple[list[Event], list[Event]] = ([], [])
        first, second = RedisStore(redis_urls[name]), RedisStore(redis_urls[name])
        await first.open(heard[0].append)
        await first.put(SOURCE, item("a"))
        [subscriber] = client.client_list(_type="pubsub")
        await second.open(heard[1].append)
        heard[0].clear()
        client.client_kill_filter(_id=subscriber["id"])
        await first.put(SOURCE, item("b"))
        put, anything = (Event(Change.PUT, SOURCE, tags) for tags in ({"requestId": "r-b"}, None))
        await wait_for(lambda: put in heard[1])
        await wait_for(lambda: anything in heard[0])
        await first.close()
        await second.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_connection_that_is_closed_while_it_is_written_to_is_a_store_that_is_away(
    name: str, redis_urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    async def closed(self: redis.asyncio.Connection, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")

    store = RedisStore(redis_urls[name])
    await store.open(lambda event: None)
    with monkeypatch.context() as patched:
        patched.setattr(redis.asyncio.Connection, "send_packed_command", closed)
        with pytest.raises(QueueStoreUnavailable, match="does not answer"):
            await store.put(SOURCE, item("a"))
    assert await store.put(SOURCE, item("a"))
    await store.close()

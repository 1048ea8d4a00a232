"""What a server does about a Redis that is cut off, slow or away."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.client import PubSub

from sdapi.errors import StorageFailed
from sdapi.queue import service as queue_service
from sdapi.queue.service import QueueService
from sdapi.queue.stores.redis import store as redis_store
from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.store import Event, Query, QueueStoreUnavailable
from tests.queues.queue_stores import redis_servers
from tests.queues.redis_faults import Way, cancel_at_every_step, way_to
from tests.queues.store_calls import (
    COUNTING,
    NODE,
    SINK,
    SOURCE,
    handed,
    item,
    member,
    put_all,
    take,
    texts,
    wait_for,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=redis_servers())
async def url(request: pytest.FixtureRequest, redis_urls: dict[str, str]) -> str:
    """Of an empty Redis."""
    async with redis.asyncio.Redis.from_url(redis_urls[request.param]) as client:
        await client.flushall()
    return redis_urls[request.param]


@pytest.fixture
async def way(url: str) -> AsyncIterator[Way]:
    async with way_to(url) as way:
        yield way


@pytest.fixture
async def store(way: Way) -> AsyncIterator[RedisStore]:
    """Reaches its Redis by `way`."""
    store = RedisStore(way.url)
    await store.open(lambda event: None)
    yield store
    await store.close()


async def test_a_call_that_is_cancelled_ends_cancelled_whatever_it_is_doing(store: RedisStore):
    await cancel_at_every_step(lambda: store.beat(NODE))


async def test_a_store_closes_whatever_its_subscription_is_doing(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_store, "_RETRY_S", 0)
    for steps in range(0, 120, 5):
        store = RedisStore(url)
        await store.open(lambda event: None)
        with redis.Redis.from_url(url) as client:
            for each in client.client_list(_type="pubsub"):
                client.client_kill_filter(_id=each["id"])
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.wait_for(store.close(), 10)


async def test_a_round_whose_answer_was_lost_is_answered_again(store: RedisStore, way: Way):
    await store.join(SOURCE, member(window=2))
    await put_all(store, "a", "b")
    way.lose(b'"token"')
    with pytest.raises(QueueStoreUnavailable):
        await take(store)
    await put_all(store, "c")
    assert handed(await take(store)) == [("u", "a"), ("u", "b")]
    assert handed(await take(store)) == []


async def test_a_lost_round_of_a_consumer_that_has_gone_is_not_the_next_ones(
    store: RedisStore, way: Way
):
    gone: Any = member("gone")
    await store.join(SOURCE, gone)
    await put_all(store, "a")
    way.lose(b'"token"')
    with pytest.raises(QueueStoreUnavailable):
        await take(store)
    await store.leave(SOURCE, gone)
    await store.join(SOURCE, member("next"))
    assert handed(await take(store)) == [("next", "a")]


async def test_a_redis_without_memory_can_be_emptied(store: RedisStore, url: str):
    await store.join(SOURCE, member("w", group="svc", window=4))
    await put_all(store, "a", "b")
    await put_all(store, "c", queue=SINK)
    with redis.Redis.from_url(url) as client:
        try:
            client.config_set("maxmemory", "1")
            with pytest.raises(StorageFailed, match="no memory"):
                await store.put(SOURCE, item("d"))
            await store.begin_node(NODE)
            assert await store.beat(NODE)
            await store.join(SOURCE, member("u", group="eas"))
            first, second = (await take(store, "svc", rules=COUNTING)).deliveries
            assert await store.finish(SOURCE, "svc", 1, first.fence, item("result", "r-a"))
            assert await store.release(SOURCE, "svc", 2, second.fence, counts=True, code=500)
            await store.reject(SOURCE, "svc", "w", [], retire=True)
            await store.commit(SOURCE, "eas", [1, 2])
            await store.leave(SOURCE, member("u", group="eas"))
            assert [each.index for each in await store.get(SINK, Query(length=9), f"{NODE}:1")] == [
                1,
                2,
            ]
            await store.settle(SINK, f"{NODE}:1", delete=True)
        finally:
            client.config_set("maxmemory", "0")
    assert await texts(store, SINK) == []


async def test_what_is_given_back_or_committed_again_is_noted_once(store: RedisStore, url: str):
    await put_all(store, "a")
    await store.join(SOURCE, member())
    await store.join(SOURCE, member(group="h"))
    for _ in range(3):
        await take(store)
        await store.reject(SOURCE, "g", "u", [1], retire=False)
        await store.commit(SOURCE, "g", [1])
        await store.commit(SOURCE, "g", [1])
        with redis.Redis.from_url(url) as client:
            assert client.hget("sdapi:q:svc:avoid", "1") == b'{"g":["u"]}'
            assert client.hget("sdapi:q:svc:done", "1") == b'["g"]'
            client.hdel("sdapi:q:svc:done", "1")


async def test_a_common_tag_costs_a_round_no_more_than_the_items_it_hands_out(
    store: RedisStore, url: str
):
    for priority in (0, 1):
        await asyncio.gather(
            *(
                store.put(SOURCE, item(f"{priority}-{n}", tags={"k": "v"}, priority=priority))
                for n in range(1000)
            ),
            *(store.put(SOURCE, item(f"other-{priority}-{n}")) for n in range(300)),
        )
    await store.join(SOURCE, member(tags={"k": "v"}))
    with redis.Redis.from_url(url) as client:
        client.config_resetstat()
        assert handed(await take(store)) == [("u", "1-0")]
        calls = sum(each["calls"] for each in client.info("commandstats").values())
    assert calls < 600


async def test_a_connection_that_redis_has_closed_while_it_lay_idle_costs_nobody_a_call(
    store: RedisStore, url: str
):
    await asyncio.gather(*(store.count(SOURCE, {}) for _ in range(20)))
    with redis.Redis.from_url(url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.1)
    answers = await asyncio.gather(*(store.count(SOURCE, {}) for _ in range(20)))
    assert answers == [0] * 20


async def test_a_subscription_that_has_gone_silent_is_made_anew(
    way: Way, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_store, "_TIMEOUT_S", 0.4)
    monkeypatch.setattr(redis_store, "_RETRY_S", 0.05)
    events = list[Event]()
    store, other = RedisStore(way.url), RedisStore(url)
    await store.open(events.append)
    await other.open(lambda event: None)
    way.silence(b"SUBSCRIBE")
    events.clear()
    await other.put(SOURCE, item("a"))
    await wait_for(lambda: any(event.queue == SOURCE for event in events))
    events.clear()
    await other.put(SOURCE, item("b"))
    await wait_for(lambda: any(event.tags for event in events))
    await asyncio.sleep(1)  # an idle subscription stays
    assert way.connections_with(b"SUBSCRIBE") == 2
    await store.close()
    await other.close()


async def test_what_is_under_way_when_a_store_closes_is_told_so(store: RedisStore, url: str):
    with redis.Redis.from_url(url) as client:
        client.client_pause(60_000, all=False)
        try:
            calls = [asyncio.create_task(store.put(SOURCE, item(name))) for name in "ab"]
            calls.append(asyncio.create_task(store.count(SOURCE, {})))
            await asyncio.sleep(0.1)
            await store.close()
            done, _ = await asyncio.wait(calls, timeout=5)
        finally:
            client.client_unpause()
    assert [type(call.exception()) for call in done] == [QueueStoreUnavailable] * 3


async def test_a_get_whose_caller_goes_hides_no_item_however_late_its_call_is(
    way: Way, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_service, "_AGAIN_S", 0.05)
    service = QueueService(RedisStore(way.url), [])
    await service.open()
    await service.store.put(SINK, item("a"))
    way.hold(b"\r\nget\r\n")
    get = service.get(SINK, Query(), 5, service.new_claim(), asyncio.Event())
    getting = asyncio.create_task(get)
    await wait_for(lambda: way.is_holding)
    getting.cancel()
    await asyncio.wait([getting], timeout=5)
    assert getting.cancelled()
    await asyncio.sleep(0.3)
    way.let_go()
    await asyncio.sleep(0.5)
    [found] = await service.store.get(SINK, Query(), service.new_claim())
    assert found.data == b"a"
    await service.close()


@pytest.mark.parametrize("error", [RuntimeError("odd"), AttributeError("odd")])
async def test_news_come_again_after_an_error_that_nobody_foresaw(
    url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_store, "_RETRY_S", 0.05)
    events, real, errors = list[Event](), PubSub.get_message, [error]
    store, other = RedisStore(url), RedisStore(url)
    await store.open(events.append)

    async def get_message(self: PubSub, *given: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return await real(self, *given, **named)

    monkeypatch.setattr(PubSub, "get_message", get_message)
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.publish("sdapi:events", "[]")
        await wait_for(lambda: not errors)
    await other.open(lambda event: None)
    await other.put(SOURCE, item("a"))
    await wait_for(lambda: any(event.queue == SOURCE for event in events))
    await store.close()
    await other.close()

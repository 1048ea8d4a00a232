"""What a server's portraits do about a Redis that is full, slow, cut off or forbidden."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from redis import Redis

from sdapi.errors import StorageFailed
from sdapi.portrait.state.records import Account, NewJob, Outcome
from sdapi.portrait.state.redis_store import RedisPortraitStore
from sdapi.portrait.state.store import StateUnavailable
from sdapi.redis import calling
from sdapi.redis.rights import RIGHTS
from tests.queues.queue_stores import as_user, redis_servers
from tests.queues.redis_faults import cancel_at_every_step, way_to

pytestmark = pytest.mark.anyio

OWNER = "app:1"
ACCOUNT = Account("1", "token", ("sd15",), quota=5)
JOB = NewJob(OWNER, "m", {"urls": ["http://a/0.jpg"]}, "1")
DONE = Outcome("success", "{}", {"base": "sd15"})


@pytest.fixture(params=redis_servers())
def url(request: pytest.FixtureRequest, redis_urls: dict[str, str]) -> str:
    """Of an empty Redis."""
    with Redis.from_url(redis_urls[request.param]) as client:
        client.flushall()
    return redis_urls[request.param]


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisPortraitStore]:
    store = RedisPortraitStore(url)
    await store.open()
    yield store
    await store.close()


async def test_a_call_that_is_cancelled_ends_cancelled_whatever_it_is_doing(
    store: RedisPortraitStore,
):
    await cancel_at_every_step(lambda: store.account("1"))


async def test_a_connection_that_redis_has_closed_while_it_lay_idle_costs_nobody_a_call(
    store: RedisPortraitStore, url: str
):
    await asyncio.gather(*(store.account("1") for _ in range(20)))
    with Redis.from_url(url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.1)
    assert await asyncio.gather(*(store.account("1") for _ in range(20))) == [None] * 20


async def test_calls_wait_for_a_connection(store: RedisPortraitStore):
    assert await asyncio.gather(*(store.account("1") for _ in range(300))) == [None] * 300


async def test_a_redis_without_memory_refuses_what_is_new_and_lets_the_rest_end(
    store: RedisPortraitStore, url: str
):
    await store.add_account(ACCOUNT)
    for _ in range(2):
        await store.add_job(JOB)
    await store.folder_marker("first")
    with Redis.from_url(url) as client:
        try:
            client.config_set("maxmemory", "1")
            for begin in (
                partial(store.add_account, Account("2", "token")),
                partial(store.add_job, JOB),
                partial(store.take_call, "1"),
            ):
                with pytest.raises(StorageFailed, match="no memory"):
                    await begin()
            assert await store.folder_marker("second") == "first"  # a server starts
            first, second = await store.claim_job("a", 60), await store.claim_job("a", 60)
            assert first is not None
            assert second is not None
            assert await store.renew_job(first.id, "a", 60)
            assert await store.finish_job(first.id, "a", DONE)
            assert await store.release_job(second.id, "a")
            assert await store.model(OWNER, "m") is not None
            await store.put_model(OWNER, "n", {})
            assert await store.set_quota("1", 1) is not None
            assert await store.delete_model(OWNER, "m")
            assert await store.remove_account("1")
        finally:
            client.config_set("maxmemory", "0")
    assert await store.model_ids(OWNER) == ["n"]


async def test_what_is_under_way_when_a_store_closes_is_told_so(
    store: RedisPortraitStore, url: str
):
    with Redis.from_url(url) as client:
        client.client_pause(60_000, all=False)
        try:
            calls = [asyncio.create_task(store.account("1")) for _ in range(40)]
            await asyncio.sleep(0.1)
            await store.close()
            done, _ = await asyncio.wait(calls, timeout=5)
        finally:
            client.client_unpause()
    assert [type(call.exception()) for call in done] == [StateUnavailable] * 40
    with pytest.raises(StateUnavailable, match="not open"):
        await store.account("1")


async def test_a_redis_that_has_fallen_silent_is_one_that_is_away(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calling, "_TIMEOUT_S", 0.3)
    async with way_to(url) as way:
        store = RedisPortraitStore(way.url)
        await store.open()
        way.silence(b"EVALSHA")
        with pytest.raises(StateUnavailable, match="does not answer: Timeout"):
            await asyncio.wait_for(store.add_account(ACCOUNT), 5)
        assert await store.add_account(ACCOUNT)  # on another connection
        await store.close()


async def test_a_call_whose_answer_was_lost_is_not_made_again(url: str):
    async with way_to(url) as way:
        store = RedisPortraitStore(way.url)
        await store.open()
        await store.add_account(ACCOUNT)
        way.lose(b"take_call")
        with pytest.raises(StateUnavailable, match="does not answer"):
            await store.take_call("1")
        account = await store.account("1")
        assert account is not None
        assert account.used == 1
        await store.close()


@pytest.mark.parametrize("right", ["+evalsha", "+@hash", "~sdapi:*"])
async def test_a_user_without_a_right_is_told_which_are_needed(url: str, right: str):
    store = RedisPortraitStore(as_user(url, RIGHTS.replace(right, "")))
    with pytest.raises(StateUnavailable, match="Redis refuses its user: ") as error:
        await store.open()
    assert RIGHTS in error.value.detail

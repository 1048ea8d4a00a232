"""What a Redis refuses a user is told at the start, with the rights that are needed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from sdapi.queue.stores.redis import store as redis_store
from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.store import QueueStoreUnavailable
from sdapi.redis.rights import RIGHTS
from tests.queues.queue_stores import as_user, redis_server, redis_servers
from tests.queues.store_calls import SOURCE, item

pytestmark = pytest.mark.anyio
SERVERS = redis_servers()
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module", params=SERVERS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with redis_server(SERVERS[request.param], folder, "no") as server:
        yield server.url


@asynccontextmanager
async def deaf_to_subscriptions(url: str) -> AsyncIterator[int]:
    """A port of a Redis that passes everything on but a request to subscribe."""
    real = int(url.rpartition(":")[2].partition("/")[0])

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if b"SUBSCRIBE" not in data:
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", real)
        await asyncio.gather(copy(reader, to_redis), copy(from_redis, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("rights", "refused"),
    [
        (RIGHTS.replace("&sdapi:events*", ""), "channels"),
        (RIGHTS.replace("~sdapi:*", "~other:*"), "key"),
        (RIGHTS.replace("+evalsha", ""), "evalsha"),
        (RIGHTS.replace("+info", ""), "info"),
    ],
)
async def test_a_user_without_a_right_is_told_which_are_needed(url: str, rights: str, refused: str):
    store = RedisStore(as_user(url, rights))
    with pytest.raises(QueueStoreUnavailable, match=refused) as error:
        await asyncio.wait_for(store.open(lambda event: None), 5)
    assert error.value.detail.startswith("--queue-url: Redis refuses its user: ")
    assert RIGHTS in error.value.detail


async def test_a_wrong_password_is_no_silence(url: str):
    store = RedisStore(url.replace("redis://", "redis://nobody:secret@"))
    with pytest.raises(QueueStoreUnavailable, match="Redis refuses: invalid username-password"):
        await asyncio.wait_for(store.open(lambda event: None), 5)


async def test_a_redis_that_does_not_confirm_a_subscription_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_store, "_TIMEOUT_S", 0.5)
    async with deaf_to_subscriptions(url) as port:
        store = RedisStore(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(QueueStoreUnavailable, match="does not answer: no subscription"):
            await asyncio.wait_for(store.open(lambda event: None), 5)


async def test_the_documentation_has_the_rights():
    text = (ROOT / "docs" / "queue.md").read_text(encoding="utf-8")
    assert f"\n    {RIGHTS}\n" in text


async def test_nothing_that_a_server_does_is_refused_to_a_user_with_the_rights(url: str):
    store = RedisStore(as_user(url, RIGHTS))
    with redis.Redis.from_url(url) as client:
        client.acl_log_reset()
        await store.open(lambda event: None)
        await store.put(SOURCE, item("a"))
        await store.close()
        assert client.acl_log() == []

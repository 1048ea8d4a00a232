"""Every store there is, as a fixture."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio

from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import Event, Store
from sdapi.redis.rights import RIGHTS
from tests.queues.queue_stores import as_user, redis_servers

KINDS = ["sqlite", *redis_servers()]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def events() -> list[Event]:
    return []


@pytest.fixture
async def store(
    kind: str, tmp_path: Path, events: list[Event], redis_urls: dict[str, str]
) -> AsyncIterator[Store]:
    if kind == "sqlite":
        opened: Store = SqliteStore(tmp_path / "sdapi.db")
    else:
        async with redis.asyncio.Redis.from_url(redis_urls[kind]) as client:
            await client.flushall()
        opened = RedisStore(as_user(redis_urls[kind], RIGHTS))
    await opened.open(events.append)
    yield opened
    await opened.close()

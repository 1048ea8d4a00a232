"""Every store there is, as a fixture."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis.asyncio

from sdapi.queue.stores.redis.rights import RIGHTS
from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import Event, Store
from tests.queues.queue_stores import as_user, redis_server, redis_servers

SERVERS = redis_servers()
KINDS = ["sqlite", *SERVERS]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def events() -> list[Event]:
    return []


@pytest.fixture(scope="session")
def redis_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running server of each kind; without waits for the disk, which is not what is tested."""
    with ExitStack() as running:
        yield {
            name: running.enter_context(
                redis_server(program, tmp_path_factory.mktemp(name), "no")
            ).url
            for name, program in SERVERS.items()
        }


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

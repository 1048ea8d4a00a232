"""A caller who leaves while the store is at work: what is counted fits what was begun."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Handlers
from sdapi.portrait.state.records import Account, Outcome
from sdapi.portrait.state.redis_store import RedisPortraitStore
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.surfaces.accounts import Accounts, SignedCall
from sdapi.portrait.surfaces.rest import RestApi
from sdapi.portrait.wire.signature import sign
from tests.queues.queue_stores import redis_server, redis_servers

pytestmark = pytest.mark.anyio

TRAIN = "/api/v1/aigc_images/train"
ACCOUNT = Account("1", "token", quota=5)
#: longer than any of these tests; each ends its own stall
STALL_S = 60
#: holds a store up; what it returns lets it go
Stall = Callable[[], Callable[[], None]]


class Trainer:
    """Says that it could."""

    async def can_train(self, *, is_xl: bool) -> bool:
        return True


class Stalling:
    """A store that another client's work holds up when one of its steps first begins."""

    def __init__(self, store: PortraitStore, step: str, stall: Stall) -> None:
        self._store, self._step, self._stall = store, step, stall
        self.began = asyncio.Event()
        self.release: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        does = getattr(self._store, name)
        if name != self._step:
            return does

        async def begin(*arguments: Any) -> Any:
            if not self.began.is_set():
                self.release = self._stall()
                self.began.set()
            return await does(*arguments)

        return begin


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = next(iter(redis_servers().values()))
    with redis_server(program, tmp_path_factory.mktemp("redis"), fsync="no") as server:
        yield server.url


@pytest.fixture(params=["sqlite", *list(redis_servers())[:1]])
async def store_and_stall(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[PortraitStore, Stall]]:
    """A store, and what holds it up."""
    if request.param == "sqlite":
        store: PortraitStore = SqlitePortraitStore(tmp_path / "sdapi.db")

        def stall() -> Callable[[], None]:
            db = sqlite3.connect(tmp_path / "sdapi.db", isolation_level=None)
            db.execute("BEGIN IMMEDIATE")
            return db.close
    else:
        url: str = request.getfixturevalue("redis_url")
        with Redis.from_url(url) as redis:
            redis.flushall()
        store = RedisPortraitStore(url)

        def stall() -> Callable[[], None]:
            with Redis.from_url(url) as redis:
                redis.client_pause(STALL_S * 1000, all=False)  # of writes, so that it can be ended
            return release

        def release() -> None:
            with Redis.from_url(url) as redis:
                redis.client_unpause()

    await store.open()
    await store.add_account(ACCOUNT)
    yield store, stall
    await store.close()


def signed() -> SignedCall:
    body = json.dumps({"images": ["http://a/0.jpg"]}).encode()
    return SignedCall(f"1:{sign('token', 'POST', TRAIN, body)}", "POST", TRAIN, "", body)


async def used(store: PortraitStore) -> int:
    account = await store.account("1")
    assert account is not None
    return account.used


@pytest.mark.parametrize("step", ["take_call", "add_job"])
async def test_a_training_whose_caller_leaves_goes_on_and_is_counted(
    store_and_stall: tuple[PortraitStore, Stall], step: str
):
    store, stall = store_and_stall
    stalling: Any = Stalling(store, step, stall)
    woken: list[None] = []
    nothing: Any = None
    trainer: Any = Trainer()
    api = RestApi(
        stalling,
        nothing,
        nothing,
        Handlers(trainer),
        on_job=lambda: woken.append(None),
        is_corrected=False,
    )
    asking = asyncio.ensure_future(api.answer(signed()))
    async with asyncio.timeout(20):
        await stalling.began.wait()
        asking.cancel()
        await asyncio.sleep(0)  # the cancellation is there before the store answers
        stalling.release()
        await asyncio.wait([asking])
    assert asking.cancelled()
    job = await store.claim_job("h", 60)
    assert job is not None
    assert (await used(store), len(woken)) == (1, 1)
    # Its failure gives the one call back, and no other.
    await api.answer(signed())
    assert await store.finish_job(job.id, "h", Outcome("Image process error", "{}"))
    assert await used(store) == 1


async def test_a_check_whose_caller_leaves_while_it_is_counted_is_given_back(
    store_and_stall: tuple[PortraitStore, Stall],
):
    store, stall = store_and_stall
    stalling: Any = Stalling(store, "take_call", stall)

    async def check() -> None:
        async with Accounts(stalling).counted(ACCOUNT):
            await asyncio.sleep(60)

    checking = asyncio.ensure_future(check())
    async with asyncio.timeout(20):
        await stalling.began.wait()
        checking.cancel()
        await asyncio.sleep(0)
        stalling.release()
        await asyncio.wait([checking])
    assert checking.cancelled()
    assert await used(store) == 0


async def test_a_call_over_the_quota_is_not_given_back(
    store_and_stall: tuple[PortraitStore, Stall],
):
    store, _ = store_and_stall
    await store.set_quota("1", 1)
    await store.take_call("1")
    with pytest.raises(PortraitError, match="exceeded quota"):
        async with Accounts(store).counted(ACCOUNT):
            raise AssertionError
    assert await used(store) == 1

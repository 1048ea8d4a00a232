"""Which servers live, as one of them sees it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdapi.errors import SDAPIError
from sdapi.queue import presence
from sdapi.queue.presence import BEAT_S, LEASE_S, Presence
from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import QueueStoreUnavailable

pytestmark = pytest.mark.anyio


class AwayStore(SqliteStore):
    """A store that can be away, as a Redis that is started anew."""

    is_away = False
    loses_answers = False

    async def begin_node(self, node: str) -> None:
        self._look()
        await super().begin_node(node)

    async def beat(self, node: str) -> bool:
        self._look()
        is_known = await super().beat(node)
        if self.loses_answers:
            raise QueueStoreUnavailable("the answer is lost")
        return is_known

    async def beats(self) -> dict[str, int]:
        self._look()
        return await super().beats()

    def _look(self) -> None:
        if self.is_away:
            raise QueueStoreUnavailable("away")


class Observer:
    """Looks once a second of a clock of its own; `store` has what it sees."""

    def __init__(self, store: AwayStore) -> None:
        self.now_s = 1000.0
        self.store = store
        #: times at which it was told that others took it for dead
        self.losses = list[float]()
        self.presence = Presence(
            store, "me", lambda: self.losses.append(self.now_s), clock=lambda: self.now_s
        )

    async def look(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            try:
                await self.presence.look()
            except SDAPIError:
                assert self.store.is_away or self.store.loses_answers

    async def sees(self, node: str) -> bool:
        return node in await self.store.beats()


@pytest.fixture
async def observer(tmp_path: Path) -> AsyncIterator[Observer]:
    store = AwayStore(tmp_path / "sdapi.db")
    await store.open(lambda event: None)
    await store.begin_node("other")
    observer = Observer(store)
    await observer.presence.begin()
    yield observer
    await store.close()


async def test_a_server_that_does_not_beat_is_taken_for_dead_after_its_lease(observer: Observer):
    await observer.look(int(LEASE_S))
    assert await observer.sees("other")
    await observer.look(1)
    assert not await observer.sees("other")
    assert await observer.sees("me")


async def test_time_in_which_the_store_was_away_is_not_another_servers_silence(
    observer: Observer,
):
    await observer.look(5)
    observer.store.is_away = True
    await observer.look(30)
    observer.store.is_away = False
    await observer.look(int(LEASE_S))
    assert await observer.sees("other")
    await observer.look(1)
    assert not await observer.sees("other")


async def test_time_in_which_an_observer_stood_still_is_not_another_servers_silence(
    observer: Observer,
):
    await observer.look(2)
    observer.now_s += 60
    await observer.look(int(LEASE_S))
    assert await observer.sees("other")


async def test_a_server_that_was_taken_for_dead_learns_it_though_an_answer_is_lost(
    observer: Observer,
):
    beats = (await observer.store.beats())["me"]
    await observer.store.bury_node("me", beats)
    observer.store.loses_answers = True
    await observer.look(4)
    assert observer.losses == []
    observer.store.loses_answers = False
    await observer.look(2)
    assert len(observer.losses) == 1
    assert await observer.sees("me")
    await observer.look(int(BEAT_S) * 3)
    assert len(observer.losses) == 1


async def test_a_look_that_fails_unforeseen_is_told_and_not_the_last(
    observer: Observer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    looks = list[int]()
    has_gone_on = asyncio.Event()

    async def beats() -> dict[str, int]:
        looks.append(len(looks))
        if len(looks) == 1:
            raise OSError("odd")
        has_gone_on.set()
        return {}

    monkeypatch.setattr(observer.store, "beats", beats)
    monkeypatch.setattr(presence, "_LOOK_S", 0.01)
    running = asyncio.create_task(observer.presence.run())
    async with asyncio.timeout(10):
        await has_gone_on.wait()
    running.cancel()
    [record] = [r for r in caplog.records if "cannot show that this server" in r.getMessage()]
    assert record.exc_info is not None

"""The rounds of a process: what comes to its consumers, whoever comes and goes meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sdapi.queue.stores.sqlite import handing_out
from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import (
    Item,
    Member,
    QueueName,
    QueueStoreUnavailable,
    Rules,
    Taken,
)
from sdapi.queue.watching import Subscription, Watching
from tests.queues.store_calls import NO_RULES, NODE, SOURCE, item, member, put_all

pytestmark = pytest.mark.anyio


class SlowStore(SqliteStore):
    """A store whose answers tests may hold back, and which can be away."""

    trouble: Exception | None = None
    tells = True
    is_held: asyncio.Event | None = None
    may_answer = asyncio.Event()
    insisted: list[bool]

    async def leave(self, queue: QueueName, member: Member) -> None:
        if self.trouble is not None:
            raise self.trouble
        await super().leave(queue, member)

    async def take(
        self, queue: QueueName, group: str, node: str, rules: Rules, *, insists: bool, **more: Any
    ) -> Taken:
        self.insisted.append(insists)
        taken = await super().take(queue, group, node, rules, insists=insists, **more)
        if self.is_held is not None:
            self.is_held.set()
            await self.may_answer.wait()
        return taken


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    """Open where there is a `watching`."""
    store = SlowStore(tmp_path / "sdapi.db")
    store.insisted, store.may_answer = [], asyncio.Event()
    return store


async def _no_burial(queue: QueueName, dead: Item) -> None:
    raise AssertionError(f"{dead.index} of {queue} is dead")


@pytest.fixture
async def watching(store: SlowStore) -> AsyncIterator[Watching]:
    watching = Watching(store, NODE, _no_burial)
    await store.open(lambda event: watching.on_event(event) if store.tells else None)
    yield watching
    await watching.close()
    await store.close()


async def received(subscription: Subscription, count: int, timeout_s: float = 3) -> list[str]:
    """The next items, so many of them or what came in time."""
    found: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            async for batch in subscription.batches():
                found += [delivery.item.data.decode() for delivery in batch]
                if len(found) >= count:
                    break
    return found


@asynccontextmanager
async def subscribed(watching: Watching, *members: Member) -> AsyncIterator[list[Subscription]]:
    async with AsyncExitStack() as until_end:
        yield [
            await until_end.enter_async_context(watching.subscribe(SOURCE, each, NO_RULES))
            for each in members
        ]


async def test_an_item_of_a_round_whose_consumer_has_gone_comes_at_once_to_the_next(
    store: SlowStore, watching: Watching
):
    await put_all(store, "a")
    store.is_held = asyncio.Event()
    async with subscribed(watching, member("gone")):
        await store.is_held.wait()
    async with subscribed(watching, member("next")) as [subscription]:
        store.is_held = None
        store.may_answer.set()
        assert await received(subscription, 1) == ["a"]


async def test_no_round_goes_on_without_a_consumer(store: SlowStore, watching: Watching):
    for _ in range(5):
        async with subscribed(watching, member()):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    before = len(store.insisted)
    await store.put(SOURCE, item("a"))
    await asyncio.sleep(0.05)
    assert len(store.insisted) == before


@pytest.mark.parametrize("trouble", [QueueStoreUnavailable("away"), OSError("odd")])
async def test_a_consumer_that_could_not_leave_does_so_when_the_store_is_back(
    store: SlowStore, watching: Watching, trouble: Exception
):
    await put_all(store, "a")
    async with subscribed(watching, member("gone")) as [subscription]:
        assert await received(subscription, 1) == ["a"]
        store.trouble = trouble
    async with subscribed(watching, member("next")) as [subscription]:
        assert await received(subscription, 1, 0.7) == []
        store.trouble = None
        [consumer] = [c for c in (await store.stats(SOURCE)).consumers if c.user == "gone"]
        async with asyncio.timeout(5):
            while consumer.gone_ms is None:
                await asyncio.sleep(0.05)
                stats = await store.stats(SOURCE)
                [consumer] = [c for c in stats.consumers if c.user == "gone"]
        assert consumer.pending == 0
        assert await received(subscription, 1) == ["a"]


async def test_only_a_round_after_a_pause_takes_what_was_left_to_others(
    store: SlowStore, watching: Watching
):
    elsewhere = member("elsewhere", window=5, node="node-b")
    async with subscribed(watching, member("here", window=5)) as [subscription]:
        await asyncio.sleep(0.05)
        await store.join(SOURCE, elsewhere)
        store.insisted.clear()
        await asyncio.gather(*(store.put(SOURCE, item(text)) for text in "abcd"))
        got = await received(subscription, 4)
    assert sorted(got) == ["a", "b", "c", "d"]
    assert store.insisted[:3] == [False, False, True]


async def test_a_reader_that_stops_is_handed_no_more_than_is_allowed_ahead(
    store: SlowStore, watching: Watching, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(handing_out, "UNSENT_BYTES", 2000)
    await put_all(store, *(f"{number}" * 900 for number in range(9)))
    async with subscribed(watching, member(window=1000)) as [subscription]:
        await asyncio.sleep(0.1)
        assert subscription.unsent_bytes == 1800
        assert [consumer.pending for consumer in (await store.stats(SOURCE)).consumers] == [2]
        got = await received(subscription, 9)
        assert [text[0] for text in got] == list("012345678")


async def test_a_consumer_whose_replacement_nobody_told_of_is_closed(
    store: SlowStore, watching: Watching
):
    async with subscribed(watching, member(id="first")) as [subscription]:
        await asyncio.sleep(0.05)
        store.tells = False
        await store.join(SOURCE, member(id="second", node="node-b"))
        store.tells = True
        await store.put(SOURCE, item("a"))
        async with asyncio.timeout(3):
            assert [batch async for batch in subscription.batches()] == []

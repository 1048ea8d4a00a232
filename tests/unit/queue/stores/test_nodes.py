"""Servers that are taken for dead, and what they hold, in every store."""

import pytest

from sdapi.queue.stores.store import Query, Store
from tests.queues.store_calls import SOURCE, handed, member, put_all, take

pytestmark = pytest.mark.anyio
DEAD = "node-b"


async def _bury(store: Store) -> None:
    """As others do, once its beats stand still."""
    await store.bury_node(DEAD, (await store.beats())[DEAD])


async def test_a_beat_of_a_server_that_was_taken_for_dead_changes_nothing(store: Store):
    assert not await store.beat(DEAD)
    await store.begin_node(DEAD)
    assert await store.beat(DEAD)
    await _bury(store)
    assert not await store.beat(DEAD)
    assert not await store.beat(DEAD)
    assert DEAD not in await store.beats()
    await store.begin_node(DEAD)
    assert await store.beat(DEAD)


async def test_a_consumer_of_a_server_that_was_taken_for_dead_can_be_freed_again(store: Store):
    await store.begin_node(DEAD)
    await _bury(store)
    await put_all(store, "a")
    await store.join(SOURCE, member("dead", node=DEAD))
    assert handed(await take(store, node=DEAD)) == [("dead", "a")]
    assert not await store.beat(DEAD)  # it still has to learn that it was taken for dead
    await _bury(store)
    await store.join(SOURCE, member("alive"))
    assert handed(await take(store)) == [("alive", "a")]


async def test_a_claim_of_a_server_that_was_taken_for_dead_can_be_freed_again(store: Store):
    await store.begin_node(DEAD)
    await _bury(store)
    await put_all(store, "a")
    [claimed] = await store.get(SOURCE, Query(), f"{DEAD}:1")
    await _bury(store)
    assert await store.get(SOURCE, Query(), "node-a:1") == [claimed]

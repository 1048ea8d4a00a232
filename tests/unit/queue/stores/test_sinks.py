"""Sinks that results fill, in every store."""

import pytest

from sdapi.queue.config.spec import QueueLimits, ServiceSpec
from sdapi.queue.stores.store import NewItem, Room, Store
from tests.queues.store_calls import (
    SINK,
    SOURCE,
    handed,
    item,
    member,
    put_all,
    take,
    texts,
)

pytestmark = pytest.mark.anyio


async def test_results_take_the_place_of_older_ones_where_the_sink_evicts(store: Store):
    spec = ServiceSpec("svc", memory_bytes=4000, max_delivery=5, sink=QueueLimits(1000, True))
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "0", "1", "2", "3", "4")
    for number in range(5):
        [delivery] = (await take(store, "svc", rules=spec.rules(SOURCE))).deliveries
        result = NewItem(f"r-{number}", delivery.item.tags, f"{number}".encode() * 700)
        room = spec.room_of_results
        assert await store.finish(
            SOURCE, "svc", delivery.item.index, delivery.fence, result, room=room
        )
    assert [text[0] for text in await texts(store, SINK)] == ["3", "4"]
    assert (await store.stats(SINK)).bytes <= spec.room(SINK).bytes


async def test_a_result_larger_than_all_of_the_sink_is_kept(store: Store):
    await put_all(store, "a")
    result, room = item("x" * 500, "r-a"), Room(100, evicts=True)
    assert await store.finish(SOURCE, "svc", 1, "", result, room=room)
    assert await texts(store, SINK) == ["x" * 500]


async def test_a_sink_that_does_not_evict_is_full(store: Store):
    spec = ServiceSpec("svc", memory_bytes=4000, sink=QueueLimits(1000))
    assert spec.room_of_results is None
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "a")
    await put_all(store, "x" * 2000, queue=SINK)
    assert handed(await take(store, "svc", rules=spec.rules(SOURCE))) == []

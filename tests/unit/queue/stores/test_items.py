"""Items of every store: put, found, counted, claimed and deleted."""

import asyncio

import pytest

from sdapi.queue.stores.store import (
    Change,
    Event,
    NewItem,
    Query,
    QueueIsFull,
    QueueName,
    RequestIdTaken,
    Room,
    Store,
)
from tests.queues.store_calls import (
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


async def test_indexes_start_at_one_and_are_never_used_again(store: Store):
    assert await put_all(store, "a", "b") == [1, 2]
    assert await store.delete(SOURCE, [1, 2, 99]) == 2
    assert await put_all(store, "c") == [3]
    assert await put_all(store, "x", queue=SINK) == [1]


async def test_an_item_comes_back_as_it_was_put(store: Store):
    put = NewItem("r", {"requestId": "r", "k 1/中": "v=&"}, b"\x00\xff", 3, "/p", "text/x", "why")
    await store.put(SOURCE, put)
    [found] = await store.get(SOURCE, Query())
    assert (found.index, found.deliveries, found.last_code) == (1, 0, 0)
    for name in ("request_id", "tags", "data", "priority", "path", "content_type", "message"):
        assert getattr(found, name) == getattr(put, name)


async def test_a_put_that_is_repeated_is_stored_once_and_another_of_its_id_is_refused(store: Store):
    assert await store.put(SOURCE, item("a", "r")) == 1
    assert await store.put(SOURCE, item("a", "r")) == 1
    with pytest.raises(RequestIdTaken):
        await store.put(SOURCE, item("b", "r"))
    assert (await store.stats(SOURCE)).length == 1


async def test_a_request_whose_result_waits_in_the_sink_is_not_taken_again(store: Store):
    await store.put(SINK, item("result", "r"))
    with pytest.raises(RequestIdTaken, match="result that nobody has taken"):
        await store.put(SOURCE, item("a", "r"))
    assert (await store.stats(SOURCE)).length == 0
    await store.delete(SINK, [1])
    assert await store.put(SOURCE, item("a", "r")) == 1
    assert await store.put(SINK, item("result", "r")) == 2


async def test_get_goes_by_index_whatever_the_priority(store: Store):
    await store.put(SOURCE, item("a"))
    await store.put(SOURCE, item("b", priority=5))
    await store.put(SOURCE, item("c"))
    assert await texts(store) == ["a", "b", "c"]
    assert await texts(store, index=2) == ["b", "c"]
    assert await texts(store, index=2, length=1) == ["b"]
    assert await texts(store, index=-1, length=2) == ["b", "c"]
    assert await texts(store, index=4) == []
    assert await texts(store, at_least=4) == []


async def test_every_given_tag_must_match_exactly(store: Store):
    await store.put(SOURCE, item("a", tags={"k": "1", "x": "y"}))
    await store.put(SOURCE, item("b", tags={"k": "1"}))
    await store.put(SOURCE, item("c", tags={"k": "11"}))
    assert await texts(store, tags={"k": "1"}) == ["a", "b"]
    assert await texts(store, tags={"k": "1", "x": "y"}) == ["a"]
    assert await texts(store, tags={"requestId": "r-b"}) == ["b"]
    assert await texts(store, tags={"nobody": ""}) == []


async def test_count_takes_tags_and_priority(store: Store):
    await store.put(SOURCE, item("a", tags={"k": "1"}))
    await store.put(SOURCE, item("b", tags={"k": "1"}, priority=1))
    await store.put(SOURCE, item("c"))
    assert await store.count(SOURCE, {}) == 3
    assert await store.count(SOURCE, {"k": "1"}) == 2
    assert await store.count(SOURCE, {"k": "1"}, 1) == 1
    assert await store.count(SOURCE, {}, 0) == 2


async def test_truncate_removes_what_is_smaller(store: Store):
    await put_all(store, "a", "b", "c")
    assert await store.truncate(SOURCE, 3) == 2
    assert await texts(store) == ["c"]
    assert await store.truncate(SOURCE, 0) == 0


async def test_figures_follow_puts_and_deletes(store: Store):
    assert (await store.stats(SOURCE)).length == 0
    await put_all(store, "a", "b", "c")
    stats = await store.stats(SOURCE)
    assert (stats.first, stats.last, stats.length) == (1, 3, 3)
    assert stats.bytes > 3
    assert 0 <= stats.oldest_age_s < 5
    await store.delete(SOURCE, [1, 3])
    stats = await store.stats(SOURCE)
    assert (stats.first, stats.last, stats.length) == (2, 2, 1)
    await store.delete(SOURCE, [2])
    stats = await store.stats(SOURCE)
    assert (stats.first, stats.last, stats.length, stats.bytes) == (0, 0, 0, 0)


async def test_a_full_queue_refuses_or_drops_the_oldest(store: Store):
    for number in range(3):
        await store.put(SOURCE, item(f"{number}" * 100))
    full = (await store.stats(SOURCE)).bytes
    with pytest.raises(QueueIsFull):
        await store.put(SOURCE, item("d"), Room(full))
    await store.put(SOURCE, item("d"), Room(full, evicts=True))
    assert [text[0] for text in await texts(store)] == ["1", "2", "d"]
    with pytest.raises(QueueIsFull):
        await store.put(SOURCE, item("e" * 1000), Room(full, evicts=True))
    assert len(await texts(store)) == 3


async def test_a_claim_hides_items_from_claims_and_consumers_until_it_is_settled(store: Store):
    await put_all(store, "a", "b")
    [first] = await store.get(SOURCE, Query(), f"{NODE}:1")
    [second] = await store.get(SOURCE, Query(), f"{NODE}:2")
    assert (first.index, second.index) == (1, 2)
    assert await texts(store) == ["a", "b"]
    await store.join(SOURCE, member(window=5))
    assert handed(await take(store)) == []
    await store.settle(SOURCE, f"{NODE}:1", delete=False)
    await store.settle(SOURCE, f"{NODE}:2", delete=True)
    assert await texts(store) == ["a"]
    assert handed(await take(store)) == [("u", "a")]


async def test_a_claim_takes_items_away_from_consumers(store: Store):
    await put_all(store, "a")
    await store.join(SOURCE, member())
    assert handed(await take(store)) == [("u", "a")]
    await store.get(SOURCE, Query(), f"{NODE}:1")
    await store.settle(SOURCE, f"{NODE}:1", delete=True)
    [consumer] = (await store.stats(SOURCE)).consumers
    assert consumer.pending == 0


async def test_dropping_the_undelivered_leaves_what_is_held(store: Store):
    await put_all(store, "a", "b")
    await store.join(SOURCE, member())
    await take(store)
    await store.drop_undelivered(SOURCE)
    assert await texts(store) == ["a"]


async def test_puts_at_the_same_time_each_get_their_own_answer(store: Store):
    await store.put(SOURCE, item("a"))
    room = Room(10_000, evicts=False)
    same, full, *new = await asyncio.gather(
        store.put(SOURCE, item("other", "r-a")),
        store.put(SOURCE, item("x" * 20_000), room),
        *(store.put(SOURCE, item(str(number)), room) for number in range(100)),
        store.put(SOURCE, item("a")),
        return_exceptions=True,
    )
    assert isinstance(same, RequestIdTaken)
    assert isinstance(full, QueueIsFull)
    assert new[-1] == 1
    assert new[:-1] == list(range(2, 102))
    assert (await store.stats(SOURCE)).length == 101


async def test_a_put_repeated_at_the_same_time_is_stored_once(store: Store):
    answers = await asyncio.gather(
        *(store.put(SOURCE, item("a")) for _ in range(5)),
        store.put(SINK, item("a")),
        store.put(SOURCE, item("other", "r-a")),
        store.put(SOURCE, item("b")),
        return_exceptions=True,
    )
    assert answers[:6] == [1, 1, 1, 1, 1, 1]
    assert isinstance(answers[6], RequestIdTaken)
    assert answers[7] == 2
    assert await texts(store) == ["a", "b"]
    assert await texts(store, queue=SINK) == ["a"]


async def test_puts_at_the_same_time_drop_the_oldest_in_their_order(store: Store):
    await store.put(SOURCE, item("0" * 100))
    room = Room((await store.stats(SOURCE)).bytes * 3, evicts=True)
    puts = [store.put(SOURCE, item(f"{number}" * 100), room) for number in range(1, 8)]
    assert await asyncio.gather(*puts) == list(range(2, 9))
    assert [text[0] for text in await texts(store)] == ["5", "6", "7"]
    stats = await store.stats(SOURCE)
    assert (stats.first, stats.last, stats.length, stats.bytes) == (6, 8, 3, room.bytes)


async def test_queues_are_listed_by_name(store: Store):
    await put_all(store, "a")
    await put_all(store, "a", queue=SINK.rear)
    assert [str(queue) for queue in await store.queues()] == ["svc", "svc/sink#rear"]
    assert [QueueName.parse(str(q)) for q in (SOURCE, SINK, SINK.rear)] == [SOURCE, SINK, SINK.rear]


async def test_puts_and_free_places_are_told(store: Store, events: list[Event]):
    await store.put(SOURCE, item("a", tags={"k": "v"}))
    await store.commit(SOURCE, "g", [1])
    await wait_for(lambda: len(events) >= 2)
    assert (events[0].change, events[0].queue) == (Change.PUT, SOURCE)
    assert events[0].tags == {"requestId": "r-a", "k": "v"}
    assert events[1].change is Change.FREED

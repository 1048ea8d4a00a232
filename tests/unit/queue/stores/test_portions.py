"""What concerns a whole queue goes by portions, in every store."""

import asyncio
import random

import pytest

from sdapi.queue.stores.redis import store as redis_store
from sdapi.queue.stores.sqlite import getting_back, items
from sdapi.queue.stores.sqlite import store as sqlite_store
from sdapi.queue.stores.store import NewItem, Requeued, Store
from tests.queues.store_calls import SINK, SOURCE, handed, item, member, put_all, take, texts

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (redis_store, getting_back, items, sqlite_store):
        monkeypatch.setattr(module, "PORTION", 2)


async def test_all_portions_are_removed(store: Store):
    indexes = await put_all(store, *"abcdefghi")
    assert await store.truncate(SOURCE, 6) == 5
    assert await store.delete(SOURCE, indexes) == 4
    assert await texts(store) == []
    assert await store.truncate(SOURCE, 99) == 0


async def test_others_get_their_turn_between_two_portions(store: Store):
    await asyncio.gather(*(store.put(SOURCE, item(str(number))) for number in range(300)))
    truncating = asyncio.create_task(store.truncate(SOURCE, 301))
    await store.put(SINK, item("a"))
    await store.put(SINK, item("b"))
    assert not truncating.done()
    assert await truncating == 300


async def test_what_comes_while_a_queue_is_truncated_stays(store: Store):
    await put_all(store, *"abcdefghijklmnop")
    truncating = asyncio.create_task(store.truncate(SOURCE, 1 << 40))
    come = list[str]()
    while not truncating.done():
        come.append(f"{len(come)}")
        await store.put(SOURCE, item(come[-1]))
        assert len(come) < 100
    left = await texts(store)
    assert left == come[-len(left) :]
    assert len(left) >= len(come) - 2  # what came before the first portion is not told apart


async def test_what_is_held_stays_whichever_portion_it_is_in(store: Store):
    await put_all(store, *"abcdefghi")
    await store.join(SOURCE, member("one", start=2, window=1))
    await store.join(SOURCE, member("five", group="h", start=5, window=3))
    await take(store)
    await take(store, "h")
    await store.drop_undelivered(SOURCE)
    assert await texts(store) == ["b", "e", "f", "g"]


async def test_dead_letters_of_every_portion_are_put_back(store: Store):
    await put_all(store, *"abcdefg", queue=SOURCE.rear)
    await store.put(SOURCE, item("other data", "r-c"))
    await store.put(SINK, NewItem("r-e", {"requestId": "r-e", "lastCode": "502"}, b"failed"))
    await store.put(SINK, item("result", "r-f"))
    assert await store.requeue(SOURCE.rear, SOURCE) == Requeued(5, ["r-c", "r-f"])
    assert await texts(store) == ["other data", "a", "b", "d", "e", "g"]
    assert await texts(store, SOURCE.rear) == ["c", "f"]
    assert await texts(store, SINK) == ["result"]
    assert await store.requeue(SOURCE.rear, SOURCE) == Requeued(0, ["r-c", "r-f"])


async def test_a_portion_of_dead_letters_ends_at_the_bytes_of_an_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    await put_all(store, "a" * 600, "b" * 600, "c" * 2000, "d", queue=SOURCE.rear)
    with monkeypatch.context() as patched:
        for module in (redis_store, getting_back):
            patched.setattr(module, "ANSWER_BYTES", 1000)
            patched.setattr(module, "PORTION", 1000)
        assert await store.requeue(SOURCE.rear, SOURCE) == Requeued(4, [])
    assert [text[0] for text in await texts(store)] == ["a", "b", "c", "d"]


async def test_tags_choose_the_same_items_in_the_same_order_however_common_they_are(store: Store):
    rng, puts = random.Random(7), list[tuple[int, str, dict[str, str]]]()
    for number in range(500):
        tags = {"common": "1"} if rng.random() < 0.9 else {}
        tags |= {"rare": "1"} if rng.random() < 0.03 else {}
        puts.append((rng.choice([0, 0, 0, 0, 1, 7]), str(number), tags))
    for priority, text, tags in puts:
        await store.put(SOURCE, item(text, priority=priority, tags=tags))
    for group, tags, start in (
        ("a", {"common": "1"}, 0),
        ("b", {"rare": "1"}, 120),
        ("c", {"common": "1", "rare": "1"}, 33),
        ("d", {"common": "1"}, 433),
        ("e", {"nobody": "1"}, 0),
    ):
        await store.join(SOURCE, member(group=group, window=1000, tags=tags, start=start))
        expected = [
            text
            for priority, index, text, its in sorted(
                (-priority, index, text, list(its.items()))
                for index, (priority, text, its) in enumerate(puts, 1)
            )
            if index >= start and tags.items() <= dict(its).items()
        ]
        got = list[str]()
        while some := handed(await take(store, group)):
            got += [text for _, text in some]
        assert got == expected, group

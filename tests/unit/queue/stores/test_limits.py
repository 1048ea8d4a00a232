"""How much goes out at once, in every store."""

from typing import Any

import pytest

from sdapi.queue.stores.redis import store as redis_store
from sdapi.queue.stores.sqlite import consumers, handing_out, items
from sdapi.queue.stores.store import AUTO_COMMIT_WINDOW, ROUND, Query, Rules, Store
from tests.queues.store_calls import COUNTING, NO_RULES, NODE, SOURCE, handed, member, put_all, take

pytestmark = pytest.mark.anyio


def limit(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Another limit for every store."""
    for module in (redis_store, handing_out, items, consumers):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


async def lengths(store: Store, rules: Rules = NO_RULES, **unsent: int) -> list[int]:
    """Of the data handed out in one round."""
    ids = {f"id-g-{user}": count for user, count in unsent.items()}
    taken = await store.take(SOURCE, "g", NODE, rules, insists=True, unsent=ids)
    return [len(delivery.item.data) for delivery in taken.deliveries]


async def test_a_round_ends_at_its_number_of_items(store: Store):
    await store.join(SOURCE, member(window=1000))
    await put_all(store, *map(str, range(ROUND + 3)))
    assert len(handed(await take(store))) == ROUND
    assert len(handed(await take(store))) == 3


async def test_a_consumer_with_auto_commit_has_no_window_but_the_stores(store: Store):
    await store.join(SOURCE, member(window=1, auto_commit=True))
    await put_all(store, *map(str, range(AUTO_COMMIT_WINDOW + 3)))
    assert len(handed(await take(store))) == AUTO_COMMIT_WINDOW
    assert handed(await take(store)) == []


async def test_an_answer_and_a_round_end_at_their_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    limit(monkeypatch, "ANSWER_BYTES", 1000)
    await store.join(SOURCE, member(window=9))
    await put_all(store, "a" * 400, "b" * 500, "c" * 2000, "d" * 1000, "e")
    assert [len(each.data) for each in await store.get(SOURCE, Query(length=9))] == [400, 500]
    assert [await lengths(store) for _ in range(5)] == [[400, 500], [2000], [1000], [1], []]


async def test_dead_items_count_in_the_bytes_of_a_round(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    limit(monkeypatch, "ANSWER_BYTES", 1000)
    await store.join(SOURCE, member("w", group="svc", window=9))
    await put_all(store, "a" * 600, "b" * 600)
    for _ in range(COUNTING.max_delivery):
        for index in (1, 2):
            [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
            assert delivery.item.index == index
        await store.reject(SOURCE, "svc", "w", [1, 2], retire=False)
    taken = await take(store, "svc", rules=COUNTING)
    assert [each.index for each in taken.exhausted] == [1]


async def test_a_consumer_gets_no_more_than_is_allowed_ahead_and_nothing_out_of_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    limit(monkeypatch, "UNSENT_BYTES", 1000)
    await store.join(SOURCE, member(window=9))
    await put_all(store, "a" * 400, "b" * 600, "c" * 2000, "d" * 10)
    assert await lengths(store) == [400, 600]
    assert await lengths(store, u=1) == []  # the small one does not overtake
    assert await lengths(store) == [2000]
    taken = await store.take(SOURCE, "g", NODE, NO_RULES, insists=True, unsent={"id-g-u": 2000})
    assert (handed(taken), taken.held_back) == ([], ["id-g-u"])
    assert await lengths(store, u=990) == [10]


async def test_what_one_consumer_has_no_room_for_goes_to_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    limit(monkeypatch, "UNSENT_BYTES", 1000)
    await store.join(SOURCE, member("slow", window=9))
    await store.join(SOURCE, member("quick", window=2))
    await put_all(store, "a" * 600, "b" * 100)
    taken = await store.take(SOURCE, "g", NODE, NO_RULES, insists=True, unsent={"id-g-slow": 500})
    assert [user for user, _ in handed(taken)] == ["quick", "quick"]


async def test_a_consumer_of_indexes_has_no_bytes(store: Store, monkeypatch: pytest.MonkeyPatch):
    limit(monkeypatch, "UNSENT_BYTES", 10)
    limit(monkeypatch, "ANSWER_BYTES", 10)
    await store.join(SOURCE, member(window=9, index_only=True))
    await put_all(store, "a" * 100, "b" * 100)
    assert len(handed(await take(store))) == 2


async def test_a_round_tells_who_is_connected_here(store: Store):
    gone: Any = member("gone")
    full = Rules("g", full_sink=SOURCE, full_at=0)
    for each in (gone, member(), member("other", group="h"), member("there", node="node-b")):
        await store.join(SOURCE, each)
    await store.leave(SOURCE, gone)
    await store.join(SOURCE, member(id="second"))
    for rules in (NO_RULES, full):
        assert list((await take(store, rules=rules)).members) == ["second"]


async def test_a_consumer_that_has_gone_is_listed_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    await store.join(SOURCE, member())
    await store.leave(SOURCE, member())
    assert len((await store.stats(SOURCE)).consumers) == 1
    limit(monkeypatch, "GONE_KEPT_MS", -1000)
    assert (await store.stats(SOURCE)).consumers == []

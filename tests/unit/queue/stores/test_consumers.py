"""Which consumer gets an item, and who holds it, in every store."""

import asyncio

import pytest

from sdapi.queue.stores.store import (
    Change,
    Event,
    Query,
    Store,
)
from tests.queues.store_calls import (
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


async def test_items_go_by_priority_and_then_by_index(store: Store):
    for text, priority in (("a", 0), ("b", 1), ("c", 2), ("d", 1)):
        await store.put(SOURCE, item(text, priority=priority))
    await store.join(SOURCE, member(window=9))
    assert [text for _, text in handed(await take(store))] == ["c", "b", "d", "a"]


async def test_a_start_index_passes_over_what_lies_before_it_in_every_priority(store: Store):
    for number in range(1, 301):
        await store.put(SOURCE, item(str(number), priority=number % 3))
    await store.join(SOURCE, member(window=9, start=297))
    assert [text for _, text in handed(await take(store))] == ["299", "298", "297", "300"]
    await store.put(SOURCE, item("301", priority=9))
    assert [text for _, text in handed(await take(store))] == ["301"]


async def test_a_start_index_and_tags_hold_together(store: Store):
    for number in range(1, 9):
        tags = {"parity": str(number % 2)}
        await store.put(SOURCE, item(str(number), priority=number // 6, tags=tags))
    await store.join(SOURCE, member(window=9, start=4, tags={"parity": "0"}))
    assert [text for _, text in handed(await take(store))] == ["6", "8", "4"]


async def test_a_window_limits_what_a_consumer_holds_and_commits_free_it(store: Store):
    await put_all(store, "a", "b", "c", "d")
    await store.join(SOURCE, member(window=2))
    assert [text for _, text in handed(await take(store))] == ["a", "b"]
    assert handed(await take(store)) == []
    await store.commit(SOURCE, "g", [1, 77])
    assert [text for _, text in handed(await take(store))] == ["c"]
    await store.delete(SOURCE, [2])
    assert [text for _, text in handed(await take(store))] == ["d"]
    await store.truncate(SOURCE, 99)
    assert (await store.stats(SOURCE)).length == 0


async def test_each_item_goes_to_the_consumer_with_most_free_places(store: Store):
    await store.join(SOURCE, member("small", window=1))
    await store.join(SOURCE, member("big", window=3))
    await put_all(store, "a", "b", "c", "d", "e")
    users = [user for user, _ in handed(await take(store))]
    assert users[:2] == ["big", "big"]
    assert sorted(users) == ["big", "big", "big", "small"]


async def test_consumers_that_are_equally_free_take_turns(store: Store):
    for user in ("one", "two"):
        await store.join(SOURCE, member(user))
        await asyncio.sleep(0.005)
    await put_all(store, "a")
    [(first, _)] = handed(await take(store))
    await store.commit(SOURCE, "g", [1])
    await asyncio.sleep(0.005)
    await put_all(store, "b")
    [(second, _)] = handed(await take(store))
    assert (first, second) == ("one", "two")


async def test_an_item_is_left_to_a_freer_consumer_of_another_node_unless_one_insists(store: Store):
    await store.join(SOURCE, member("here", window=1))
    await store.join(SOURCE, member("there", window=5, node="node-b"))
    await put_all(store, "a")
    polite = await take(store, insists=False)
    assert (handed(polite), polite.has_deferred) == ([], True)
    assert handed(await take(store)) == [("here", "a")]
    await put_all(store, "b")
    assert handed(await take(store, node="node-b", insists=False)) == [("there", "b")]


async def test_every_group_gets_every_item_and_it_leaves_when_all_have_committed(store: Store):
    await store.join(SOURCE, member(group="g"))
    await store.join(SOURCE, member(group="h"))
    await put_all(store, "a")
    assert handed(await take(store, "g")) == handed(await take(store, "h")) == [("u", "a")]
    await store.commit(SOURCE, "g", [1])
    assert await texts(store) == ["a"]
    assert handed(await take(store, "g")) == []
    await store.commit(SOURCE, "h", [1])
    assert await texts(store) == []


async def test_a_group_without_consumers_holds_nothing_back(store: Store):
    other = member(group="h")
    await store.join(SOURCE, member(group="g"))
    await store.join(SOURCE, other)
    await put_all(store, "a", "b")
    await store.commit(SOURCE, "g", [1])
    assert await texts(store) == ["a", "b"]
    await store.leave(SOURCE, other)
    assert await texts(store) == ["b"]
    await store.commit(SOURCE, "g", [2])
    assert await texts(store) == []


async def test_a_group_that_would_never_get_an_item_does_not_hold_it_back(store: Store):
    await put_all(store, "a")
    await store.join(SOURCE, member(group="late", start=-1))
    await store.join(SOURCE, member(group="other", tags={"k": "v"}))
    await store.commit(SOURCE, "g", [1])
    assert await texts(store) == []


async def test_what_a_consumer_held_when_it_left_is_handed_out_again_first(store: Store):
    gone = member("gone", window=2)
    await store.join(SOURCE, gone)
    await put_all(store, "a", "b", "c")
    await take(store)
    await store.leave(SOURCE, gone)
    await store.join(SOURCE, member("next", window=2))
    assert handed(await take(store)) == [("next", "a"), ("next", "b")]


async def test_a_second_connection_takes_over_and_the_first_cannot_end_it(
    store: Store, events: list[Event]
):
    first, second = member(id="first"), member(id="second")
    await store.join(SOURCE, first)
    await put_all(store, "a")
    await take(store)
    await store.join(SOURCE, second)
    await wait_for(lambda: any(e.change is Change.REPLACED for e in events))
    assert [e.member_id for e in events if e.change is Change.REPLACED] == ["first"]
    await store.leave(SOURCE, first)
    assert [d.member_id for d in (await take(store)).deliveries] == ["second"]
    assert len((await store.stats(SOURCE)).consumers) == 1


async def test_start_index_and_tags_choose_what_a_consumer_gets(store: Store):
    await put_all(store, "a", "b")
    await store.join(SOURCE, member("from2", group="x", start=2, window=9))
    await store.join(SOURCE, member("new", group="y", start=-1, window=9))
    await store.join(SOURCE, member("tagged", group="z", tags={"k": "v"}, window=9))
    await store.put(SOURCE, item("c", tags={"k": "v", "l": "w"}))
    assert handed(await take(store, "x")) == [("from2", "b"), ("from2", "c")]
    assert handed(await take(store, "y")) == [("new", "c")]
    assert handed(await take(store, "z")) == [("tagged", "c")]


async def test_consumers_of_one_group_with_different_tags_get_their_own(store: Store):
    await store.join(SOURCE, member("v", tags={"k": "v"}, window=9))
    await store.join(SOURCE, member("w", tags={"k": "w"}, window=9))
    await store.put(SOURCE, item("a", tags={"k": "w"}))
    await store.put(SOURCE, item("b", tags={"k": "v"}))
    await store.put(SOURCE, item("c"))
    assert handed(await take(store)) == [("w", "a"), ("v", "b")]


async def test_index_only_leaves_the_data_out(store: Store):
    await put_all(store, "a")
    await store.join(SOURCE, member(index_only=True))
    [delivery] = (await take(store)).deliveries
    assert (delivery.item.data, delivery.item.index) == (b"", 1)
    assert delivery.item.tags == {"requestId": "r-a"}


async def test_a_place_tells_the_holder_and_how_many_come_before(store: Store):
    await put_all(store, "a", "b", "c")
    await store.put(SOURCE, item("d", priority=1))
    await store.join(SOURCE, member())
    await take(store)  # d
    place = await store.place(SOURCE, "g", 4)
    assert place is not None
    assert (place.consumer, place.is_pending, place.waiting_before) == ("g.u", True, 0)
    place = await store.place(SOURCE, "other", 4)
    assert place is not None
    assert (place.consumer, place.is_pending) == ("g.u", False)
    place = await store.place(SOURCE, "g", 3)
    assert place is not None
    assert (place.consumer, place.is_pending, place.waiting_before) == ("", False, 2)
    assert await store.place(SOURCE, "g", 9) is None


async def test_stats_list_consumers_and_groups(store: Store):
    gone = member("gone", group="h")
    await store.join(SOURCE, member(window=2, tags={"k": "v"}))
    await store.join(SOURCE, gone)
    await store.put(SOURCE, item("a", tags={"k": "v"}))
    await store.put(SOURCE, item("b", tags={"k": "v"}))
    await take(store)
    await store.leave(SOURCE, gone)
    stats = await store.stats(SOURCE)
    here, there = stats.consumers
    assert (here.group, here.user, here.last_index, here.pending) == ("g", "u", 2, 2)
    assert (here.window, here.auto_commit, dict(here.tags)) == (2, False, {"k": "v"})
    assert here.gone_ms is None
    assert 0 <= here.idle_ms < 5000
    assert there.gone_ms is not None
    assert [(g.name, g.last_index, g.pending, g.consumers) for g in stats.groups] == [
        ("g", 2, 2, 1),
        ("h", 0, 0, 0),
    ]


async def test_a_rejected_item_goes_rather_to_another_and_a_retired_consumer_gets_nothing(
    store: Store,
):
    await store.join(SOURCE, member("one", window=9))
    await put_all(store, "a")
    assert handed(await take(store)) == [("one", "a")]
    await store.join(SOURCE, member("two", window=1))
    await store.reject(SOURCE, "g", "one", [1], retire=False)
    assert handed(await take(store)) == [("two", "a")]
    await store.reject(SOURCE, "g", "two", [1], retire=True)
    assert handed(await take(store)) == [("one", "a")]


async def test_what_is_held_too_long_is_handed_out_again(store: Store):
    await store.join(SOURCE, member("one"))
    await put_all(store, "a")
    await take(store)
    await store.release_idle(SOURCE, 60_000)
    assert handed(await take(store)) == []
    await asyncio.sleep(0.02)
    await store.release_idle(SOURCE, 10)
    assert handed(await take(store)) == [("one", "a")]


async def test_a_node_that_stops_beating_loses_what_it_holds(store: Store):
    await store.begin_node("node-b")
    assert await store.beat("node-b")
    await put_all(store, "a", "b")
    await store.join(SOURCE, member("dead", node="node-b"))
    await take(store, node="node-b")
    await store.get(SOURCE, Query(index=2), "node-b:1")
    await store.join(SOURCE, member("alive", window=2))
    beats = (await store.beats())["node-b"]
    await store.bury_node("node-b", beats - 1)
    assert handed(await take(store)) == []
    await store.bury_node("node-b", beats)
    assert handed(await take(store)) == [("alive", "a"), ("alive", "b")]


async def test_consumers_that_are_equally_free_take_turns_within_a_round(store: Store):
    await store.join(SOURCE, member("big", window=3))
    await store.join(SOURCE, member("small", window=2))
    await put_all(store, "a", "b")
    assert handed(await take(store)) == [("big", "a"), ("small", "b")]

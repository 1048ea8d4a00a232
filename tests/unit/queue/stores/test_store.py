"""The rules of every store, run over all of them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.sqlite.store import DatabaseInUse, SqliteStore
from sdapi.queue.stores.store import (
    Change,
    Event,
    NewItem,
    Query,
    QueueIsFull,
    QueueName,
    QueueStoreUnavailable,
    RequestIdTaken,
    Requeued,
    Room,
    Rules,
    Store,
)
from tests.queues.queue_stores import redis_servers
from tests.queues.store_calls import (
    COUNTING,
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
SERVERS = redis_servers()


# --- items -----------------------------------------------------------------------------------


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


# --- consumers -------------------------------------------------------------------------------


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


# --- what inference does ---------------------------------------------------------------------


async def test_a_result_and_the_end_of_its_item_are_one_step(store: Store):
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "a")
    [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
    assert delivery.item.deliveries == 1
    result = NewItem("r-a", delivery.item.tags, b"result")
    assert not await store.finish(SOURCE, "svc", 1, "another fence", result)
    assert await texts(store, SINK) == []
    assert await store.finish(SOURCE, "svc", 1, delivery.fence, result)
    assert (await texts(store), await texts(store, SINK)) == ([], ["result"])
    assert not await store.finish(SOURCE, "svc", 1, delivery.fence, result)
    assert await texts(store, SINK) == ["result"]


async def test_no_result_only_ends_the_item(store: Store):
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "a")
    [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
    assert await store.finish(SOURCE, "svc", 1, delivery.fence, None)
    assert (await texts(store), await texts(store, SINK)) == ([], [])


async def test_deliveries_that_count_end_with_the_item_exhausted(store: Store):
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "a", "b")
    for number in (1, 2):
        [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
        assert delivery.item.deliveries == number
        assert await store.release(SOURCE, "svc", 1, delivery.fence, counts=True, code=500)
    taken = await take(store, "svc", rules=COUNTING)
    assert handed(taken) == [("w", "b")]
    [dead] = taken.exhausted
    assert (dead.index, dead.deliveries, dead.last_code) == (1, 2, 500)
    result = NewItem("r-a", dead.tags, b"dead")
    assert await store.finish(SOURCE, "svc", 1, "", result, SOURCE.rear)
    assert (await texts(store), await texts(store, SINK)) == (["b"], ["dead"])
    assert await texts(store, SOURCE.rear) == ["a"]
    assert not await store.finish(SOURCE, "svc", 1, "", result, SOURCE.rear)


async def test_a_delivery_that_does_not_count_is_not_counted(store: Store):
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "a")
    for _ in range(4):
        [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
        assert delivery.item.deliveries == 1
        assert await store.release(SOURCE, "svc", 1, delivery.fence, counts=False)
        assert not await store.release(SOURCE, "svc", 1, delivery.fence, counts=False)


async def test_deliveries_to_other_groups_do_not_count(store: Store):
    await put_all(store, "a")
    await store.join(SOURCE, member(group="eas"))
    [delivery] = (await take(store, "eas", rules=COUNTING)).deliveries
    assert delivery.item.deliveries == 0


async def test_a_full_sink_holds_the_inference_group_only(store: Store):
    await put_all(store, "a")
    await put_all(store, "result", queue=SINK)
    await store.join(SOURCE, member("w", group="svc"))
    await store.join(SOURCE, member("u", group="eas"))
    full = Rules("svc", full_sink=SINK, full_at=5)
    assert handed(await take(store, "svc", rules=full)) == []
    assert handed(await take(store, "eas", rules=full)) == [("u", "a")]
    await store.delete(SINK, [1])
    assert handed(await take(store, "svc", rules=full)) == [("w", "a")]


async def test_requeueing_dead_letters_takes_their_failures_out_of_the_sink(store: Store):
    await put_all(store, "a", "b", queue=SOURCE.rear)
    failed = {"requestId": "r-a", "lastCode": "502"}
    await store.put(SINK, NewItem("r-a", failed, b"failed"))
    await put_all(store, "c", queue=SINK)
    assert await store.requeue(SOURCE.rear, SOURCE) == Requeued(2, [])
    assert await texts(store) == ["a", "b"]
    assert await texts(store, SOURCE.rear) == []
    assert await texts(store, SINK) == ["c"]
    [found, _] = await store.get(SOURCE, Query(length=2))
    assert found.deliveries == 0


async def test_requeueing_leaves_dead_letters_whose_request_is_under_way_or_has_a_result(
    store: Store,
):
    await put_all(store, "a", "b", "c", queue=SOURCE.rear)
    await store.put(SINK, item("result", "r-b"))
    await store.put(SOURCE, item("other data", "r-a"))
    failed = {"requestId": "r-a", "lastCode": "502"}
    await store.put(SINK, NewItem("r-a", failed, b"failed"))
    assert await store.requeue(SOURCE.rear, SOURCE) == Requeued(1, ["r-a", "r-b"])
    assert await texts(store) == ["other data", "c"]
    assert await texts(store, SOURCE.rear) == ["a", "b"]
    assert await texts(store, SINK) == ["result", "failed"]


async def test_requeueing_into_the_sink_replaces_failures_but_no_other_result(store: Store):
    await put_all(store, "a", "b", "c", queue=SINK.rear)
    await store.put(SINK, NewItem("r-a", {"requestId": "r-a", "lastCode": "502"}, b"failed"))
    await store.put(SINK, item("other", "r-b"))
    assert await store.requeue(SINK.rear, SINK) == Requeued(2, ["r-b"])
    assert await texts(store, SINK) == ["other", "a", "c"]
    assert await texts(store, SINK.rear) == ["b"]


async def test_a_rear_queue_takes_dead_letters_of_one_request_id(store: Store):
    await store.join(SOURCE, member("w", group="svc"))
    for text in ("a", "b"):
        index = await store.put(SOURCE, item(text, "r"))
        failure = NewItem("r", {"requestId": "r", "lastCode": "502"}, b"dead")
        assert await store.finish(SOURCE, "svc", index, "", failure, SOURCE.rear)
        assert await texts(store, SINK) == ["dead"]
        await store.truncate(SINK, 99)
    assert await texts(store) == []
    assert await texts(store, SOURCE.rear) == ["a", "b"]
    assert await store.requeue(SOURCE.rear, SOURCE) == Requeued(1, ["r"])


# --- nodes and restarts ----------------------------------------------------------------------


async def test_a_node_that_stops_beating_loses_what_it_holds(store: Store):
    assert not await store.beat("node-b")
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
    assert not await store.beat("node-b")


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


@pytest.mark.parametrize("name", SERVERS)
async def test_a_put_is_told_once_to_every_server_of_a_redis(name: str, redis_urls: dict[str, str]):
    async with redis.asyncio.Redis.from_url(redis_urls[name]) as client:
        await client.flushall()
    heard: tuple[list[Event], list[Event]] = ([], [])
    first, second = RedisStore(redis_urls[name]), RedisStore(redis_urls[name])
    put = Event(Change.PUT, SOURCE, {"requestId": "r-a"})

    async def hear(*counts: int) -> None:
        async with asyncio.timeout(5):
            while [events.count(put) for events in heard] != list(counts):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert [events.count(put) for events in heard] == list(counts)

    await first.open(heard[0].append)
    await first.put(SOURCE, item("a"))
    await hear(1, 0)
    await second.open(heard[1].append)
    await first.put(SOURCE, item("a"))  # a repeated put is told again: it may be a lost answer's
    await hear(2, 1)
    await second.put(SOURCE, item("a"))
    await hear(3, 2)
    await first.close()
    await second.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_whose_subscription_is_cut_tells_the_others_of_its_put(
    name: str, redis_urls: dict[str, str]
):
    # this client blocks the loop, so that the first store cannot know of the cut when it puts
    with redis.Redis.from_url(redis_urls[name]) as client:
        client.flushall()
        heard: tuple[list[Event], list[Event]] = ([], [])
        first, second = RedisStore(redis_urls[name]), RedisStore(redis_urls[name])
        await first.open(heard[0].append)
        await first.put(SOURCE, item("a"))
        [subscriber] = client.client_list(_type="pubsub")
        await second.open(heard[1].append)
        heard[0].clear()
        client.client_kill_filter(_id=subscriber["id"])
        await first.put(SOURCE, item("b"))
        put, anything = (Event(Change.PUT, SOURCE, tags) for tags in ({"requestId": "r-b"}, None))
        await wait_for(lambda: put in heard[1])
        await wait_for(lambda: anything in heard[0])
        await first.close()
        await second.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_connection_that_is_closed_while_it_is_written_to_is_a_store_that_is_away(
    name: str, redis_urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    async def closed(self: redis.asyncio.Connection, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")

    store = RedisStore(redis_urls[name])
    await store.open(lambda event: None)
    with monkeypatch.context() as patched:
        patched.setattr(redis.asyncio.Connection, "send_packed_command", closed)
        with pytest.raises(QueueStoreUnavailable, match="does not answer"):
            await store.put(SOURCE, item("a"))
    assert await store.put(SOURCE, item("a"))
    await store.close()


async def test_items_tags_indexes_and_deliveries_survive_the_process(tmp_path: Path):
    path = tmp_path / "again.db"
    store = SqliteStore(path)
    await store.open(lambda event: None)
    await put_all(store, "a", "b")
    await store.join(SOURCE, member("w", group="svc"))
    await take(store, "svc", rules=COUNTING)
    await store.delete(SOURCE, [2])
    await store.close()
    store = SqliteStore(path)
    await store.open(lambda event: None)
    try:
        await store.join(SOURCE, member("w", group="svc"))
        [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
        assert (delivery.item.index, delivery.item.deliveries) == (1, 2)
        assert await put_all(store, "c") == [3]
    finally:
        await store.close()


async def test_what_was_held_for_one_watcher_alone_goes_when_the_process_has_died(tmp_path: Path):
    first = SqliteStore(tmp_path / "sdapi.db")
    await first.open(lambda event: None)
    await first.join(SOURCE, member("watcher", group="eas"))
    await first.join(SOURCE, member("w", group="svc"))
    await put_all(first, "a", "b")
    await first.commit(SOURCE, "svc", [1])
    assert await texts(first) == ["a", "b"]
    await first.close()  # nobody has left
    second = SqliteStore(tmp_path / "sdapi.db")
    await second.open(lambda event: None)
    assert await texts(second) == ["b"]
    assert (await second.stats(SOURCE)).length == 1
    await second.close()


async def test_places_of_items_that_an_operator_deleted_are_free_again(tmp_path: Path):
    server, events = SqliteStore(tmp_path / "sdapi.db"), list[Event]()
    operator = SqliteStore(tmp_path / "sdapi.db", is_server=False)
    await server.open(events.append)
    await operator.open(lambda event: None)
    await server.join(SOURCE, member("w", group="svc"))
    await put_all(server, "a")
    [delivery] = (await take(server, "svc")).deliveries
    assert await operator.truncate(SOURCE, 2) == 1
    await put_all(server, "b")
    assert handed(await take(server, "svc")) == [("w", "b")]
    assert not await server.finish(SOURCE, "svc", 1, delivery.fence, item("late", "r-a"))
    assert await operator.truncate(SOURCE, 3) == 1
    events.clear()
    await server.commit(SOURCE, "svc", [2])
    assert [event.change for event in events] == [Change.FREED]
    assert (await server.stats(SOURCE)).groups[0].pending == 0
    for store in (server, operator):
        await store.close()


async def test_a_second_server_on_the_same_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.queue.stores.sqlite.store._LOCK_S", 0.1)
    first, second = SqliteStore(tmp_path / "x.db"), SqliteStore(tmp_path / "x.db")
    await first.open(lambda event: None)
    with pytest.raises(DatabaseInUse, match="--queue-url"):
        await second.open(lambda event: None)
    command = SqliteStore(tmp_path / "x.db", is_server=False)
    await command.open(lambda event: None)
    await put_all(command, "a")
    assert await texts(first) == ["a"]
    await command.close()
    await first.close()

"""What inference makes of items, in every store: results, failures, dead letters."""

import pytest

from sdapi.queue.stores.store import (
    NewItem,
    Query,
    Requeued,
    Rules,
    Store,
)
from tests.queues.store_calls import (
    COUNTING,
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


async def test_a_delivery_that_does_not_count_leaves_the_status_of_the_last_that_did(store: Store):
    await store.join(SOURCE, member("w", group="svc"))
    await put_all(store, "a")
    for counts, code in ((True, 500), (False, 0)):
        [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
        assert await store.release(SOURCE, "svc", 1, delivery.fence, counts=counts, code=code)
    [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
    assert (delivery.item.deliveries, delivery.item.last_code) == (2, 500)

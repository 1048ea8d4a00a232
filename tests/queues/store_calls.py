"""Short calls of a store, for tests of its rules."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sdapi.queue.stores.store import (
    Member,
    NewItem,
    Query,
    QueueName,
    Rules,
    Store,
    Taken,
)

SOURCE = QueueName("svc")
SINK = SOURCE.sink
NODE = "node-a"
NO_RULES = Rules()
COUNTING = Rules("svc", max_delivery=2)


def item(text: str, request_id: str | None = None, **fields: Any) -> NewItem:
    request_id = request_id or f"r-{text}"
    tags = {"requestId": request_id} | dict(fields.pop("tags", {}))
    return NewItem(request_id, tags, text.encode(), **fields)


def member(user: str = "u", group: str = "g", **fields: Any) -> Member:
    return replace(Member(f"id-{group}-{user}", group, user, NODE), **fields)


async def put_all(store: Store, *texts: str, queue: QueueName = SOURCE) -> list[int]:
    return [await store.put(queue, item(text)) for text in texts]


async def take(
    store: Store,
    group: str = "g",
    queue: QueueName = SOURCE,
    rules: Rules = NO_RULES,
    node: str = NODE,
    insists: bool = True,
) -> Taken:
    return await store.take(queue, group, node, rules, insists=insists)


def handed(taken: Taken) -> list[tuple[str, str]]:
    return [(d.member_id.rpartition("-")[2], d.item.data.decode()) for d in taken.deliveries]


async def texts(store: Store, queue: QueueName = SOURCE, **query: Any) -> list[str]:
    found = await store.get(queue, replace(Query(length=100), **query))
    return [each.data.decode() for each in found]


async def wait_for(is_true: Callable[[], bool], timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_true():
            await asyncio.sleep(0.005)

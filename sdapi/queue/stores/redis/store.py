"""The store for several servers: Redis 6.2 or later, every operation one Lua script.

Items lie in sorted sets rather than streams: a stream knows no priorities, no tag filters and no
choice of the freest consumer.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from sdapi.ending import end_tasks
from sdapi.errors import StorageFailed
from sdapi.lost_connections import closed_as_lost
from sdapi.queue.stores.redis.puts import GatheredPuts
from sdapi.queue.stores.redis.script import script
from sdapi.queue.stores.store import (
    ANSWER_BYTES,
    AUTO_COMMIT_WINDOW,
    GONE_KEPT_MS,
    PORTION,
    ROUND,
    UNSENT_BYTES,
    Change,
    Consumer,
    Delivery,
    Event,
    Group,
    Item,
    Listener,
    Member,
    NewItem,
    Place,
    Query,
    QueueIsFull,
    QueueName,
    QueueStats,
    QueueStoreUnavailable,
    RequestIdTaken,
    Requeued,
    Room,
    Rules,
    Taken,
)
from sdapi.redis.calling import RedisScript
from sdapi.redis.rights import why_unusable

log = logging.getLogger(__name__)

_CHANNEL = "sdapi:events"
_OLDEST = (6, 2)
#: for an answer about a subscription
_TIMEOUT_S = 10.0
#: for a connection, a subscription and a first look
_OPEN_S = 3 * _TIMEOUT_S
_RETRY_S = 0.5


class RedisStore:
    """`Store` on one Redis server (no cluster: a script touches several queues)."""

    def __init__(self, url: str) -> None:
        self._script = RedisScript(url, script(), "the queue's Redis", QueueStoreUnavailable)
        self._listening: asyncio.Task[None] | None = None
        self._puts = GatheredPuts(self._send_puts)
        self._listener: Listener = lambda event: None
        #: nothing is published there; who subscribes to it is this process
        self._own_channel = f"{_CHANNEL}:{secrets.token_hex(8)}"
        #: of rounds whose answer was lost; asked again under the same token they answer the same
        self._unanswered: dict[tuple[QueueName, str], str] = {}

    async def open(self, listener: Listener) -> None:
        redis, self._listener = self._script.open(), listener
        begun = asyncio.get_running_loop().create_future()
        try:
            with closed_as_lost():
                await self._check_server(redis)
            self._listening = asyncio.create_task(self._listen(redis, listener, begun))
            async with asyncio.timeout(_OPEN_S):
                await begun
        except (RedisError, OSError, QueueStoreUnavailable) as error:
            await self.close()
            raise QueueStoreUnavailable(f"--queue-url: {why_unusable(error)}") from error

    async def close(self) -> None:
        if self._listening is not None:
            await end_tasks([self._listening])
        await self._script.close()

    @staticmethod
    async def _check_server(redis: Redis) -> None:
        info: dict[str, Any] = await redis.info()
        version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
        if version < _OLDEST:
            raise StorageFailed(f"Redis {info['redis_version']} is too old: 6.2 is needed")
        if not info.get("aof_enabled"):
            log.warning(
                "this Redis keeps no append-only file: what it has acknowledged may be lost when "
                "it stops (appendonly yes, appendfsync always)"
            )
        if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
            log.warning(
                "this Redis may drop items when its memory is full (maxmemory-policy noeviction)"
            )

    async def _listen(
        self, redis: Redis, listener: Listener, begun: "asyncio.Future[None]"
    ) -> None:
        """Tell what other processes and this one did; after a gap assume that anything did.

        What keeps it from beginning is raised by `begun`, and ends it.
        """
        while True:
            try:
                with closed_as_lost():
                    await self._listen_once(redis, listener, begun)
            except (RedisError, OSError, QueueStoreUnavailable) as error:
                if not begun.done():
                    begun.set_exception(error)
                    return
                log.warning("no news from Redis: %s", error)
                await asyncio.sleep(_RETRY_S)
            except Exception:  # whatever it is: without news consumers would wait for each look
                log.exception("listening to Redis failed")
                await asyncio.sleep(_RETRY_S)

    async def _listen_once(
        self, redis: Redis, listener: Listener, begun: "asyncio.Future[None]"
    ) -> None:
        """Until the connection is lost."""
        async with redis.pubsub() as subscription:
            await _subscribe(subscription, (_CHANNEL, self._own_channel))
            for queue in await self.queues():
                listener(Event(Change.PUT, queue))
                listener(Event(Change.FREED, queue))
            if not begun.done():
                begun.set_result(None)
            await _hear(subscription, listener)

    async def _call(self, operation: str, *data: bytes, **arguments: Any) -> list[bytes]:
        """Run an operation of the script; raises StorageFailed, QueueStoreUnavailable."""
        given = {name: value for name, value in arguments.items() if value is not None}
        return await self._script.call(operation, orjson.dumps(given), *data)

    async def _ask(self, operation: str, *data: bytes, **arguments: Any) -> Any:
        return orjson.loads((await self._call(operation, *data, **arguments))[0])

    # --- items ---

    async def put(self, queue: QueueName, item: NewItem, room: Room | None = None) -> int:
        fields = {
            "queue": str(queue),
            "item": _item_fields(item),
            "sink": str(queue.sink) if queue.is_source else None,
            "room": _room_fields(room),
        }
        answer = await self._puts.put(fields, item.data)
        if answer.get("error") == "request_id_taken":
            raise RequestIdTaken.in_queue(item.request_id)
        if answer.get("error") == "request_ended":
            raise RequestIdTaken.in_sink(item.request_id)
        if answer.get("error") == "queue_full":
            limit = room.bytes if room is not None else 0
            raise QueueIsFull(f"the queue is full: it holds {answer['detail']} of {limit} bytes")
        return int(answer["index"])

    async def _send_puts(
        self, puts: Sequence[Mapping[str, Any]], data: Sequence[bytes]
    ) -> Sequence[Mapping[str, Any]]:
        answers, *news = await self._call("put", *data, puts=puts, own=self._own_channel)
        for each in news:
            for event in _events_of(each):
                self._listener(event)
        return orjson.loads(answers)

    async def get(self, queue: QueueName, query: Query, claim: str = "") -> list[Item]:
        fields = {"index": query.index, "length": query.length, "at_least": query.at_least}
        meta, *data = await self._call(
            "get",
            queue=str(queue),
            query=fields | {"tags": dict(query.tags)},
            claim=claim,
            answer_bytes=ANSWER_BYTES,
        )
        return [_item_of(each, d) for each, d in zip(orjson.loads(meta), data, strict=True)]

    async def settle(self, queue: QueueName, claim: str, *, delete: bool) -> None:
        await self._call("settle", queue=str(queue), claim=claim, delete=delete)

    async def count(
        self, queue: QueueName, tags: Mapping[str, str], priority: int | None = None
    ) -> int:
        answer = await self._ask("count", queue=str(queue), tags=dict(tags), priority=priority)
        return answer["count"]

    async def place(self, queue: QueueName, group: str, index: int) -> Place | None:
        answer = await self._ask("place", queue=str(queue), group=group, index=index)
        return Place(**answer) if answer else None

    async def stats(self, queue: QueueName) -> QueueStats:
        answer = await self._call("stats", queue=str(queue), gone_kept_ms=GONE_KEPT_MS)
        figures, consumers, groups = (orjson.loads(each) for each in answer)
        return QueueStats(
            first=int(figures["first"]),
            last=int(figures["last"]),
            length=figures["length"],
            bytes=figures["bytes"],
            oldest_age_s=max(figures["oldest_age_ms"], 0) / 1000,
            consumers=[_consumer_of(c) for c in sorted(consumers, key=lambda c: c["number"])],
            groups=[
                Group(g["name"], g["last_index"], g["pending"], g["consumers"])
                for g in sorted(groups, key=lambda g: g["number"])
            ],
        )

    async def delete(self, queue: QueueName, indexes: Sequence[int]) -> int:
        removed = 0
        for start in range(0, len(indexes), PORTION):
            some = list(indexes[start : start + PORTION])
            answer = await self._ask("delete", queue=str(queue), indexes=some)
            removed += answer["removed"]
        return removed

    async def truncate(self, queue: QueueName, below: int) -> int:
        below = min(below, (await self.stats(queue)).last + 1)
        removed = 0
        while some := (await self._ask("truncate", queue=str(queue), below=below, portion=PORTION))[
            "removed"
        ]:
            removed += some
        return removed

    async def drop_undelivered(self, queue: QueueName) -> None:
        start, below = 1, (await self.stats(queue)).last + 1
        while start < below:
            answer = await self._ask(
                "drop_undelivered", queue=str(queue), start=start, below=below, portion=PORTION
            )
            start = answer["next"]

    async def queues(self) -> list[QueueName]:
        return [QueueName.parse(name) for name in sorted(await self._ask("queues"))]

    async def requeue(self, rear: QueueName, queue: QueueName) -> Requeued:
        start, below = 1, (await self.stats(rear)).last + 1
        moved, left = 0, list[str]()
        while start < below:
            answer, still_there = await self._call(
                "requeue",
                queue=str(queue),
                rear=str(rear),
                sink=str(queue.sink),
                start=start,
                below=below,
                portion=PORTION,
                answer_bytes=ANSWER_BYTES,
            )
            done = orjson.loads(answer)
            start, moved = done["next"], moved + done["moved"]
            left += orjson.loads(still_there)
        return Requeued(moved, left)

    # --- consumers ---

    async def join(self, queue: QueueName, member: Member) -> None:
        fields = asdict(member) | {"tags": dict(member.tags)}
        group = fields.pop("group")
        await self._call(
            "join", queue=str(queue), group=group, member=fields, gone_kept_ms=GONE_KEPT_MS
        )

    async def leave(self, queue: QueueName, member: Member) -> None:
        await self._call(
            "leave", queue=str(queue), group=member.group, user=member.user, id=member.id
        )

    async def take(
        self,
        queue: QueueName,
        group: str,
        node: str,
        rules: Rules,
        *,
        insists: bool,
        unsent: Mapping[str, int] | None = None,
    ) -> Taken:
        is_counted = group == rules.counting_group
        sink = rules.full_sink if is_counted else None
        token = self._unanswered.setdefault((queue, group), secrets.token_hex(8))
        meta, *data = await self._call(
            "take",
            queue=str(queue),
            group=group,
            node=node,
            token=token,
            is_counted=is_counted,
            max_delivery=rules.max_delivery if is_counted else 0,
            full_sink=None if sink is None else str(sink),
            full_at=rules.full_at,
            insists=insists,
            unsent=dict(unsent or {}),
            unsent_bytes=UNSENT_BYTES,
            answer_bytes=ANSWER_BYTES,
            round=ROUND,
            auto_commit_window=AUTO_COMMIT_WINDOW,
        )
        self._unanswered.pop((queue, group), None)
        answer, each_data = orjson.loads(meta), iter(data)
        return Taken(
            [
                Delivery(d["member_id"], d["fence"], _item_of(d["item"], next(each_data)))
                for d in answer["deliveries"]
            ],
            [_item_of(item, next(each_data)) for item in answer["exhausted"]],
            answer["has_deferred"],
            answer["held_back"],
            answer["members"],
        )

    async def commit(self, queue: QueueName, group: str, indexes: Sequence[int]) -> None:
        await self._call("commit", queue=str(queue), group=group, indexes=list(indexes))

    async def reject(
        self, queue: QueueName, group: str, user: str, indexes: Sequence[int], *, retire: bool
    ) -> None:
        await self._call(
            "reject",
            queue=str(queue),
            group=group,
            user=user,
            indexes=list(indexes),
            retire=retire,
        )

    async def release(
        self, queue: QueueName, group: str, index: int, fence: str, *, counts: bool, code: int = 0
    ) -> bool:
        answer = await self._ask(
            "release",
            queue=str(queue),
            group=group,
            index=index,
            fence=fence,
            counts=counts,
            code=code,
        )
        return answer["is_done"]

    async def finish(
        self,
        queue: QueueName,
        group: str,
        index: int,
        fence: str,
        result: NewItem | None,
        rear: QueueName | None = None,
        room: Room | None = None,
    ) -> bool:
        answer = await self._ask(
            "finish",
            b"" if result is None else result.data,
            queue=str(queue),
            sink=str(queue.sink),
            group=group,
            index=index,
            fence=fence,
            result=None if result is None else _item_fields(result),
            rear=None if rear is None else str(rear),
            room=_room_fields(room),
        )
        return answer["is_done"]

    async def release_idle(self, queue: QueueName, idle_ms: int) -> None:
        await self._call("release_idle", queue=str(queue), idle_ms=idle_ms)

    # --- nodes ---

    async def begin_node(self, node: str) -> None:
        await self._call("begin_node", node=node)

    async def beat(self, node: str) -> bool:
        return (await self._ask("beat", node=node))["is_known"]

    async def beats(self) -> dict[str, int]:
        return dict(await self._ask("beats"))

    async def bury_node(self, node: str, beats: int) -> None:
        await self._call("bury_node", node=node, beats=beats)


async def _subscribe(subscription: PubSub, channels: Sequence[str]) -> None:
    """Subscribe, confirmed; raises what Redis refuses, `TimeoutError` when it is silent."""
    await subscription.subscribe(*channels)
    for _ in channels:
        if await subscription.get_message(timeout=_TIMEOUT_S) is None:
            raise TimeoutError(f"no subscription within {_TIMEOUT_S:g} s")


async def _hear(subscription: PubSub, listener: Listener) -> None:
    """Tell what comes; raises `TimeoutError` when Redis has been silent though it was asked."""
    is_asked = False
    while True:
        message = await subscription.get_message(
            ignore_subscribe_messages=True, timeout=_TIMEOUT_S / 2
        )
        if message is not None:
            is_asked = False
            if message["type"] == "message":
                for event in _events_of(message["data"]):
                    listener(event)
        elif is_asked:
            raise TimeoutError(f"silence for {_TIMEOUT_S:g} s")
        else:
            is_asked = True
            await subscription.ping()


def _item_fields(item: NewItem) -> dict[str, Any]:
    """What the script stores; tags as text, which it keeps as it is."""
    return {
        "request_id": item.request_id,
        "tags": orjson.dumps(dict(item.tags)).decode(),
        "priority": item.priority,
        "path": item.path,
        "content_type": item.content_type,
        "message": item.message,
    }


def _room_fields(room: Room | None) -> dict[str, Any] | None:
    return None if room is None else {"bytes": room.bytes, "evicts": room.evicts}


def _item_of(fields: dict[str, str], data: bytes) -> Item:
    return Item(
        request_id=fields["request_id"],
        tags=orjson.loads(fields["tags"]),
        data=data,
        priority=int(fields["priority"]),
        path=fields["path"],
        content_type=fields["content_type"],
        message=fields["message"],
        index=int(fields["index"]),
        deliveries=int(fields["deliveries"]),
        last_code=int(fields["last_code"]),
    )


def _consumer_of(fields: dict[str, Any]) -> Consumer:
    return Consumer(
        group=fields["group"],
        user=fields["user"],
        last_index=int(fields["last_index"]),
        pending=fields["pending"],
        idle_ms=int(fields["idle_ms"]),
        window=fields["window"],
        auto_commit=fields["auto_commit"],
        tags=dict(fields["tags"] or {}),
        gone_ms=fields.get("gone_ms"),
        left_pending=fields["left_pending"],
    )


def _events_of(news: Any) -> list[Event]:
    """What one call of the script did."""
    return [
        Event(
            Change(fields["change"]),
            QueueName.parse(fields["queue"]),
            fields.get("tags"),
            fields.get("member_id", ""),
        )
        for fields in orjson.loads(news)
    ]

"""What a queue does: every verb of the contract, over any store."""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import orjson

from sdapi.ending import end_tasks
from sdapi.errors import Missing, SDAPIError, ShuttingDown
from sdapi.queue.config.spec import ServiceSpec
from sdapi.queue.going_on import GoingOn
from sdapi.queue.presence import Presence
from sdapi.queue.protocol import attributes
from sdapi.queue.stores.store import (
    LAST_CODE,
    REQUEST_ID,
    Event,
    Item,
    Member,
    NewItem,
    Place,
    Query,
    QueueName,
    Store,
)
from sdapi.queue.waiting import Waiting
from sdapi.queue.watching import Subscription, Watching

SOURCE_TIME = "ts@source"
SINK_TIME = "ts@sink"
#: the longest wait for a change before a reader looks by itself
_LOOK_S = 5.0
_RETRY_S = 0.5
#: after which nothing of a call that failed is on its way to the store any more
_AGAIN_S = 2.0


class PayloadTooLarge(SDAPIError):
    status, code = 413, "payload_too_large"


class UnknownService(Missing):
    status, code = 404, "unknown_service"


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL names: a service's queue, and the inference path of what is put there."""

    spec: ServiceSpec
    queue: QueueName
    path: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: `<group>.<user>`."""

    group: str
    user: str


class QueueService:
    """The queues of some services. `open` before use; `close` frees what this process holds."""

    def __init__(self, store: Store, specs: Sequence[ServiceSpec]) -> None:
        self.node = uuid.uuid4().hex[:12]
        self.specs: Mapping[str, ServiceSpec] = {spec.name: spec for spec in specs}
        self.store = store
        self._waiting = Waiting()
        self._watching = Watching(store, self.node, self.bury)
        self._presence = Presence(store, self.node, self._watching.close_all)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    async def open(self) -> None:
        """Connect to the store and show that this process lives."""
        await self.store.open(self._on_event)
        await self._presence.begin()
        self._tasks.add(asyncio.create_task(self._presence.run()))
        self._tasks.update(
            asyncio.create_task(self._release_idle(spec, spec.max_idle_s))
            for spec in self.specs.values()
            if spec.is_async and spec.max_idle_s
        )

    def end_waits(self) -> None:
        """Let whoever waits for items go, for good: the server ends."""
        self._ending.set()
        self._watching.close_all()

    async def close(self) -> None:
        """End every subscription and close the store."""
        await self._watching.close()
        await end_tasks(self._tasks)
        await self.store.close()

    def spec(self, name: str) -> ServiceSpec:
        """The service of a path segment: as it is, else the part after its last dot."""
        found = self.specs.get(name) or self.specs.get(name.rpartition(".")[2])
        if found is None:
            raise UnknownService(f"there is no service {name[:100]!r}")
        return found

    @staticmethod
    def address(spec: ServiceSpec, rest: str, *, is_rear: bool) -> Address:
        """What the rest of a path, in its percent escapes, names: `sink` alone the output queue."""
        is_sink = unquote(rest).strip("/") == "sink"
        queue = QueueName(spec.name, is_sink, is_rear)
        return Address(spec, queue, "" if is_sink or not rest else f"/{rest}")

    # --- verbs ---

    async def put(
        self,
        address: Address,
        data: bytes,
        tags: Mapping[str, str],
        *,
        priority: int = 0,
        content_type: str = "",
    ) -> tuple[int, str]:
        """Store an item; returns its index and request id."""
        limit = address.spec.limits(address.queue).max_payload_bytes
        if len(data) > limit:
            raise PayloadTooLarge(f"the data is larger than {limit} bytes")
        request_id = tags.get(REQUEST_ID) or _new_request_id()
        entry = SINK_TIME if address.queue.is_sink else SOURCE_TIME
        item = NewItem(
            request_id=request_id,
            tags={**tags, REQUEST_ID: request_id, entry: _now_ms()},
            data=data,
            priority=priority,
            path=address.path,
            content_type=content_type,
        )
        room = address.spec.room(address.queue)
        return await self.store.put(address.queue, item, room), request_id

    async def get(
        self, queue: QueueName, query: Query, timeout_s: float, claim: str, gone: asyncio.Event
    ) -> list[Item]:
        """What matches, as soon as all of it is there or the time is over; nothing once `gone`.

        Raises `ShuttingDown` where the server ends before, and nothing is there. A call that
        raises, or is cancelled, leaves no claim behind.
        """
        end = time.monotonic() + timeout_s
        with self._waiting.waiter(queue, query.tags) as waiter:
            while not gone.is_set():
                waiter.came.clear()
                left_s, is_ending = end - time.monotonic(), self._ending.is_set()
                is_last = is_ending or left_s <= 0
                wanted = 1 if is_last else query.length
                items = await self._claimed(queue, replace(query, at_least=wanted), claim)
                if not items and is_ending and left_s > 0:
                    raise ShuttingDown("the server is shutting down")
                if items or is_last:
                    return items
                await _first_of(min(left_s, _LOOK_S), waiter.came, gone, self._ending)
        return []

    async def _claimed(self, queue: QueueName, query: Query, claim: str) -> list[Item]:
        """What the store answers; without an answer no claim stays, though the store made one."""
        if not claim:
            return await self.store.get(queue, query)
        getting = asyncio.create_task(self.store.get(queue, query, claim))
        try:
            return await asyncio.shield(getting)
        except asyncio.CancelledError:  # the store's call goes on, and may make it yet
            self._in_background(self._give_up_after(getting, queue, claim))
            raise
        except Exception:
            await self._give_up(queue, claim)
            raise

    async def _give_up_after(
        self, getting: asyncio.Task[list[Item]], queue: QueueName, claim: str
    ) -> None:
        await asyncio.wait([getting])
        if getting.cancelled() or getting.exception() is not None:
            await self._give_up(queue, claim)
        else:
            await self.settle(queue, claim, delete=False)

    async def _give_up(self, queue: QueueName, claim: str) -> None:
        """Twice: the first may overtake what still lies on a connection to the store."""
        self._in_background(self._settle_later(queue, claim, _AGAIN_S, delete=False))
        await self.settle(queue, claim, delete=False)

    def new_claim(self) -> str:
        """A name for items that are on their way to a reader."""
        return f"{self.node}:{uuid.uuid4().hex}"

    async def settle(self, queue: QueueName, claim: str, *, delete: bool) -> None:
        """End a claim, later if need be: a claim that is left open hides its items."""
        with GoingOn(f"cannot end the claim of a reader of {queue} now"):
            await self.store.settle(queue, claim, delete=delete)
            return
        self._in_background(self._settle_later(queue, claim, _RETRY_S, delete=delete))

    async def _settle_later(
        self, queue: QueueName, claim: str, pause_s: float, *, delete: bool
    ) -> None:
        while True:
            await asyncio.sleep(pause_s)
            with GoingOn(f"cannot end the claim of a reader of {queue} now"):
                await self.store.settle(queue, claim, delete=delete)
                return

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it ends, or the service does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def search(self, queue: QueueName, identity: Identity, index: int) -> Place:
        place = await self.store.place(queue, identity.group, index)
        if place is None:
            raise Missing("no data in stream")
        return place

    async def attributes(self, address: Address) -> dict[str, str]:
        """All attributes of a queue, as texts."""
        queue = address.queue
        stats = await self.store.stats(queue)
        other = queue.source if queue.is_sink else queue.sink
        stored = stats.bytes + (await self.store.stats(other)).bytes
        return attributes.attributes(address.spec, queue, stats, stored)

    async def commit(self, queue: QueueName, identity: Identity, indexes: Sequence[int]) -> None:
        await self.store.commit(queue, identity.group, indexes)

    async def reject(
        self, queue: QueueName, identity: Identity, indexes: Sequence[int], code: str
    ) -> None:
        """A negative commit: the items go back, and a consumer that shuts down gets no more."""
        await self.store.reject(
            queue, identity.group, identity.user, indexes, retire=code == "Shutdown"
        )

    @asynccontextmanager
    async def subscribe(
        self,
        address: Address,
        identity: Identity,
        *,
        window: int = 1,
        start: int = 0,
        tags: Mapping[str, str] | None = None,
        auto_commit: bool = False,
        index_only: bool = False,
    ) -> AsyncGenerator[Subscription]:
        """Be a consumer for as long as the context lasts."""
        member = Member(
            id=uuid.uuid4().hex,
            group=identity.group,
            user=identity.user,
            node=self.node,
            window=window,
            auto_commit=auto_commit,
            index_only=index_only,
            start=start,
            tags=tags or {},
        )
        rules = address.spec.rules(address.queue)
        async with self._watching.subscribe(address.queue, member, rules) as subscription:
            yield subscription

    # --- dead letters ---

    async def bury(self, queue: QueueName, item: Item) -> None:
        """End an item that had all its deliveries: its reader gets a failure."""
        spec = self.specs[queue.service]
        code = item.last_code or 502
        last = f"ended with status {code}" if item.last_code else "did not end"
        text = f"given up after {item.deliveries} deliveries; the last one {last}"
        result = NewItem(
            request_id=item.request_id,
            tags={**item.tags, SINK_TIME: _now_ms(), LAST_CODE: str(code)},
            data=orjson.dumps({"error": text}),
            content_type="application/json",
        )
        rear = None if spec.drops_dead else queue.rear
        room = spec.room_of_results
        await self.store.finish(queue, spec.name, item.index, "", result, rear, room)

    # --- background ---

    def _on_event(self, event: Event) -> None:
        self._waiting.on_event(event)
        self._watching.on_event(event)

    async def _release_idle(self, spec: ServiceSpec, max_idle_s: float) -> None:
        while True:
            await asyncio.sleep(min(max(max_idle_s / 4, 0.05), 5.0))
            with GoingOn(f"cannot look for idle items of {spec.name}"):
                for queue in (spec.source_queue, spec.source_queue.sink):
                    await self.store.release_idle(queue, int(max_idle_s * 1000))


def _new_request_id() -> str:
    """A random UUID as text; making a `uuid.UUID` of it first takes several times as long."""
    digits = secrets.token_hex(16)
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _now_ms() -> str:
    return str(time.time_ns() // 1_000_000)


async def _first_of(timeout_s: float, *events: asyncio.Event) -> None:
    """Return when one is set or the time is over."""
    tasks = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

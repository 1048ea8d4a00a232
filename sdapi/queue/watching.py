"""Consumers of this process: who waits for items, and the rounds that hand items to them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from sdapi.errors import SDAPIError
from sdapi.queue.stores.store import Change, Delivery, Event, Item, Member, QueueName, Rules, Store

log = logging.getLogger(__name__)

#: how long an item is left to a freer consumer of another process before this one takes it
_DEFER_S = 0.03
#: a look without being told, for what operators' commands change beside the server
_LOOK_S = 5.0
_RETRY_S = 0.5

Bury = Callable[[QueueName, Item], Awaitable[None]]


class Subscription:
    """One connected consumer. Iterate `batches` until it ends: then it was replaced or lost."""

    def __init__(self, queue: QueueName, member: Member, pump: "_Pump") -> None:
        self.queue = queue
        self.member = member
        self._pump = pump
        self._outbox: list[Delivery] = []
        self._changed = asyncio.Event()
        self._is_closed = False

    async def batches(self) -> AsyncIterator[list[Delivery]]:
        """What is handed to this consumer, as it comes."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._is_closed:
                return
            batch, self._outbox = self._outbox, []
            if batch:
                yield batch

    def close(self) -> None:
        self._is_closed = True
        self._changed.set()

    def hand(self, delivery: Delivery) -> None:
        self._outbox.append(delivery)
        self._changed.set()

    def may_want(self, event: Event) -> bool:
        return event.tags is None or self.member.tags.items() <= event.tags.items()


class Watching:
    """All subscriptions of this process."""

    def __init__(self, store: Store, node: str, bury: Bury) -> None:
        self._store = store
        self._node = node
        self._bury = bury
        self._pumps: dict[tuple[QueueName, str], _Pump] = {}

    @asynccontextmanager
    async def subscribe(
        self, queue: QueueName, member: Member, rules: Rules
    ) -> AsyncGenerator[Subscription]:
        """Connect a consumer for as long as the context lasts."""
        key = (queue, member.group)
        pump = self._pumps.get(key)
        if pump is None:
            pump = self._pumps[key] = _Pump(self._store, queue, member.group, self._node, rules)
        subscription = Subscription(queue, member, pump)
        pump.add(subscription)
        try:
            await self._store.join(queue, member)
            pump.start(self._bury)
            yield subscription
        finally:
            pump.remove(subscription)
            if pump.is_idle and self._pumps.get(key) is pump:
                del self._pumps[key]
            await asyncio.shield(self._leave(queue, member))

    async def _leave(self, queue: QueueName, member: Member) -> None:
        try:
            await self._store.leave(queue, member)
        except SDAPIError as error:  # presence sees to it later
            log.warning("consumer %s.%s could not leave: %s", member.group, member.user, error)

    def on_event(self, event: Event) -> None:
        """Wake whoever an event may concern."""
        for (queue, _), pump in list(self._pumps.items()):
            if event.queue == queue or (event.queue.is_sink and event.queue.source == queue):
                pump.on_event(event)

    def close_all(self) -> None:
        """End every subscription; their owners may subscribe anew."""
        for pump in list(self._pumps.values()):
            pump.close_all()


class _Pump:
    """Hands the items of one queue to this process's consumers of one group."""

    def __init__(self, store: Store, queue: QueueName, group: str, node: str, rules: Rules) -> None:
        self._store = store
        self._queue = queue
        self._group = group
        self._node = node
        self._rules = rules
        self._subscriptions: dict[str, Subscription] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return not self._subscriptions

    def add(self, subscription: Subscription) -> None:
        self._subscriptions[subscription.member.id] = subscription

    def start(self, bury: Bury) -> None:
        """Look at once, since somebody has joined."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(bury))
        self._wake.set()

    def remove(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.member.id, None)
        if not self._subscriptions and self._task is not None:
            self._task.cancel()
            self._task = None

    def close_all(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.close()

    def on_event(self, event: Event) -> None:
        if event.change is Change.REPLACED:
            subscription = self._subscriptions.get(event.member_id)
            if subscription is not None:
                subscription.close()
        elif event.queue != self._queue:
            if event.change is Change.FREED:  # the sink has room again
                self._wake.set()
        elif event.change is Change.FREED or any(
            each.may_want(event) for each in self._subscriptions.values()
        ):
            self._wake.set()

    async def _run(self, bury: Bury) -> None:
        insists = False
        while True:
            self._wake.clear()
            try:
                is_more, has_deferred = await self._round(bury, insists)
            except SDAPIError as error:
                log.warning("cannot hand out items of %s now: %s", self._queue, error)
                await asyncio.sleep(_RETRY_S)
                continue
            insists = has_deferred
            if is_more:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_DEFER_S if has_deferred else _LOOK_S):
                    await self._wake.wait()

    async def _round(self, bury: Bury, insists: bool) -> tuple[bool, bool]:
        taken = await self._store.take(
            self._queue, self._group, self._node, self._rules, insists=insists
        )
        for delivery in taken.deliveries:
            subscription = self._subscriptions.get(delivery.member_id)
            if subscription is not None:  # else it has just left, which frees the item
                subscription.hand(delivery)
        for item in taken.exhausted:
            await bury(self._queue, item)
        return bool(taken.deliveries or taken.exhausted), taken.has_deferred

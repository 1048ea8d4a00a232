"""Consumers of this process: who waits for items, and the rounds that hand items to them."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from sdapi.ending import end_tasks
from sdapi.queue.going_on import GoingOn
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
        #: of what is in the outbox, and of the batch under way
        self._waiting_bytes = self._sending_bytes = 0
        self._is_held_back = False
        #: it is known to the store
        self.has_joined = False

    @property
    def unsent_bytes(self) -> int:
        """How much data it was handed that its owner has not sent."""
        return self._waiting_bytes + self._sending_bytes

    async def batches(self) -> AsyncIterator[list[Delivery]]:
        """What is handed to this consumer, as it comes. Who asks for the next has sent the last."""
        while True:
            self._sending_bytes = 0
            self._go_on()
            await self._changed.wait()
            self._changed.clear()
            if self._is_closed:
                return
            batch, self._outbox = self._outbox, []
            self._sending_bytes, self._waiting_bytes = self._waiting_bytes, 0
            if batch:
                yield batch

    def close(self) -> None:
        self._is_closed = True
        self._changed.set()

    def hand(self, delivery: Delivery) -> None:
        self._outbox.append(delivery)
        self._waiting_bytes += len(delivery.item.data)
        self._changed.set()

    def hold_back(self) -> None:
        """Something waits until more has been sent."""
        self._is_held_back = True
        if not self.unsent_bytes:
            self._go_on()

    def _go_on(self) -> None:
        if self._is_held_back:
            self._is_held_back = False
            self._pump.wake()

    def may_want(self, event: Event) -> bool:
        return event.tags is None or self.member.tags.items() <= event.tags.items()


class Watching:
    """All subscriptions of this process."""

    def __init__(self, store: Store, node: str, bury: Bury) -> None:
        self._store = store
        self._node = node
        self._bury = bury
        self._pumps: dict[tuple[QueueName, str], _Pump] = {}
        #: of consumers that could not leave at once
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @asynccontextmanager
    async def subscribe(
        self, queue: QueueName, member: Member, rules: Rules
    ) -> AsyncGenerator[Subscription]:
        """Connect a consumer for as long as the context lasts."""
        pump = self._pump(queue, member.group, rules)
        subscription = Subscription(queue, member, pump)
        pump.add(subscription)
        try:
            await self._store.join(queue, member)
            subscription.has_joined = True
            pump.start(self._bury)
            yield subscription
        finally:
            pump.remove(subscription)
            await asyncio.shield(self._leave(queue, member))

    def _pump(self, queue: QueueName, group: str, rules: Rules) -> "_Pump":
        key = (queue, group)
        if key not in self._pumps:
            forget = partial(self._pumps.pop, key, None)
            self._pumps[key] = _Pump(self._store, queue, group, self._node, rules, forget)
        return self._pumps[key]

    async def _leave(self, queue: QueueName, member: Member) -> None:
        """At once, or later: a consumer that seems to be there keeps its items from others."""
        with GoingOn(f"consumer {member.group}.{member.user} cannot leave now"):
            await self._store.leave(queue, member)
            return
        if self._is_closed:  # with its process, which others will take for dead
            return
        leaving = asyncio.create_task(self._leave_later(queue, member))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave_later(self, queue: QueueName, member: Member) -> None:
        while True:
            await asyncio.sleep(_RETRY_S)
            with GoingOn(f"consumer {member.group}.{member.user} cannot leave now"):
                await self._store.leave(queue, member)
                return

    def on_event(self, event: Event) -> None:
        """Wake whoever an event may concern."""
        for (queue, _), pump in list(self._pumps.items()):
            if event.queue == queue or (event.queue.is_sink and event.queue.source == queue):
                pump.on_event(event)

    def close_all(self) -> None:
        """End every subscription; their owners may subscribe anew."""
        for pump in list(self._pumps.values()):
            pump.close_all()

    async def close(self) -> None:
        """End every subscription, and hand out nothing more."""
        self._is_closed = True
        self.close_all()
        rounds = [pump.task for pump in self._pumps.values() if pump.task is not None]
        await end_tasks([*rounds, *self._leaving])


class _Pump:
    """Hands the items of one queue to this process's consumers of one group.

    Its rounds end by themselves when the last of them has gone. None is cut off for that: what it
    has handed out by then is for who comes next.
    """

    def __init__(
        self,
        store: Store,
        queue: QueueName,
        group: str,
        node: str,
        rules: Rules,
        forget: Callable[[], object],
    ) -> None:
        self._store = store
        self._queue = queue
        self._group = group
        self._node = node
        self._rules = rules
        self._forget = forget
        self._subscriptions: dict[str, Subscription] = {}
        self._wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def add(self, subscription: Subscription) -> None:
        self._subscriptions[subscription.member.id] = subscription

    def start(self, bury: Bury) -> None:
        """Look at once, since somebody has joined."""
        if self.task is None:
            self.task = asyncio.create_task(self._run(bury))
        self._wake.set()

    def remove(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.member.id, None)
        if self.task is None and not self._subscriptions:
            self._forget()
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

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
        try:
            await self._rounds(bury)
        finally:
            self.task = None
            self._forget()

    async def _rounds(self, bury: Bury) -> None:
        """Hand out what there is, then wait until something may have changed.

        Only a round that follows a pause takes what is left to freer consumers elsewhere, however
        often this one is woken meanwhile and whatever else it hands out.
        """
        deferred_at: float | None = None
        while self._subscriptions:
            self._wake.clear()
            waited_s = 0.0 if deferred_at is None else time.monotonic() - deferred_at
            insists = waited_s >= _DEFER_S
            outcome = None
            with GoingOn(f"cannot hand out items of {self._queue} now"):
                outcome = await self._round(bury, insists)
            if outcome is None:
                await asyncio.sleep(_RETRY_S)
                continue
            is_more, has_deferred = outcome
            if not has_deferred:
                deferred_at = None
            elif deferred_at is None or insists:
                deferred_at = time.monotonic()
            if is_more:
                continue
            left_s = _LOOK_S if deferred_at is None else deferred_at + _DEFER_S - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    async def _round(self, bury: Bury, insists: bool) -> tuple[bool, bool]:
        joined = [each for each in self._subscriptions.values() if each.has_joined]
        unsent = {each.member.id: each.unsent_bytes for each in joined if each.unsent_bytes}
        taken = await self._store.take(
            self._queue, self._group, self._node, self._rules, insists=insists, unsent=unsent
        )
        for subscription in joined:
            if subscription.member.id not in taken.members:  # it was replaced, or taken for dead
                subscription.close()
        for delivery in taken.deliveries:
            subscription = self._subscriptions.get(delivery.member_id)
            if subscription is not None:  # else it has just left, which frees the item
                subscription.hand(delivery)
        for member_id in taken.held_back:
            if member_id in self._subscriptions:
                self._subscriptions[member_id].hold_back()
        for item in taken.exhausted:
            await bury(self._queue, item)
        return bool(taken.deliveries or taken.exhausted), taken.has_deferred

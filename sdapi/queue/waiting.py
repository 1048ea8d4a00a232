"""Readers that wait for an item to come."""

import asyncio
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from sdapi.queue.stores.store import Change, Event, QueueName


@dataclass(eq=False, slots=True)
class Waiter:
    """One reader; `came` is set when something that it may want has come."""

    tags: Mapping[str, str]
    came: asyncio.Event = field(default_factory=asyncio.Event)


class Waiting:
    """All readers that wait in this process, in the order of their arrival.

    They are woken in that order, and the store serves whoever asks first.
    """

    def __init__(self) -> None:
        self._waiters: dict[QueueName, dict[Waiter, None]] = defaultdict(dict)

    @contextmanager
    def waiter(self, queue: QueueName, tags: Mapping[str, str]) -> Generator[Waiter]:
        waiter = Waiter(tags)
        self._waiters[queue][waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[queue][waiter]
            if not self._waiters[queue]:
                del self._waiters[queue]

    def on_event(self, event: Event) -> None:
        if event.change is not Change.PUT or event.queue not in self._waiters:
            return
        for waiter in self._waiters[event.queue]:
            if event.tags is None or waiter.tags.items() <= event.tags.items():
                waiter.came.set()

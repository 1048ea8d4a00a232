"""The embedded store: one SQLite file in the data directory, for one server process."""

import asyncio
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sdapi.errors import SDAPIError, StorageFailed
from sdapi.queue.stores.sqlite import consumers, figures, getting_back, handing_out, items
from sdapi.queue.stores.sqlite.putting import Put, put_all
from sdapi.queue.stores.sqlite.writer import Operation, SqliteWriter, Transaction
from sdapi.queue.stores.store import (
    PORTION,
    Item,
    Listener,
    Member,
    NewItem,
    Place,
    Query,
    QueueName,
    QueueStats,
    Requeued,
    Room,
    Rules,
    Taken,
)

#: how long a server waits for its predecessor to end
_LOCK_S = 1.0
#: an operator's command leaves the file alone for so long after each portion: SQLite looks every
#: 0.1 s whether it is free
_TURN_S = 0.12

T = TypeVar("T")


class DatabaseInUse(SDAPIError):
    status, code = 500, "database_in_use"


class SqliteStore:
    """`Store` in a SQLite file (WAL, `synchronous=FULL`).

    Who holds what is kept by the one server that has the file open, so a second one is refused by
    a lock. Operators' commands open it beside with `is_server=False`: they neither join nor take.
    """

    def __init__(self, path: Path, *, is_server: bool = True) -> None:
        self._path = path
        self._is_server = is_server
        self._writer = SqliteWriter(path, items.SCHEMA)
        self._lock: int | None = None

    async def open(self, listener: Listener) -> None:
        if not self._path.parent.is_dir():
            raise StorageFailed(f"there is no folder {self._path.parent}; --data-dir names it")
        if self._is_server:
            self._lock = await self._locked()
        await self._writer.open(listener)
        if self._is_server:
            await self._writer.run(consumers.begin)

    async def close(self) -> None:
        await self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _locked(self) -> int:
        handle = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = asyncio.get_running_loop().time() + _LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if asyncio.get_running_loop().time() < end:
                    await asyncio.sleep(0.05)
                    continue
                os.close(handle)
                raise DatabaseInUse(
                    f"{self._path} is in use by another server; give this one its own --data-dir, "
                    "or share a queue with --queue-url redis://…"
                ) from None
            return handle

    async def put(self, queue: QueueName, item: NewItem, room: Room | None = None) -> int:
        return await self._writer.run_joint(put_all, Put(queue, item, room))

    async def get(self, queue: QueueName, query: Query, claim: str = "") -> list[Item]:
        return await self._writer.run(lambda tx: items.get(tx, queue, query, claim))

    async def settle(self, queue: QueueName, claim: str, *, delete: bool) -> None:
        await self._writer.run(lambda tx: items.settle(tx, queue, claim, delete=delete))

    async def count(
        self, queue: QueueName, tags: Mapping[str, str], priority: int | None = None
    ) -> int:
        return await self._writer.run(lambda tx: items.count(tx, queue, tags, priority))

    async def place(self, queue: QueueName, group: str, index: int) -> Place | None:
        return await self._writer.run(lambda tx: figures.place(tx, queue, group, index))

    async def stats(self, queue: QueueName) -> QueueStats:
        return await self._writer.run(lambda tx: figures.stats(tx, queue))

    async def delete(self, queue: QueueName, indexes: Sequence[int]) -> int:
        def remove(tx: Transaction, some: Sequence[int]) -> int:
            return items.remove(tx, items.find_queue(tx.db, queue), some)

        removed = 0
        for start in range(0, len(indexes), PORTION):
            some = indexes[start : start + PORTION]
            removed += await self._portion(lambda tx, some=some: remove(tx, some))
        return removed

    async def truncate(self, queue: QueueName, below: int) -> int:
        below = min(below, (await self.stats(queue)).last + 1)
        removed = 0
        while some := await self._portion(lambda tx: items.truncate(tx, queue, below)):
            removed += some
        return removed

    async def drop_undelivered(self, queue: QueueName) -> None:
        below = (await self.stats(queue)).last + 1
        while await self._portion(lambda tx: items.drop_undelivered(tx, queue, below)):
            pass

    async def _portion(self, operation: Operation[T]) -> T:
        """Do a part of what is long, and let others have their turn."""
        done = await self._writer.run(operation)
        if not self._is_server:
            await asyncio.sleep(_TURN_S)
        return done

    async def queues(self) -> list[QueueName]:
        return await self._writer.run(items.queues)

    async def requeue(self, rear: QueueName, queue: QueueName) -> Requeued:
        start, below = 1, (await self.stats(rear)).last + 1
        moved, left = 0, list[str]()
        while start < below:
            done, start = await self._portion(
                lambda tx, start=start: getting_back.requeue(tx, rear, queue, start, below)
            )
            moved += done.moved
            left += done.left
        return Requeued(moved, left)

    async def join(self, queue: QueueName, member: Member) -> None:
        await self._writer.run(lambda tx: consumers.join(tx, queue, member))

    async def leave(self, queue: QueueName, member: Member) -> None:
        await self._writer.run(lambda tx: consumers.leave(tx, queue, member))

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
        given = unsent or {}
        return await self._writer.run(
            lambda tx: handing_out.take(tx, queue, group, node, rules, given, insists=insists)
        )

    async def commit(self, queue: QueueName, group: str, indexes: Sequence[int]) -> None:
        await self._writer.run(lambda tx: getting_back.commit(tx, queue, group, indexes))

    async def reject(
        self, queue: QueueName, group: str, user: str, indexes: Sequence[int], *, retire: bool
    ) -> None:
        await self._writer.run(
            lambda tx: getting_back.reject(tx, queue, group, user, indexes, retire=retire)
        )

    async def release(
        self, queue: QueueName, group: str, index: int, fence: str, *, counts: bool, code: int = 0
    ) -> bool:
        return await self._writer.run(
            lambda tx: getting_back.release(
                tx, queue, group, index, fence, counts=counts, code=code
            )
        )

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
        return await self._writer.run(
            lambda tx: getting_back.finish(tx, queue, group, index, fence, result, rear, room)
        )

    async def release_idle(self, queue: QueueName, idle_ms: int) -> None:
        await self._writer.run(lambda tx: getting_back.release_idle(tx, queue, idle_ms))

    async def begin_node(self, node: str) -> None:
        await self._writer.run(lambda tx: consumers.begin_node(tx, node))

    async def beat(self, node: str) -> bool:
        return await self._writer.run(lambda tx: consumers.beat(tx, node))

    async def beats(self) -> dict[str, int]:
        return await self._writer.run(consumers.beats)

    async def bury_node(self, node: str, beats: int) -> None:
        await self._writer.run(lambda tx: consumers.bury_node(tx, node, beats))

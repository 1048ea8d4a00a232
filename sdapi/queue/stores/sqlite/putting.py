"""Puts in SQLite: what has gathered is written by a few statements, however much it is."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import orjson

from sdapi.errors import SDAPIError
from sdapi.queue.stores.sqlite.items import QueueRow, find_queue, remove
from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import (
    REQUEST_ID,
    Change,
    Event,
    NewItem,
    QueueIsFull,
    QueueName,
    RequestIdTaken,
    Room,
)

T = TypeVar("T")

#: rows of one statement; of lengths that are powers of two few statements are ever compiled
_ROWS = 64
_ITEM_COLUMNS = (
    "queue, idx, priority, request_id, tags, path, content_type, message, put_s, size, data"
)


class Put(NamedTuple):
    """One put and its queue; see `Store.put`."""

    queue: QueueName
    item: NewItem
    room: Room | None


def put(tx: Transaction, name: QueueName, item: NewItem, room: Room | None) -> int:
    """One item; see `Store.put`."""
    [outcome] = put_all(tx, [Put(name, item, room)])
    if isinstance(outcome, SDAPIError):
        raise outcome
    return outcome


def put_all(tx: Transaction, puts: Sequence[Put]) -> list[int | SDAPIError]:
    """Every put's index, or why there is none; see `Store.put`."""
    outcomes = dict[int, int | SDAPIError]()
    by_queue = dict[QueueName, list[int]]()
    for number, each in enumerate(puts):
        by_queue.setdefault(each.queue, []).append(number)
    for name, numbers in by_queue.items():
        gathered = _Gathered.of(tx, name, [puts[number].item for number in numbers])
        for number in numbers:
            outcomes[number] = gathered.add(tx, puts[number].item, puts[number].room)
        gathered.write(tx)
    return [outcomes[number] for number in range(len(puts))]


@dataclass(slots=True)
class _Gathered:
    """Puts of one queue on their way: its figures as they will be, and the rows to be written."""

    name: QueueName
    id: int
    last: int
    held_bytes: int
    now_s: float
    #: of every request that is there: its index and data
    known: dict[str, tuple[int, bytes]]
    #: the requests whose results are in the sink
    ended: frozenset[str]
    items: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    tags: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    size: int = 0

    @classmethod
    def of(cls, tx: Transaction, name: QueueName, items: Sequence[NewItem]) -> "_Gathered":
        queue = find_queue(tx.db, name)
        known, ended = _known(tx.db, queue, [item.request_id for item in items])
        return cls(name, queue.id, queue.last, queue.bytes, time.time(), known, ended)

    def add(self, tx: Transaction, item: NewItem, room: Room | None) -> int | SDAPIError:
        """Take a put, or say what is wrong with it."""
        found = self.known.get(item.request_id)
        if found is not None:
            index, data = found
            if data == item.data:
                return index
            if not self.name.is_rear:
                return RequestIdTaken.in_queue(item.request_id)
        if item.request_id in self.ended:
            return RequestIdTaken.in_sink(item.request_id)
        tags = orjson.dumps(dict(item.tags))
        size = len(item.data) + len(tags)
        if (
            room is not None
            and self.held_bytes + size > room.bytes
            and not self._evict(tx, size, room)
        ):
            return QueueIsFull(
                f"the queue is full: it holds {self.held_bytes} of {room.bytes} bytes"
            )
        self.last = index = self.last + 1
        self.held_bytes += size
        self.size += size
        self.known[item.request_id] = (index, item.data)
        self.items.append(
            (
                *(self.id, index, item.priority, item.request_id, tags, item.path),
                *(item.content_type, item.message, self.now_s, size, item.data),
            )
        )
        self.tags += [(self.id, key, value, index) for key, value in item.tags.items()]
        tx.events.append(Event(Change.PUT, self.name, item.tags))
        return index

    def write(self, tx: Transaction) -> None:
        """Store what was taken."""
        if not self.items:
            return
        _insert(tx.db, "queue_item", _ITEM_COLUMNS, self.items)
        _insert(tx.db, "queue_tag", "queue, name, value, idx", self.tags)
        tx.db.execute(
            "UPDATE queue SET last = ?, length = length + ?, bytes = bytes + ? WHERE id = ?",
            (self.last, len(self.items), self.size, self.id),
        )
        self.items, self.tags, self.size = [], [], 0

    def _evict(self, tx: Transaction, size: int, room: Room) -> bool:
        """Make room by deleting the oldest, where that is allowed and helps."""
        if not room.evicts or size > room.bytes:
            return False
        self.write(tx)
        excess, oldest = self.held_bytes + size - room.bytes, list[int]()
        sql = "SELECT idx, size FROM queue_item WHERE queue = ? ORDER BY idx"
        for index, old_size in tx.db.execute(sql, (self.id,)):
            oldest.append(index)
            excess -= old_size
            if excess <= 0:
                break
        remove(tx, find_queue(tx.db, self.name), oldest)
        self.held_bytes = find_queue(tx.db, self.name).bytes
        gone = set(oldest)
        self.known = {each: at for each, at in self.known.items() if at[0] not in gone}
        return True


def _known(
    db: sqlite3.Connection, queue: QueueRow, request_ids: Sequence[str]
) -> tuple[dict[str, tuple[int, bytes]], frozenset[str]]:
    """Index and data of those requests that are in a queue, and those that its sink has."""
    known, ended = dict[str, tuple[int, bytes]](), set[str]()
    sink = str(queue.name.sink) if queue.name.is_source else ""
    for ids in _in_powers_of_two(request_ids):
        sql = (  # CROSS so that SQLite looks into the tags first
            "SELECT t.queue, t.value, i.idx, CASE i.queue WHEN ? THEN i.data END"
            " FROM queue_tag t CROSS JOIN queue_item i ON i.queue = t.queue AND i.idx = t.idx"
            " WHERE t.queue IN (?, (SELECT id FROM queue WHERE name = ?)) AND t.name = ?"
            f" AND t.value IN ({', '.join('?' * len(ids))})"
        )
        rows = db.execute(sql, (queue.id, queue.id, sink, REQUEST_ID, *ids))
        for queue_id, request_id, index, data in rows:
            if queue_id == queue.id:
                known[request_id] = (index, data)
            else:
                ended.add(request_id)
    return known, frozenset(ended)


def _insert(
    db: sqlite3.Connection, table: str, columns: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    for some in _in_powers_of_two(rows):
        row = f"({', '.join('?' * len(some[0]))})"
        db.execute(
            f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * len(some))}",
            [value for each in some for value in each],
        )


def _in_powers_of_two(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Slices of them: as many as `_ROWS`, then each the largest power of two that is left."""
    start, length = 0, _ROWS
    while start < len(values):
        while length > len(values) - start:
            length //= 2
        yield values[start : start + length]
        start += length

"""Handing items of SQLite to consumers: who gets which, in rounds."""

import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from sdapi.queue.stores.sqlite.items import QueueRow, find_queue, read_item
from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import (
    ANSWER_BYTES,
    AUTO_COMMIT_WINDOW,
    MAX_PRIORITY,
    ROUND,
    UNSENT_BYTES,
    Delivery,
    QueueName,
    Rules,
    Taken,
)


@dataclass(slots=True)
class _Open:
    """A connected consumer with free places, during one round."""

    id: str
    user: str
    node: str
    free: int
    active_ms: int
    start: int
    tags: Mapping[str, str]
    index_only: bool
    unsent: int = 0

    def size_of(self, size: int) -> int:
        """How much of an item's data it is sent."""
        return 0 if self.index_only else size

    def has_room_for(self, size: int) -> bool:
        return not self.unsent or self.unsent + self.size_of(size) <= UNSENT_BYTES

    def admits(self, index: int, tags: Mapping[str, str]) -> bool:
        return index >= self.start and self.tags.items() <= tags.items()


def take(
    tx: Transaction,
    name: QueueName,
    group: str,
    node: str,
    rules: Rules,
    unsent: Mapping[str, int],
    *,
    insists: bool,
) -> Taken:
    """See `Store.take`."""
    queue = find_queue(tx.db, name)
    is_counted = group == rules.counting_group
    sink = rules.full_sink
    members = _members(tx.db, queue.id, group, node)
    if is_counted and sink and find_queue(tx.db, sink).bytes >= rules.full_at:
        return Taken(members=members)
    _sweep(tx, queue.id)
    consumers = _open_consumers(tx, queue.id, group)
    if not any(each.node == node for each in consumers):
        return Taken(members=members)
    for each in consumers:
        each.unsent = unsent.get(each.id, 0)
    round_ = _assign(tx, queue, group, node, consumers, rules if is_counted else Rules(), insists)
    deliveries = [
        _deliver(tx, queue, group, index, consumer, counts=is_counted)
        for index, consumer in round_.assigned
    ]
    exhausted = [item for i in round_.exhausted if (item := read_item(tx.db, queue.id, i))]
    return Taken(deliveries, exhausted, round_.has_deferred, round_.held_back, members)


def _members(db: sqlite3.Connection, queue_id: int, group: str, node: str) -> list[str]:
    sql = (
        "SELECT id FROM queue_consumer WHERE queue = ? AND grp = ? AND node = ?"
        " AND gone_at_ms IS NULL"
    )
    return [id_ for (id_,) in db.execute(sql, (queue_id, group, node))]


def _sweep(tx: Transaction, queue_id: int) -> None:
    """Free the places of items that operators' commands deleted: they do not see who holds what."""
    tx.db.execute(
        "DELETE FROM queue_pending WHERE queue = ? AND NOT EXISTS (SELECT 1 FROM queue_item i"
        " WHERE i.queue = queue_pending.queue AND i.idx = queue_pending.idx)",
        (queue_id,),
    )


def _open_consumers(tx: Transaction, queue_id: int, group: str) -> list[_Open]:
    sql = (
        "SELECT id, user, node, active_ms, start, tags, index_only,"
        f" CASE auto_commit WHEN 1 THEN {AUTO_COMMIT_WINDOW} ELSE window END -"
        " (SELECT COUNT(*) FROM queue_pending p"
        "  WHERE p.queue = c.queue AND p.grp = c.grp AND p.user = c.user) AS free"
        " FROM queue_consumer c WHERE queue = ? AND grp = ? AND gone_at_ms IS NULL"
        " AND is_retired = 0 AND free > 0"
    )
    return [
        _Open(id_, user, node, free, active, start, orjson.loads(tags), bool(index_only))
        for id_, user, node, active, start, tags, index_only, free in tx.db.execute(
            sql, (queue_id, group)
        )
    ]


@dataclass(slots=True)
class _Round:
    assigned: list[tuple[int, _Open]] = field(default_factory=list[tuple[int, _Open]])
    exhausted: list[int] = field(default_factory=list[int])
    has_deferred: bool = False
    held_back: list[str] = field(default_factory=list[str])
    bytes: int = 0

    def has_room_for(self, size: int) -> bool:
        count = len(self.assigned) + len(self.exhausted)
        return not count or (count < ROUND and self.bytes + size <= ANSWER_BYTES)


def _assign(
    tx: Transaction,
    queue: QueueRow,
    group: str,
    node: str,
    consumers: list[_Open],
    rules: Rules,
    insists: bool,
) -> _Round:
    """Choose a consumer for each item in delivery order, until places or a round are used up."""
    result = _Round()
    for index, tags, deliveries, size in _deliverable(tx.db, queue.id, group, consumers):
        if not any(each.free for each in consumers if each.node == node):
            break
        is_dead = 0 < rules.max_delivery <= deliveries
        if is_dead and not result.has_room_for(size):
            break
        if is_dead:
            result.exhausted.append(index)
            result.bytes += size
            continue
        admitting = [
            each
            for each in consumers
            if each.admits(index, tags) and (each.node == node or not insists)
        ]
        avoided = _avoided(tx.db, queue.id, group, index) if admitting else set[str]()
        best = _best(admitting, avoided)
        while best and best.node == node and not best.has_room_for(size):
            result.held_back.append(best.id)
            best.free = 0  # nothing that comes later overtakes this item on its way to it
            best = _best(admitting, avoided)
        if best is None:
            continue
        if best.node != node:
            best.free -= 1
            result.has_deferred = True
            continue
        sent = best.size_of(size)
        if not result.has_room_for(sent):
            break
        best.free -= 1
        best.active_ms = tx.now_ms
        best.unsent += sent
        result.bytes += sent
        result.assigned.append((index, best))
    return result


def _best(consumers: Sequence[_Open], avoided: Set[str]) -> _Open | None:
    """Rather one that has not given the item back, then the freest, then the longest idle."""
    free = [each for each in consumers if each.free > 0]
    return max(free, key=lambda c: (c.user not in avoided, c.free, -c.active_ms), default=None)


def _deliverable(
    db: sqlite3.Connection, queue_id: int, group: str, consumers: Sequence[_Open]
) -> Iterator[tuple[int, Mapping[str, str], int, int]]:
    """Index, tags, deliveries and size of the data of what the group may get, in delivery order."""
    filters = [each.tags for each in consumers]
    common = filters[0] if all(each == filters[0] for each in filters) else {}
    where, values = "", list[Any]()
    for key, value in common.items():
        where += (
            " AND i.idx IN (SELECT idx FROM queue_tag WHERE queue = ? AND name = ? AND value = ?)"
        )
        values += [queue_id, key, value]
    mine = "p.queue = i.queue AND p.idx = i.idx"
    sql = (
        "SELECT idx, tags, deliveries, LENGTH(data) FROM queue_item i"
        " WHERE queue = ? AND priority = ? AND idx >= ?"
        f" AND NOT EXISTS (SELECT 1 FROM queue_pending p WHERE {mine} AND p.grp = ?)"
        f" AND NOT EXISTS (SELECT 1 FROM queue_done p WHERE {mine} AND p.grp = ?)"
        f" AND NOT EXISTS (SELECT 1 FROM queue_claim p WHERE {mine}){where}"
        " ORDER BY idx"
    )
    start = min(each.start for each in consumers)
    needs_tags = any(filters)
    for priority in _priorities(db, queue_id):
        rows = db.execute(sql, (queue_id, priority, start, group, group, *values))
        for index, tags, deliveries, size in rows:
            yield index, orjson.loads(tags) if needs_tags else {}, deliveries, size


def _priorities(db: sqlite3.Connection, queue_id: int) -> Iterator[int]:
    """Those of the items, falling: level by level the index leads past what is before a start."""
    sql = "SELECT MAX(priority) FROM queue_item WHERE queue = ? AND priority < ?"
    priority = MAX_PRIORITY + 1
    while (priority := db.execute(sql, (queue_id, priority)).fetchone()[0]) is not None:
        yield priority


def _avoided(db: sqlite3.Connection, queue_id: int, group: str, index: int) -> set[str]:
    sql = "SELECT user FROM queue_avoided WHERE queue = ? AND idx = ? AND grp = ?"
    return {row[0] for row in db.execute(sql, (queue_id, index, group))}


def _deliver(
    tx: Transaction, queue: QueueRow, group: str, index: int, consumer: _Open, *, counts: bool
) -> Delivery:
    fence = secrets.token_hex(8)
    if counts:
        tx.db.execute(
            "UPDATE queue_item SET deliveries = deliveries + 1 WHERE queue = ? AND idx = ?",
            (queue.id, index),
        )
    tx.db.execute(
        "INSERT INTO queue_pending (queue, idx, grp, user, fence, since_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (queue.id, index, group, consumer.user, fence, tx.now_ms),
    )
    tx.db.execute(
        "UPDATE queue_consumer SET last_index = ?, active_ms = ?"
        " WHERE queue = ? AND grp = ? AND user = ?",
        (index, tx.now_ms, queue.id, group, consumer.user),
    )
    tx.db.execute(
        "UPDATE queue_group SET last_index = MAX(last_index, ?) WHERE queue = ? AND name = ?",
        (index, queue.id, group),
    )
    item = read_item(tx.db, queue.id, index)
    assert item is not None
    return Delivery(consumer.id, fence, replace(item, data=b"") if consumer.index_only else item)

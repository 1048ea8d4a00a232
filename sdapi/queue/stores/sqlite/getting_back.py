"""Getting items of SQLite back from consumers: finished, given back, failed or dead."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import orjson

from sdapi.queue.stores.sqlite.items import (
    ITEM_COLUMNS,
    QueueRow,
    find_queue,
    item_of,
    read_item,
    remove,
)
from sdapi.queue.stores.sqlite.putting import put
from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import (
    ANSWER_BYTES,
    LAST_CODE,
    PORTION,
    REQUEST_ID,
    Change,
    Event,
    Item,
    NewItem,
    QueueIsFull,
    QueueName,
    RequestIdTaken,
    Requeued,
    Room,
)


def commit(tx: Transaction, name: QueueName, group: str, indexes: Sequence[int]) -> None:
    """See `Store.commit`."""
    queue = find_queue(tx.db, name)
    for index in indexes:
        _finish_for_group(tx, queue, group, index)


def _finish_for_group(tx: Transaction, queue: QueueRow, group: str, index: int) -> None:
    tags = _tags_of(tx.db, queue.id, index)
    holder = _drop_pending(tx, queue, group, index)
    if tags is None:
        if holder is not None:  # another process deleted the item, and could not free its place
            tx.events.append(Event(Change.FREED, queue.name))
        return
    if _is_needed(tx.db, queue.id, index, tags, besides=group):
        tx.db.execute(
            "INSERT OR IGNORE INTO queue_done (queue, idx, grp) VALUES (?, ?, ?)",
            (queue.id, index, group),
        )
        tx.events.append(Event(Change.FREED, queue.name))
    else:
        remove(tx, queue, [index])


def _tags_of(db: sqlite3.Connection, queue_id: int, index: int) -> dict[str, str] | None:
    sql = "SELECT tags FROM queue_item WHERE queue = ? AND idx = ?"
    row = db.execute(sql, (queue_id, index)).fetchone()
    return None if row is None else orjson.loads(row[0])


def _drop_pending(tx: Transaction, queue: QueueRow, group: str, index: int) -> str | None:
    """End a delivery; the user who held the item counts as active now."""
    sql = "DELETE FROM queue_pending WHERE queue = ? AND idx = ? AND grp = ? RETURNING user"
    row = tx.db.execute(sql, (queue.id, index, group)).fetchone()
    if row is None:
        return None
    tx.db.execute(
        "UPDATE queue_consumer SET active_ms = ? WHERE queue = ? AND grp = ? AND user = ?",
        (tx.now_ms, queue.id, group, row[0]),
    )
    return row[0]


def _is_needed(
    db: sqlite3.Connection, queue_id: int, index: int, tags: Mapping[str, str], besides: str
) -> bool:
    """Whether a connected consumer of another group still has to get the item."""
    sql = (
        "SELECT tags FROM queue_consumer c WHERE queue = ? AND grp != ? AND gone_at_ms IS NULL"
        " AND start <= ? AND NOT EXISTS (SELECT 1 FROM queue_done d"
        " WHERE d.queue = c.queue AND d.idx = ? AND d.grp = c.grp)"
    )
    filters = db.execute(sql, (queue_id, besides, index, index))
    return any(orjson.loads(row[0]).items() <= tags.items() for row in filters)


def remove_what_nobody_needs(tx: Transaction, queue: QueueRow) -> None:
    """After a group has gone: items that all others have committed were held for it alone."""
    sql = "SELECT DISTINCT idx FROM queue_done WHERE queue = ?"
    for (index,) in tx.db.execute(sql, (queue.id,)).fetchall():
        tags = _tags_of(tx.db, queue.id, index)
        if tags is not None and not _is_needed(tx.db, queue.id, index, tags, besides=""):
            remove(tx, queue, [index])


def reject(
    tx: Transaction, name: QueueName, group: str, user: str, indexes: Sequence[int], *, retire: bool
) -> None:
    """See `Store.reject`."""
    queue = find_queue(tx.db, name)
    if retire:
        tx.db.execute(
            "UPDATE queue_consumer SET is_retired = 1 WHERE queue = ? AND grp = ? AND user = ?",
            (queue.id, group, user),
        )
    for index in indexes:
        holder = _drop_pending(tx, queue, group, index)
        if holder is not None:
            tx.db.execute(
                "INSERT OR IGNORE INTO queue_avoided (queue, idx, grp, user) VALUES (?, ?, ?, ?)",
                (queue.id, index, group, holder),
            )
            tx.events.append(Event(Change.PUT, name))


def release(
    tx: Transaction, name: QueueName, group: str, index: int, fence: str, *, counts: bool, code: int
) -> bool:
    """See `Store.release`."""
    queue = find_queue(tx.db, name)
    if not _is_held(tx.db, queue.id, group, index, fence):
        return False
    _drop_pending(tx, queue, group, index)
    if counts:
        sql = "UPDATE queue_item SET last_code = ? WHERE queue = ? AND idx = ?"
        tx.db.execute(sql, (code, queue.id, index))
    else:
        change = "deliveries = MAX(deliveries - 1, 0)"
        sql = f"UPDATE queue_item SET {change} WHERE queue = ? AND idx = ?"
        tx.db.execute(sql, (queue.id, index))
    tx.events.append(Event(Change.PUT, name))
    return True


def _is_held(db: sqlite3.Connection, queue_id: int, group: str, index: int, fence: str) -> bool:
    sql = "SELECT fence FROM queue_pending WHERE queue = ? AND idx = ? AND grp = ?"
    row = db.execute(sql, (queue_id, index, group)).fetchone()
    return (row[0] if row else "") == fence


def finish(
    tx: Transaction,
    name: QueueName,
    group: str,
    index: int,
    fence: str,
    result: NewItem | None,
    rear: QueueName | None,
    room: Room | None,
) -> bool:
    """See `Store.finish`."""
    queue = find_queue(tx.db, name)
    item = read_item(tx.db, queue.id, index)
    if not _is_held(tx.db, queue.id, group, index, fence):
        return False
    if item is None:
        _finish_for_group(tx, queue, group, index)
        return False
    if result is not None:
        sink = find_queue(tx.db, name.sink)
        if not _has_request(tx.db, sink.id, result.request_id):
            _put_result(tx, name.sink, result, room)
    if rear is None:
        _finish_for_group(tx, queue, group, index)
    else:
        _bury(tx, queue, item, rear)
    return True


def _put_result(tx: Transaction, sink: QueueName, result: NewItem, room: Room | None) -> None:
    try:
        put(tx, sink, result, room)
    except QueueIsFull:  # what inference has done is not lost for that
        put(tx, sink, result, None)


def _bury(tx: Transaction, queue: QueueRow, item: Item, rear: QueueName) -> None:
    put(tx, rear, item, None)
    remove(tx, queue, [item.index])


def release_idle(tx: Transaction, name: QueueName, idle_ms: int) -> None:
    """See `Store.release_idle`."""
    queue = find_queue(tx.db, name)
    sql = "DELETE FROM queue_pending WHERE queue = ? AND since_ms <= ?"
    if tx.db.execute(sql, (queue.id, tx.now_ms - idle_ms)).rowcount:
        tx.events.append(Event(Change.PUT, name))


def _has_request(db: sqlite3.Connection, queue_id: int, request_id: str) -> bool:
    sql = "SELECT 1 FROM queue_tag WHERE queue = ? AND name = ? AND value = ?"
    return db.execute(sql, (queue_id, REQUEST_ID, request_id)).fetchone() is not None


def requeue(
    tx: Transaction, rear: QueueName, name: QueueName, start: int, below: int
) -> tuple[Requeued, int]:
    """One portion, of the dead letters from `start` on and below another; and the next's start.

    See `Store.requeue`; the failures that the sink holds for these requests go.
    """
    source = find_queue(tx.db, rear)
    sink = find_queue(tx.db, name.sink)
    moved, left, size, next_start = list[int](), list[str](), 0, below
    for item in _letters(tx.db, source.id, start, below):
        size += len(item.data)
        count = len(moved) + len(left)
        if count and (count == PORTION or size > ANSWER_BYTES):
            next_start = item.index
            break
        if _move(tx, sink, name, item):
            moved.append(item.index)
        else:
            left.append(item.request_id)
    return Requeued(remove(tx, source, moved), left), next_start


def _letters(db: sqlite3.Connection, queue_id: int, start: int, below: int) -> Iterator[Item]:
    """Items of a queue, one by one: those before may be moved meanwhile."""
    sql = (
        f"SELECT {ITEM_COLUMNS} FROM queue_item WHERE queue = ? AND idx >= ? AND idx < ?"
        " ORDER BY idx LIMIT 1"
    )
    while row := db.execute(sql, (queue_id, start, below)).fetchone():
        item = item_of(row)
        yield item
        start = item.index + 1


def _move(tx: Transaction, sink: QueueRow, name: QueueName, item: Item) -> bool:
    """Put a dead letter back; False, with nothing changed, where its request id is taken."""
    told = len(tx.events)
    tx.db.execute("SAVEPOINT requeued")
    try:
        remove(tx, sink, _failures_of(tx.db, sink.id, item.request_id))
        put(tx, name, item, None)
    except RequestIdTaken:
        tx.db.execute("ROLLBACK TO requeued")
        del tx.events[told:]
        return False
    finally:
        tx.db.execute("RELEASE requeued")
    return True


def _failures_of(db: sqlite3.Connection, sink_id: int, request_id: str) -> list[int]:
    sql = (
        "SELECT idx FROM queue_tag t WHERE queue = ? AND name = ? AND value = ? AND EXISTS (SELECT"
        " 1 FROM queue_tag c WHERE c.queue = t.queue AND c.idx = t.idx AND c.name = ?)"
    )
    rows = db.execute(sql, (sink_id, REQUEST_ID, request_id, LAST_CODE))
    return [index for (index,) in rows.fetchall()]

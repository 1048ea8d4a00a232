"""Consumers and deliveries in SQLite."""

import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from sdapi.queue.stores.sqlite.items import (
    QueueRow,
    find_queue,
    has_request,
    put,
    read_item,
    remove,
)
from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import (
    AUTO_COMMIT_WINDOW,
    GONE_KEPT_MS,
    MAX_PRIORITY,
    ROUND,
    Change,
    Delivery,
    Event,
    Item,
    Member,
    NewItem,
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

    def admits(self, index: int, tags: Mapping[str, str]) -> bool:
        return index >= self.start and self.tags.items() <= tags.items()


def join(tx: Transaction, name: QueueName, member: Member) -> None:
    """See `Store.join`."""
    queue = find_queue(tx.db, name)
    forget_gone(tx, queue.id)
    sql = (
        "SELECT id FROM queue_consumer WHERE queue = ? AND grp = ? AND user = ?"
        " AND gone_at_ms IS NULL"
    )
    key = (queue.id, member.group, member.user)
    row = tx.db.execute(sql, key).fetchone()
    if row is not None:
        _free_pending_of(tx, queue, member.group, member.user)
        tx.events.append(Event(Change.REPLACED, name, member_id=row[0]))
    start = queue.last + 1 if member.start < 0 else member.start
    tx.db.execute(
        "INSERT INTO queue_consumer (queue, grp, user, id, node, window, auto_commit, index_only,"
        " start, tags, active_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (queue, grp, user) DO UPDATE SET id = excluded.id, node = excluded.node,"
        " window = excluded.window, auto_commit = excluded.auto_commit, start = excluded.start,"
        " index_only = excluded.index_only, tags = excluded.tags, active_ms = excluded.active_ms,"
        " gone_at_ms = NULL, left_pending = 0, is_retired = 0",
        (
            *(*key, member.id, member.node, member.window, member.auto_commit, member.index_only),
            *(start, orjson.dumps(dict(member.tags)), tx.now_ms),
        ),
    )
    tx.db.execute(
        "INSERT OR IGNORE INTO queue_group (queue, name) VALUES (?, ?)", (queue.id, member.group)
    )


def leave(tx: Transaction, name: QueueName, member: Member) -> None:
    """See `Store.leave`."""
    queue = find_queue(tx.db, name)
    sql = (
        "SELECT 1 FROM queue_consumer WHERE queue = ? AND grp = ? AND user = ? AND id = ?"
        " AND gone_at_ms IS NULL"
    )
    key = (queue.id, member.group, member.user, member.id)
    if tx.db.execute(sql, key).fetchone() is not None:
        _leave(tx, queue, member.group, member.user)


def _leave(tx: Transaction, queue: QueueRow, group: str, user: str) -> None:
    held = _free_pending_of(tx, queue, group, user)
    tx.db.execute(
        "UPDATE queue_consumer SET gone_at_ms = ?, left_pending = ?"
        " WHERE queue = ? AND grp = ? AND user = ?",
        (tx.now_ms, held, queue.id, group, user),
    )
    _remove_what_nobody_needs(tx, queue)


def _free_pending_of(tx: Transaction, queue: QueueRow, group: str, user: str) -> int:
    sql = "DELETE FROM queue_pending WHERE queue = ? AND grp = ? AND user = ?"
    held = tx.db.execute(sql, (queue.id, group, user)).rowcount
    if held:
        tx.events.append(Event(Change.PUT, queue.name))
    return held


def forget_gone(tx: Transaction, queue_id: int) -> None:
    """Drop consumers that left long ago, and groups without any."""
    tx.db.execute(
        "DELETE FROM queue_consumer WHERE queue = ? AND gone_at_ms < ?",
        (queue_id, tx.now_ms - GONE_KEPT_MS),
    )
    tx.db.execute(
        "DELETE FROM queue_group WHERE queue = ? AND NOT EXISTS (SELECT 1 FROM queue_consumer c"
        " WHERE c.queue = queue_group.queue AND c.grp = queue_group.name)",
        (queue_id,),
    )


# --- handing out -----------------------------------------------------------------------------


def take(
    tx: Transaction, name: QueueName, group: str, node: str, rules: Rules, *, insists: bool
) -> Taken:
    """See `Store.take`."""
    queue = find_queue(tx.db, name)
    is_counted = group == rules.counting_group
    sink = rules.full_sink
    if is_counted and sink and find_queue(tx.db, sink).bytes >= rules.full_at:
        return Taken()
    consumers = _open_consumers(tx, queue.id, group)
    if not any(each.node == node for each in consumers):
        return Taken()
    round_ = _assign(tx, queue, group, node, consumers, rules if is_counted else Rules(), insists)
    deliveries = [
        _deliver(tx, queue, group, index, consumer, counts=is_counted)
        for index, consumer in round_.assigned
    ]
    exhausted = [item for i in round_.exhausted if (item := read_item(tx.db, queue.id, i))]
    return Taken(deliveries, exhausted, round_.has_deferred)


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
    assigned: list[tuple[int, _Open]]
    exhausted: list[int]
    has_deferred: bool = False


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
    result = _Round([], [])
    free_here = sum(each.free for each in consumers if each.node == node)
    for index, tags, deliveries in _deliverable(tx.db, queue.id, group, consumers):
        if len(result.assigned) + len(result.exhausted) >= ROUND or not free_here:
            break
        if rules.max_delivery and deliveries >= rules.max_delivery:
            result.exhausted.append(index)
            continue
        admitting = [each for each in consumers if each.free > 0 and each.admits(index, tags)]
        if insists:
            admitting = [each for each in admitting if each.node == node]
        if not admitting:
            continue
        avoided = _avoided(tx.db, queue.id, group, index)
        best = max(admitting, key=lambda c: (c.user not in avoided, c.free, -c.active_ms))
        best.free -= 1
        if best.node != node:
            result.has_deferred = True
            continue
        free_here -= 1
        result.assigned.append((index, best))
    return result


def _deliverable(
    db: sqlite3.Connection, queue_id: int, group: str, consumers: Sequence[_Open]
) -> Iterator[tuple[int, Mapping[str, str], int]]:
    """Index, tags and deliveries of what the group may get, in delivery order."""
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
        "SELECT idx, tags, deliveries FROM queue_item i WHERE queue = ? AND priority = ?"
        " AND idx >= ?"
        f" AND NOT EXISTS (SELECT 1 FROM queue_pending p WHERE {mine} AND p.grp = ?)"
        f" AND NOT EXISTS (SELECT 1 FROM queue_done p WHERE {mine} AND p.grp = ?)"
        f" AND NOT EXISTS (SELECT 1 FROM queue_claim p WHERE {mine}){where}"
        " ORDER BY idx"
    )
    start = min(each.start for each in consumers)
    needs_tags = any(filters)
    for priority in _priorities(db, queue_id):
        rows = db.execute(sql, (queue_id, priority, start, group, group, *values))
        for index, tags, deliveries in rows:
            yield index, orjson.loads(tags) if needs_tags else {}, deliveries


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


# --- getting back ----------------------------------------------------------------------------


def commit(tx: Transaction, name: QueueName, group: str, indexes: Sequence[int]) -> None:
    """See `Store.commit`."""
    queue = find_queue(tx.db, name)
    for index in indexes:
        _finish_for_group(tx, queue, group, index)


def _finish_for_group(tx: Transaction, queue: QueueRow, group: str, index: int) -> None:
    item = _tags_of(tx.db, queue.id, index)
    if item is None:
        return
    _drop_pending(tx, queue, group, index)
    if _is_needed(tx.db, queue.id, index, item, besides=group):
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


def _remove_what_nobody_needs(tx: Transaction, queue: QueueRow) -> None:
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
    change = "last_code = ?" if counts else "deliveries = MAX(deliveries - 1, 0), last_code = ?"
    sql = f"UPDATE queue_item SET {change} WHERE queue = ? AND idx = ?"
    tx.db.execute(sql, (code, queue.id, index))
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
) -> bool:
    """See `Store.finish`."""
    queue = find_queue(tx.db, name)
    item = read_item(tx.db, queue.id, index)
    if item is None or not _is_held(tx.db, queue.id, group, index, fence):
        return False
    if result is not None:
        sink = find_queue(tx.db, name.sink)
        if not has_request(tx.db, sink.id, result.request_id):
            put(tx, name.sink, result, None)
    if rear is None:
        _finish_for_group(tx, queue, group, index)
    else:
        _bury(tx, queue, item, rear)
    return True


def _bury(tx: Transaction, queue: QueueRow, item: Item, rear: QueueName) -> None:
    put(tx, rear, item, None)
    remove(tx, queue, [item.index])


def release_idle(tx: Transaction, name: QueueName, idle_ms: int) -> None:
    """See `Store.release_idle`."""
    queue = find_queue(tx.db, name)
    sql = "DELETE FROM queue_pending WHERE queue = ? AND since_ms <= ?"
    if tx.db.execute(sql, (queue.id, tx.now_ms - idle_ms)).rowcount:
        tx.events.append(Event(Change.PUT, name))


# --- nodes -----------------------------------------------------------------------------------


def beat(tx: Transaction, node: str) -> bool:
    """See `Store.beat`."""
    sql = "UPDATE queue_node SET beats = beats + 1 WHERE node = ?"
    if tx.db.execute(sql, (node,)).rowcount:
        return True
    tx.db.execute("INSERT INTO queue_node (node, beats) VALUES (?, 1)", (node,))
    return False


def beats(tx: Transaction) -> dict[str, int]:
    """See `Store.beats`."""
    return dict(tx.db.execute("SELECT node, beats FROM queue_node").fetchall())


def bury_node(tx: Transaction, node: str, count: int) -> None:
    """See `Store.bury_node`."""
    sql = "DELETE FROM queue_node WHERE node = ? AND beats = ?"
    if not tx.db.execute(sql, (node, count)).rowcount:
        return
    sql = "SELECT queue, grp, user FROM queue_consumer WHERE node = ? AND gone_at_ms IS NULL"
    for queue_id, group, user in tx.db.execute(sql, (node,)).fetchall():
        row = tx.db.execute("SELECT name FROM queue WHERE id = ?", (queue_id,)).fetchone()
        _leave(tx, find_queue(tx.db, QueueName.parse(row[0])), group, user)
    freed = tx.db.execute(
        "DELETE FROM queue_claim WHERE substr(claim, 1, ?) = ? RETURNING queue",
        (len(node) + 1, f"{node}:"),
    ).fetchall()
    for (queue_id,) in set(freed):
        row = tx.db.execute("SELECT name FROM queue WHERE id = ?", (queue_id,)).fetchone()
        tx.events.append(Event(Change.PUT, QueueName.parse(row[0])))

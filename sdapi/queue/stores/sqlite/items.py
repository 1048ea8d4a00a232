"""Items in SQLite: the operations that need no consumer."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import (
    ANSWER_BYTES,
    PORTION,
    Change,
    Event,
    Item,
    Query,
    QueueName,
)

#: Presence and deliveries under way live in temporary tables: they end with the process, take part
#: in its transactions, and cost no disk.
SCHEMA = """
CREATE TABLE IF NOT EXISTS queue (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    last INTEGER NOT NULL DEFAULT 0, length INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS queue_item (
    id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, idx INTEGER NOT NULL,
    priority INTEGER NOT NULL, request_id TEXT NOT NULL, tags BLOB NOT NULL, path TEXT NOT NULL,
    content_type TEXT NOT NULL, message TEXT NOT NULL, deliveries INTEGER NOT NULL DEFAULT 0,
    last_code INTEGER NOT NULL DEFAULT 0, put_s REAL NOT NULL, size INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS queue_item_index ON queue_item (queue, idx);
CREATE INDEX IF NOT EXISTS queue_item_order ON queue_item (queue, priority DESC, idx);
CREATE TABLE IF NOT EXISTS queue_tag (
    queue INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, idx INTEGER NOT NULL,
    PRIMARY KEY (queue, name, value, idx)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queue_tag_item ON queue_tag (queue, idx);
CREATE TABLE IF NOT EXISTS queue_done (
    queue INTEGER NOT NULL, idx INTEGER NOT NULL, grp TEXT NOT NULL,
    PRIMARY KEY (queue, idx, grp)
) WITHOUT ROWID;
CREATE TEMP TABLE queue_pending (
    queue INTEGER NOT NULL, idx INTEGER NOT NULL, grp TEXT NOT NULL, user TEXT NOT NULL,
    fence TEXT NOT NULL, since_ms INTEGER NOT NULL, PRIMARY KEY (queue, idx, grp)
) WITHOUT ROWID;
CREATE INDEX temp.queue_pending_user ON queue_pending (queue, grp, user);
CREATE TEMP TABLE queue_claim (
    queue INTEGER NOT NULL, idx INTEGER NOT NULL, claim TEXT NOT NULL, PRIMARY KEY (queue, idx)
) WITHOUT ROWID;
CREATE TEMP TABLE queue_avoided (
    queue INTEGER NOT NULL, idx INTEGER NOT NULL, grp TEXT NOT NULL, user TEXT NOT NULL,
    PRIMARY KEY (queue, idx, grp, user)
) WITHOUT ROWID;
CREATE TEMP TABLE queue_consumer (
    number INTEGER PRIMARY KEY, queue INTEGER NOT NULL, grp TEXT NOT NULL, user TEXT NOT NULL,
    id TEXT NOT NULL, node TEXT NOT NULL, window INTEGER NOT NULL, auto_commit INTEGER NOT NULL,
    index_only INTEGER NOT NULL, start INTEGER NOT NULL, tags BLOB NOT NULL,
    last_index INTEGER NOT NULL DEFAULT 0, active_ms INTEGER NOT NULL, gone_at_ms INTEGER,
    left_pending INTEGER NOT NULL DEFAULT 0, is_retired INTEGER NOT NULL DEFAULT 0,
    UNIQUE (queue, grp, user)
);
CREATE TEMP TABLE queue_group (
    number INTEGER PRIMARY KEY, queue INTEGER NOT NULL, name TEXT NOT NULL,
    last_index INTEGER NOT NULL DEFAULT 0, UNIQUE (queue, name)
);
CREATE TEMP TABLE queue_node (node TEXT PRIMARY KEY, beats INTEGER NOT NULL);
"""

ITEM_COLUMNS = (
    "idx, request_id, tags, data, priority, path, content_type, message, deliveries, last_code"
)


@dataclass(frozen=True, slots=True)
class QueueRow:
    id: int
    name: QueueName
    last: int
    length: int
    bytes: int


def find_queue(db: sqlite3.Connection, name: QueueName) -> QueueRow:
    """The row of a queue, made when it is new."""
    sql = "SELECT id, last, length, bytes FROM queue WHERE name = ?"
    row = db.execute(sql, (str(name),)).fetchone()
    if row is None:
        cursor = db.execute("INSERT INTO queue (name) VALUES (?)", (str(name),))
        assert cursor.lastrowid is not None
        row = (cursor.lastrowid, 0, 0, 0)
    return QueueRow(row[0], name, *row[1:])


def item_of(row: tuple[Any, ...]) -> Item:
    """An item from `ITEM_COLUMNS`."""
    index, request_id, tags, data, priority, path, content_type, message, deliveries, code = row
    return Item(
        request_id=request_id,
        tags=orjson.loads(tags),
        data=data,
        priority=priority,
        path=path,
        content_type=content_type,
        message=message,
        index=index,
        deliveries=deliveries,
        last_code=code,
    )


def read_item(db: sqlite3.Connection, queue_id: int, index: int) -> Item | None:
    sql = f"SELECT {ITEM_COLUMNS} FROM queue_item WHERE queue = ? AND idx = ?"
    row = db.execute(sql, (queue_id, index)).fetchone()
    return None if row is None else item_of(row)


def note_node(tx: Transaction, node: str) -> None:
    """Who holds something can be taken for dead."""
    tx.db.execute("INSERT OR IGNORE INTO queue_node (node, beats) VALUES (?, 0)", (node,))


def remove(tx: Transaction, queue: QueueRow, indexes: Iterable[int]) -> int:
    """Delete items and all that is known of them; unknown ones are passed over."""
    removed = 0
    for index in indexes:
        row = tx.db.execute(
            "DELETE FROM queue_item WHERE queue = ? AND idx = ? RETURNING size", (queue.id, index)
        ).fetchone()
        if row is None:
            continue
        removed += 1
        for table in ("queue_tag", "queue_done", "queue_pending", "queue_claim", "queue_avoided"):
            tx.db.execute(f"DELETE FROM {table} WHERE queue = ? AND idx = ?", (queue.id, index))
        tx.db.execute(
            "UPDATE queue SET length = length - 1, bytes = bytes - ? WHERE id = ?",
            (row[0], queue.id),
        )
    if removed:
        tx.events.append(Event(Change.FREED, queue.name))
    return removed


def get(tx: Transaction, name: QueueName, query: Query, claim: str) -> list[Item]:
    """See `Store.get`."""
    queue = find_queue(tx.db, name)
    where, values = _tags_condition(queue.id, query.tags)
    if claim:
        where += (
            " AND NOT EXISTS (SELECT 1 FROM queue_claim c WHERE c.queue = i.queue AND c.idx ="
            " i.idx)"
        )
    is_newest = query.index < 0
    order = "DESC" if is_newest else "ASC"
    rows = tx.db.execute(
        f"SELECT {ITEM_COLUMNS} FROM queue_item i WHERE i.queue = ? AND i.idx >= ?{where}"
        f" ORDER BY i.idx {order} LIMIT ?",
        (queue.id, max(query.index, 0), *values, query.length),
    )
    items = list(_within_answer(rows))
    if len(items) < query.at_least and not _is_cut(items):
        return []
    if claim:
        note_node(tx, claim.partition(":")[0])
        tx.db.executemany(
            "INSERT INTO queue_claim (queue, idx, claim) VALUES (?, ?, ?)",
            [(queue.id, item.index, claim) for item in items],
        )
    return items[::-1] if is_newest else items


def _within_answer(rows: Iterable[tuple[Any, ...]]) -> Iterable[Item]:
    total = 0
    for row in rows:
        item = item_of(row)
        total += len(item.data)
        if total > ANSWER_BYTES and total > len(item.data):
            return
        yield item


def _is_cut(items: list[Item]) -> bool:
    """Whether one more item might not have fitted: waiting for it would be in vain."""
    return sum(len(item.data) for item in items) > ANSWER_BYTES // 2


def _tags_condition(queue_id: int, tags: Mapping[str, str]) -> tuple[str, list[Any]]:
    where, values = "", list[Any]()
    for key, value in tags.items():
        where += (
            " AND i.idx IN (SELECT idx FROM queue_tag WHERE queue = ? AND name = ? AND value = ?)"
        )
        values += [queue_id, key, value]
    return where, values


def settle(tx: Transaction, name: QueueName, claim: str, *, delete: bool) -> None:
    """See `Store.settle`."""
    queue = find_queue(tx.db, name)
    sql = "DELETE FROM queue_claim WHERE queue = ? AND claim = ? RETURNING idx"
    indexes = [row[0] for row in tx.db.execute(sql, (queue.id, claim)).fetchall()]
    if delete:
        remove(tx, queue, indexes)
    elif indexes:
        tx.events.append(Event(Change.PUT, name))


def count(tx: Transaction, name: QueueName, tags: Mapping[str, str], priority: int | None) -> int:
    """See `Store.count`."""
    queue = find_queue(tx.db, name)
    if not tags and priority is None:
        return queue.length
    where, values = _tags_condition(queue.id, tags)
    if priority is not None:
        where += " AND i.priority = ?"
        values.append(priority)
    sql = f"SELECT COUNT(*) FROM queue_item i WHERE i.queue = ?{where}"
    return tx.db.execute(sql, (queue.id, *values)).fetchone()[0]


def truncate(tx: Transaction, name: QueueName, below: int) -> int:
    """One portion; see `Store.truncate`."""
    queue = find_queue(tx.db, name)
    sql = "SELECT idx, size FROM queue_item WHERE queue = ? AND idx < ? ORDER BY idx LIMIT ?"
    return remove(tx, queue, _portion(tx.db.execute(sql, (queue.id, below, PORTION))))


def drop_undelivered(tx: Transaction, name: QueueName, below: int) -> int:
    """One portion, of the items below an index; see `Store.drop_undelivered`."""
    queue = find_queue(tx.db, name)
    sql = (
        "SELECT idx, size FROM queue_item i WHERE queue = ? AND idx < ? AND NOT EXISTS"
        " (SELECT 1 FROM queue_pending p WHERE p.queue = i.queue AND p.idx = i.idx)"
        " ORDER BY idx LIMIT ?"
    )
    return remove(tx, queue, _portion(tx.db.execute(sql, (queue.id, below, PORTION))))


def _portion(rows: Iterable[tuple[int, int]]) -> list[int]:
    """The first indexes whose items can be deleted in a moment: of a large one each page counts."""
    found, total = list[int](), 0
    for index, size in rows:
        total += size
        if found and total > ANSWER_BYTES:
            break
        found.append(index)
    return found


def queues(tx: Transaction) -> list[QueueName]:
    """See `Store.queues`."""
    rows = tx.db.execute("SELECT name FROM queue ORDER BY name")
    return [QueueName.parse(row[0]) for row in rows]

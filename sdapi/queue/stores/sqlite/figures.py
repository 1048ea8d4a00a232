"""What can be told of a queue in SQLite: figures, consumers, groups, places."""

import time

import orjson

from sdapi.queue.stores.sqlite.consumers import forget_gone
from sdapi.queue.stores.sqlite.items import QueueRow, find_queue
from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import Consumer, Group, Place, QueueName, QueueStats


def stats(tx: Transaction, name: QueueName) -> QueueStats:
    """See `Store.stats`; a queue's length does not matter to its cost."""
    queue = find_queue(tx.db, name)
    forget_gone(tx, queue.id)
    first, last = (
        tx.db.execute(
            f"SELECT idx FROM queue_item WHERE queue = ? ORDER BY idx {order} LIMIT 1", (queue.id,)
        ).fetchone()
        for order in ("ASC", "DESC")
    )
    return QueueStats(
        first=first[0] if first else 0,
        last=last[0] if last else 0,
        length=queue.length,
        bytes=queue.bytes,
        oldest_age_s=_oldest_age_s(tx, queue),
        consumers=_consumers(tx, queue),
        groups=_groups(tx, queue),
    )


def _oldest_age_s(tx: Transaction, queue: QueueRow) -> float:
    sql = "SELECT put_s FROM queue_item WHERE queue = ? ORDER BY idx LIMIT 1"
    row = tx.db.execute(sql, (queue.id,)).fetchone()
    return max(time.time() - row[0], 0.0) if row else 0.0


def _consumers(tx: Transaction, queue: QueueRow) -> list[Consumer]:
    sql = (
        "SELECT grp, user, last_index, (SELECT COUNT(*) FROM queue_pending p WHERE"
        " p.queue = c.queue AND p.grp = c.grp AND p.user = c.user), active_ms, window,"
        " auto_commit, tags, gone_at_ms, left_pending"
        " FROM queue_consumer c WHERE queue = ? ORDER BY number"
    )
    now = tx.now_ms
    return [
        Consumer(
            group=group,
            user=user,
            last_index=last,
            pending=pending,
            idle_ms=now - active,
            window=window,
            auto_commit=bool(auto_commit),
            tags=orjson.loads(tags),
            gone_ms=None if gone is None else now - gone,
            left_pending=left,
        )
        for group, user, last, pending, active, window, auto_commit, tags, gone, left in (
            tx.db.execute(sql, (queue.id,))
        )
    ]


def _groups(tx: Transaction, queue: QueueRow) -> list[Group]:
    sql = (
        "SELECT name, last_index,"
        " (SELECT COUNT(*) FROM queue_pending p WHERE p.queue = g.queue AND p.grp = g.name),"
        " (SELECT COUNT(*) FROM queue_consumer c WHERE c.queue = g.queue AND c.grp = g.name"
        "  AND c.gone_at_ms IS NULL) FROM queue_group g WHERE queue = ? ORDER BY number"
    )
    return [Group(*row) for row in tx.db.execute(sql, (queue.id,))]


def place(tx: Transaction, name: QueueName, group: str, index: int) -> Place | None:
    """See `Store.place`."""
    queue = find_queue(tx.db, name)
    sql = "SELECT priority FROM queue_item WHERE queue = ? AND idx = ?"
    item = tx.db.execute(sql, (queue.id, index)).fetchone()
    if item is None:
        return None
    sql = (
        "SELECT grp || '.' || user, grp = ? FROM queue_pending WHERE queue = ? AND idx = ?"
        " ORDER BY 2 DESC"
    )
    holder, is_pending = tx.db.execute(sql, (group, queue.id, index)).fetchone() or ("", 0)
    if is_pending:
        return Place(holder, True, 0)
    sql = (
        "SELECT COUNT(*) FROM queue_item i WHERE queue = ? AND (priority > ? OR (priority = ?"
        " AND idx < ?)) AND NOT EXISTS (SELECT 1 FROM queue_pending p"
        " WHERE p.queue = i.queue AND p.idx = i.idx)"
    )
    before = tx.db.execute(sql, (queue.id, item[0], item[0], index)).fetchone()[0]
    return Place(holder, False, before)

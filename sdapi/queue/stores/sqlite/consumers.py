"""Who consumes from SQLite: consumers as they come and go, and the processes they belong to."""

import orjson

from sdapi.queue.stores.sqlite.getting_back import remove_what_nobody_needs
from sdapi.queue.stores.sqlite.items import QueueRow, find_queue, note_node
from sdapi.queue.stores.sqlite.writer import Transaction
from sdapi.queue.stores.store import GONE_KEPT_MS, Change, Event, Member, QueueName


def join(tx: Transaction, name: QueueName, member: Member) -> None:
    """See `Store.join`."""
    queue = find_queue(tx.db, name)
    note_node(tx, member.node)
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


def begin(tx: Transaction) -> None:
    """Nobody is connected any more: what was held for one group alone goes."""
    sql = "SELECT name FROM queue WHERE id IN (SELECT queue FROM queue_done)"
    for (name,) in tx.db.execute(sql).fetchall():
        remove_what_nobody_needs(tx, find_queue(tx.db, QueueName.parse(name)))


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
    remove_what_nobody_needs(tx, queue)


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


# --- nodes -----------------------------------------------------------------------------------


def begin_node(tx: Transaction, node: str) -> None:
    """See `Store.begin_node`."""
    note_node(tx, node)
    tx.db.execute("UPDATE queue_node SET beats = beats + 1 WHERE node = ?", (node,))


def beat(tx: Transaction, node: str) -> bool:
    """See `Store.beat`."""
    sql = "UPDATE queue_node SET beats = beats + 1 WHERE node = ? AND beats > 0"
    return tx.db.execute(sql, (node,)).rowcount > 0


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

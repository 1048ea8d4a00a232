"""One thread that owns a SQLite connection and commits many operations at once (group commit).

A commit with `synchronous=FULL` waits for the disk. While it waits, operations of other callers
gather, and the next commit takes all of them; each caller hears of success only after it. When an
operation fails the batch is undone and run once more with a savepoint around each, so that the
failed one is undone alone; operations therefore change nothing but the database.

Operations that come often are *joint*: one function does many of them at once. Python's lock is
given away around every statement, and under load the event loop is slow to give it back, so what
counts is how many statements a batch takes.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from sdapi.errors import SDAPIError, StorageFailed
from sdapi.queue.stores.store import Event, Listener, QueueStoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
A = TypeVar("A")

#: operations in one transaction
_BATCH = 256
#: how long another process, such as the operator's commands, may hold the database
_BUSY_S = 10.0


@dataclass(slots=True)
class Transaction:
    """What an operation works with; its events are told when it has been committed."""

    db: sqlite3.Connection
    events: list[Event] = field(default_factory=list[Event])

    @property
    def now_ms(self) -> int:
        """The clock of all waits; it has no date and cannot jump."""
        return time.monotonic_ns() // 1_000_000


Operation = Callable[[Transaction], T]
#: does an operation for each of some arguments, and has a result for each, or an error that it is
#: answered with and that has changed nothing
Joint = Callable[[Transaction, Sequence[A]], Sequence[T | SDAPIError]]


def _one_by_one(transaction: Transaction, operations: Sequence[Operation[T]]) -> Sequence[T]:
    """What is not joint, as the others are."""
    return [operation(transaction) for operation in operations]


@dataclass(slots=True)
class _Waiting:
    joint: Joint[Any, Any]
    argument: Any
    future: "asyncio.Future[Any]"
    outcome: Any = None


class _OperationFailed(Exception):
    """One of a batch did, so that all of it is undone."""


class SqliteWriter:
    """Runs operations in the order they come, each whole or not at all, many in a transaction."""

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._inbox: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: Listener = lambda event: None

    async def open(self, listener: Listener) -> None:
        """Start the thread; raises `StorageFailed` when the database cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        opened = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(opened,), name="sdapi-queue-store", daemon=True
        )
        self._thread.start()
        await opened

    async def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        if self._thread is not None:
            self._inbox.put(None)
            thread, self._thread = self._thread, None
            await asyncio.to_thread(thread.join)

    async def run(self, operation: Operation[T]) -> T:
        """Do it and return its result once it is on disk."""
        return await self.run_joint(_one_by_one, operation)

    async def run_joint(self, joint: Joint[A, T], argument: A) -> T:
        """The same of an operation that is done together with others of its kind."""
        if self._thread is None:
            raise QueueStoreUnavailable("this server's queue is not open")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._inbox.put(_Waiting(joint, argument, future))
        return await future

    # --- in the thread ---

    def _run(self, opened: "asyncio.Future[None]") -> None:
        try:
            db = self._connect()
        except sqlite3.Error as error:
            failure = StorageFailed(f"cannot use the queue's database {self._path}: {error}")
            self._in_loop(lambda: opened.set_exception(failure))
            return
        self._in_loop(lambda: opened.set_result(None))
        while (first := self._inbox.get()) is not None:
            batch = [first, *self._gathered()]
            events = self._commit(db, batch)
            self._in_loop(lambda b=batch, e=events: self._tell(b, e))
        db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, timeout=_BUSY_S)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA temp_store=MEMORY")
        db.executescript(self._schema)
        return db

    def _gathered(self) -> list[_Waiting]:
        found: list[_Waiting] = []
        while len(found) < _BATCH - 1:
            try:
                waiting = self._inbox.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                self._inbox.put(None)  # the end comes after what was submitted before it
                break
            found.append(waiting)
        return found

    def _commit(self, db: sqlite3.Connection, batch: list[_Waiting]) -> list[Event]:
        """Run a batch in one transaction; on a failure of it as a whole everybody hears so."""
        try:
            try:
                return _in_one_transaction(db, batch, _run_bare)
            except _OperationFailed:
                return _in_one_transaction(db, batch, _run_in_savepoints)
        except sqlite3.Error as error:
            log.error("the queue's database refuses: %s", error)
            for waiting in batch:
                waiting.outcome = StorageFailed(f"the queue cannot be written: {error}")
            return []

    def _tell(self, batch: list[_Waiting], events: list[Event]) -> None:
        for waiting in batch:
            if waiting.future.cancelled():
                continue
            if isinstance(waiting.outcome, BaseException):
                waiting.future.set_exception(waiting.outcome)
            else:
                waiting.future.set_result(waiting.outcome)
        for event in events:
            self._listener(event)

    def _in_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop has ended, nobody waits any more
            log.debug("nobody waits for the queue's store any more")


def _in_one_transaction(
    db: sqlite3.Connection,
    batch: list[_Waiting],
    run: Callable[[Transaction, list[_Waiting]], None],
) -> list[Event]:
    """Run a batch and commit it; whatever is raised leaves the database as it was."""
    transaction = Transaction(db)
    db.execute("BEGIN IMMEDIATE")
    try:
        run(transaction, batch)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return transaction.events


def _run_bare(transaction: Transaction, batch: list[_Waiting]) -> None:
    """Run a batch in its order; what follows each other and is joint, together."""
    try:
        for joint, following in groupby(batch, attrgetter("joint")):
            members = list(following)
            outcomes = joint(transaction, [waiting.argument for waiting in members])
            for waiting, outcome in zip(members, outcomes, strict=True):
                waiting.outcome = outcome
    except Exception as error:
        raise _OperationFailed from error


def _run_in_savepoints(transaction: Transaction, batch: list[_Waiting]) -> None:
    """Run each by itself; a full disk ends the whole transaction and is raised."""
    db = transaction.db
    for waiting in batch:
        told = len(transaction.events)
        db.execute("SAVEPOINT operation")
        try:
            [waiting.outcome] = waiting.joint(transaction, [waiting.argument])
        except Exception as error:
            if not db.in_transaction:
                raise
            db.execute("ROLLBACK TO operation")
            del transaction.events[told:]
            waiting.outcome = error
            if isinstance(error, sqlite3.Error):
                waiting.outcome = StorageFailed(f"the queue cannot be written: {error}")
        db.execute("RELEASE operation")

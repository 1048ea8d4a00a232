"""A connection to the SQLite database that waits for nobody on the event loop."""

import logging
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from sdapi.errors import StorageFailed

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

#: how long another process may hold the database
_BUSY_S: Final = 10.0
_OWNER_ALONE: Final = 0o600
#: beside the database, with what was written last
_BESIDE: Final = ("", "-wal", "-shm")
log = logging.getLogger(__name__)


class SqliteConnection:
    """One connection (WAL, `synchronous=FULL`), used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = anyio.CapacityLimiter(1)
        #: guards the connection: a call whose task was cancelled leaves its thread at work
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    async def open(self, schema: str = "") -> None:
        """Connect, and make what the schema names; raises StorageFailed."""
        try:
            self._db = await anyio.to_thread.run_sync(self._connect, schema, limiter=self._turn)
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(f"cannot use the database {self._path}: {error}") from error

    async def close(self) -> None:
        """Let go of the database; more calls change nothing."""
        await anyio.to_thread.run_sync(self._disconnect, limiter=self._turn)

    async def read(self, query: Operation[T]) -> T:
        """What one statement finds; it waits for no writer. Raises StorageFailed."""
        return await anyio.to_thread.run_sync(self._do, query, limiter=self._turn)

    async def write(self, operation: Operation[T]) -> T:
        """Do it in one transaction; raises StorageFailed."""

        def transact(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = operation(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return await anyio.to_thread.run_sync(self._do, transact, limiter=self._turn)

    def _do(self, operation: Operation[T]) -> T:
        with self._lock:
            if self._db is None:
                raise StorageFailed(f"the database {self._path} is closed")
            try:
                return operation(self._db)
            except sqlite3.Error as error:
                raise StorageFailed(f"the database {self._path} refuses: {error}") from error

    def _connect(self, schema: str) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(
            self._path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
        )
        # SQLite makes the file, and gives those beside it the same permissions. We never open it:
        # closing a descriptor ends the locks that this process has on a file (POSIX), also those of
        # the queue's connection, and the next process that lets go of the database deletes its log.
        db.execute("SELECT 1 FROM sqlite_master").fetchall()
        for end in _BESIDE:
            _hide(self._path.with_name(self._path.name + end))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA secure_delete=ON")  # what people delete must not stay in free pages
        db.executescript(schema)
        return db

    def _disconnect(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None


def _hide(path: Path) -> None:
    """Make a file its owner's alone, whoever made it: there are tokens in it."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & ~_OWNER_ALONE:
            path.chmod(_OWNER_ALONE)
    except FileNotFoundError:
        pass
    except OSError as error:  # another user's, or a mount without permissions
        log.warning("others can read %s, which holds tokens: %s", path, error)

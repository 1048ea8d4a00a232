"""The outbox: a durable record of files that are still to be uploaded, in the data directory.

A record is on disk before its file's name is told to anyone, and goes when the store has the file.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdapi.errors import StorageFailed
from sdapi.object_url import ObjectUrl

_SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    url TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    replaces INTEGER NOT NULL,
    keeps_file INTEGER NOT NULL,
    created REAL NOT NULL,
    refusal TEXT
)
"""
_COLUMNS = "id, path, url, size_bytes, replaces, keeps_file"
_BUSY_S = 10.0
#: of one statement; SQLite takes more than any request has files
_MAX_IDS = 500


@dataclass(frozen=True, slots=True)
class Upload:
    """A file and the object it is to become. `id` is 0 until it is recorded."""

    path: Path
    url: ObjectUrl
    size_bytes: int
    #: whether an object of this name may be overwritten
    replaces: bool
    #: whether the file stays when it has been uploaded
    keeps_file: bool
    id: int = 0


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """What waits, and what the store will never take."""

    pending: int = 0
    pending_bytes: int = 0
    oldest_age_s: float = 0.0
    refused: int = 0


class Outbox:
    """Records in an SQLite database. Every method blocks, and is safe to call from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: guards the connection
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there ever was a file to upload."""
        return self._connection is not None or self._path.exists()

    def add(self, uploads: Sequence[Upload]) -> list[Upload]:
        """Record files, all or none; they are on disk when this returns. Raises `StorageFailed`."""
        now = time.time()
        rows = [
            (str(u.path), str(u.url), u.size_bytes, u.replaces, u.keeps_file, now) for u in uploads
        ]
        try:
            with self._lock:
                connection = self._open()
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    ids = [
                        connection.execute(
                            "INSERT INTO uploads "
                            "(path, url, size_bytes, replaces, keeps_file, created) "
                            "VALUES (?, ?, ?, ?, ?, ?)",
                            row,
                        ).lastrowid
                        for row in rows
                    ]
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(f"cannot record uploads in {self._path}: {error}") from error
        return [
            Upload(u.path, u.url, u.size_bytes, u.replaces, u.keeps_file, id or 0)
            for u, id in zip(uploads, ids, strict=True)
        ]

    def remove(self, ids: Iterable[int]) -> None:
        """Forget files that the store has. If this is lost, they are uploaded once more."""
        self._change("DELETE FROM uploads WHERE id = ?", [(id,) for id in ids])

    def refuse(self, id: int, sentence: str) -> None:
        """Keep the record of a file that the store will never take, and never try it again."""
        self._change("UPDATE uploads SET refusal = ? WHERE id = ?", [(sentence, id)])

    def has(self, id: int) -> bool:
        """Whether a file is still recorded."""
        return bool(self._rows("SELECT 1 FROM uploads WHERE id = ?", (id,)))

    def waiting(self, limit: int, besides: Iterable[int] = ()) -> list[Upload]:
        """The oldest files that wait, without those that are known to be under way."""
        if not self.exists:  # most servers have no object store, and get no database
            return []
        known = list(besides)[:_MAX_IDS]
        marks = ",".join("?" * len(known))
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM uploads WHERE refusal IS NULL AND id NOT IN ({marks}) "
            "ORDER BY id LIMIT ?",
            (*known, limit),
        )
        return [
            Upload(Path(path), _url(url), size, bool(replaces), bool(keeps), id)
            for id, path, url, size, replaces, keeps in rows
        ]

    def paths(self) -> set[Path]:
        """Every file that is recorded."""
        return {Path(path) for (path,) in self._rows("SELECT path FROM uploads")}

    def figures(self) -> OutboxFigures:
        """Counts and ages; the age is by the wall clock, for people."""
        ((pending, size, oldest, refused),) = self._rows(
            "SELECT COUNT(*) FILTER (WHERE refusal IS NULL), "
            "COALESCE(SUM(size_bytes) FILTER (WHERE refusal IS NULL), 0), "
            "MIN(created) FILTER (WHERE refusal IS NULL), "
            "COUNT(refusal) FROM uploads"
        )
        age_s = max(0.0, time.time() - oldest) if oldest is not None else 0.0
        return OutboxFigures(pending, size, age_s, refused)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            connection = self._open()
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                connection.executemany(statement, rows)

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._open().execute(query, values)) as cursor:
            return cursor.fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
            connection.commit()
            self._connection = connection
        return self._connection


def _url(text: str) -> ObjectUrl:
    """What `str` made of a URL; the store judges its name, for here nobody could be told."""
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    return ObjectUrl(scheme, bucket, key)

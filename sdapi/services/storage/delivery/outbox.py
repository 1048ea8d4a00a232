"""The outbox: a durable record of files that are still to be uploaded, in the data directory.

A record is on disk before its file's name is told to anyone, and goes when the store has the file.
Whoever tries a file claims it first, so that servers of one data directory do not try it twice.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdapi.errors import StorageFailed
from sdapi.services.storage.delivery.upload import COLUMNS, Upload, make_tables, upload_of

_BUSY_S = 10.0
#: no claim and no pause is longer: what is later comes from a clock that was wrong
_LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """What waits, and what the store will never take."""

    pending: int = 0
    pending_bytes: int = 0
    oldest_age_s: float = 0.0
    refused: int = 0


class Outbox:
    """Records in an SQLite database. Every method blocks, and is safe to call from any thread.

    Times are of the wall clock, for other processes read them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: guards the connection
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there ever was a file to upload."""
        return self._connection is not None or self._path.exists()

    def problem(self) -> str | None:
        """Why the database cannot be used, in one sentence; None when it can, or is not there."""
        if not self.exists:
            return None
        try:
            ((found,),) = self._rows("PRAGMA quick_check(1)")
            if found == "ok":
                return None
        except (sqlite3.Error, OSError) as error:
            found = error
        self.close()
        return (
            f"the record of files that wait for their upload, {self._path}, cannot be used: "
            f"{found}; repair it, or move the folder {self._path.parent} away to begin with an "
            "empty one (files that it names are then not uploaded)"
        )

    def add(self, groups: Sequence[Sequence[Upload]], *, claimed_s: float = 0.0) -> list[Upload]:
        """Record files, all or none; they are on disk when this returns. Raises `StorageFailed`.

        A group is a picture and what lies beside it under its name. What replaces an object takes
        the place of older records for it. Nobody else tries them for `claimed_s`.
        """
        try:
            with self._lock:
                connection = self._open()
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    recorded = [_inserted(connection, group, claimed_s) for group in groups]
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(f"cannot record uploads in {self._path}: {error}") from error
        return [upload for group in recorded for upload in group]

    def remove(self, id: int) -> bool:
        """Forget a file that the store has; False when a newer one has taken its place.

        If this is lost, the file is uploaded once more.
        """
        return self._change("DELETE FROM uploads WHERE id = ?", (id,)) > 0

    def refuse(self, id: int, sentence: str) -> bool:
        """Keep the record of a file that the store will never take, and never try it again."""
        return self._change("UPDATE uploads SET refusal = ? WHERE id = ?", (sentence, id)) > 0

    def defer(self, id: int, pause_s: float) -> None:
        """Note that a file failed; with a pause that was its own fault, else its bucket's."""
        statement = "UPDATE uploads SET tries = tries + ?, next_try = ? WHERE id = ?"
        self._change(statement, (pause_s > 0, time.time() + pause_s, id))

    def release(self, ids: Iterable[int]) -> None:
        """Let whoever comes next try files that were claimed."""
        for id in ids:
            self._change("UPDATE uploads SET next_try = 0 WHERE id = ?", (id,))

    def overwrite(self, id: int) -> None:
        """Let a file replace what has its name: the damaged rest of its own upload."""
        self._change("UPDATE uploads SET replaces = 1 WHERE id = ?", (id,))

    def rename(self, renamed: Iterable[Upload]) -> None:
        """Write down the new names of recorded files, all or none."""
        rows = [(str(each.path), str(each.url), each.id) for each in renamed]
        with self._lock:
            connection = self._open()
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                connection.executemany("UPDATE uploads SET path = ?, url = ? WHERE id = ?", rows)

    def get(self, id: int) -> Upload | None:
        """A record as it is now; None when it is gone."""
        found = self._rows(f"SELECT {COLUMNS} FROM uploads WHERE id = ?", (id,))
        return upload_of(found[0]) if found else None

    def followers(self, id: int) -> list[Upload]:
        """The files that lie beside a picture and wait for it."""
        query = f"SELECT {COLUMNS} FROM uploads WHERE leader = ? AND refusal IS NULL ORDER BY id"
        return [upload_of(row) for row in self._rows(query, (id,))]

    def is_held(self, id: int) -> bool:
        """Whether a file lies beside a picture that is not stored yet, and may be renamed."""
        return bool(
            self._rows(
                "SELECT 1 FROM uploads AS file JOIN uploads AS leader ON leader.id = file.leader "
                "WHERE file.id = ? AND leader.refusal IS NULL",
                (id,),
            )
        )

    def buckets(self) -> list[str]:
        """The buckets that files wait for."""
        if not self.exists:  # most servers have no object store, and get no database
            return []
        rows = self._rows("SELECT DISTINCT bucket FROM uploads WHERE refusal IS NULL")
        return [bucket for (bucket,) in rows]

    def claim(self, bucket: str, limit: int, *, claimed_s: float) -> list[Upload]:
        """Take some of a bucket's files whose time has come; nobody else takes them for so long.

        Those come first that have waited longest since their last try.
        """
        now = time.time()
        with self._lock:
            connection = self._open()
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                rows = connection.execute(
                    "UPDATE uploads SET next_try = ? WHERE id IN ("
                    "SELECT id FROM uploads AS file WHERE bucket = ? AND refusal IS NULL "
                    "AND (next_try <= ? OR next_try > ?) AND NOT EXISTS "
                    "(SELECT 1 FROM uploads WHERE id = file.leader AND refusal IS NULL) "
                    f"ORDER BY next_try, id LIMIT ?) RETURNING {COLUMNS}",
                    (now + claimed_s, bucket, now, now + _LONGEST_S, limit),
                ).fetchall()
        return sorted((upload_of(row) for row in rows), key=lambda upload: upload.id)

    def paths(self) -> set[Path]:
        """Every file that is recorded."""
        return {Path(path) for (path,) in self._rows("SELECT path FROM uploads")}

    def figures(self) -> OutboxFigures:
        """Counts and ages."""
        ((pending, size, oldest, refused),) = self._rows(
            "SELECT COUNT(*) FILTER (WHERE refusal IS NULL), "
            "COALESCE(SUM(size_bytes) FILTER (WHERE refusal IS NULL), 0), "
            "MIN(created) FILTER (WHERE refusal IS NULL), "
            "COUNT(refusal) FROM uploads"
        )
        age_s = max(0.0, time.time() - oldest) if oldest is not None else 0.0
        return OutboxFigures(pending, size, age_s, refused)

    def close(self) -> None:
        """Close the database; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _change(self, statement: str, values: Sequence[object]) -> int:
        """How many records changed."""
        with self._lock:
            connection = self._open()
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                return connection.execute(statement, values).rowcount

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._open().execute(query, values)) as cursor:
            return cursor.fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                make_tables(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _inserted(
    connection: sqlite3.Connection, group: Sequence[Upload], claimed_s: float
) -> list[Upload]:
    """Record a picture and what lies beside it."""
    now, leader, recorded = time.time(), 0, list[Upload]()
    for upload in group:
        if upload.replaces:
            connection.execute("DELETE FROM uploads WHERE url = ?", (str(upload.url),))
        number = upload.numbering
        cursor = connection.execute(
            "INSERT INTO uploads (path, url, size_bytes, replaces, keeps_file, created, bucket, "
            "leader, next_try, number_before, number_digits, number_after) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                str(upload.path),
                str(upload.url),
                upload.size_bytes,
                upload.replaces,
                upload.keeps_file,
                now,
                upload.bucket,
                leader,
                now + claimed_s,
                *((number.before, number.digits, number.after) if number else (None, None, None)),
            ),
        )
        recorded.append(replace(upload, id=cursor.lastrowid or 0, leader=leader))
        leader = leader or recorded[0].id
    return recorded

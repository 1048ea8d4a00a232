"""A file on its way to an object store, and the table that such files are recorded in."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.numbering import Numbering

#: what `upload_of` reads
COLUMNS = (
    "id, path, url, size_bytes, replaces, keeps_file, leader, tries, "
    "number_before, number_digits, number_after"
)
_TABLE = """
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
#: columns that came later; a table without them is given them
_LATER = {
    "bucket": "TEXT NOT NULL DEFAULT ''",
    "leader": "INTEGER NOT NULL DEFAULT 0",
    "tries": "INTEGER NOT NULL DEFAULT 0",
    "next_try": "REAL NOT NULL DEFAULT 0",
    "number_before": "TEXT",
    "number_digits": "INTEGER",
    "number_after": "TEXT",
}
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS due ON uploads (bucket, next_try) WHERE refusal IS NULL",
    "CREATE INDEX IF NOT EXISTS urls ON uploads (url)",
    "CREATE INDEX IF NOT EXISTS leaders ON uploads (leader) WHERE leader > 0",
)


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
    #: how it is called anew where it may not replace what has its name
    numbering: Numbering | None = None
    id: int = 0
    #: the record of the picture that it lies beside, which goes first; 0 for none
    leader: int = 0
    #: how often it failed for a reason of its own
    tries: int = 0

    @property
    def bucket(self) -> str:
        """`oss://bucket`."""
        return _bucket(self.url)


def make_tables(connection: sqlite3.Connection) -> None:
    """Make what is not there yet."""
    connection.execute(_TABLE)
    present = {row[1] for row in connection.execute("PRAGMA table_info(uploads)")}
    for name, kind in _LATER.items():
        if name not in present:
            connection.execute(f"ALTER TABLE uploads ADD COLUMN {name} {kind}")
    without = connection.execute("SELECT id, url FROM uploads WHERE bucket = ''").fetchall()
    rows = [(_bucket(_url(url)), id) for id, url in without]
    connection.executemany("UPDATE uploads SET bucket = ? WHERE id = ?", rows)
    for index in _INDEXES:
        connection.execute(index)
    connection.commit()


def upload_of(row: tuple[Any, ...]) -> Upload:
    """What a row of `COLUMNS` tells."""
    id, path, url, size, replaces, keeps, leader, tries, before, digits, after = row
    numbering = None if before is None else Numbering(before, digits, after)
    return Upload(
        Path(path), _url(url), size, bool(replaces), bool(keeps), numbering, id, leader, tries
    )


def _bucket(url: ObjectUrl) -> str:
    return f"{url.scheme}://{url.bucket}"


def _url(text: str) -> ObjectUrl:
    """What `str` made of a URL; the store judges its name, for here nobody could be told."""
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    return ObjectUrl(scheme, bucket, key)

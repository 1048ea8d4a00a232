"""Accounts, jobs and models in the SQLite database of the data directory."""

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sdapi.portrait.state.records import (
    BASES,
    Account,
    Base,
    Job,
    JobState,
    Model,
    NewJob,
    Outcome,
    kept_request,
)
from sdapi.portrait.state.sqlite_connection import SqliteConnection
from sdapi.portrait.state.store import REQUESTING

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS portrait_accounts (
    app_id TEXT PRIMARY KEY, token TEXT NOT NULL, models TEXT NOT NULL, quota INTEGER,
    used INTEGER NOT NULL DEFAULT 0, created_s REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS portrait_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, model_id TEXT NOT NULL,
    app_id TEXT, request TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL, result TEXT NOT NULL DEFAULT '', created_s REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, holder TEXT, held_until_s REAL NOT NULL DEFAULT 0) STRICT;
CREATE INDEX IF NOT EXISTS portrait_open_jobs ON portrait_jobs (id) WHERE state < 2;
CREATE INDEX IF NOT EXISTS portrait_jobs_of ON portrait_jobs (owner, model_id);
CREATE TABLE IF NOT EXISTS portrait_models (
    owner TEXT NOT NULL, model_id TEXT NOT NULL, about TEXT NOT NULL, created_s REAL NOT NULL,
    PRIMARY KEY (owner, model_id)) STRICT;
CREATE TABLE IF NOT EXISTS portrait_marker (
    only INTEGER PRIMARY KEY CHECK (only = 1), text TEXT NOT NULL) STRICT;
"""
#: the request as bytes: SQLite does not look at a text, and text that is not UTF-8 is an error
_JOB: Final = (
    "owner, model_id, CAST(request AS BLOB), app_id, id, state, message, "
    "result, created_s, attempts"
)
_ACCOUNT: Final = "app_id, token, models, quota, used, created_s"


class SqlitePortraitStore:
    """`PortraitStore` in a SQLite file, beside other tables.

    Reads have a connection of their own: they wait for no transaction, here or in other processes.
    """

    def __init__(self, path: Path) -> None:
        self._writer, self._reader = SqliteConnection(path), SqliteConnection(path)

    async def open(self) -> None:
        await self._writer.open(_SCHEMA)
        try:
            await self._reader.open()
        except BaseException:
            await self._writer.close()
            raise

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    async def add_account(self, account: Account) -> bool:
        row = (
            account.app_id,
            account.token,
            ",".join(account.models),
            account.quota,
            account.used,
            account.created_s or time.time(),
        )
        sql = f"INSERT OR IGNORE INTO portrait_accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?, ?, ?)"
        return await self._writer.write(lambda db: db.execute(sql, row).rowcount == 1)

    async def account(self, app_id: str) -> Account | None:
        return await self._reader.read(lambda db: _account(db, app_id))

    async def accounts(self) -> list[Account]:
        sql = f"SELECT {_ACCOUNT} FROM portrait_accounts ORDER BY created_s, app_id"
        return await self._reader.read(lambda db: [_to_account(row) for row in db.execute(sql)])

    async def set_quota(self, app_id: str, quota: int | None) -> Account | None:
        def change(db: sqlite3.Connection) -> Account | None:
            sql = "UPDATE portrait_accounts SET quota = ? WHERE app_id = ?"
            db.execute(sql, (quota, app_id))
            return _account(db, app_id)

        return await self._writer.write(change)

    async def remove_account(self, app_id: str) -> bool:
        sql = "DELETE FROM portrait_accounts WHERE app_id = ?"
        return await self._writer.write(lambda db: db.execute(sql, (app_id,)).rowcount == 1)

    async def take_call(self, app_id: str) -> bool:
        sql = (
            "UPDATE portrait_accounts SET used = used + 1 "
            "WHERE app_id = ? AND (quota IS NULL OR used < quota)"
        )
        return await self._writer.write(lambda db: db.execute(sql, (app_id,)).rowcount == 1)

    async def give_back_call(self, app_id: str) -> None:
        await self._writer.write(lambda db: _give_back(db, app_id))

    async def add_job(self, job: NewJob) -> Job:
        request, now = json.dumps(dict(job.request)), time.time()
        sql = (
            "INSERT INTO portrait_jobs (owner, model_id, request, app_id, message, created_s) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        row = (job.owner, job.model_id, request, job.app_id, REQUESTING, now)

        def insert(db: sqlite3.Connection) -> Job:
            number = db.execute(sql, row).lastrowid
            found = _one_job(db, "id = ?", (number,))
            assert found is not None
            return found

        return await self._writer.write(insert)

    async def job(self, owner: str, job_id: int) -> Job | None:
        return await self._reader.read(
            lambda db: _one_job(db, "owner = ? AND id = ?", (owner, job_id))
        )

    async def claim_job(self, holder: str, lease_s: float) -> Job | None:
        def claim(db: sqlite3.Connection) -> Job | None:
            now = time.time()
            found = _one_job(db, "state < 2 AND held_until_s < ? ORDER BY id LIMIT 1", (now,))
            if found is None:
                return None
            db.execute(
                "UPDATE portrait_jobs SET state = 1, holder = ?, held_until_s = ?, "
                "attempts = attempts + 1 WHERE id = ?",
                (holder, now + lease_s, found.id),
            )
            return _one_job(db, "id = ?", (found.id,))

        return await self._writer.write(claim)

    async def renew_job(self, job_id: int, holder: str, lease_s: float) -> bool:
        sql = "UPDATE portrait_jobs SET held_until_s = ? WHERE id = ? AND holder = ? AND state = 1"
        row = (time.time() + lease_s, job_id, holder)
        return await self._writer.write(lambda db: db.execute(sql, row).rowcount == 1)

    async def release_job(self, job_id: int, holder: str) -> bool:
        sql = (
            "UPDATE portrait_jobs SET holder = NULL, held_until_s = 0, "
            "attempts = max(attempts - 1, 0) WHERE id = ? AND holder = ? AND state = 1"
        )
        return await self._writer.write(lambda db: db.execute(sql, (job_id, holder)).rowcount == 1)

    async def finish_job(self, job_id: int, holder: str, outcome: Outcome) -> bool:
        def finish(db: sqlite3.Connection) -> bool:
            where = "id = ? AND holder = ? AND state = 1"
            found = _one_job(db, where, (job_id, holder))
            if found is None:
                return False
            db.execute(
                "UPDATE portrait_jobs SET state = ?, message = ?, result = ?, holder = NULL, "
                "request = '{}' WHERE id = ?",  # the photos' addresses are not kept
                (int(outcome.state), outcome.message, outcome.result, job_id),
            )
            if outcome.model is not None:
                _put_model(db, found.owner, found.model_id, outcome.model)
            elif found.app_id is not None:
                _give_back(db, found.app_id)
            return True

        return await self._writer.write(finish)

    async def open_models(self) -> list[tuple[str, str]]:
        sql = "SELECT owner, model_id FROM portrait_jobs WHERE state < 2 ORDER BY id"
        return await self._reader.read(lambda db: [(str(o), str(m)) for o, m in db.execute(sql)])

    async def model(self, owner: str, model_id: str) -> Model | None:
        sql = "SELECT * FROM portrait_models WHERE owner = ? AND model_id = ?"
        row = await self._reader.read(lambda db: db.execute(sql, (owner, model_id)).fetchone())
        return None if row is None else _to_model(row)

    async def put_model(self, owner: str, model_id: str, about: Mapping[str, Any]) -> None:
        await self._writer.write(lambda db: _put_model(db, owner, model_id, about))

    async def delete_model(self, owner: str, model_id: str) -> bool:
        def delete(db: sqlite3.Connection) -> bool:
            return any(
                [
                    db.execute(
                        f"DELETE FROM {table} WHERE owner = ? AND model_id = ?", (owner, model_id)
                    ).rowcount
                    for table in ("portrait_models", "portrait_jobs")
                ]
            )

        return await self._writer.write(delete)

    async def model_ids(self, owner: str) -> list[str]:
        sql = (
            "SELECT model_id FROM portrait_models WHERE owner = ? "
            "UNION SELECT model_id FROM portrait_jobs WHERE owner = ? ORDER BY model_id"
        )
        return await self._reader.read(
            lambda db: [str(row[0]) for row in db.execute(sql, (owner, owner))]
        )

    async def folder_marker(self, proposed: str) -> str:
        def mark(db: sqlite3.Connection) -> str:
            db.execute("INSERT OR IGNORE INTO portrait_marker VALUES (1, ?)", (proposed,))
            return str(db.execute("SELECT text FROM portrait_marker").fetchone()[0])

        return await self._writer.write(mark)


def _account(db: sqlite3.Connection, app_id: str) -> Account | None:
    sql = f"SELECT {_ACCOUNT} FROM portrait_accounts WHERE app_id = ?"
    row = db.execute(sql, (app_id,)).fetchone()
    return None if row is None else _to_account(row)


def _to_account(row: tuple[Any, ...]) -> Account:
    app_id, token, models, quota, used, created_s = row
    bases: tuple[Base, ...] = tuple(base for base in BASES if base in models.split(","))
    return Account(app_id, token, bases, quota, used, created_s)


def _one_job(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> Job | None:
    row = db.execute(f"SELECT {_JOB} FROM portrait_jobs WHERE {where}", values).fetchone()
    if row is None:
        return None
    owner, model_id, request, app_id, number, state, *rest = row
    asked = kept_request(number, request)
    return Job(owner, model_id, asked, app_id, number, JobState(state), *rest)


def _put_model(db: sqlite3.Connection, owner: str, model_id: str, about: Mapping[str, Any]) -> None:
    row = (owner, model_id, json.dumps(dict(about)), time.time())
    db.execute("REPLACE INTO portrait_models VALUES (?, ?, ?, ?)", row)


def _to_model(row: tuple[Any, ...]) -> Model:
    owner, model_id, about, created_s = row
    return Model(owner, model_id, json.loads(about), created_s)


def _give_back(db: sqlite3.Connection, app_id: str) -> None:
    db.execute("UPDATE portrait_accounts SET used = max(used - 1, 0) WHERE app_id = ?", (app_id,))

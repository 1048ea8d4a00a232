"""Every store of portraits keeps these promises."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis

from sdapi.errors import StorageFailed
from sdapi.portrait.state.records import Account, JobState, NewJob, Outcome
from sdapi.portrait.state.redis_store import RedisPortraitStore
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.state.store import PortraitStore, StateUnavailable
from sdapi.redis.rights import RIGHTS
from tests.queues.queue_stores import as_user, free_port, redis_server, redis_servers

pytestmark = pytest.mark.anyio

OWNER = "app:1"
JOB = NewJob(OWNER, "m", {"urls": ["http://a/0.jpg"]}, "1")
ACCOUNT = Account("1", "token", ("sd15",), quota=2)
DONE = Outcome("success", "{}", {"base": "sd15"})
FAILED = Outcome("Image process error", "{}")


KINDS = ["sqlite", *list(redis_servers())[:1]]
Make = Callable[[], PortraitStore]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = next(iter(redis_servers().values()))
    with redis_server(program, tmp_path_factory.mktemp("redis"), fsync="no") as server:
        yield server.url


@pytest.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes stores of one state, as several servers would."""
    if request.param == "sqlite":
        return lambda: SqlitePortraitStore(tmp_path / "data" / "sdapi.db")
    url: str = request.getfixturevalue("redis_url")
    async with Redis.from_url(url) as redis:
        await redis.flushall()
    user_url = as_user(url, RIGHTS)
    return lambda: RedisPortraitStore(user_url)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[PortraitStore]:
    opened = make()
    await opened.open()
    yield opened
    await opened.close()


async def used(store: PortraitStore) -> int:
    account = await store.account("1")
    assert account is not None
    return account.used


async def test_an_account_is_found_until_it_is_removed(store: PortraitStore):
    assert await store.add_account(ACCOUNT)
    assert not await store.add_account(Account("1", "another"))
    found = await store.account("1")
    assert found is not None
    assert (found.token, found.models, found.quota) == ("token", ("sd15",), 2)
    assert [account.app_id for account in await store.accounts()] == ["1"]
    assert await store.remove_account("1")
    assert await store.account("1") is None
    assert not await store.take_call("1")


async def test_a_quota_cannot_be_overdrawn_by_calls_at_the_same_time(
    store: PortraitStore, make: Make
):
    await store.add_account(ACCOUNT)
    other = make()
    await other.open()
    taken: list[bool] = []

    async def take(which: PortraitStore) -> None:
        taken.append(await which.take_call("1"))

    async with anyio.create_task_group() as group:
        for which in (store, other) * 5:
            group.start_soon(take, which)
    await other.close()
    assert sum(taken) == 2
    await store.give_back_call("1")
    assert await store.take_call("1")
    changed = await store.set_quota("1", None)
    assert changed is not None
    assert changed.quota is None
    assert await store.take_call("1")
    assert await store.set_quota("2", 5) is None


async def test_a_job_goes_from_one_state_to_the_next(store: PortraitStore):
    job = await store.add_job(JOB)
    assert 0 < job.id < 1 << 31
    assert (job.state, job.message, job.result) == (JobState.INITIALISED, "model requesting", "")
    claimed = await store.claim_job("here", 60)
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.request) == (job.id, JobState.RUNNING, JOB.request)
    assert await store.model(OWNER, "m") is None
    assert await store.finish_job(job.id, "here", DONE)
    done = await store.job(OWNER, job.id)
    assert done is not None
    assert (done.state, done.message, done.result) == (JobState.SUCCEEDED, "success", "{}")
    assert done.request == {}  # where the photos were is not kept
    model = await store.model(OWNER, "m")
    assert model is not None
    assert model.about == {"base": "sd15"}
    assert not await store.finish_job(job.id, "here", FAILED)


async def test_a_job_is_held_by_one_server_until_its_lease_ends(store: PortraitStore):
    job = await store.add_job(JOB)
    assert await store.claim_job("here", 60) is not None
    assert await store.claim_job("there", 60) is None
    assert await store.renew_job(job.id, "here", -1)
    assert not await store.renew_job(job.id, "there", 60)
    taken_over = await store.claim_job("there", 60)
    assert taken_over is not None
    assert taken_over.attempts == 2
    assert not await store.renew_job(job.id, "here", 60)
    assert not await store.finish_job(job.id, "here", DONE)


async def test_a_failed_job_gives_its_call_back(store: PortraitStore):
    await store.add_account(ACCOUNT)
    await store.take_call("1")
    job = await store.add_job(JOB)
    await store.claim_job("here", 60)
    assert await store.finish_job(job.id, "here", FAILED)
    assert await used(store) == 0
    failed = await store.job(OWNER, job.id)
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert await store.model(OWNER, "m") is None


async def test_nothing_is_shown_to_another_owner(store: PortraitStore):
    job = await store.add_job(JOB)
    await store.put_model("queue", "m", {})
    assert await store.job("app:2", job.id) is None
    assert await store.model(OWNER, "m") is None
    assert not await store.delete_model("app:2", "m")
    assert await store.delete_model(OWNER, "m")
    assert await store.model("queue", "m") is not None


async def test_a_deleted_model_takes_its_jobs_along(store: PortraitStore):
    job = await store.add_job(JOB)
    await store.claim_job("here", 60)
    assert await store.delete_model(OWNER, "m")
    assert await store.job(OWNER, job.id) is None
    assert not await store.renew_job(job.id, "here", 60)
    assert not await store.delete_model(OWNER, "m")
    assert (await store.add_job(JOB)).id > job.id


async def test_a_job_that_is_let_go_was_not_begun(store: PortraitStore):
    job = await store.add_job(JOB)
    await store.claim_job("here", 60)
    assert not await store.release_job(job.id, "there")
    assert await store.release_job(job.id, "here")
    assert not await store.release_job(job.id, "here")
    released = await store.job(OWNER, job.id)
    assert released is not None
    assert (released.state, released.attempts) == (JobState.RUNNING, 0)  # states never go back
    claimed = await store.claim_job("there", 60)
    assert claimed is not None
    assert claimed.attempts == 1


async def test_models_of_open_jobs_are_known(store: PortraitStore):
    for name in ("m", "n"):
        await store.add_job(NewJob(OWNER, name, {}))
    claimed = await store.claim_job("here", 60)
    assert claimed is not None
    assert await store.open_models() == [(OWNER, "m"), (OWNER, "n")]
    await store.finish_job(claimed.id, "here", FAILED)
    assert await store.open_models() == [(OWNER, "n")]


async def test_an_owners_models_are_known_trained_or_not(store: PortraitStore):
    assert await store.model_ids(OWNER) == []
    await store.add_job(JOB)
    await store.put_model(OWNER, "n", {})
    await store.put_model("app:2", "o", {})
    assert await store.model_ids(OWNER) == ["m", "n"]


async def test_everything_is_there_after_a_restart(store: PortraitStore, make: Make):
    await store.add_account(ACCOUNT)
    job = await store.add_job(JOB)
    await store.close()
    again = make()
    await again.open()
    assert await again.account("1") is not None
    assert await again.job(OWNER, job.id) is not None
    await again.close()


async def test_the_first_marker_stays(store: PortraitStore):
    assert await store.folder_marker("first") == "first"
    assert await store.folder_marker("second") == "first"


async def test_tokens_are_not_readable_for_others(tmp_path: Path):
    path = tmp_path / "sdapi.db"
    store = SqlitePortraitStore(path)
    await store.open()
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_database_that_others_made_is_hidden_from_the_rest(tmp_path: Path):
    path = tmp_path / "sdapi.db"
    with closing(sqlite3.connect(path)) as queue:
        queue.execute("PRAGMA journal_mode=WAL")
        queue.execute("CREATE TABLE items (x)")
        for file in tmp_path.iterdir():
            file.chmod(0o644)
        store = SqlitePortraitStore(path)
        await store.open()
        assert await store.add_account(ACCOUNT)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert modes == {f"sdapi.db{end}": 0o600 for end in ("", "-wal", "-shm")}
        await store.close()


async def test_a_command_beside_the_server_takes_nothing_from_its_database(tmp_path: Path):
    """As `launch.py queue list` does: the last to let go of a database deletes its log."""
    path = tmp_path / "sdapi.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as queue:
        queue.execute("PRAGMA journal_mode=WAL")
        queue.execute("CREATE TABLE items (x)")
        store = SqlitePortraitStore(path)
        await store.open()
        assert in_another_process(path, "SELECT count(*) FROM items") == "0"
        assert path.with_name("sdapi.db-wal").exists()
        queue.execute("INSERT INTO items VALUES (1)")
        assert await store.add_account(ACCOUNT)
        assert in_another_process(path, "SELECT count(*) FROM items") == "1"
        assert in_another_process(path, "SELECT count(*) FROM portrait_accounts") == "1"
        await store.close()


def in_another_process(path: Path, query: str) -> str:
    """What a program finds that opens the database and closes it again."""
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        "print(db.execute(sys.argv[2]).fetchone()[0]); db.close()"
    )
    command = [sys.executable, "-c", program, str(path), query]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


async def test_reads_wait_for_no_writer(tmp_path: Path):
    path = tmp_path / "sdapi.db"
    store = SqlitePortraitStore(path)
    await store.open()
    await store.add_account(ACCOUNT)
    job = await store.add_job(JOB)
    with closing(sqlite3.connect(path, isolation_level=None)) as queue:
        queue.execute("BEGIN IMMEDIATE")
        waits = asyncio.ensure_future(store.take_call("1"))
        await anyio.sleep(0.1)
        assert await used(store) == 0
        assert await store.job(OWNER, job.id) == job
        assert await store.model(OWNER, "m") is None
        assert await store.open_models() == [(OWNER, "m")]
        assert await store.model_ids(OWNER) == ["m"]
        assert len(await store.accounts()) == 1
        assert not waits.done()
        queue.execute("COMMIT")
    assert await waits
    assert await used(store) == 1
    await store.close()


async def test_a_database_that_cannot_be_used_is_a_clear_error(tmp_path: Path):
    (tmp_path / "sdapi.db").write_bytes(b"no database, but longer than its header would be" * 9)
    with pytest.raises(StorageFailed, match=r"sdapi\.db"):
        await SqlitePortraitStore(tmp_path / "sdapi.db").open()
    with pytest.raises(StorageFailed, match="closed"):
        await SqlitePortraitStore(tmp_path / "other.db").account("1")
    with pytest.raises(StateUnavailable, match="does not answer"):
        await RedisPortraitStore(f"redis://127.0.0.1:{free_port()}/0").open()


async def test_closing_waits_for_the_thread_of_a_call_that_was_cancelled(tmp_path: Path):
    path = tmp_path / "sdapi.db"
    store = SqlitePortraitStore(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # so that the call's thread waits
    call = asyncio.ensure_future(store.add_account(ACCOUNT))
    await anyio.sleep(0.1)
    call.cancel()
    closing = asyncio.ensure_future(store.close())

    await anyio.sleep(0.1)
    assert not closing.done()
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(closing, 10)

    again = SqlitePortraitStore(path)
    await again.open()
    assert await again.account("1") is not None
    await again.close()


BROKEN = [b"", b"{", b"[]", b'"text"', b"[" * 100_000, b"\xff{}"]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
async def test_a_job_whose_request_is_broken_can_be_claimed_and_ended(tmp_path: Path, text: bytes):
    path = tmp_path / "sdapi.db"
    store = SqlitePortraitStore(path)
    await store.open()
    job = await store.add_job(JOB)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE portrait_jobs SET request = CAST(? AS TEXT)", (text,))
    await _ends(store, job.id)
    await store.close()


@pytest.mark.skipif(not redis_servers(), reason="no Redis server is installed")
async def test_a_broken_job_in_redis_holds_up_no_other(redis_url: str):
    store = RedisPortraitStore(redis_url)
    await store.open()
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
        gone, job, other = [await store.add_job(JOB) for _ in range(3)]
        await redis.delete(f"sdapi:portrait:job:{gone.id}")
        await redis.hset(f"sdapi:portrait:job:{job.id}", "request", "{")
    assert await store.open_models() == [(OWNER, "m")] * 2
    await _ends(store, job.id)
    claimed = await store.claim_job("a", 60)
    assert claimed is not None
    assert (claimed.id, claimed.request) == (other.id, JOB.request)
    await store.close()


async def _ends(store: PortraitStore, number: int) -> None:
    """The oldest job can be claimed, without its request, and ended."""
    claimed = await store.claim_job("a", 60)
    assert claimed is not None
    assert (claimed.id, claimed.request) == (number, {})
    assert await store.finish_job(number, "a", FAILED)
    ended = await store.job(OWNER, number)
    assert ended is not None
    assert ended.state is JobState.FAILED

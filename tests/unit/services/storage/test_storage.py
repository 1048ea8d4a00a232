"""What is saved is recorded or gone, whatever becomes of whoever asked for it."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from sdapi.errors import StorageFailed
from sdapi.metrics import Metrics
from sdapi.services.storage.new_files import NewFile
from sdapi.services.storage.storage import SavedFile, Storage
from sdapi.settings import Mount, Settings
from tests.oss.faults import Fault
from tests.oss.server import OssServer, oss_server

pytestmark = pytest.mark.anyio
BUCKET = "examplebucket"


@pytest.fixture
def oss(tmp_path: Path):
    with oss_server(tmp_path / "buckets") as server:
        yield server


@asynccontextmanager
async def storage_of(
    tmp_path: Path, oss: OssServer, sign_urls_s: int = 0
) -> AsyncGenerator[Storage]:
    mount = Mount(tmp_path / "mount", f"oss://{BUCKET}/results")
    (tmp_path / "mount").mkdir(exist_ok=True)
    settings = Settings(
        data_dir=tmp_path / "data",
        mounts=(mount,),
        upload_timeout_s=2.0,
        sign_urls_s=sign_urls_s,
    )
    storage = Storage(settings, oss.environ(), Metrics())
    storage.start()
    try:
        yield storage
    finally:
        await storage.close()


def on_disk(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "mount").rglob("*") if path.is_file())


async def in_bucket(oss: OssServer, count: int) -> list[str]:
    async with asyncio.timeout(10):
        while len(oss.objects.keys(BUCKET)) < count:
            await asyncio.sleep(0.02)
    return [key.removeprefix("results/") for key in oss.objects.keys(BUCKET)]


@pytest.mark.parametrize("delay_s", [0.0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.05])
async def test_cancelled_write_leaves_no_file_that_nobody_delivers(
    tmp_path: Path, oss: OssServer, delay_s: float
):
    async with storage_of(tmp_path, oss) as storage:
        place = storage.place(str(tmp_path / "mount"))
        files = [NewFile(f"{n}.png", lambda: os.urandom(1000)) for n in range(3)]
        writing = asyncio.create_task(storage.write(place, files))
        await asyncio.sleep(delay_s)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await asyncio.sleep(0.3)
        names = on_disk(tmp_path)  # hidden ones as well
        assert names in ([], ["0.png", "1.png", "2.png"])
        assert await in_bucket(oss, len(names)) == names


async def test_saved_files_are_delivered_though_their_request_is_cancelled(
    tmp_path: Path, oss: OssServer
):
    async with storage_of(tmp_path, oss) as storage:
        path = tmp_path / "mount" / "00000.png"
        path.write_bytes(b"picture")
        delivering = asyncio.create_task(storage.deliver([SavedFile(path)]))
        await asyncio.sleep(0)
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        assert await in_bucket(oss, 1) == ["00000.png"]


async def test_files_that_cannot_be_recorded_are_gone(tmp_path: Path, oss: OssServer):
    async with storage_of(tmp_path, oss) as storage:
        place = storage.place(str(tmp_path / "mount"))
        await storage.write(place, [NewFile("first.png", lambda: b"1")])
        with closing(sqlite3.connect(tmp_path / "data" / "outbox" / "uploads.db")) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON uploads "
                "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            )
            other.commit()
        with pytest.raises(StorageFailed, match="disk is full"):
            await storage.write(place, [NewFile("second.png", lambda: b"2")])
    assert on_disk(tmp_path) == ["first.png"]


async def test_links_are_made_of_what_is_uploaded_and_their_absence_is_told(
    tmp_path: Path, oss: OssServer
):
    async with storage_of(tmp_path, oss, sign_urls_s=60) as storage:
        place = storage.place(str(tmp_path / "mount"))
        stored = await storage.write(place, [NewFile("first.png", lambda: b"1")])
        assert (len(stored.signed), stored.pending, stored.warnings) == (1, "", ())
        oss.faults.rate, oss.faults.kinds = 1.0, [Fault.INTERNAL_ERROR]
        stored = await storage.write(place, [NewFile("second.png", lambda: b"2")])
        assert stored.pending
        assert stored.signed == ()
        assert stored.warnings == ("no links were made: the upload is pending",)


async def test_what_a_crash_left_before_it_was_recorded_is_swept(tmp_path: Path, oss: OssServer):
    spool = tmp_path / "data" / "outbox" / "files"
    async with storage_of(tmp_path, oss) as storage:
        await storage.write(
            storage.place(str(tmp_path / "mount")), [NewFile("first.png", lambda: b"1")]
        )
    spool.mkdir()
    for name, age_s in ((".old.png.7.tmp", 1e5), ("old.png", 1e5), ("new.png", 8e4)):
        (spool / name).write_bytes(b"half")
        os.utime(spool / name, (time.time() - age_s,) * 2)
    async with storage_of(tmp_path, oss), asyncio.timeout(10):
        while len(list(spool.iterdir())) > 1:
            await asyncio.sleep(0.02)
    assert [path.name for path in spool.iterdir()] == ["new.png"]

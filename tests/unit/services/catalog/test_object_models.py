"""Models of object stores: fetched once for all, let go when nobody wants them."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sdapi.errors import BadRequest, BadUrl, ShuttingDown, TaskCancelled
from sdapi.metrics import Metrics
from sdapi.object_url import ObjectUrl
from sdapi.services.catalog.object_models import FetchedModels, NotFetched, ObjectModels
from sdapi.services.container import Services
from sdapi.services.storage.storage import Storage
from sdapi.services.storage.stores.store import TransferStopped, never
from sdapi.settings import Mount, Settings
from tests.fakes import FakeEngines

pytestmark = pytest.mark.anyio
URL = "oss://bucket/models/m.safetensors"


class SlowFiles:
    """The cache of files, which is told when a fetch may end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fetches = 0
        self.began, self.goes_on = threading.Event(), threading.Event()
        self.was_stopped = threading.Event()

    def find(self, url: ObjectUrl) -> Path | None:
        return None

    def fetch(
        self, url: ObjectUrl, beside: tuple[str, ...], is_stopped: Callable[[], bool] = never
    ) -> Path:
        self.fetches += 1
        self.began.set()
        while not self.goes_on.wait(0.01):
            if is_stopped():
                self.was_stopped.set()
                raise TransferStopped
        return self._folder / url.name


@pytest.fixture
def files(tmp_path: Path) -> SlowFiles:
    return SlowFiles(tmp_path)


@pytest.fixture
def models(tmp_path: Path, files: SlowFiles) -> ObjectModels:
    mount = Mount(tmp_path, "oss://bucket/models")
    storage = Storage(Settings(data_dir=tmp_path, mounts=(mount,)), {}, Metrics())
    storage.files = files
    return ObjectModels(storage)


def begun(
    models: ObjectModels, is_wanted: Callable[[], bool] = lambda: True, url: str = URL
) -> "tuple[FetchedModels, asyncio.Task[None]]":
    fetched = FetchedModels()
    needed = NotFetched(url, "sd_model_checkpoint")
    return fetched, asyncio.create_task(models.fetch(fetched, needed, is_wanted))


async def happened(event: threading.Event) -> None:
    async with asyncio.timeout(5):
        while not event.is_set():
            await asyncio.sleep(0.01)


async def test_many_who_want_a_model_share_one_fetch_and_may_leave(
    models: ObjectModels, files: SlowFiles, tmp_path: Path
):
    wanted = [True, True, True]
    requests = [begun(models, lambda n=n: wanted[n]) for n in range(3)]
    await happened(files.began)
    wanted[0] = False
    with pytest.raises(TaskCancelled, match="sd_model_checkpoint oss://bucket"):
        await requests[0][1]
    files.goes_on.set()
    for fetched, task in requests[1:]:
        await task
        assert fetched.file(URL, field="x") == tmp_path / "m.safetensors"
        assert fetched.paths == {tmp_path / "m.safetensors"}
    assert files.fetches == 1


async def test_transfer_ends_when_nobody_wants_it_and_begins_anew_for_the_next(
    models: ObjectModels, files: SlowFiles
):
    wanted = [True]
    _, task = begun(models, lambda: wanted[0])
    await happened(files.began)
    wanted[0] = False
    with pytest.raises(TaskCancelled):
        await task
    fetched, again = begun(models)
    await happened(files.was_stopped)
    files.goes_on.set()
    await again
    assert fetched.paths
    assert files.fetches == 2


async def test_closing_ends_what_is_fetched_and_begins_nothing(
    models: ObjectModels, files: SlowFiles
):
    first, task = begun(models)
    await happened(files.began)
    models.close()
    async with asyncio.timeout(5):
        await task
    await happened(files.was_stopped)
    second, later = begun(models)
    await later
    for fetched in (first, second):
        with pytest.raises(ShuttingDown):
            fetched.file(URL, field="x")
    assert files.fetches == 1


async def test_server_that_stops_waits_for_no_transfer(tmp_path: Path, files: SlowFiles):
    mount = Mount(tmp_path / "mount", "oss://bucket/models")
    services = Services.build(Settings(data_dir=tmp_path, mounts=(mount,)), FakeEngines(), None, {})
    services.storage.files = files
    waiting = services.tasks.create("txt2img")
    fetched, fetching = begun(services.objects)
    fetching.add_done_callback(lambda _: services.tasks.reject(waiting, ShuttingDown("")))
    await happened(files.began)
    async with asyncio.timeout(5):
        await services.drain()
    with pytest.raises(ShuttingDown):
        fetched.file(URL, field="x")
    services.close()


async def test_why_there_is_none_is_told_when_it_is_looked_up(models: ObjectModels):
    fetched, task = begun(models, url="oss://bucket/models/m.exe")
    await task
    with pytest.raises(BadRequest, match=r"m\.exe"):
        fetched.file("oss://bucket/models/m.exe", field="x")
    assert fetched.paths == frozenset()
    with pytest.raises(NotFetched):
        fetched.file(URL, field="x")


async def test_missing_object_is_the_callers_mistake(tmp_path: Path):
    mount = Mount(tmp_path, "oss://bucket/models")
    settings = Settings(data_dir=tmp_path / "data", mounts=(mount,))
    storage = Storage(settings, {}, Metrics())
    storage.places = type(storage.places)(settings, is_on_fuse=lambda path: True)
    fetched, task = begun(ObjectModels(storage))
    await task
    with pytest.raises(BadUrl, match="no such object"):
        fetched.file(URL, field="x")

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdapi.errors import PathNotAllowed, StorageFailed
from sdapi.metrics import Metrics
from sdapi.services.generation.answering import url_mode
from sdapi.services.generation.answering.url_mode import NamedImage, UrlFiles, write_all
from sdapi.services.storage.storage import Storage, Stored
from sdapi.settings import Settings

pytestmark = pytest.mark.anyio


def images(count: int = 3) -> list[NamedImage]:
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    return [
        NamedImage("txt2img-images", url_mode.image_stem(n), picture, "text") for n in range(count)
    ]


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def storage_of(data_dir: Path, **settings: Any) -> Storage:
    return Storage(Settings(data_dir=data_dir, **settings), {}, Metrics())


async def test_absolute_and_relative_folders_keep_the_callers_spelling(tmp_path: Path):
    storage = storage_of(tmp_path / "data", allow_save_dirs=(tmp_path / "real",))
    (tmp_path / "real").mkdir()
    (tmp_path / "data").mkdir()
    relative = storage.place("tmp/outputs/")
    assert relative.spelled == f"{tmp_path}/data/tmp/outputs"
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = storage.place(f"{tmp_path}/link/x/")
    assert linked.spelled == f"{tmp_path}/link/x"
    assert linked.folder == tmp_path / "real" / "x"
    written = await write_all(storage, linked, images(1))
    (path,) = written.images.urls
    assert path.startswith(f"{tmp_path}/link/x/txt2img-images/")
    assert Path(path).is_file()


def test_folder_outside_the_roots_is_refused(tmp_path: Path):
    storage = storage_of(tmp_path / "data")
    for path in ("/etc", "../x", "a/../../x", str(tmp_path)):
        with pytest.raises(PathNotAllowed):
            storage.place(path)


async def test_pictures_carry_their_text_and_no_temporary_file_is_left(tmp_path: Path):
    storage = storage_of(tmp_path)
    written = await write_all(storage, storage.place("out"), images(), images(1))
    paths = (*written.images.urls, *written.masks.urls)
    assert (len(written.images.urls), len(written.masks.urls)) == (3, 1)
    assert sorted(map(str, files(tmp_path))) == sorted(paths)
    with Image.open(paths[0]) as picture:
        assert picture.info["parameters"] == "text"


@pytest.mark.parametrize("survivors", [0, 1, 2])
async def test_disk_that_fails_while_files_get_their_names_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
):
    original, calls = Path.rename, list[Path]()

    def fail(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) > survivors:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, target)

    storage = storage_of(tmp_path)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageFailed, match="No space left on device"):
        await write_all(storage, storage.place("out"), images())
    assert files(tmp_path) == []


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more into any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("survivors", [0, 1, 2])
async def test_disk_that_fails_in_the_middle_of_a_file_leaves_none(tmp_path: Path, survivors: int):
    storage, named = storage_of(tmp_path), images()
    large = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    named[survivors] = NamedImage("txt2img-images", "large", large, "text")
    with (
        files_of_at_most(4096),
        pytest.raises(StorageFailed, match=r"cannot write below .*out: File too large"),
    ):
        await write_all(storage, storage.place("out"), named)
    assert files(tmp_path) == []


async def test_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path):
    storage = storage_of(tmp_path)
    place = storage.place("out")
    (tmp_path / "out").write_text("a file that was not there before")
    with pytest.raises(StorageFailed, match="out"):
        await write_all(storage, place, images())


def test_answer_has_the_documented_shape():
    written = UrlFiles(Stored(("a", "b")))
    assert url_mode.answer(id_task="7", files=written, seeds=[1, 2], total_time_s=0.5) == {
        "images": [],
        "parameters": {
            "id_task": "7",
            "status": 0,
            "image_url": "a,b",
            "seed": "1,2",
            "error_msg": "",
            "total_time": 0.5,
        },
        "info": "",
    }


def test_why_there_are_no_links_is_told_beside_the_pictures():
    written = UrlFiles(Stored(("a",), warnings=("no links were made: away",)))
    answer = url_mode.answer(id_task=None, files=written, seeds=[1])
    assert answer["warnings"] == ["no links were made: away"]
    assert "signed_url" not in answer["parameters"]


def test_masks_and_links_are_there_only_when_there_are_any():
    written = UrlFiles(
        Stored(("a",), ("https://a",)), Stored(("m", "n"), ("https://m", "https://n"))
    )
    parameters = url_mode.answer(id_task=None, files=written, seeds=[1])["parameters"]
    assert parameters["image_mask_url"] == "m,n"
    assert parameters["signed_url"] == "https://a"
    assert parameters["signed_mask_url"] == "https://m,https://n"

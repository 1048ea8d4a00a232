import errno
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdapi.errors import NotBuilt, PathNotAllowed, StorageFailed
from sdapi.services.generation import url_mode
from sdapi.services.generation.url_mode import NamedImage, open_save_dir, write_all
from sdapi.settings import Mount, Settings


def images(count: int = 3) -> list[NamedImage]:
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    return [
        NamedImage("txt2img-images", url_mode.image_stem(n), picture, "text") for n in range(count)
    ]


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_absolute_and_relative_folders_keep_the_callers_spelling(tmp_path: Path):
    settings = Settings(data_dir=tmp_path / "data", allow_save_dirs=(tmp_path / "real",))
    (tmp_path / "real").mkdir()
    (tmp_path / "data").mkdir()
    relative = open_save_dir("tmp/outputs/", settings)
    assert relative.spelled == f"{tmp_path}/data/tmp/outputs"
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = open_save_dir(f"{tmp_path}/link/x/", settings)
    assert linked.spelled == f"{tmp_path}/link/x"
    assert linked.path == tmp_path / "real" / "x"
    (path,) = write_all(linked, images(1))
    assert path.startswith(f"{tmp_path}/link/x/txt2img-images/")
    assert Path(path).is_file()


def test_folder_outside_the_roots_is_refused(tmp_path: Path):
    settings = Settings(data_dir=tmp_path / "data")
    for path in ("/etc", "../x", "a/../../x", str(tmp_path)):
        with pytest.raises(PathNotAllowed):
            open_save_dir(path, settings)


def test_object_storage_is_still_to_come(tmp_path: Path):
    mount = Mount(tmp_path / "mount", "oss://bucket/prefix")
    settings = Settings(data_dir=tmp_path, mounts=(mount,))
    for path in ("oss://bucket/prefix", str(tmp_path / "mount" / "x")):
        with pytest.raises(NotBuilt, match="upload"):
            open_save_dir(path, settings)


def test_pictures_carry_their_text_and_no_temporary_file_is_left(tmp_path: Path):
    paths = write_all(open_save_dir("out", Settings(data_dir=tmp_path)), images())
    assert sorted(map(str, files(tmp_path))) == sorted(paths)
    with Image.open(paths[0]) as picture:
        assert picture.info["parameters"] == "text"


@pytest.mark.parametrize("method", ["rename", "write_bytes"])
@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_failing_disk_leaves_no_file_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, survivors: int
):
    original, calls = getattr(Path, method), list[Path]()

    def fail(path: Path, *arguments: Any) -> Any:
        calls.append(path)
        if len(calls) > survivors:
            if method == "write_bytes":
                original(path, b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, *arguments)

    save_dir = open_save_dir("out", Settings(data_dir=tmp_path))
    monkeypatch.setattr(Path, method, fail)
    with pytest.raises(StorageFailed, match="No space left on device"):
        write_all(save_dir, images())
    assert files(tmp_path) == []


def test_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path):
    save_dir = open_save_dir("out", Settings(data_dir=tmp_path))
    (tmp_path / "out").write_text("a file that was not there before")
    with pytest.raises(StorageFailed, match="out"):
        write_all(save_dir, images())


def test_answer_has_the_documented_shape():
    assert url_mode.answer(id_task="7", paths=["a", "b"], seeds=[1, 2], total_time_s=0.5) == {
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

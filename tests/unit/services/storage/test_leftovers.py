"""What a writer that died left behind goes when its folder is written to again."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from sdapi.metrics import Metrics
from sdapi.options import Options
from sdapi.services.generation.saving.image_files import FileName, ImageFiles
from sdapi.services.storage.leftovers import Leftovers
from sdapi.services.storage.new_files import NewFile
from sdapi.services.storage.storage import Storage
from sdapi.settings import Settings

HALF = ".sdapi-0123.part"


def left_behind(folder: Path, age_s: float = 100_000.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HALF).write_bytes(b"half")
    os.utime(folder / HALF, (time.time() - age_s,) * 2)
    return folder / HALF


def test_only_our_own_unfinished_files_of_long_ago_go(tmp_path: Path):
    old = left_behind(tmp_path)
    young, others = left_behind(tmp_path / "young", 80_000.0), tmp_path / ".theirs.part"
    others.touch()
    os.utime(others, (0, 0))
    Leftovers().clear([tmp_path, tmp_path / "young", tmp_path / "not there"])
    assert [path.exists() for path in (old, young, others)] == [False, True, True]


def test_folder_is_looked_into_once_in_a_while_and_a_mount_never(tmp_path: Path):
    leftovers = Leftovers()
    leftovers.clear([tmp_path])
    old = left_behind(tmp_path)
    leftovers.clear([tmp_path])
    Leftovers(is_on_fuse=lambda path: True).clear([tmp_path])
    assert old.exists()


@pytest.mark.anyio
async def test_results_clear_their_folder(tmp_path: Path):
    storage = Storage(Settings(data_dir=tmp_path), {}, Metrics())
    old = left_behind(tmp_path / "out" / "2026-11-28")
    await storage.write(storage.place("out"), [NewFile("2026-11-28/1.png", lambda: b"1")])
    assert [path.name for path in old.parent.iterdir()] == ["1.png"]


def test_saved_pictures_clear_their_folder(tmp_path: Path):
    old = left_behind(tmp_path)
    image = Image.new("RGB", (8, 8))
    ImageFiles().save(image, tmp_path, FileName("1"), "png", None, Options.defaults())
    assert not old.exists()

"""Pictures on disk: whole, never overwritten, nothing left behind."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from sdapi.errors import StorageFailed
from sdapi.images import read_infotext
from sdapi.options import Options
from sdapi.services.generation.saving import image_files
from sdapi.services.generation.saving.image_files import FileName, ImageFiles
from sdapi.services.storage.storage import SavedFile

OPTIONS = Options.defaults()
INFOTEXT = "a cat\nSteps: 6, Seed: 1, Sampler: Euler"
IMAGE = Image.new("RGB", (16, 8), "#336699")


def save(directory: Path, decoration: str = "1234", fmt: str = "png", **changes: object) -> str:
    options = OPTIONS.overlay(changes)
    name = FileName(decoration)
    return ImageFiles().save(IMAGE, directory, name, fmt, INFOTEXT, options).name


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_numbers_follow_each_other_in_a_folder_made_on_the_way(tmp_path: Path):
    directory = tmp_path / "a" / "b"
    assert [save(directory) for _ in range(2)] == ["00000-1234.png", "00001-1234.png"]
    assert names_in(directory) == ["00000-1234.png", "00001-1234.png"]


def test_grids_count_by_themselves(tmp_path: Path):
    save(tmp_path)
    path = ImageFiles().save(IMAGE, tmp_path, FileName(prefix="grid"), "png", None, OPTIONS)
    assert path.name == "grid-0000.png"


def test_suffix_stands_at_the_end(tmp_path: Path):
    name = FileName("1", suffix="-mask")
    assert ImageFiles().save(IMAGE, tmp_path, name, "png", None, OPTIONS).name == "00000-1-mask.png"


@pytest.mark.parametrize("fmt", ["png", "jpg", "jpeg", "webp", "avif"])
def test_every_format_carries_the_infotext_and_its_own_ending(tmp_path: Path, fmt: str):
    name = save(tmp_path, fmt=fmt)
    assert name == f"00000-1234.{fmt}"
    with Image.open(tmp_path / name) as image:
        assert read_infotext(image)[0] == INFOTEXT
    assert names_in(tmp_path) == [name]


def test_without_numbers_the_same_name_replaces_or_gets_a_suffix(tmp_path: Path):
    plain = {"save_images_add_number": False}
    suffixed = {**plain, "save_images_replace_action": "Add number suffix"}
    assert [save(tmp_path, **plain), save(tmp_path, **plain)] == ["1234.png"] * 2
    assert [save(tmp_path, **suffixed), save(tmp_path, **suffixed)] == ["1234-1.png", "1234-2.png"]
    assert save(tmp_path, "", **plain) == "01235.png"


def test_text_file_is_written_beside_on_request(tmp_path: Path):
    save(tmp_path, save_txt=True)
    assert (tmp_path / "00000-1234.txt").read_text("utf-8") == f"{INFOTEXT}\n"


def test_picture_larger_than_its_format_holds_becomes_png(tmp_path: Path):
    wide = Image.new("RGB", (16384, 1))
    path = ImageFiles().save(wide, tmp_path, FileName("wide"), "webp", None, OPTIONS)
    assert path.name == "00000-wide.png"
    with Image.open(tmp_path / "00000-wide.jpg") as smaller:
        assert smaller.size == (4000, 1)


def test_large_picture_gets_a_smaller_jpeg_beside_it(tmp_path: Path):
    options = OPTIONS.overlay({"target_side_length": 8})
    ImageFiles().save(IMAGE, tmp_path, FileName("1"), "png", INFOTEXT, options)
    assert names_in(tmp_path) == ["00000-1.jpg", "00000-1.png"]
    with Image.open(tmp_path / "00000-1.jpg") as image:
        assert image.size == (8, 4)
        assert read_infotext(image)[0] == INFOTEXT


def test_heavy_picture_gets_a_jpeg_of_the_same_size(tmp_path: Path):
    options = OPTIONS.overlay({"img_downscale_threshold": 0.00001})
    ImageFiles().save(IMAGE, tmp_path, FileName("1"), "png", None, options)
    with Image.open(tmp_path / "00000-1.jpg") as image:
        assert image.size == IMAGE.size


def test_jpeg_gets_no_copy_over_itself(tmp_path: Path):
    options = OPTIONS.overlay({"target_side_length": 8})
    path = ImageFiles().save(IMAGE, tmp_path, FileName("1"), "jpg", None, options)
    with Image.open(path) as image:
        assert image.size == IMAGE.size


def test_threads_get_numbers_without_gaps(tmp_path: Path):
    files = ImageFiles()
    with ThreadPoolExecutor(8) as pool:
        saved = [
            pool.submit(files.save, IMAGE, tmp_path, FileName(str(i)), "png", None, OPTIONS)
            for i in range(40)
        ]
        numbers = sorted(int(future.result().name[:5]) for future in saved)
    assert numbers == list(range(40))


def test_two_writers_never_take_the_same_name(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: save(tmp_path, "same"), range(40)))
    assert len(set(names)) == 40
    assert len(names_in(tmp_path)) == 40


def test_files_beside_a_picture_may_replace_no_more_than_it_may(tmp_path: Path):
    told: list[SavedFile] = []
    changes = {"save_txt": True, "target_side_length": 8}
    for options in (changes, {**changes, "save_images_add_number": False}):
        overlaid = OPTIONS.overlay(options)
        ImageFiles().save(IMAGE, tmp_path, FileName("1"), "png", INFOTEXT, overlaid, told.append)
    numbered = [
        (saved.path.name, saved.replaces, saved.numbering and saved.numbering.name(8), saved.beside)
        for saved in told
    ]
    assert numbered == [
        ("00000-1.png", False, "00008-1.png", None),
        ("00000-1.jpg", False, "00008-1.jpg", tmp_path / "00000-1.png"),
        ("00000-1.txt", False, "00008-1.txt", tmp_path / "00000-1.png"),
        ("1.png", True, None, None),
        ("1.jpg", True, None, tmp_path / "1.png"),
        ("1.txt", True, None, tmp_path / "1.png"),
    ]


def test_slow_look_for_names_elsewhere_holds_up_no_other_folder(tmp_path: Path):
    is_asked, goes_on = threading.Event(), threading.Event()

    def names_beside(directory: Path) -> list[str]:
        if directory.name == "slow":
            is_asked.set()
            assert goes_on.wait(10)
            return ["00006-x.png"]
        return []

    files = ImageFiles(names_beside)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(
            files.save, IMAGE, tmp_path / "slow", FileName("1"), "png", None, OPTIONS
        )
        assert is_asked.wait(10)
        other = files.save(IMAGE, tmp_path / "other", FileName("1"), "png", None, OPTIONS)
        goes_on.set()
        assert (other.name, slow.result().name) == ("00000-1.png", "00007-1.png")


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_file_system_without_hard_links_serves_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(image_files.os, "link", no_links)
    (tmp_path / "00000-1234.txt").touch()
    assert [save(tmp_path) for _ in range(2)] == ["00001-1234.png", "00002-1234.png"]


def test_full_disk_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_files.os, "link", full)
    with pytest.raises(StorageFailed, match=f"cannot write to {tmp_path}: No space left on device"):
        save(tmp_path)
    assert names_in(tmp_path) == []


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match=r"cannot write to .*file/below: Not a directory"):
        save(tmp_path / "file" / "below")


def test_long_names_are_cut_to_what_file_systems_take(tmp_path: Path):
    name = save(tmp_path, "猫" * 128)
    assert name.startswith("00000-猫")
    assert len(name.encode()) < 256

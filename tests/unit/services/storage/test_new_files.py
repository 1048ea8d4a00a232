"""Files of a request are written all or none, and failing leaves as little as it can."""

import threading
from pathlib import Path

import pytest

from sdapi.errors import StorageFailed
from sdapi.services.storage.new_files import NewFile, remove_files, write_all_or_none

pytestmark = pytest.mark.anyio


async def test_file_that_cannot_be_deleted_hides_neither_the_error_nor_the_others(tmp_path: Path):
    def fails() -> bytes:
        first = min(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
        first.unlink()
        first.mkdir()  # which no unlink removes
        raise OSError("the disk is full")

    files = [NewFile("1.png", lambda: b"1"), NewFile("2.png", lambda: b"22"), NewFile("3", fails)]
    places = [(tmp_path / file.name, file) for file in files]
    with pytest.raises(StorageFailed, match="the disk is full"):
        await write_all_or_none(places, "out", durably=False)
    assert [path.is_dir() for path in tmp_path.iterdir()] == [True]


async def test_event_loop_deletes_nothing_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deleting, unlink = list[threading.Thread](), Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        deleting.append(threading.current_thread())
        unlink(path, missing_ok)

    def fails() -> bytes:
        raise ValueError("no picture")

    monkeypatch.setattr(Path, "unlink", noted)
    places = [(tmp_path / "1", NewFile("1", lambda: b"1")), (tmp_path / "2", NewFile("2", fails))]
    with pytest.raises(ValueError, match="no picture"):
        await write_all_or_none(places, "out", durably=False)
    assert deleting
    assert threading.current_thread() not in deleting
    assert not list(tmp_path.iterdir())


def test_missing_files_are_no_trouble_to_delete(tmp_path: Path):
    (tmp_path / "b").touch()
    remove_files([tmp_path / "a", tmp_path / "b"])
    assert not list(tmp_path.iterdir())

import errno
import sqlite3
from pathlib import Path

import pytest

from sdapi.errors import StorageFailed
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.outbox import Outbox, Upload

URL = ObjectUrl.parse("oss://bucket/a/ü.png")


def upload(tmp_path: Path, size: int = 5) -> Upload:
    return Upload(tmp_path / "ü.png", URL, size, replaces=True, keeps_file=False)


def test_records_outlive_their_process(tmp_path: Path):
    first = Outbox(tmp_path / "state" / "uploads.db")
    assert first.waiting(10) == []
    assert not first.exists
    (recorded,) = first.add([upload(tmp_path)])
    assert recorded.id > 0
    second = Outbox(tmp_path / "state" / "uploads.db")
    assert second.waiting(10) == [recorded]
    assert second.paths() == {tmp_path / "ü.png"}
    second.remove([recorded.id])
    assert (first.waiting(10), first.has(recorded.id)) == ([], False)
    first.close()
    second.close()


def test_names_that_no_request_could_have_are_kept_as_they_are(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    odd = ObjectUrl("oss", "bucket", "a/00001-next\x85line//..x?y#z.png")
    outbox.add([Upload(tmp_path / "x", odd, 1, replaces=False, keeps_file=True)])
    assert [each.url for each in outbox.waiting(10)] == [odd]
    outbox.close()


def test_oldest_come_first_without_those_under_way_and_those_refused(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    one, two, three, four = outbox.add([upload(tmp_path) for _ in range(4)])
    outbox.refuse(two.id, "another object has its name")
    assert outbox.waiting(10, [one.id]) == [three, four]
    assert outbox.waiting(1) == [one]
    figures = outbox.figures()
    assert (figures.pending, figures.pending_bytes, figures.refused) == (3, 15, 1)
    assert figures.oldest_age_s >= 0
    outbox.close()


def test_disk_that_is_full_is_a_storage_failure_and_records_none(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    outbox.add([upload(tmp_path)])
    with sqlite3.connect(tmp_path / "uploads.db") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON uploads WHEN NEW.size_bytes = 7 "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    other.close()
    with pytest.raises(StorageFailed, match="disk is full"):
        outbox.add([upload(tmp_path, 5), upload(tmp_path, 7)])
    assert outbox.figures().pending == 1
    outbox.close()


def test_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path):
    (tmp_path / "file").touch()
    outbox = Outbox(tmp_path / "file" / "uploads.db")
    with pytest.raises(StorageFailed, match=str(errno.EEXIST) + "|Not a directory|exists"):
        outbox.add([upload(tmp_path)])

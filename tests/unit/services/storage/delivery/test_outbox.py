import errno
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from sdapi.errors import StorageFailed
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.delivery.outbox import Outbox
from sdapi.services.storage.delivery.upload import Upload
from sdapi.services.storage.numbering import Numbering

URL = ObjectUrl.parse("oss://bucket/a/ü.png")


def upload(tmp_path: Path, size: int = 5) -> Upload:
    return Upload(tmp_path / "ü.png", URL, size, replaces=True, keeps_file=False)


def uploads(tmp_path: Path, count: int) -> list[Upload]:
    return [replace(upload(tmp_path), url=URL.sibling(f"{n}.png")) for n in range(count)]


def due(outbox: Outbox, bucket: str = "oss://bucket", limit: int = 10) -> list[Upload]:
    return outbox.claim(bucket, limit, claimed_s=0.0)


def test_records_outlive_their_process(tmp_path: Path):
    first = Outbox(tmp_path / "state" / "uploads.db")
    assert (first.buckets(), first.exists) == ([], False)
    (recorded,) = first.add([[upload(tmp_path)]])
    assert recorded.id > 0
    second = Outbox(tmp_path / "state" / "uploads.db")
    assert second.buckets() == ["oss://bucket"]
    assert due(second) == [recorded]
    assert second.paths() == {tmp_path / "ü.png"}
    assert second.remove(recorded.id)
    assert (due(first), first.get(recorded.id), first.remove(recorded.id)) == ([], None, False)
    first.close()
    second.close()


def test_names_that_no_request_could_have_are_kept_as_they_are(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    odd = ObjectUrl("oss", "bucket", "a/00001-next\x85line//..x?y#z.png")
    number = Numbering("a {} ", 5, "\n.png")
    outbox.add([[Upload(tmp_path / "x", odd, 1, False, True, number)]])
    assert [(each.url, each.numbering) for each in due(outbox)] == [(odd, number)]
    outbox.close()


def test_each_bucket_has_its_own_line_without_those_claimed_refused_or_deferred(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    one, two, three, four = outbox.add([[each] for each in uploads(tmp_path, 4)])
    other = replace(upload(tmp_path), url=ObjectUrl.parse("oss://other/x"))
    (elsewhere,) = outbox.add([[other]])
    outbox.refuse(two.id, "another object has its name")
    assert outbox.claim("oss://bucket", 1, claimed_s=60.0) == [one]
    outbox.defer(three.id, 60.0)
    assert due(outbox) == [four]
    assert due(outbox, "oss://other") == [elsewhere]
    outbox.release([one.id])
    assert due(outbox, limit=1) == [one]
    figures = outbox.figures()
    assert (figures.pending, figures.pending_bytes, figures.refused) == (4, 20, 1)
    assert figures.oldest_age_s >= 0
    outbox.close()


def test_who_failed_goes_behind_the_others(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    first, second = outbox.add([[each] for each in uploads(tmp_path, 2)])
    outbox.defer(first.id, 0.0)
    assert due(outbox, limit=1) == [second]
    outbox.close()


def test_claim_from_a_clock_that_was_far_ahead_does_not_hold_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    outbox = Outbox(tmp_path / "uploads.db")
    (recorded,) = outbox.add([[upload(tmp_path)]])
    with monkeypatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now + 100_000)
        outbox.claim("oss://bucket", 1, claimed_s=60.0)
    assert due(outbox) == [recorded]
    outbox.close()


def test_newer_file_of_a_name_takes_the_place_of_the_older(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    (older,) = outbox.add([[upload(tmp_path)]])
    (newer,) = outbox.add([[upload(tmp_path)]])
    assert due(outbox) == [newer]
    assert outbox.get(older.id) is None
    outbox.close()


def test_what_lies_beside_a_picture_waits_until_that_is_stored(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    picture, text = outbox.add([uploads(tmp_path, 2)])
    assert due(outbox) == [picture]
    assert outbox.followers(picture.id) == [text]
    outbox.remove(picture.id)
    assert due(outbox) == [text]
    outbox.close()


def test_records_of_an_older_version_are_read(tmp_path: Path):
    path = tmp_path / "uploads.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE uploads (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, "
            "url TEXT NOT NULL, size_bytes INTEGER NOT NULL, replaces INTEGER NOT NULL, "
            "keeps_file INTEGER NOT NULL, created REAL NOT NULL, refusal TEXT)"
        )
        connection.execute(
            "INSERT INTO uploads VALUES (7, '/x/ü.png', 'oss://bucket/a/ü.png', 5, 1, 0, 1.0, NULL)"
        )
        connection.commit()
    outbox = Outbox(path)
    assert outbox.problem() is None
    assert due(outbox) == [Upload(Path("/x/ü.png"), URL, 5, True, False, id=7)]
    outbox.close()


def test_damaged_database_is_one_sentence(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    assert outbox.problem() is None
    (tmp_path / "uploads.db").write_bytes(b"no database" * 1000)
    sentence = outbox.problem()
    assert sentence is not None
    assert "file is not a database; repair it, or move the folder" in sentence
    assert "\n" not in sentence


def test_disk_that_is_full_is_a_storage_failure_and_records_none(tmp_path: Path):
    outbox = Outbox(tmp_path / "uploads.db")
    outbox.add([[upload(tmp_path)]])
    with sqlite3.connect(tmp_path / "uploads.db") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON uploads WHEN NEW.size_bytes = 7 "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    other.close()
    with pytest.raises(StorageFailed, match="disk is full"):
        outbox.add([[upload(tmp_path, 5)], [upload(tmp_path, 7)]])
    assert outbox.figures().pending == 1
    outbox.close()


def test_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path):
    (tmp_path / "file").touch()
    outbox = Outbox(tmp_path / "file" / "uploads.db")
    with pytest.raises(StorageFailed, match=str(errno.EEXIST) + "|Not a directory|exists"):
        outbox.add([[upload(tmp_path)]])

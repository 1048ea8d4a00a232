"""What a training leaves behind, and what the next one goes on from."""

import shutil
from pathlib import Path

import pytest

from sdapi.portrait.training.work_folder import Prepared, WorkFolder

ANN, BOB = {"urls": ["http://a/ann.jpg"]}, {"urls": ["http://a/bob.jpg"]}


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    """Ann's photos have been looked at."""
    made = WorkFolder(tmp_path / "anna")
    made.open(ANN)
    made.crops.mkdir(parents=True)
    made.keep(Prepared(({"code": 1},), (("0.jpg", "a photo"),)))
    return made


def test_the_same_request_goes_on_and_another_begins_anew(work: WorkFolder):
    work.open(ANN)
    assert work.prepared() is not None
    work.open(BOB)
    assert work.prepared() is None
    assert not work.crops.exists()


@pytest.mark.parametrize("gone", [None, "request.json"])
def test_remains_that_cannot_be_deleted_are_told_and_never_taken_for_the_next(
    work: WorkFolder, gone: str | None, monkeypatch: pytest.MonkeyPatch
):
    def stop_half_way(path: Path, ignore_errors: bool = False) -> None:
        if gone is not None:
            (path / gone).unlink()
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stop_half_way)
        with pytest.raises(PermissionError):
            work.open(BOB)
    assert work.prepared() is None
    work.open(BOB)
    assert not work.crops.exists()

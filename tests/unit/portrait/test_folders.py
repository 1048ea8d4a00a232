import os
import time
from pathlib import Path

import pytest

from sdapi.portrait.folders import FolderNotShared, ModelFolders
from sdapi.portrait.records import QUEUE_OWNER
from sdapi.portrait.sqlite_store import SqlitePortraitStore

ID = "fa4ba43a-df55-45a4-9c31-bb0dc1e51234"
OWNER = "app:1"


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    return ModelFolders(tmp_path / "portrait")


def make(folders: ModelFolders, owner: str = OWNER, model_id: str = ID) -> Path:
    draft = folders.draft(owner, model_id)
    (draft / "original_backup").mkdir()
    (draft / "original_backup" / "0.jpg").write_bytes(b"photo")
    (draft / "ref_image.jpg").write_bytes(b"photo")
    folders.publish(draft, owner, model_id)
    return folders.of(owner, model_id)


def test_deletion_leaves_nothing(folders: ModelFolders):
    folder = make(folders)
    assert (folder / "ref_image.jpg").exists()
    folders.delete(OWNER, ID)
    assert [path for path in folders.root.rglob("*") if path.is_file()] == []
    folders.delete(OWNER, ID)


def test_training_again_takes_the_old_models_place(folders: ModelFolders):
    old = make(folders)
    (old / "old").touch()
    new = make(folders)
    assert new == old
    assert not (new / "old").exists()
    assert [path.name for path in new.parent.iterdir()] == [ID]


def test_both_surfaces_have_places_of_their_own(folders: ModelFolders):
    assert make(folders, QUEUE_OWNER, ID) != make(folders)


@pytest.mark.parametrize(
    ("owner", "model_id"),
    [(OWNER, "../x"), (OWNER, ".."), (QUEUE_OWNER, ".."), (QUEUE_OWNER, "a/b"), (OWNER, "name")],
)
def test_no_id_leads_outside(folders: ModelFolders, owner: str, model_id: str):
    with pytest.raises(ValueError, match="no id of a model"):
        folders.of(owner, model_id)


def test_uploads_go_when_their_time_is_over(folders: ModelFolders):
    folder = make(folders)
    assert folders.delete_old_uploads(keep_days=1) == 0
    two_days_ago = time.time() - 2 * 86_400
    os.utime(folder / "original_backup", (two_days_ago, two_days_ago))
    assert folders.delete_old_uploads(keep_days=1) == 1
    assert [path.name for path in folder.iterdir()] == ["ref_image.jpg"]


def test_what_a_crash_left_goes(folders: ModelFolders):
    folder = make(folders)
    draft = folders.draft(OWNER, ID)
    folders.delete_remains()
    assert draft.exists()  # it may be in use
    folders.delete_remains(older_than_s=0)
    assert not draft.exists()
    assert folder.exists()


@pytest.mark.anyio
async def test_servers_of_one_database_must_share_the_folder(tmp_path: Path):
    store = SqlitePortraitStore(tmp_path / "sdapi.db")
    await store.open()
    mine = ModelFolders(tmp_path / "mine")
    await mine.check_shared(store)
    await mine.check_shared(store)
    elsewhere = SqlitePortraitStore(tmp_path / "other.db")
    await elsewhere.open()
    other = ModelFolders(tmp_path / "other")
    await other.check_shared(elsewhere)
    with pytest.raises(FolderNotShared, match="--data-dir"):
        await other.check_shared(store)
    await store.close()
    await elsewhere.close()

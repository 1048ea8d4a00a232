import errno
import os
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sdapi.errors import StorageFailed
from sdapi.portrait.models.folders import FolderNotShared, ModelFolders
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore

ID = "fa4ba43a-df55-45a4-9c31-bb0dc1e51234"
OWNER = "app:1"


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    return ModelFolders(tmp_path / "portrait")


def make(folders: ModelFolders, owner: str = OWNER, model_id: str = ID) -> Path:
    draft = folders.work(owner, model_id)
    (draft / "original_backup").mkdir(parents=True)
    (draft / "original_backup" / "0.jpg").write_bytes(b"photo")
    (draft / "ref_image.jpg").write_bytes(b"photo")
    folders.publish(draft, owner, model_id)
    return folders.of(owner, model_id)


@pytest.mark.anyio
async def test_a_marker_that_another_server_writes_just_now_is_waited_for(
    folders: ModelFolders, tmp_path: Path
):
    store = SqlitePortraitStore(tmp_path / "sdapi.db")
    await store.open()
    folders.root.mkdir()
    marker = folders.root / "marker"
    marker.touch()
    writing = threading.Timer(0.2, marker.write_text, ["theirs"])
    writing.start()
    await folders.check_shared(store)
    assert await store.folder_marker("ours") == "theirs"
    writing.join()
    await store.close()


@pytest.mark.anyio
async def test_a_marker_that_stays_empty_is_told(
    folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.models.folders._MARKED_WITHIN_S", 0.1)
    store = SqlitePortraitStore(tmp_path / "sdapi.db")
    folders.root.mkdir()
    (folders.root / "marker").touch()
    with pytest.raises(StorageFailed, match="is empty"):
        await folders.check_shared(store)


def test_deletion_leaves_nothing(folders: ModelFolders):
    folder = make(folders)
    assert (folder / "ref_image.jpg").exists()
    assert folders.delete(OWNER, ID)
    assert [path for path in folders.root.rglob("*") if path.is_file()] == []
    assert not folders.delete(OWNER, ID)


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
    work = folders.work(OWNER, ID)
    work.mkdir()
    folders.delete_remains()
    assert work.exists()  # it may be in use
    folders.delete_remains(older_than_s=0)
    assert not work.exists()
    assert folder.exists()


def test_users_with_odd_names_are_people_and_no_remains(folders: ModelFolders):
    names = (".anna", ".draft-x", ".gone-x", "-x", "users-x")
    made = [make(folders, QUEUE_OWNER, name) for name in names]
    old = time.time() - 9 * 86_400
    for folder in made:
        os.utime(folder / "original_backup", (old, old))
        os.utime(folder, (old, old))
    assert folders.delete_old_uploads(keep_days=1) == len(names)
    folders.delete_remains(older_than_s=0)
    assert all((folder / "ref_image.jpg").exists() for folder in made)


def test_one_bad_folder_does_not_stop_the_sweep(
    folders: ModelFolders, monkeypatch: pytest.MonkeyPatch
):
    users = [make(folders, QUEUE_OWNER, name) for name in ("a", "b", "c")]
    works = [folders.work(QUEUE_OWNER, name) for name in ("a", "b", "c")]
    for work in works:
        work.mkdir(parents=True)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self in (users[1] / "original_backup", works[1]):
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert folders.delete_old_uploads(keep_days=0) == 2
    folders.delete_remains(older_than_s=0)
    assert [(user / "original_backup").exists() for user in users] == [False, True, False]
    assert [work.exists() for work in works] == [False, True, False]


def test_a_training_that_will_go_on_is_no_remains(folders: ModelFolders):
    kept, old = folders.work(OWNER, ID), folders.work(QUEUE_OWNER, "anna")
    for work in (kept, old):
        work.mkdir(parents=True)
    folders.delete_remains(older_than_s=0, in_use=[(OWNER, ID)])
    assert (kept.exists(), old.exists()) == (True, False)


def test_a_crash_between_the_renames_loses_no_model(
    folders: ModelFolders, monkeypatch: pytest.MonkeyPatch
):
    folder = make(folders)
    replaced = folders.root / "replaced" / f"models-{ID}"
    replaced.parent.mkdir(exist_ok=True)
    folder.rename(replaced)
    assert folders.published(OWNER, ID) == replaced  # until it is back, creations find it there
    folders.restore_replaced()
    assert not folder.exists()  # somebody may be at it
    monkeypatch.setattr("sdapi.portrait.models.folders._RESTORED_AFTER_S", -1.0)
    folders.restore_replaced()
    assert folders.published(OWNER, ID) == folder
    assert (folder / "ref_image.jpg").exists()


def test_a_draft_that_cannot_be_published_leaves_the_old_model(folders: ModelFolders):
    folder = make(folders)
    with pytest.raises(FileNotFoundError):
        folders.publish(folders.root / "no such draft", OWNER, ID)
    assert (folder / "ref_image.jpg").exists()


def test_loras_are_linked_where_the_folder_is_itself_a_link(tmp_path: Path):
    elsewhere = tmp_path / "far" / "away" / "loras"
    elsewhere.mkdir(parents=True)
    (tmp_path / "Lora").symlink_to(elsewhere)
    folders = ModelFolders(tmp_path / "portrait", tmp_path / "Lora")
    folder = make(folders, QUEUE_OWNER, "anna")
    (folder / "lora.safetensors").write_bytes(b"weights")
    folders.link_lora(QUEUE_OWNER, "anna", "anna", folder / "lora.safetensors")
    assert (elsewhere / "anna.safetensors").read_bytes() == b"weights"
    folders.delete(QUEUE_OWNER, "anna")
    assert list(elsewhere.iterdir()) == []


def test_no_persons_lora_takes_anothers_name(tmp_path: Path):
    loras = tmp_path / "Lora"
    folders = ModelFolders(tmp_path / "portrait", loras)
    for user in ("portrait-anna", "anna"):
        if user == "anna":
            (loras / "anna.safetensors").write_bytes(b"the operator's own")
        folder = make(folders, QUEUE_OWNER, user)
        (folder / "lora.safetensors").write_bytes(user.encode())
        name = folders.lora_name(QUEUE_OWNER, user)
        folders.link_lora(QUEUE_OWNER, user, name, folder / "lora.safetensors")
        assert folders.lora_name(QUEUE_OWNER, user) == name
    assert (loras / "portrait-anna.safetensors").read_bytes() == b"portrait-anna"
    assert (loras / "portrait-anna-2.safetensors").read_bytes() == b"anna"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlitePortraitStore]:
    opened = SqlitePortraitStore(tmp_path / "sdapi.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.mark.anyio
async def test_servers_of_one_database_must_share_the_folder(
    tmp_path: Path, store: SqlitePortraitStore
):
    mine = ModelFolders(tmp_path / "mine")
    await mine.check_shared(store)
    await mine.check_shared(store)
    empty, with_models = ModelFolders(tmp_path / "empty"), ModelFolders(tmp_path / "with models")
    make(with_models)
    for other in (empty, with_models):
        for _ in range(2):  # it stays refused, though it has been looked at
            with pytest.raises(FolderNotShared, match="--data-dir"):
                await other.check_shared(store)


@pytest.mark.anyio
async def test_servers_that_start_together_for_the_first_time_all_come_up(
    tmp_path: Path, store: SqlitePortraitStore
):
    async with anyio.create_task_group() as starts:
        for _ in range(8):
            starts.start_soon(ModelFolders(tmp_path / "shared").check_shared, store)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["marker"]


@pytest.mark.anyio
async def test_a_mount_without_hard_links_is_marked_too(
    tmp_path: Path, store: SqlitePortraitStore, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        await ModelFolders(tmp_path / "shared").check_shared(store)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["marker"]


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_written_leaves_the_next_start_free(
    tmp_path: Path, store: SqlitePortraitStore
):
    (tmp_path / "shared").touch()
    folders = ModelFolders(tmp_path / "shared")
    with pytest.raises(StorageFailed, match="shared"):
        await folders.check_shared(store)
    (tmp_path / "shared").unlink()
    await folders.check_shared(store)


@pytest.mark.anyio
async def test_a_folder_that_was_given_up_is_followed_as_the_error_says(
    tmp_path: Path, store: SqlitePortraitStore
):
    await ModelFolders(tmp_path / "lost").check_shared(store)
    successor = ModelFolders(tmp_path / "new")
    with pytest.raises(FolderNotShared) as refused:
        await successor.check_shared(store)
    told = re.search(r"write (\w+) into (.+)$", refused.value.detail)
    assert told is not None
    Path(told[2]).write_text(told[1] + "\n")
    await successor.check_shared(store)

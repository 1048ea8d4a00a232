"""Where the files of trained models lie, and how they go.

    <data>/portrait/models/<model_id>/   the REST surface's, by UUID
    <data>/portrait/users/<user_id>/     the queue surface's
    <data>/portrait/trainings/           what is being trained, see `training.work_folder`
    <data>/portrait/replaced/            the former model while a new one takes its place
    <data>/portrait/gone/                what is being deleted
    <models>/Lora/<name>.safetensors     a link to each model's LoRA, for the web UI's prompts

What people sent (`original_backup`, `processed_images`) is deleted when the retention is over;
what the model needs stays until the model is deleted. Nothing of the server's own lies among
models, whose names are callers'.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from sdapi.errors import SDAPIError, StorageFailed
from sdapi.portrait.models.artefacts import BACKUP, LORA, PROCESSED
from sdapi.portrait.models.whole_files import write_first
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.wire.requests import is_model_id, is_user_id
from sdapi.services.catalog.model_files.safetensors_header import read_metadata

#: folders of a model that hold what people sent
UPLOADS: Final = (BACKUP, PROCESSED)
_TRAININGS, _REPLACED, _GONE = "trainings", "replaced", "gone"
#: a former model is put back by others than who replaced it when it has lain about for so long
_RESTORED_AFTER_S: Final = 5.0
#: files being written in the folder of LoRAs
_DRAFT: Final = ".draft-"
_KINDS: Final = ("models", "users")
#: in the header of a model's LoRA: whose it is
LORA_MARK: Final = "sdapi_portrait"
#: before an id that another LoRA has as its name
_PREFIX: Final = "portrait-"
_MOST_NAMES: Final = 10
_DAY_S: Final = 86_400.0
_MARKER: Final = "marker"
#: an empty marker is one that is being written, for so long
_MARKED_WITHIN_S, _MARK_POLL_S = 2.0, 0.05
log = logging.getLogger(__name__)


class FolderNotShared(SDAPIError):
    """Servers of one state whose folders of model files are not one folder."""

    status, code = 500, "folder_not_shared"


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """The files of every model, each in a folder of its own."""

    root: Path
    #: where prompts' LoRAs are looked for; None: models are not linked there
    lora_dir: Path | None = None

    def of(self, owner: str, model_id: str) -> Path:
        """The model's folder, whether it exists or not."""
        return self.root / _kind(owner, model_id) / model_id

    def published(self, owner: str, model_id: str) -> Path:
        """The folder that holds the model now: its own, or where it waits to be replaced."""
        folder, replaced = self.of(owner, model_id), self._replaced(owner, model_id)
        return replaced if not folder.exists() and replaced.is_dir() else folder

    def work(self, owner: str, model_id: str) -> Path:
        """The folder in which a model is trained, whether it exists or not."""
        return self.root / _TRAININGS / _full_name(owner, model_id)

    def delete(self, owner: str, model_id: str) -> bool:
        """Remove everything that was kept for a model; False when there was nothing.

        Raises OSError when it stays.
        """
        self._unlink_lora(owner, model_id)
        of_model = self.work(owner, model_id), self.of(owner, model_id)
        return any([self._discard(f) for f in (*of_model, self._replaced(owner, model_id))])

    def lora_name(self, owner: str, model_id: str, known: Collection[Path] = ()) -> str:
        """What prompts call the model's LoRA: its id, unless another file has that name.

        `known` are files elsewhere that prompts find by their base names, as those of sub-folders.
        Raises FileExistsError when every name that could be made of it is taken.
        """
        if self.lora_dir is None:
            return model_id
        mark, target = _full_name(owner, model_id), self.of(owner, model_id) / LORA
        for name in _names(model_id):
            named = [path for path in known if path.stem == name]
            if os.path.lexists(link := _link(self.lora_dir, name)):
                named.append(link)
            if all(_is_of(path, target, mark) for path in named):
                return name
        raise FileExistsError(f"every name for the LoRA of {mark} is taken in {self.lora_dir}")

    def link_lora(self, owner: str, model_id: str, name: str, made: Path) -> None:
        """Let prompts find a model's LoRA, which may be published after that.

        Where links cannot be made it is a copy of `made`. Raises OSError.
        """
        if self.lora_dir is None:
            return
        link = _link(self.lora_dir, name)
        link.parent.mkdir(parents=True, exist_ok=True)
        draft = link.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
        try:
            # Both folders may lie behind links of the operator's, which a relative path must not.
            target = os.path.realpath(self.of(owner, model_id) / LORA)
            draft.symlink_to(os.path.relpath(target, link.parent.resolve()))
        except OSError:
            shutil.copyfile(made, draft)
        draft.replace(link)

    def _unlink_lora(self, owner: str, model_id: str) -> None:
        if self.lora_dir is None:
            return
        mark, target = _full_name(owner, model_id), self.of(owner, model_id) / LORA
        for name in _names(model_id):
            link = _link(self.lora_dir, name)
            if os.path.lexists(link) and _is_of(link, target, mark):
                link.unlink(missing_ok=True)

    def delete_old_uploads(self, keep_days: float) -> int:
        """Delete what people sent longer ago; the number of folders that went.

        One that cannot be deleted is logged, and tried again the next time.
        """
        limit = time.time() - keep_days * _DAY_S
        count = 0
        for folder in self._below(*_KINDS):
            for uploads in (folder / name for name in UPLOADS):
                try:
                    if uploads.is_dir() and uploads.stat().st_mtime <= limit:
                        self._discard(uploads)
                        count += 1
                except OSError:
                    log.exception("%s is kept too long: it cannot be deleted", uploads)
        return count

    def delete_remains(
        self, older_than_s: float = _DAY_S, in_use: Collection[tuple[str, str]] = ()
    ) -> None:
        """Remove what interrupted trainings and deletions left, and put back what was to go.

        `in_use` are models, by owner, whose trainings will go on. What cannot be removed is logged.
        """
        self.restore_replaced()
        kept = {_full_name(*each) for each in in_use}
        limit = time.time() - older_than_s
        for folder in self._below(_TRAININGS, _GONE):
            is_gone = folder.parent.name == _GONE
            try:
                if is_gone:
                    shutil.rmtree(folder)
                elif folder.name not in kept and folder.stat().st_mtime <= limit:
                    self._discard(folder)
            except FileNotFoundError:  # another server did it
                continue
            except OSError:
                log.exception("%s cannot be deleted", folder)

    def publish(self, draft: Path, owner: str, model_id: str) -> None:
        """Put a filled draft in the model's place; the old one stays until the new one is there.

        A crash in between leaves the old one where `published` finds it. Raises OSError.
        """
        folder, old = self.of(owner, model_id), self._replaced(owner, model_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        old.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            self._discard(old)
            folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            with suppress(OSError):
                old.rename(folder)
            raise
        try:
            self._discard(old)
        except OSError:
            log.exception("%s cannot be deleted", old)

    def restore_replaced(self) -> None:
        """Put back the models whose successors a crash has kept from their places."""
        for old in self._below(_REPLACED):
            kind, _, model_id = old.name.partition("-")
            folder = self.root / kind / model_id
            try:
                if old.stat().st_ctime > time.time() - _RESTORED_AFTER_S:
                    continue
                if folder.exists():
                    self._discard(old)
                else:
                    old.rename(folder)
            except OSError:
                log.exception("the former model %s cannot be put back", old)

    def _discard(self, folder: Path) -> bool:
        """Delete a folder, renamed first, so that nobody reads half; False without it."""
        gone = self.root / _GONE / uuid.uuid4().hex
        gone.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone)
        return True

    def _replaced(self, owner: str, model_id: str) -> Path:
        return self.root / _REPLACED / _full_name(owner, model_id)

    async def check_shared(self, store: PortraitStore) -> None:
        """Make sure that every server of the store sees these files; raises FolderNotShared.

        The folder is marked before the store is asked: servers that share it find one mark, however
        many start at once for the first time, and a start that fails in between leaves nothing.
        """
        own = await anyio.to_thread.run_sync(self._mark)
        agreed = await store.folder_marker(own)
        if own != agreed:
            raise FolderNotShared(
                f"{self.root} is not the folder that the other servers of this database use: give "
                "every server the same --data-dir on shared storage. Where that folder has been "
                f"given up for this one, write {agreed} into {self.root / _MARKER}"
            )

    def _mark(self) -> str:
        """What the folder is known by, made up where it has no mark; raises StorageFailed."""
        path = self.root / _MARKER
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_first(path, uuid.uuid4().hex.encode())
            end = time.monotonic() + _MARKED_WITHIN_S
            while not (mark := path.read_text(encoding="utf-8").strip()) and time.monotonic() < end:
                time.sleep(_MARK_POLL_S)  # a server without links writes it just now
            if mark:
                return mark
        except (OSError, ValueError) as error:
            raise StorageFailed(f"{self.root} cannot be used for portraits: {error}") from error
        raise StorageFailed(f"{path} is empty, as a full disk leaves it: delete it")

    def _below(self, *names: str) -> Iterator[Path]:
        """The folders in folders of the root."""
        for name in names:
            try:
                found = [path for path in (self.root / name).iterdir() if path.is_dir()]
            except FileNotFoundError:
                continue
            except OSError:
                log.exception("%s cannot be read", self.root / name)
                continue
            yield from found


def _full_name(owner: str, model_id: str) -> str:
    """The model's name where those of both surfaces lie side by side."""
    return f"{_kind(owner, model_id)}-{model_id}"


def _kind(owner: str, model_id: str) -> str:
    is_queue = owner == QUEUE_OWNER
    if not (is_user_id(model_id) if is_queue else is_model_id(model_id)):
        raise ValueError("no id of a model")  # checked where it came in; never a path
    return _KINDS[1] if is_queue else _KINDS[0]


def _link(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _names(model_id: str) -> Iterator[str]:
    """What a model's LoRA may be called, the best name first."""
    yield from (model_id, f"{_PREFIX}{model_id}")
    yield from (f"{_PREFIX}{model_id}-{number}" for number in range(2, _MOST_NAMES))


def _is_of(link: Path, target: Path, mark: str) -> bool:
    """Whether a file among the LoRAs is a model's: a link to it, or a copy with its mark."""
    if link.is_symlink():
        return os.path.realpath(link) == os.path.realpath(target)
    return read_metadata(link).get(LORA_MARK) == mark

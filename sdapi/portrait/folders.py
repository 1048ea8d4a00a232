"""Where the files of trained models lie, and how they go.

    <data>/portrait/models/<model_id>/   the REST surface's, by UUID
    <data>/portrait/users/<user_id>/     the queue surface's
    <data>/portrait/trainings/           what is being trained, see `training.work_folder`
    <models>/Lora/<name>.safetensors     a link to each model's LoRA, for the web UI's prompts

What people sent (`original_backup`, `processed_images`) is deleted when the retention is over;
what the model needs stays until the model is deleted.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdapi.errors import SDAPIError
from sdapi.portrait.artefacts import BACKUP, LORA, PROCESSED
from sdapi.portrait.records import QUEUE_OWNER
from sdapi.portrait.requests import is_model_id, is_user_id
from sdapi.portrait.store import PortraitStore
from sdapi.services.catalog.safetensors_header import read_metadata

#: folders of a model that hold what people sent
UPLOADS: Final = (BACKUP, PROCESSED)
#: folders being written or deleted; the next start removes what a crash left of them
_DRAFT, _GONE = ".draft-", ".gone-"
_TRAININGS: Final = "trainings"
_KINDS: Final = ("models", "users")
#: in the header of a model's LoRA: whose it is
LORA_MARK: Final = "sdapi_portrait"
#: before an id that another LoRA has as its name
_PREFIX: Final = "portrait-"
_DAY_S: Final = 86_400.0
_MARKER: Final = "marker"
log = logging.getLogger(__name__)


class FolderNotShared(SDAPIError):
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

    def work(self, owner: str, model_id: str) -> Path:
        """The folder in which a model is trained, whether it exists or not."""
        return self.root / _TRAININGS / f"{_kind(owner, model_id)}-{model_id}"

    def delete(self, owner: str, model_id: str) -> None:
        """Remove everything that was kept for a model; renamed first, so that nobody reads half."""
        self._unlink_lora(owner, model_id)
        for folder in (self.work(owner, model_id), self.of(owner, model_id)):
            gone = folder.with_name(f"{_GONE}{uuid.uuid4().hex}")
            try:
                folder.rename(gone)
            except FileNotFoundError:
                continue
            shutil.rmtree(gone)

    def lora_name(self, owner: str, model_id: str) -> str:
        """What prompts call the model's LoRA: its id, unless another file has that name."""
        mark = self.work(owner, model_id).name
        is_free = self.lora_dir is None or _is_free(_link(self.lora_dir, model_id), mark)
        return model_id if is_free else f"{_PREFIX}{model_id}"

    def link_lora(self, owner: str, model_id: str, name: str) -> None:
        """Let prompts find the LoRA of a published model; a copy where links cannot be made."""
        if self.lora_dir is None:
            return
        target, link = self.of(owner, model_id) / LORA, _link(self.lora_dir, name)
        link.parent.mkdir(parents=True, exist_ok=True)
        draft = link.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
        try:
            draft.symlink_to(os.path.relpath(target, link.parent))
        except OSError:
            shutil.copyfile(target, draft)
        draft.replace(link)

    def _unlink_lora(self, owner: str, model_id: str) -> None:
        mark = self.work(owner, model_id).name
        if self.lora_dir is None:
            return
        for name in (model_id, f"{_PREFIX}{model_id}"):
            link = _link(self.lora_dir, name)
            if read_metadata(link).get(LORA_MARK) == mark:
                link.unlink(missing_ok=True)

    def delete_old_uploads(self, keep_days: float) -> int:
        """Delete what people sent longer ago; the number of folders that went."""
        limit = time.time() - keep_days * _DAY_S
        count = 0
        for folder in self._models():
            for name in UPLOADS:
                uploads = folder / name
                if uploads.is_dir() and uploads.stat().st_mtime <= limit:
                    shutil.rmtree(uploads)
                    count += 1
        return count

    def delete_remains(self, older_than_s: float = _DAY_S) -> None:
        """Remove what interrupted trainings and deletions left."""
        for folder in self._all(_TRAININGS, *_KINDS):
            named = folder.name.startswith((_DRAFT, _GONE))
            is_remains = named or folder.parent.name == _TRAININGS
            if is_remains and folder.stat().st_mtime <= time.time() - older_than_s:
                shutil.rmtree(folder, ignore_errors=True)

    def draft(self, owner: str, model_id: str) -> Path:
        """A new folder beside the model's, to be filled and then published."""
        folder = self.of(owner, model_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = folder.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
        draft.mkdir(mode=0o700)
        return draft

    def publish(self, draft: Path, owner: str, model_id: str) -> None:
        """Put a filled draft in the model's place; the old one stays until the new one is there."""
        folder = self.of(owner, model_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        old = folder.with_name(f"{_GONE}{uuid.uuid4().hex}")
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    async def check_shared(self, store: PortraitStore) -> None:
        """Make sure that every server of the store sees these files; raises FolderNotShared."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / _MARKER
        own = path.read_text(encoding="utf-8") if path.exists() else ""
        agreed = await store.folder_marker(own or uuid.uuid4().hex)
        if not own:
            if any(self._models()):
                log.warning("%s had lost its marker", self.root)
            _write_whole(path, agreed)
        elif own != agreed:
            raise FolderNotShared(
                f"{self.root} is not the folder that the other servers of this database use; "
                "give every server the same --data-dir on shared storage"
            )

    def _models(self) -> Iterator[Path]:
        return (folder for folder in self._all() if not folder.name.startswith("."))

    def _all(self, *kinds: str) -> Iterator[Path]:
        for kind in kinds or _KINDS:
            if (self.root / kind).is_dir():
                yield from (path for path in (self.root / kind).iterdir() if path.is_dir())


def _kind(owner: str, model_id: str) -> str:
    is_queue = owner == QUEUE_OWNER
    if not (is_user_id(model_id) if is_queue else is_model_id(model_id)):
        raise ValueError("no id of a model")  # checked where it came in; never a path
    return _KINDS[1] if is_queue else _KINDS[0]


def _link(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _is_free(link: Path, mark: str) -> bool:
    """Whether nothing of somebody else is there; a link that leads nowhere is ours."""
    return not link.exists() or read_metadata(link).get(LORA_MARK) == mark


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)

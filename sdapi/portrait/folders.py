"""Where the files of trained models lie, and how they go.

    <data>/portrait/models/<model_id>/   the REST surface's, by UUID
    <data>/portrait/users/<user_id>/     the queue surface's

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
from sdapi.portrait.records import QUEUE_OWNER
from sdapi.portrait.requests import is_model_id, is_user_id
from sdapi.portrait.store import PortraitStore

#: folders of a model that hold what people sent
UPLOADS: Final = ("original_backup", "processed_images")
#: folders being written or deleted; the next start removes what a crash left of them
_DRAFT, _GONE = ".draft-", ".gone-"
_DAY_S: Final = 86_400.0
_MARKER: Final = "marker"
log = logging.getLogger(__name__)


class FolderNotShared(SDAPIError):
    status, code = 500, "folder_not_shared"


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """The files of every model, each in a folder of its own."""

    root: Path

    def of(self, owner: str, model_id: str) -> Path:
        """The model's folder, whether it exists or not."""
        is_queue = owner == QUEUE_OWNER
        if not (is_user_id(model_id) if is_queue else is_model_id(model_id)):
            raise ValueError("no id of a model")  # checked where it came in; never a path
        return self.root / ("users" if is_queue else "models") / model_id

    def delete(self, owner: str, model_id: str) -> None:
        """Remove everything that was kept for a model; renamed first, so that nobody reads half."""
        folder = self.of(owner, model_id)
        gone = folder.with_name(f"{_GONE}{uuid.uuid4().hex}")
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)

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
        for folder in self._all():
            is_remains = folder.name.startswith((_DRAFT, _GONE))
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

    def _all(self) -> Iterator[Path]:
        for kind in ("models", "users"):
            if (self.root / kind).is_dir():
                yield from (path for path in (self.root / kind).iterdir() if path.is_dir())


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)

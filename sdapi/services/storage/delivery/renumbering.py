"""Another number for a file whose name has been given to an object meanwhile, by another server."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sdapi.services.storage.delivery.names import Names
from sdapi.services.storage.delivery.outbox import Outbox
from sdapi.services.storage.delivery.upload import Upload
from sdapi.services.storage.local_disk import publish, temporary_file
from sdapi.services.storage.new_files import remove_files, sync, sync_folders
from sdapi.services.storage.numbering import Numbering, next_number


@dataclass(frozen=True, slots=True)
class Renumbering:
    """Renames recorded files, on disk and in their records. Blocks."""

    outbox: Outbox
    names: Names

    def renamed(self, upload: Upload, numbering: Numbering) -> Upload:
        """The file under the next number that neither its folder nor its prefix has.

        What lies beside a picture is renamed with it. There is never a moment without a file and a
        record of it. Raises `StoreError` when the prefix cannot be listed, `OSError`, or
        `sqlite3.Error`.
        """
        moves = list[tuple[Upload, Upload]]()
        try:
            path = self._copied_anew(upload, numbering)
            moves.append((upload, _moved(upload, path)))
            for beside in self.outbox.followers(upload.id):
                other = path.with_suffix(beside.path.suffix)
                with suppress(FileNotFoundError):  # somebody deleted it, which costs no picture
                    if _copied(beside.path, other):  # else it keeps its name
                        moves.append((beside, _moved(beside, other)))
            sync_folders([path])
            self.outbox.rename(moved for _, moved in moves)
        except BaseException:
            remove_files(moved.path for _, moved in moves)
            raise
        for old, moved in moves:
            self.names.add(moved.url)
            old.path.unlink(missing_ok=True)
        return moves[0][1]

    def _copied_anew(self, upload: Upload, numbering: Numbering) -> Path:
        """A copy of a file under the next number."""
        folder = upload.path.parent
        taken = self.names.listed_anew(upload.url.parent)
        number = next_number((*os.listdir(folder), *taken), numbering.before)
        while not _copied(upload.path, path := folder / numbering.name(number)):
            number += 1  # another process was faster
        return path


def _moved(upload: Upload, path: Path) -> Upload:
    return replace(upload, path=path, url=upload.url.sibling(path.name))


def _copied(path: Path, target: Path) -> bool:
    """Copy a file to a free name, safely on disk; False when the name is taken."""
    with temporary_file(path.parent, path.read_bytes()) as temporary:
        sync(temporary)
        return publish(temporary, target)

"""The folder of files that only pass through this machine on their way to a store."""

import time
import uuid
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from sdapi.services.storage.leftovers import ABANDONED_S


class Spool:
    """Files under names of their own; each goes when it has been uploaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, suffix: str) -> Path:
        """A name that nobody has; nothing is created."""
        return self._folder / f"{uuid.uuid4().hex}{suffix}"

    def sweep(self, recorded: Set[Path]) -> None:
        """Delete what a crash left before it was recorded: nobody was told of it.

        A younger file may be of a request that is still writing others; it records all at its end.
        """
        if not self._folder.is_dir():
            return
        oldest = time.time() - ABANDONED_S
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # uploaded meanwhile
                if path not in recorded and path.stat().st_mtime < oldest:
                    path.unlink()

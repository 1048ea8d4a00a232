"""The folder of files that only pass through this machine on their way to a store."""

import time
import uuid
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

#: another server of the same data directory may just have written a file, and not its record
_MIN_AGE_S = 600.0


class Spool:
    """Files under names of their own; each goes when it has been uploaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, suffix: str) -> Path:
        """A name that nobody has; nothing is created."""
        return self._folder / f"{uuid.uuid4().hex}{suffix}"

    def sweep(self, recorded: Set[Path]) -> None:
        """Delete what a crash left before it was recorded: nobody was told of it."""
        if not self._folder.is_dir():
            return
        oldest = time.time() - _MIN_AGE_S
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # uploaded meanwhile
                if path not in recorded and path.stat().st_mtime < oldest:
                    path.unlink()

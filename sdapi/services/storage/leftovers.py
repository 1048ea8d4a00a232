"""What writers that died left behind: hidden files, cleared from folders that are written to."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sdapi.mount_table import is_on_fuse

#: begins and ends the name of each file that is not finished
PREFIX: Final = ".sdapi-"
SUFFIX: Final = ".part"
#: nobody needs a file any more that has not grown for so long; a request names its files when all
#: are written, which takes hours where they are many and large and the disk is slow
ABANDONED_S: Final = 86_400.0
#: between looks into a folder
_LOOK_S = 600.0
#: folders that are remembered as cleared
_KEPT = 256


class Leftovers:
    """Looks into a folder once in ten minutes. Safe to use from any thread."""

    def __init__(self, is_on_fuse: Callable[[Path], bool] = is_on_fuse) -> None:
        self._is_on_fuse = is_on_fuse
        #: guards the folders
        self._lock = threading.Lock()
        #: when each was looked into, by the monotonic clock
        self._cleared: OrderedDict[Path, float] = OrderedDict()

    def clear(self, folders: Iterable[Path]) -> None:
        """Delete unfinished files that nobody writes to any more. Blocks.

        Not on a FUSE mount, where looking may take longer than writing.
        """
        for folder in folders:
            self._clear(folder)

    def _clear(self, folder: Path) -> None:
        if not self._is_due(folder) or self._is_on_fuse(folder):
            return
        oldest = time.time() - ABANDONED_S
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                is_ours = entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX)
                if is_ours and entry.stat().st_mtime < oldest:
                    os.unlink(entry)

    def _is_due(self, folder: Path) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._cleared.get(folder, -_LOOK_S) < _LOOK_S:
                return False
            self._cleared[folder] = now
            self._cleared.move_to_end(folder)
            while len(self._cleared) > _KEPT:
                self._cleared.popitem(last=False)
            return True

"""Which folders are FUSE mounts: what is written there is the mount's business, not ours."""

import os
import re
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
#: file systems of containers and disks that run on FUSE and show no store
_OTHERS = ("fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.mergerfs")
_ROOT = Path("/")


def is_on_fuse(path: Path, table: Path = MOUNT_TABLE) -> bool:
    """Whether a folder, links resolved, lies on a FUSE mount that may show a store.

    Not on a disk whose driver runs on FUSE (`fuseblk`), nor where all of `/` does, as in some
    containers. False where the system has no mount table.
    """
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    path = Path(os.path.realpath(path))
    found: tuple[Path, bool] = (_ROOT, False)
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # The deepest counts, and of several at one place the last.
        if path.is_relative_to(point) and len(point.parts) >= len(found[0].parts):
            found = (point, _shows_a_store(after.split(" ", 1)[0]))
    return found[1] and found[0] != _ROOT


def _shows_a_store(kind: str) -> bool:
    return (kind == "fuse" or kind.startswith("fuse.")) and kind not in _OTHERS

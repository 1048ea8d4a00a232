"""Which folders are FUSE mounts: what is written there is the mount's business, not ours."""

import re
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def is_on_fuse(path: Path, table: Path = MOUNT_TABLE) -> bool:
    """Whether a folder lies on a FUSE file system; False where the system has no mount table."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    found: tuple[int, bool] = (0, False)
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(point):
            # The deepest counts, and of several at one place the last.
            is_fuse = after.split(" ", 1)[0].startswith("fuse")
            found = max(found, (len(point.parts), False))
            if len(point.parts) == found[0]:
                found = (found[0], is_fuse)
    return found[1]

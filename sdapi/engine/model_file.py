"""Which file a model comes from, as it was when a job was made."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A weight file or folder as it was when the job was made.

    Another file under the same name is another key.
    """

    path: Path
    sidecar: Path | None = None
    modified_ns: int = 0
    size_bytes: int = 0

    @classmethod
    def of(cls, path: Path, sidecar: Path | None = None) -> "ModelFile":
        """Describe a file on disk."""
        stat = path.stat()
        return cls(path, sidecar, stat.st_mtime_ns, stat.st_size)

"""An extension as `GET /sdapi/v1/extensions` tells of it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LoadedExtension:
    """A package or file that was found; `error` says why it is not in use."""

    name: str
    path: Path | None = None
    remote: str = ""
    version: str = ""
    enabled: bool = True
    error: str | None = None

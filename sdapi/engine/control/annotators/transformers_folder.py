"""Models in folders as transformers saves them; nothing is downloaded."""

from pathlib import Path
from typing import Any

from sdapi.errors import ModelUnusable


def from_folder(kind: Any, folder: Path) -> Any:
    """A model or processor of a folder; raises `ModelUnusable` with the library's reason."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ModelUnusable(f"{folder}: cannot be loaded ({reason})") from error

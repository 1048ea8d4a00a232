"""Finding model files in folders, in the order that listings have."""

import re
from collections.abc import Iterable
from pathlib import Path


def find_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files below a folder that end in one of these, in the order of the listing."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sorting key without letter case, numbers by value."""
    parts = re.split(r"(\d+)", text.lower())
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]

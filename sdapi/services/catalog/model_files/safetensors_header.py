"""The header of a safetensors file, read without torch."""

import hashlib
import json
from pathlib import Path
from typing import Any, cast

_MAX_HEADER = 100_000_000
_LENGTH_BYTES = 8


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file; empty for one that has none that can be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            content: object = json.loads(file.read(length)) if length <= _MAX_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors; empty for other files."""
    if path.suffix.lower() != ".safetensors":
        return {}
    entries = read_header(path).get("__metadata__")
    if not isinstance(entries, dict):
        return {}
    return {str(k): str(v) for k, v in cast("dict[object, object]", entries).items()}


def sha256_of_tensors(path: Path) -> str:
    """The sha256 of a safetensors file without its header, of another file of the whole.

    A change of its metadata leaves it as it is.
    """
    with path.open("rb") as file:
        if path.suffix.lower() == ".safetensors":
            start = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")
            # A broken file may claim any length.
            file.seek(start if start <= path.stat().st_size else 0)
        return hashlib.file_digest(file, "sha256").hexdigest()

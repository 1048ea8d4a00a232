"""Files that are there whole or not at all, whoever else writes them."""

from pathlib import Path
from secrets import token_hex


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a draft's name beside it, then give it its own; raises OSError."""
    draft = path.with_name(f".{token_hex(8)}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise

"""Files that are there whole or not at all, whoever else writes them."""

from contextlib import suppress
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


def write_first(path: Path, data: bytes) -> None:
    """Write a file unless somebody else has, or does so at the same moment; raises OSError."""
    draft = path.with_name(f".{token_hex(8)}.draft")
    try:
        draft.write_bytes(data)
        try:
            path.hardlink_to(draft)  # unlike a rename it takes nobody's place
        except FileExistsError:
            pass
        except OSError:  # some mounts have no links
            with suppress(FileExistsError), path.open("xb") as file:
                file.write(data)
    finally:
        draft.unlink(missing_ok=True)

"""Whether a weight file is whole, as far as its beginning and its length tell; without torch."""

import json
import zipfile
from pathlib import Path
from stat import S_ISDIR
from typing import Any, BinaryIO, Final, cast

from sdapi.services.catalog.model_files.safetensors_header import read_header

_LENGTH_BYTES: Final = 8
_MAX_HEADER: Final = 100_000_000
_ARCHIVE: Final = b"PK\3\4"
#: how pickles of protocols 2 to 5 begin
_PICKLES: Final = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
#: of a folder in diffusers' layout
_INDEX: Final = "model_index.json"
#: a weight that every VAE has, whole checkpoints' among them
_OF_VAES: Final = "decoder.conv_in.weight"


def problem_of(path: Path) -> str | None:
    """Why a checkpoint or VAE cannot be loaded, as an end of a sentence; None if nothing is seen.

    Reads the beginning of a file only: what is broken further on shows when it is loaded.
    """
    if path.is_dir():
        return None if (path / _INDEX).is_file() else f"it is a folder without {_INDEX}"
    try:
        return _problem_in(path)
    except OSError as error:
        return _unread(error)


class KnownProblems:
    """`problem_of`, which reads a file again only when it has changed. For any thread."""

    def __init__(self) -> None:
        #: by path, with the time and size of the file that was looked at; set in one step
        self._known: dict[Path, tuple[int, int, str | None]] = {}

    def of(self, path: Path) -> str | None:
        """As `problem_of`. What cannot be read is tried again each time."""
        try:
            stat = path.stat()
            if S_ISDIR(stat.st_mode):
                return problem_of(path)
            known = self._known.get(path)
            if known is None or known[:2] != (stat.st_mtime_ns, stat.st_size):
                known = stat.st_mtime_ns, stat.st_size, _problem_in(path)
                self._known[path] = known
        except OSError as error:
            self._known.pop(path, None)  # so that no more is kept than there is
            return _unread(error)
        return known[2]


def vae_problem_of(path: Path) -> str | None:
    """As `problem_of`, and why it is no VAE where its header tells."""
    if path.is_dir():
        return "it is a folder"
    if problem := problem_of(path):
        return problem
    header = read_header(path)
    if header and not any(key.endswith(_OF_VAES) for key in header):
        return f"it holds no VAE: it has no weight {_OF_VAES}"
    return None


def _problem_in(path: Path) -> str | None:
    with path.open("rb") as file:
        return _problem(file, path.stat().st_size)


def _unread(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"it cannot be read ({error.strerror or error})"


def _problem(file: BinaryIO, size: int) -> str | None:
    head = file.read(_LENGTH_BYTES)
    if head[:4] == _ARCHIVE:
        return None if zipfile.is_zipfile(file) else "it is cut off: its archive has no end"
    if head[:2] in _PICKLES:
        return None
    length = int.from_bytes(head, "little")
    if len(head) < _LENGTH_BYTES or length > _MAX_HEADER:
        return "it is neither a safetensors nor a PyTorch file"
    content = file.read(length)
    if not content.startswith(b"{"):
        return "it is neither a safetensors nor a PyTorch file"
    end = _LENGTH_BYTES + length
    if len(content) == length:
        try:
            end += _data_bytes(json.loads(content))
        except (ValueError, TypeError, LookupError, RecursionError):
            return "its safetensors header is broken"
    return None if size >= end else f"it is cut off: {size} of {end} bytes are there"


def _data_bytes(header: dict[str, Any]) -> int:
    """Where a header says that its last tensor ends."""
    tensors = (each for name, each in header.items() if name != "__metadata__")
    return max((cast("int", each["data_offsets"][1]) for each in tensors), default=0)

"""Files on local disk: written beside their place, then put there in one step.

A file appears whole or not at all, and what is there is never overwritten unless asked: the
finished file is hard-linked to its name, which fails when the name is taken, whoever took it. File
systems without hard links get the name reserved first.
"""

import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdapi.errors import StorageFailed
from sdapi.services.storage.leftovers import PREFIX, SUFFIX

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def publish(temporary: Path, path: Path) -> bool:
    """Give a finished file its name; False when the name is taken. Raises `OSError`."""
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(path)
        raise
    return True


def write_whole(path: Path, data: bytes) -> None:
    """Write a file and the folder it is in; in place of one that is there.

    Raises `StorageFailed`.
    """
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, in place of the one that is there; raises `OSError`."""
    with temporary_file(path.parent, data) as temporary:
        os.replace(temporary, path)


@contextmanager
def temporary_file(directory: Path, data: bytes) -> Generator[Path]:
    """A hidden file with the data, gone afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            with suppress(OSError):  # mounted object stores have no modes
                os.fchmod(file.fileno(), 0o644)  # mkstemp's own is for one user alone
        yield Path(name)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


@contextmanager
def storage_errors(directory: Path | str) -> Generator[None]:
    """Let a failing disk be a `StorageFailed` that names the folder."""
    try:
        yield
    except OSError as error:
        where = directory if isinstance(directory, str) else f"to {directory}"
        raise StorageFailed(f"cannot write {where}: {error.strerror or error}") from error

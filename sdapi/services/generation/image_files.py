"""Pictures on disk: written beside their place, then put there in one step.

A file appears whole or not at all, and what is there is never overwritten unless the options say
so: the finished file is hard-linked to its name, which fails when the name is taken, whoever took
it. File systems without hard links get the name reserved first.
"""

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sdapi.errors import StorageFailed
from sdapi.images import encode_file, resize_to
from sdapi.images.encode import SIDE_LIMITS
from sdapi.options import Options
from sdapi.services.generation.filenames import fit, next_number, numbered_stem

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True, slots=True)
class FileName:
    """How a file of a folder is to be called: `[prefix-]NNNNN[-decoration][suffix]`."""

    decoration: str = ""
    #: such as "grid"
    prefix: str = ""
    #: such as "-mask"
    suffix: str = ""


class ImageFiles:
    """Writes pictures under running numbers; one per process, so that its threads take turns."""

    def __init__(self) -> None:
        #: guards finding a folder's next number and taking it, so that numbers follow each other
        self._numbering = threading.Lock()

    def save(
        self,
        image: Image.Image,
        directory: Path,
        name: FileName,
        fmt: str,
        infotext: str | None,
        options: Options,
    ) -> Path:
        """Write a picture under the folder's next number, or as the options say without one.

        Returns where it is. With option `save_txt` the infotext goes into a text file beside it,
        with `export_for_4chan` a smaller JPEG of a large one.
        """
        numbered = options.flag("save_images_add_number") or not name.decoration

        def publish(temporary: Path, ending: str) -> Path:
            if numbered:
                return self._publish_numbered(temporary, directory, name, ending)
            stem = fit(name.decoration) + name.suffix
            if options.text("save_images_replace_action") == "Replace":
                path = directory / f"{stem}{ending}"
                os.replace(temporary, path)
                return path
            return _publish_first_free(temporary, directory, stem, ending)

        path, size_bytes = _write(image, directory, publish, fmt, infotext, options)
        with _storage_errors(directory):
            if options.flag("export_for_4chan"):
                _export_smaller(image, path, size_bytes, infotext, options)
            if options.flag("save_txt") and infotext:
                replace_file(path.with_suffix(".txt"), f"{infotext}\n".encode())
        return path

    def _publish_numbered(
        self, temporary: Path, directory: Path, name: FileName, ending: str
    ) -> Path:
        with self._numbering:
            number = next_number(directory, name.prefix)
            while True:
                stem = numbered_stem(number, name.prefix, fit(name.decoration))
                path = directory / f"{stem}{name.suffix}{ending}"
                if _publish(temporary, path):
                    return path
                number += 1  # another process was faster


def save_image(
    image: Image.Image,
    directory: Path,
    stem: str,
    fmt: str,
    infotext: str | None,
    options: Options,
) -> Path:
    """Write a picture as `stem` in the folder and nothing beside it; a file there is an error."""

    def publish(temporary: Path, ending: str) -> Path:
        path = directory / f"{stem}{ending}"
        if not _publish(temporary, path):
            raise StorageFailed(f"cannot write {path}: it exists already")
        return path

    return _write(image, directory, publish, fmt, infotext, options)[0]


def _write(
    image: Image.Image,
    directory: Path,
    publish: Callable[[Path, str], Path],
    fmt: str,
    infotext: str | None,
    options: Options,
) -> tuple[Path, int]:
    """Encode and write; the path and the file's size in bytes."""
    fmt = fitting_format(image, fmt)
    data = encode_file(image, fmt, infotext, options)
    with _storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _temporary_file(directory, data) as temporary:
            return publish(temporary, f".{fmt}"), len(data)


def fitting_format(image: Image.Image, fmt: str) -> str:
    """The format in lower case; PNG where the picture is larger than the format can hold."""
    fmt = fmt.lower()
    return "png" if max(image.size) > SIDE_LIMITS.get(fmt, max(image.size)) else fmt


def _export_smaller(
    image: Image.Image, path: Path, size_bytes: int, infotext: str | None, options: Options
) -> None:
    """A `.jpg` beside a file over the limits, its longer side at most the option's."""
    side_limit = options.integer("target_side_length")
    too_wide = max(image.size) > side_limit
    too_heavy = size_bytes > options.number("img_downscale_threshold") * 1024 * 1024
    copy = path.with_suffix(".jpg")
    if copy == path or not (too_wide or too_heavy):
        return
    if too_wide:
        scale = side_limit / max(image.size)
        image = resize_to(
            image.convert("RGB"), (round(image.width * scale), round(image.height * scale))
        )
    replace_file(copy, encode_file(image, "jpg", infotext, options))


def _publish_first_free(temporary: Path, directory: Path, stem: str, ending: str) -> Path:
    """The name itself, or the first of `stem-1`, `stem-2` … that is free."""
    path, count = directory / f"{stem}{ending}", 0
    while not _publish(temporary, path):
        count += 1
        path = directory / f"{stem}-{count}{ending}"
    return path


def _publish(temporary: Path, path: Path) -> bool:
    """Give the finished file its name; False when the name is taken."""
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
    with _storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, in place of the one that is there; raises OSError."""
    with _temporary_file(path.parent, data) as temporary:
        os.replace(temporary, path)


@contextmanager
def _temporary_file(directory: Path, data: bytes) -> Generator[Path]:
    """A hidden file with the data, gone afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=directory)
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
def _storage_errors(directory: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"cannot write to {directory}: {error.strerror or error}") from error

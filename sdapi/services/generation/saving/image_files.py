"""Pictures on disk: encoded, named, and put in their folder."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

from PIL import Image

from sdapi.images import encode_file, resize_to
from sdapi.images.encode import SIDE_LIMITS
from sdapi.options import Options
from sdapi.services.generation.saving.filenames import fit, next_number, numbering
from sdapi.services.storage.leftovers import Leftovers
from sdapi.services.storage.local_disk import (
    publish,
    replace_file,
    storage_errors,
    temporary_file,
)
from sdapi.services.storage.numbering import Numbering
from sdapi.services.storage.storage import SavedFile

Tell = Callable[[SavedFile], None]


def _nobody(saved: SavedFile) -> None:
    """Hears of a file and does nothing."""


def _no_names(directory: Path) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class FileName:
    """How a file of a folder is to be called: `[prefix-]NNNNN[-decoration][suffix]`."""

    decoration: str = ""
    #: such as "grid"
    prefix: str = ""
    #: such as "-mask"
    suffix: str = ""


class ImageFiles:
    """Writes pictures under running numbers; one per process, so that its threads take turns.

    `names_beside` tells names that count as well, of files that are elsewhere; it may block.
    """

    def __init__(self, names_beside: Callable[[Path], Iterable[str]] = _no_names) -> None:
        self._names_beside = names_beside
        self._leftovers = Leftovers()
        #: guards the locks below
        self._lock = threading.Lock()
        #: of folders that are written to now: finding the next number and taking it is one step
        self._numbering: WeakValueDictionary[Path, threading.Lock] = WeakValueDictionary()

    def save(
        self,
        image: Image.Image,
        directory: Path,
        name: FileName,
        fmt: str,
        infotext: str | None,
        options: Options,
        tell: Tell = _nobody,
    ) -> Path:
        """Write a picture under the folder's next number, or as the options say without one.

        Returns where it is. With option `save_txt` the infotext goes into a text file beside it,
        with `export_for_4chan` a smaller JPEG of a large one. `tell` hears of every file.
        """
        self._leftovers.clear([directory])
        naming = _Naming(self, directory, name, options)
        path, size_bytes = _write(image, directory, naming.give, fmt, infotext, options)
        saved = SavedFile(path, naming.number is None, naming.number)
        tell(saved)
        with storage_errors(directory):
            for beside in _companions(image, path, size_bytes, infotext, options):
                tell(_beside(saved, beside))
        return path

    def publish_numbered(self, temporary: Path, directory: Path, number: Numbering) -> Path:
        """Give a finished file the next number of its folder; raises `OSError`. Blocks."""
        self._names_beside(directory)  # what takes long is done before others have to wait
        with self._lock:
            taking_turns = self._numbering.setdefault(directory, threading.Lock())
        with taking_turns:
            beside = self._names_beside(directory)
            current = next_number(directory, number.before, beside)
            while not publish(temporary, path := directory / number.name(current)):
                current += 1  # another process was faster
            return path


@dataclass(slots=True)
class _Naming:
    """How one picture comes to its name; `number` is the one it has, if any."""

    files: ImageFiles
    directory: Path
    name: FileName
    options: Options
    number: Numbering | None = None

    def give(self, temporary: Path, ending: str) -> Path:
        """Give a finished file its name, and return where it is; raises `OSError`."""
        decoration = fit(self.name.decoration)
        stem = decoration + self.name.suffix
        if self.options.flag("save_images_add_number") or not self.name.decoration:
            self.number = numbering(self.name.prefix, decoration, self.name.suffix + ending)
            return self.files.publish_numbered(temporary, self.directory, self.number)
        if self.options.text("save_images_replace_action") == "Replace":
            path = self.directory / f"{stem}{ending}"
            os.replace(temporary, path)
            return path
        self.number = Numbering(f"{stem}-", 1, ending)
        return _publish_first_free(temporary, self.directory, stem, self.number)


def _write(
    image: Image.Image,
    directory: Path,
    give_name: Callable[[Path, str], Path],
    fmt: str,
    infotext: str | None,
    options: Options,
) -> tuple[Path, int]:
    """Encode and write; the path and the file's size in bytes."""
    fmt = fitting_format(image, fmt)
    data = encode_file(image, fmt, infotext, options)
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with temporary_file(directory, data) as temporary:
            return give_name(temporary, f".{fmt}"), len(data)


def fitting_format(image: Image.Image, fmt: str) -> str:
    """The format in lower case; PNG where the picture is larger than the format can hold."""
    fmt = fmt.lower()
    return "png" if max(image.size) > SIDE_LIMITS.get(fmt, max(image.size)) else fmt


def _companions(
    image: Image.Image, path: Path, size_bytes: int, infotext: str | None, options: Options
) -> Iterator[Path]:
    """Write the files that options want beside a picture's."""
    if options.flag("export_for_4chan"):
        copy = _export_smaller(image, path, size_bytes, infotext, options)
        if copy is not None:
            yield copy
    if options.flag("save_txt") and infotext:
        text = path.with_suffix(".txt")
        replace_file(text, f"{infotext}\n".encode())
        yield text


def _export_smaller(
    image: Image.Image, path: Path, size_bytes: int, infotext: str | None, options: Options
) -> Path | None:
    """A `.jpg` beside a file over the limits, its longer side at most the option's."""
    side_limit = options.integer("target_side_length")
    too_wide = max(image.size) > side_limit
    too_heavy = size_bytes > options.number("img_downscale_threshold") * 1024 * 1024
    copy = path.with_suffix(".jpg")
    if copy == path or not (too_wide or too_heavy):
        return None
    if too_wide:
        scale = side_limit / max(image.size)
        width, height = (max(round(side * scale), 1) for side in image.size)
        image = resize_to(image.convert("RGB"), (width, height))
    replace_file(copy, encode_file(image, "jpg", infotext, options))
    return copy


def _publish_first_free(temporary: Path, directory: Path, stem: str, number: Numbering) -> Path:
    """The name itself, or the first of `stem-1`, `stem-2` … that is free."""
    path, count = directory / f"{stem}{number.after}", 0
    while not publish(temporary, path):
        count += 1
        path = directory / number.name(count)
    return path


def _beside(picture: SavedFile, path: Path) -> SavedFile:
    """A file beside a picture, which shares its name and so its number."""
    number = picture.numbering
    if number is not None:
        number = replace(number, after=Path(f"x{number.after}").with_suffix(path.suffix).name[1:])
    return SavedFile(path, picture.replaces, number, beside=picture.path)

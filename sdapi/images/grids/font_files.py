"""The fonts that a request may name: installed ones, and those of a folder of the operator's."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import ImageFont

from sdapi.errors import BadRequest, UnknownName, near_names

#: where a Linux machine has its fonts
SYSTEM_FOLDERS: Final = (Path("/usr/local/share/fonts"), Path("/usr/share/fonts"))
_SUFFIXES: Final = {".otf", ".ttc", ".ttf"}


def find_font(name: str, own_folder: Path) -> Path:
    """The font file of a name, or of a path below `own_folder` or the system's folders. Blocks.

    The suffix and the case of a name do not matter. Raises `UnknownName` with the near ones, or
    `BadRequest` for a file that is no font.
    """
    fonts = list(_fonts(own_folder))
    found = next((path for path in fonts if _is_named(path, name)), None)
    if found is None:
        near = near_names(os.path.basename(name), (path.name for path in fonts))
        raise UnknownName(
            f"font: {name[:200]!r} is none of the fonts here; there are {near}, and what is put "
            f"into the folder {own_folder.name} of the data directory"
        )
    try:
        ImageFont.truetype(found, 10)
    except OSError as error:
        raise BadRequest(f"font: {found.name} cannot be read as a font ({error})") from error
    return found


def _fonts(own_folder: Path) -> Iterator[Path]:
    for folder in (own_folder, *SYSTEM_FOLDERS):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                yield path


def _is_named(path: Path, name: str) -> bool:
    return str(path) == name or name.lower() in (path.name.lower(), path.stem.lower())

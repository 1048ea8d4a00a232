"""The text a picture carries: `parameters` in PNG, UserComment in EXIF, comments in GIF."""

import json
import struct
from typing import Final, cast

from PIL import ExifTags, Image

_IFD_TAG: Final = 0x8769  # where the EXIF tags proper are
_USER_COMMENT: Final = 0x9286
_UNICODE: Final = b"UNICODE\0"
_ASCII: Final = b"ASCII\0\0\0"
_JIS: Final = b"JIS\0\0\0\0\0"

#: entries of a picture's info that say nothing about how it was made
_TECHNICAL: Final = frozenset(
    (
        *("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "exif"),
        *("loop", "background", "timestamp", "duration", "progressive", "progression"),
        *("icc_profile", "chromaticity", "photoshop"),
    )
)

# NovelAI names samplers as k-diffusion does. What is missing here is Euler a, its usual one.
_NOVELAI_SAMPLERS: Final = {
    "k_euler": "Euler",
    "k_lms": "LMS",
    "k_heun": "Heun",
    "k_dpm_2": "DPM2",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpm_fast": "DPM fast",
    "k_dpm_adaptive": "DPM adaptive",
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_sde": "DPM++ SDE",
    "ddim": "DDIM",
    "plms": "PLMS",
}


def exif_with_text(text: str) -> bytes:
    """An EXIF block with the text as UserComment, in the big-endian "unicode" form.

    Laid out by hand: Pillow declares a comment as bytes, which other readers take for numbers.
    """
    comment = _UNICODE + text.encode("utf-16-be", "replace")
    header = b"Exif\0\0MM\0*" + struct.pack(">I", 8)
    # one entry each: the first directory points to the second, the second to the comment behind it
    first = struct.pack(">HHHIII", 1, _IFD_TAG, 4, 1, 26, 0)
    second = struct.pack(">HHHII", 1, _USER_COMMENT, 7, len(comment), 40)
    return header + first + second + comment


def read_infotext(image: Image.Image) -> tuple[str, dict[str, object]]:
    """A picture's infotext ("" if it has none) and every other entry that is not merely technical.

    EXIF wins over the PNG text; a comment counts only where there is no EXIF.
    """
    info = cast("dict[object, object]", image.info)
    items = {str(key): _readable(value) for key, value in info.items()}
    text = items.pop("parameters", None)
    if "exif" in items:
        text = _user_comment(cast("bytes", info["exif"])) or text
    elif "comment" in items:
        text = items["comment"]
    if items.get("Software") == "NovelAI":
        text = _novelai_text(items, image.size) or text
    items = {key: value for key, value in items.items() if key not in _TECHNICAL}
    return (text if isinstance(text, str) else ""), items


def _readable(value: object) -> object:
    """A value as JSON can hold it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "ignore")
    if isinstance(value, tuple):
        return [_readable(item) for item in cast("tuple[object, ...]", value)]
    # PNG text is a subclass of str that carries its language
    if isinstance(value, str):
        return str(value)
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def _user_comment(block: bytes) -> str:
    exif = Image.Exif()
    try:
        exif.load(block)
        raw = exif.get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT, b"")
    except Exception:  # a broken EXIF block is as good as none; Pillow raises many kinds
        return ""
    if isinstance(raw, str):
        return raw
    comment = cast("bytes", raw)
    for mark, encoding in ((_UNICODE, "utf-16-be"), (_ASCII, "ascii"), (_JIS, "shift_jis")):
        if comment.startswith(mark):
            return comment.removeprefix(mark).decode(encoding, "ignore")
    return comment.decode("utf-8", "ignore").strip("\0")


def _novelai_text(items: dict[str, object], size: tuple[int, int]) -> str | None:
    """An infotext made from what NovelAI writes; None when it is not in the form known."""
    try:
        made = json.loads(str(items["Comment"]))
        sampler = _NOVELAI_SAMPLERS.get(made["sampler"], "Euler a")
        return (
            f"{items['Description']}\nNegative prompt: {made['uc']}\n"
            f"Steps: {made['steps']}, Sampler: {sampler}, CFG scale: {made['scale']}, "
            f"Seed: {made['seed']}, Size: {size[0]}x{size[1]}, Clip skip: 2, ENSD: 31337"
        )
    except (KeyError, TypeError, ValueError):
        return None

"""Pillow images to bytes: answers first of all, for which a PNG writer of our own is used."""

import base64
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdapi.errors import BadRequest
from sdapi.images.metadata import exif_with_text
from sdapi.options import Options

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: PNG colour type and bytes per pixel of the modes written here; Pillow writes the others
_COLOUR_TYPES: Final = {"L": (0, 1), "LA": (4, 2), "RGB": (2, 3), "RGBA": (6, 4)}
_FILTER_UP: Final = 2
#: the largest sides that the formats can hold
SIDE_LIMITS: Final = {"webp": 16383, "jpg": 65535, "jpeg": 65535}

_FORMATS: Final = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF"}
_ANSWER_FORMATS: Final = ("png", "jpg", "jpeg", "webp")


def to_base64(data: bytes) -> str:
    """Bytes as the base64 text of an answer, without a `data:` prefix."""
    return base64.b64encode(data).decode("ascii")


def encode_png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """A PNG with text chunks, several times faster than Pillow's.

    The row above is the only predictor, as one subtraction over the whole picture. What is left of
    a diffusion picture has no long repeats: run lengths and Huffman codes (`Z_RLE`) pack it about
    as tightly as zlib's level 6, at a fraction of its time. Masks and control maps do have
    repeats, so a strip of the picture decides. `benchmarks/encode_png.py` has the figures.
    """
    if image.mode not in _COLOUR_TYPES or 0 in image.size:
        return _encode_png_slowly(image, text or {})
    colour_type, channels = _COLOUR_TYPES[image.mode]
    width, height = image.size
    pixels = np.asarray(image).reshape(height, width * channels)
    rows = np.empty((height, width * channels + 1), np.uint8)
    rows[:, 0] = _FILTER_UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    strip = rows[height // 3 : height // 3 + max(height // 16, 16)]
    has_repeats = len(_deflate(strip, zlib.Z_DEFAULT_STRATEGY)) < 0.9 * len(_deflate(strip))
    data = _deflate(rows, zlib.Z_DEFAULT_STRATEGY if has_repeats else zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    texts = [_text_chunk(key, value) for key, value in (text or {}).items()]
    return b"".join(
        [_SIGNATURE, _chunk(b"IHDR", header), *texts, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    )


def encode(image: Image.Image, fmt: str, infotext: str | None, options: Options) -> bytes:
    """A picture as an answer carries it; `fmt` is the server's `samples_format`, in any case.

    PNG keeps the text entries the picture already has. WebP is always lossy here.
    """
    fmt = fmt.lower()
    if fmt not in _ANSWER_FORMATS:
        raise BadRequest("Invalid image format")
    return encode_file(image, fmt, infotext, options, webp_lossless=False)


def encode_file(
    image: Image.Image,
    fmt: str,
    infotext: str | None,
    options: Options,
    *,
    webp_lossless: bool | None = None,
    text_key: str = "parameters",
) -> bytes:
    """A picture as a file on disk has it: also AVIF, and WebP as option `webp_lossless` says."""
    fmt = fmt.lower()
    if fmt not in _FORMATS:
        raise BadRequest("Invalid image format")
    with_text = options.flag("enable_pnginfo")
    if fmt == "png":
        info = cast("dict[object, object]", image.info)
        texts = {k: str(v) for k, v in info.items() if isinstance(k, str) and isinstance(v, str)}
        if infotext:
            texts[text_key] = infotext
        return encode_png(image, texts if with_text else None)
    if webp_lossless is None:
        webp_lossless = options.flag("webp_lossless")
    settings: dict[str, Any] = {"quality": options.integer("jpeg_quality")}
    if fmt == "webp":
        settings["lossless"] = webp_lossless
    if with_text and infotext:
        settings["exif"] = exif_with_text(infotext)
    out = io.BytesIO()
    _opaque(image).save(out, _FORMATS[fmt], **settings)
    return out.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """The picture in RGB or grey: none of the lossy formats' readers agree on more."""
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I;16"):  # 16-bit grey, as depth maps are
        grey = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _encode_png_slowly(image: Image.Image, text: Mapping[str, str]) -> bytes:
    chunks = PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=chunks, compress_level=1)
    return out.getvalue()


def _deflate(rows: NDArray[np.uint8], strategy: int = zlib.Z_RLE) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return packer.compress(rows.data) + packer.flush()


def _chunk(name: bytes, data: bytes) -> bytes:
    return b"".join(
        [
            struct.pack(">I", len(data)),
            name,
            data,
            struct.pack(">I", zlib.crc32(data, zlib.crc32(name))),
        ]
    )


def _text_chunk(key: str, value: str) -> bytes:
    """A tEXt chunk, or iTXt where the text is more than Latin-1."""
    name = key.encode("latin-1", "replace") + b"\0"
    try:
        return _chunk(b"tEXt", name + value.encode("latin-1"))
    except UnicodeEncodeError:
        # no compression, no language, no translated key
        return _chunk(b"iTXt", name + b"\0\0\0\0" + value.encode("utf-8", "replace"))

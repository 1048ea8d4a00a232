"""Bytes and base64 texts from clients, decoded with limits."""

import base64
import binascii
import io
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from sdapi.errors import BadImage

#: pixels that a picture of a client may have
PIXEL_LIMIT: Final = 200_000_000

# Pillow's own guard warns from this size and refuses from twice it. Ours refuses before anything
# is decoded, so its warning begins only where ours has spoken.
Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT

# Everything Pillow reads by itself. Left out: EPS, which would start Ghostscript, and formats that
# no picture on the web has.
_FORMATS: Final = (
    "PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "MPO", "JPEG2000",
    "ICO", "ICNS", "PPM", "TGA", "PCX", "SGI", "QOI", "DDS", "PSD",
)  # fmt: skip

_INVALID: Final = "Invalid encoded image"


def decode_image(text: str, *, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """The picture in a base64 text or a `data:image/…;base64,…` URI.

    Characters outside the base64 alphabet are skipped, as the reference does.
    """
    if text.startswith("data:image/"):
        _, mark, text = text.partition(";base64,")
        if not mark:
            raise BadImage(_INVALID)
    try:
        data = base64.b64decode(text)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise BadImage(_INVALID) from error
    return decode_bytes(data, pixel_limit=pixel_limit)


def decode_bytes(
    data: bytes, *, pixel_limit: int = PIXEL_LIMIT, enough_side: int | None = None
) -> Image.Image:
    """The picture in a file's bytes: decoded to the end, turned upright, transparency as alpha.

    The size is looked at before the pixels are, so that a small file cannot ask for a lot of
    memory. Where a picture with sides of `enough_side` will do, a larger JPEG is decoded at an
    eighth, a quarter or half of its size, which costs a fraction of the time.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height <= pixel_limit:
            if enough_side is not None:
                image.draft("RGB", (enough_side, enough_side))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{_INVALID}: {error}") from error
    except UnidentifiedImageError as error:
        raise BadImage(_INVALID) from error
    except MemoryError:
        raise
    except Exception as error:  # the decoders raise almost anything on bytes made to break them
        raise BadImage(_INVALID) from error
    if width * height > pixel_limit:
        raise BadImage(
            f"{_INVALID}: {width}x{height} is more than {pixel_limit // 1_000_000} million pixels"
        )
    # Only a palette's transparency is bytes: one alpha value per colour.
    return image.convert("RGBA") if isinstance(image.info.get("transparency"), bytes) else image

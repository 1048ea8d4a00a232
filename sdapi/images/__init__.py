"""Pictures: bytes and base64 to Pillow and back, the text they carry, grids and resizing.

decode.py     what a client sent -> Pillow
encode.py     Pillow -> bytes, with a PNG writer made for answers
metadata.py   infotext in and out of PNG text, EXIF and comments
grids/        several pictures in one, with labels
resize.py     the resize modes of img2img
masks.py      inpainting masks, and results put back into the picture
fill.py       masked content "fill"
colour.py     colour correction
"""

from sdapi.images.decode import PIXEL_LIMIT, decode_bytes, decode_image
from sdapi.images.encode import encode, encode_file, encode_png, to_base64
from sdapi.images.grids.grid import grid_rows, grid_shape, make_grid
from sdapi.images.metadata import exif_with_text, read_infotext
from sdapi.images.resize import (
    CONTAIN,
    COVER,
    STRETCH,
    Upscale,
    check_cover,
    enlarge,
    lanczos_step,
    nearest_step,
    resize_image,
    resize_to,
)

__all__ = [
    "CONTAIN",
    "COVER",
    "PIXEL_LIMIT",
    "STRETCH",
    "Upscale",
    "check_cover",
    "decode_bytes",
    "decode_image",
    "encode",
    "encode_file",
    "encode_png",
    "enlarge",
    "exif_with_text",
    "grid_rows",
    "grid_shape",
    "lanczos_step",
    "make_grid",
    "nearest_step",
    "read_infotext",
    "resize_image",
    "resize_to",
    "to_base64",
]

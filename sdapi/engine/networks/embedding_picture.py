"""The embedding in a picture's own pixels, as pictures that are shared carry it.

Layout: two blocks of the same size, left and right of the picture proper, each set off by columns
whose low half bytes are zero. The low half bytes of a block, row by row, channel by channel, hold
the low (left) or the high (right) half bytes of zlib-compressed JSON, masked with the numbers of a
linear congruential generator. A black frame may surround the whole.
"""

import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
_MAX_BYTES = 64 << 20
_LOW = np.uint8(0x0F)


def hidden_content(image: Image.Image) -> bytes | None:
    """The JSON that a picture's pixels hold, None for a picture that holds none."""
    pixels = _without_frame(np.asarray(image.convert("RGB"), dtype=np.uint8))
    if pixels.size == 0:
        return None
    low_halves = pixels & _LOW
    blank = np.flatnonzero(low_halves.sum(axis=(0, 2)) == 0)
    if len(blank) < 2:
        return None
    low = _unmasked(low_halves[:, : blank[0]])
    high = _unmasked(low_halves[:, blank[-1] + 1 :])
    if low.size == 0 or low.size != high.size:
        return None
    try:
        return zlib.decompressobj().decompress((high << 4 | low).tobytes(), _MAX_BYTES)
    except zlib.error:
        return None


def _without_frame(pixels: Bytes) -> Bytes:
    """What is inside of rows and columns where every pixel lacks a channel."""
    darkest = pixels.min(axis=2)
    rows, columns = np.flatnonzero(darkest.max(axis=1)), np.flatnonzero(darkest.max(axis=0))
    if len(rows) == 0:
        return pixels[:0]
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _unmasked(block: Bytes) -> Bytes:
    return (block.reshape(-1) ^ mask(block.size)).astype(np.uint8)


def mask(count: int) -> Bytes:
    """The first half bytes of the generator x -> 1664525 x + 1013904223 mod 2^32, each mod 255."""
    # Its n-th value is a^n seed + c (1 + a + …): powers and their sums wrap as uint32 does.
    factors = np.full(count, 1664525, np.uint32)
    powers = np.concatenate([np.ones(1, np.uint32), np.multiply.accumulate(factors)[:-1]])
    values = np.cumsum(powers, dtype=np.uint32) * np.uint32(1013904223)
    return (values % 255).astype(np.uint8) & _LOW

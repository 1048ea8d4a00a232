"""Colour correction: a result with the colours of the picture it was made from.

Contract: webui-generation 10.8.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: weights of red, green and blue in brightness, ITU-R BT.601
_LUMA: Final = (0.299, 0.587, 0.114)
#: rows of a picture worked on at a time, in float32
_ROWS: Final = 512

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def correct_colours(image: Image.Image, model: Image.Image) -> Image.Image:
    """The picture with the colour distribution of `model` and its own brightness.

    The LAB histograms are matched in eight bits; "luminosity" blending brings the brightness back.
    """
    import cv2  # here, so that a server starts without it

    pixels = np.asarray(image.convert("RGB"))
    lab, wanted = _converted(pixels, cv2.COLOR_RGB2LAB), _converted(model, cv2.COLOR_RGB2LAB)
    channels = [match_histogram(lab[..., i], wanted[..., i]) for i in range(3)]
    matched = _converted(np.stack(channels, axis=-1), cv2.COLOR_LAB2RGB)
    return Image.fromarray(blend_luminosity(matched, pixels))


def _converted(pixels: Pixels | Image.Image, code: int) -> Pixels:
    """Pixels [H, W, 3] in another colour space, eight bits each."""
    import cv2

    return np.asarray(cv2.cvtColor(np.asarray(pixels), code), dtype=np.uint8)


def match_histogram(values: Pixels, wanted: Pixels) -> Pixels:
    """`values` changed by a monotonous curve so that they are distributed as `wanted` is."""
    have = np.bincount(values.ravel(), minlength=256).cumsum() / values.size
    counts = np.bincount(wanted.ravel(), minlength=256)
    levels = np.flatnonzero(counts)
    quantiles = counts[levels].cumsum() / wanted.size
    curve = np.interp(have, quantiles, levels)
    return curve.astype(np.uint8)[values]


def blend_luminosity(colours: Pixels, brightness: Pixels) -> Pixels:
    """Blend mode "luminosity" of W3C Compositing and Blending: hue and saturation of the first
    picture, brightness of the second, both [H, W, 3]."""
    blended = np.empty_like(colours)
    for start in range(0, len(colours), _ROWS):
        rows = slice(start, start + _ROWS)
        base, other = _floats(colours[rows]), _floats(brightness[rows])
        moved = _clip_colour(np.add(base, _luma(other) - _luma(base), dtype=np.float32))
        # Cut off, not rounded, as the golden pictures are.
        blended[rows] = (moved.clip(0, 1) * 255).astype(np.uint8)
    return blended


def _floats(pixels: Pixels) -> Floats:
    return pixels.astype(np.float32) / np.float32(255)


def _luma(colours: Floats) -> Floats:
    """[H, W, 1]"""
    return (colours * np.array(_LUMA, np.float32)).sum(axis=-1, keepdims=True)


def _clip_colour(colours: Floats) -> Floats:
    """Bring colours outside 0…1 back towards grey of the same brightness."""
    luma = _luma(colours)
    low, high = colours.min(axis=-1, keepdims=True), colours.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        raised = luma + (colours - luma) * luma / (luma - low)
        colours = np.where(low < 0, raised, colours)
        lowered = luma + (colours - luma) * (1 - luma) / (high - luma)
        return np.where(high > 1, lowered, colours)

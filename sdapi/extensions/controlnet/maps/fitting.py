"""Detected maps at the size of the picture that is drawn (contract: controlnet-api 5).

Maps are not photographs: a resized segmentation keeps its colours, a resized line drawing its thin
black-and-white lines.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.middle import middle
from sdapi.engine.control.unit import Pixels
from sdapi.extensions.controlnet.maps.line_maps import is_thin, ridges, thinned

#: more colours than a binary map, and fewer than a photograph
_FEW_COLOURS: Final = range(3, 200)
_DARK, _BRIGHT, _HALF = 16, 240, 127
_OPAQUE: Final = 255


class Fit(Enum):
    """`resize_mode`."""

    STRETCH = "Just Resize"
    COVER = "Crop and Resize"
    CONTAIN = "Resize and Fill"


def fit(pixels: Pixels, how: Fit, size: tuple[int, int]) -> Pixels:
    """A map [H, W, 3 or 4] at a size (width, height)."""
    return _FITS[how](pixels, size)


def pixel_perfect(pixels: Pixels, how: Fit, size: tuple[int, int]) -> int:
    """The preprocessor resolution at which a map's pixels are those of the drawn picture."""
    height, width = pixels.shape[:2]
    factors = size[1] / height, size[0] / width
    factor = min(factors) if how is Fit.CONTAIN else max(factors)
    return round(factor * min(height, width))


def _stretched(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return resize_map(pixels, size)


def _covering(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Scaled until it covers the size; what sticks out is cut off evenly."""
    width, height = size
    pixels = middle(pixels, size)
    scaled = _scaled(pixels, max(height / pixels.shape[0], width / pixels.shape[1]))
    top, left = max(0, scaled.shape[0] - height) // 2, max(0, scaled.shape[1] - width) // 2
    return scaled[top : top + height, left : left + width]


def _contained(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Scaled until it fits in, on a canvas of the colour that its border lines have."""
    width, height = size
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0).astype(np.uint8)
    if len(colour) == 4:
        colour[3] = _OPAQUE
    canvas = np.tile(colour, (height, width, 1))
    scaled = _scaled(pixels, min(height / pixels.shape[0], width / pixels.shape[1]))
    top, left = max(0, height - scaled.shape[0]) // 2, max(0, width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas


_FITS: Final[dict[Fit, Callable[[Pixels, tuple[int, int]], Pixels]]] = {
    Fit.STRETCH: _stretched,
    Fit.COVER: _covering,
    Fit.CONTAIN: _contained,
}


def _scaled(pixels: Pixels, factor: float) -> Pixels:
    height, width = (max(round(side * factor), 1) for side in pixels.shape[:2])
    return resize_map(pixels, (width, height))


def resize_map(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A map [H, W, 3 or 4] stretched to a size (width, height), by what it shows."""
    picture, mask = pixels[:, :, :3], pixels[:, :, 3:]
    width, height = size
    if (width, height) != (pixels.shape[1], pixels.shape[0]):
        colours = _count_colours(picture)
        how = _interpolation(
            colours, is_smaller=width * height < picture.shape[0] * picture.shape[1]
        )
        if mask.shape[2]:
            mask = cv2.resize(mask, size, interpolation=how)[:, :, None]
        if colours == 2 and picture.min() < _DARK and picture.max() > _BRIGHT:
            picture = _resize_binary(picture, size, how)
        else:
            picture = cv2.resize(picture, size, interpolation=how)
    if mask.shape[2]:
        mask = np.where(mask > _HALF, np.uint8(_OPAQUE), np.uint8(0))
        picture = np.concatenate([picture, mask], axis=2)
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _interpolation(colours: int, *, is_smaller: bool) -> int:
    if colours in _FEW_COLOURS:
        return cv2.INTER_NEAREST
    return cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC


def _count_colours(picture: Pixels) -> int:
    codes = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return len(np.unique(codes))


def _resize_binary(picture: Pixels, size: tuple[int, int], how: int) -> Pixels:
    """A map of two colours stays one; lines a pixel wide stay a pixel wide."""
    has_thin_lines = is_thin(picture)
    scaled = cv2.resize(picture, size, interpolation=how)
    grey = scaled.astype(np.float32).mean(axis=2).clip(0, 255).astype(np.uint8)
    if has_thin_lines:
        is_larger = size[0] * size[1] > picture.shape[0] * picture.shape[1]
        grey = thinned(_black_or_white(ridges(grey)), prunes=is_larger)
    else:
        grey = _black_or_white(grey)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _black_or_white(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """By Otsu's threshold (1979)."""
    _, binary = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(binary, np.uint8)

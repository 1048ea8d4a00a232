"""Lines: Canny, XDoG, and drawings taken from their paper (contract: controlnet-api 11)."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.extensions.controlnet.preprocessors.preprocessor import Values
from sdapi.extensions.controlnet.preprocessors.working_size import at_working_size

_FINE, _COARSE = 0.5, 5.0
_PAPER_SIGMA: Final = 6.0
#: strokes fainter than this say nothing about a drawing's contrast
_FAINT: Final = 8
_LEAST_CONTRAST: Final = 16.0
_STROKE: Final = 127


def canny(pixels: Pixels, values: Values) -> Pixels:
    """White edges on black (Canny 1986), of all three channels at once."""
    size = at_working_size(pixels, values.resolution)
    edges = cv2.Canny(size.canvas, int(values.threshold_a), int(values.threshold_b))
    return size.cut(_grey(np.asarray(edges, np.uint8)))


def scribble_xdog(pixels: Pixels, values: Values) -> Pixels:
    """White strokes where a difference of Gaussians is large (Winnemöller 2011)."""
    size = at_working_size(pixels, values.resolution)
    picture = size.canvas.astype(np.float32)
    difference = _blurred(picture, _COARSE) - _blurred(picture, _FINE)
    strength = np.clip(255 - difference.min(axis=2), 0, 255).astype(np.uint8)
    # Bytes wrap around here in the reference, too.
    doubled = np.uint8(255) - strength
    doubled = doubled + doubled
    return size.cut(_grey(np.where(doubled > values.threshold_a, 255, 0).astype(np.uint8)))


def lineart_standard(pixels: Pixels, values: Values) -> Pixels:
    """White strokes of a dark drawing on light paper, evenly strong."""
    size = at_working_size(pixels, values.resolution)
    picture = size.canvas.astype(np.float32)
    darker = (_blurred(picture, _PAPER_SIGMA) - picture).min(axis=2).clip(0, 255)
    strokes = darker[darker > _FAINT]
    contrast = max(_LEAST_CONTRAST, float(np.median(strokes)) if strokes.size else 0.0)
    return size.cut(_grey((darker / contrast * _STROKE).clip(0, 255).astype(np.uint8)))


def threshold(pixels: Pixels, values: Values) -> Pixels:
    """White where every channel is brighter than the threshold."""
    size = at_working_size(pixels, values.resolution)
    bright = size.canvas.min(axis=2) > values.threshold_a
    return size.cut(_grey(np.where(bright, 255, 0).astype(np.uint8)))


def invert(pixels: Pixels, values: Values) -> Pixels:
    """The negative, at the picture's own size."""
    return np.asarray(255 - pixels, np.uint8)


def _blurred(picture: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)


def _grey(channel: NDArray[Any]) -> Pixels:
    return np.repeat(channel[:, :, None], 3, axis=2)

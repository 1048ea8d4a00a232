"""Colours and brightness without detail, or detail without colour (contract: controlnet-api 11)."""

from typing import Final

import cv2
import numpy as np

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.extensions.controlnet.preprocessors.preprocessor import Values
from sdapi.extensions.controlnet.preprocessors.working_size import at_working_size

_CELL: Final = 64
#: smaller rates leave a picture as it is
_LEAST_RATE: Final = 1.1


def unchanged(pixels: Pixels, values: Values) -> Pixels:
    """The picture itself."""
    return pixels


def blur_gaussian(pixels: Pixels, values: Values) -> Pixels:
    """Blurred at the working size."""
    picture = at_working_size(pixels, values.resolution).picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), float(values.threshold_a)), np.uint8)


def color(pixels: Pixels, values: Values) -> Pixels:
    """Cells of 64 x 64 pixels in one colour each."""
    size = at_working_size(pixels, values.resolution)
    height, width = size.canvas.shape[:2]
    cells = cv2.resize(
        size.canvas, (width // _CELL, height // _CELL), interpolation=cv2.INTER_CUBIC
    )
    grid = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    return size.cut(np.asarray(grid, np.uint8))


def tile_resample(pixels: Pixels, values: Values) -> Pixels:
    """Smaller by a factor."""
    rate = float(values.threshold_a)
    if rate < _LEAST_RATE:
        return pixels
    height, width = (max(int(side / rate), 1) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def recolor_luminance(pixels: Pixels, values: Values) -> Pixels:
    """The lightness of CIELAB in grey."""
    # Red and blue are exchanged: the reference takes RGB for BGR here.
    return _corrected(
        np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2LAB), np.uint8)[:, :, 0], values
    )


def recolor_intensity(pixels: Pixels, values: Values) -> Pixels:
    """The value of HSV in grey."""
    return _corrected(
        np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV), np.uint8)[:, :, 2], values
    )


def _corrected(channel: Pixels, values: Values) -> Pixels:
    """Gamma, and three equal channels."""
    level = (channel.astype(np.float32) / 255.0) ** float(values.threshold_a)
    grey = (level * 255.0).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)

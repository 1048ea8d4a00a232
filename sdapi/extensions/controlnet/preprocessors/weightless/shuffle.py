"""The picture's colours at other places: remapped along smooth random flow (ControlNet 1.1)."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.extensions.controlnet.preprocessors.working_size import at_working_size

_RESOLUTION: Final = 512
#: pixels over which the flow changes
_SCALE: Final = 256


def shuffle(pixels: Pixels, seed: int) -> Pixels:
    """The same for the same seed; the shorter side is 512."""
    picture = at_working_size(pixels, _RESOLUTION).picture
    height, width = picture.shape[:2]
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    x = _noise(generator, height, width) * float(width - 1)
    y = _noise(generator, height, width) * float(height - 1)
    flow = np.stack([x, y], axis=2).astype(np.float32)
    return np.asarray(cv2.remap(picture, flow, None, cv2.INTER_LINEAR), np.uint8)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _noise(generator: np.random.RandomState, height: int, width: int) -> NDArray[np.float64]:
    """A smooth field [H, W] over 0..1: coarse uniform noise, enlarged."""
    coarse = generator.uniform(0, 1, (height // _SCALE + 2, width // _SCALE + 2, 1))
    size = (width + 2 * _SCALE, height + 2 * _SCALE)
    fine = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.float64)
    field = fine[_SCALE : _SCALE + height, _SCALE : _SCALE + width]
    field = field - field.min()
    return field / max(float(field.max()), np.finfo(np.float64).tiny)

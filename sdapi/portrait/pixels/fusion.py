"""How much of a swapped face shows in a picture.

Contract: portrait-pipeline 3.4 and 8.2, step 5. Eyes come from the person sooner than the rest, the
mouth always stays the picture's own; a ratio of 0 changes nothing.
"""

from typing import Final

import numpy as np

from sdapi.portrait.faces.face import Face, Mask, Pixels
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import blurred, grown, mixed, shrunk

_EYES: Final = 1.6


def fused(rgb: Pixels, face: Face, swapped: Pixels, ratio: float) -> Pixels:
    """`swapped` over `rgb` within the face; `ratio` 0 to 1. Raises FaceError without landmarks."""
    if ratio <= 0.0:
        return rgb
    return mixed(rgb, swapped, fusion_weight(Shape.of(face, rgb.shape), ratio))


def fusion_weight(shape: Shape, ratio: float) -> Mask:
    """The weight of the swapped face, 0 to 1."""
    fw = shape.fw
    skin = blurred(shrunk(shape.core(), 0.12 * fw), 0.04 * fw) * ratio
    eyes = blurred(shape.eyes(0.05 * fw), 0.02 * fw) * min(1.0, _EYES * ratio)
    mouth = blurred(shape.lips(0.03 * fw), 0.02 * fw)
    weight = np.maximum(skin, eyes) * (1.0 - np.maximum(mouth, shape.lips(0.03 * fw)))
    return (weight * grown(shape.core(), 0.03 * fw)).astype(np.float32)

"""How much of a swapped face shows in a picture.

Contract: portrait-pipeline 3.4, 3.7 and 8.2, steps 3 and 5. Eyes come from the person sooner than
the rest, the mouth always stays the picture's own; a ratio of 0 changes nothing.
"""

from typing import Final

import numpy as np

from sdapi.portrait.faces.face import Face, Mask, Pixels
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import blurred, grown, mixed, shrunk

_EYES: Final = 1.6
#: how far the skin's edge is kept out, jaw widths: what a swap loses there, and the seam's own
_INSIDE: Final = 0.07 + 0.08


def fused(
    rgb: Pixels, face: Face, swapped: Pixels, ratio: float, *, spares_nose: bool = False
) -> Pixels:
    """`swapped` over `rgb` within the face; `ratio` 0 to 1. Raises FaceError without landmarks.

    A second fusion spares the nose: the first has brought it.
    """
    if ratio <= 0.0:
        return rgb
    shape = Shape.of(face, rgb.shape)
    weight = fusion_weight(shape, ratio)
    if spares_nose:
        weight *= 1.0 - blurred(shape.nose(), 0.02 * shape.fw)
    return mixed(rgb, swapped, weight)


def fusion_weight(shape: Shape, ratio: float) -> Mask:
    """The weight of the swapped face, 0 to 1."""
    fw = shape.fw
    skin = blurred(shrunk(shape.core(), _INSIDE * fw), 0.04 * fw) * ratio
    eyes = blurred(shape.eyes(0.05 * fw), 0.02 * fw) * min(1.0, _EYES * ratio)
    mouth = blurred(shape.lips(0.03 * fw), 0.02 * fw)
    weight = np.maximum(skin, eyes) * (1.0 - np.maximum(mouth, shape.lips(0.03 * fw)))
    return (weight * grown(shape.core(), 0.03 * fw)).astype(np.float32)

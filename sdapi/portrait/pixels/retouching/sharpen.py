"""Unsharp masking: 0.15 looks natural, above 0.5 there are haloes.

Contract: portrait-pipeline 3.13.
"""

import cv2
import numpy as np

from sdapi.portrait.faces.face import Pixels

_SIGMA = 1.2
_GAIN = 4.0


def sharpened(rgb: Pixels, ratio: float) -> Pixels:
    """The picture, sharper by a ratio of 0 (as it is) to 1."""
    if ratio <= 0.0:
        return rgb
    gain = _GAIN * ratio
    soft = cv2.GaussianBlur(rgb, (0, 0), _SIGMA)
    return np.ascontiguousarray(cv2.addWeighted(rgb, 1.0 + gain, soft, -gain, 0.0), np.uint8)

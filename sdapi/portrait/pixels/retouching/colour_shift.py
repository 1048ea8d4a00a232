"""Skin brought back to the template's tone after drawing.

Reinhard's transfer (2001) in LAB, over skin pixels alone; contract: portrait-pipeline 8.4.
"""

from typing import Final

import numpy as np

from sdapi.portrait.faces.face import Mask, Pixels
from sdapi.portrait.pixels.raster import blurred, from_lab, mixed, to_lab

_SPREAD: Final = (0.7, 1.4)
_LEAST_PIXELS: Final = 500
#: pictures this small have fewer skin pixels; the limit falls with their area
_USUAL_AREA: Final = 512 * 512


def colour_shifted(
    rgb: Pixels, model: Pixels, skin: Mask, model_skin: Mask, keep: Mask, fw: float
) -> Pixels:
    """`rgb` with the skin's mean and spread of `model`; pixels of the mask `keep` stay.

    Returned as it is where either has too little skin to tell.
    """
    ours, theirs = skin > 0.5, model_skin > 0.5
    least = _LEAST_PIXELS * min(1.0, rgb.shape[0] * rgb.shape[1] / _USUAL_AREA)
    if min(ours.sum(), theirs.sum()) < least:
        return rgb
    lab, wanted = to_lab(rgb), to_lab(model)
    for channel in range(3):
        have, want = lab[..., channel][ours], wanted[..., channel][theirs]
        ratio = np.clip(want.std() / max(float(have.std()), 1e-3), *_SPREAD)
        lab[..., channel] = (lab[..., channel] - have.mean()) * ratio + want.mean()
    weight = blurred(skin, 0.06 * fw) * (1.0 - keep)
    return mixed(rgb, from_lab(lab), weight)
